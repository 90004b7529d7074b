"""Tiers on golden pages: cards, tables, markup, and pages whose prices are no tiers."""

from __future__ import annotations

from decimal import Decimal

import pytest

from workbench.extract.billing import asks_for_contact, period_from_code, read_period, read_unit, says_free
from workbench.extract.document import parse_document
from workbench.extract.page import Plan
from workbench.extract.plans import read_plans
from workbench.extract.structured import read_structured


def read(html: str, kind: str | None = "pricing", url: str = "https://app.example/pricing") -> tuple[Plan, ...]:
    document = parse_document(html, url=url)
    return read_plans(document, read_structured(document), kind)


CARDS = """<html lang="en"><body><h1>Pricing</h1><p><button>Monthly</button><button>Yearly</button></p>
<div class="grid">
<div class="card"><h3>Free</h3><p>For one person</p><div class="amount">$0</div>
  <ul><li>3 notebooks</li><li>1 GB of storage</li></ul><a href="/join">Start</a></div>
<div class="card featured"><span class="badge">Most popular</span><h3>Team</h3><p>For small teams</p>
  <div class="amount"><s>$15</s> <span>$</span><span>12</span></div><div>per user / month, billed yearly</div>
  <ul><li>Everything in Free</li><li>Shared <b>notebooks</b></li></ul><a href="/join">Start</a></div>
<div class="card"><h3>Enterprise</h3><p>For many teams</p><div class="amount">Custom</div>
  <ul><li>Single sign-on</li></ul><a href="/contact">Contact sales</a></div>
</div></body></html>"""


def test_cards_side_by_side_are_tiers() -> None:
    assert read(CARDS) == (
        Plan(name="Free", price=Decimal(0), currency="USD", features=("3 notebooks", "1 GB of storage")),
        Plan(
            name="Team",
            price=Decimal(12),
            currency="USD",
            billing_period="month",
            per_unit="user",
            features=("Everything in Free", "Shared notebooks"),
        ),
        Plan(name="Enterprise", features=("Single sign-on",)),
    )


def test_clear_tiers_are_read_on_a_page_of_unknown_kind_and_not_on_news() -> None:
    assert len(read(CARDS, None)) == 3
    assert read(CARDS, "news") == ()


def test_columns_of_a_comparison_table_are_tiers() -> None:
    table = """<html lang="de"><body><table>
    <thead><tr><th>Tarif</th><th>Basis</th><th>Profi</th><th>Firma</th></tr></thead>
    <tr><td>Preis pro Monat</td><td>kostenlos</td><td>9,99 €</td><td>19,99 €</td></tr>
    <tr><td colspan="4">Funktionen</td></tr>
    <tr><td>Speicher</td><td>1 GB</td><td>100 GB</td><td>unbegrenzt</td></tr>
    <tr><td>Suche</td><td>–</td><td>✓</td><td><img alt="ja" src="tick.svg"></td></tr>
    <tr><td>Gemeinsame Hefte</td><td></td><td>nein</td><td><i class="icon-check"></i></td></tr>
    </table></body></html>"""
    assert read(table) == (
        Plan(name="Basis", price=Decimal(0), currency="EUR", features=("Speicher: 1 GB",)),
        Plan(
            name="Profi",
            price=Decimal("9.99"),
            currency="EUR",
            billing_period="month",
            features=("Speicher: 100 GB", "Suche"),
        ),
        Plan(
            name="Firma",
            price=Decimal("19.99"),
            currency="EUR",
            billing_period="month",
            features=("Speicher: unbegrenzt", "Suche", "Gemeinsame Hefte"),
        ),
    )


def test_chinese_tiers_are_read() -> None:
    page = """<html lang="zh-CN"><body><ul class="plans">
    <li><h3>基础版</h3><p>免费</p><ul><li>2GB 空间</li></ul></li>
    <li><h3>专业版</h3><p>¥18/月</p><ul><li>100GB 空间</li><li>优先客服</li></ul></li>
    <li><h3>团队版</h3><p>¥199<small>/用户/年</small></p><ul><li>1TB 空间</li></ul></li>
    <li><h3>企业版</h3><p>联系我们</p><ul><li>私有部署</li></ul></li></ul></body></html>"""
    plans = read(page)
    assert [(plan.name, plan.price, plan.currency, plan.billing_period, plan.per_unit) for plan in plans] == [
        ("基础版", Decimal(0), "CNY", None, None),
        ("专业版", Decimal(18), "CNY", "month", None),
        ("团队版", Decimal(199), "CNY", "year", "user"),
        ("企业版", None, None, None, None),
    ]
    assert [plan.features for plan in plans] == [
        ("2GB 空间",),
        ("100GB 空间", "优先客服"),
        ("1TB 空间",),
        ("私有部署",),
    ]


def test_tiers_in_markup_are_read_where_none_are_seen() -> None:
    page = """<html><body><script type="application/ld+json">{"@type": "SoftwareApplication", "offers": [
    {"@type": "Offer", "name": "Solo", "price": "0", "priceCurrency": "USD"},
    {"@type": "Offer", "name": "Pro", "priceSpecification": {"@type": "UnitPriceSpecification", "price": 8,
     "priceCurrency": "USD", "billingDuration": "P1M", "unitText": "user"}}]}</script></body></html>"""
    assert read(page) == (
        Plan(name="Solo", price=Decimal(0), currency="USD"),
        Plan(name="Pro", price=Decimal(8), currency="USD", billing_period="month", per_unit="user"),
    )


def test_products_side_by_side_are_no_tiers() -> None:
    page = """<html><body><div class="grid"><div class="card"><h3>Cup</h3><p>$4.00</p></div>
    <div class="card"><h3>Pot</h3><p>$24.00</p></div><div class="card"><h3>Pan</h3><p>$34.00</p></div>
    </div></body></html>"""
    assert read(page, None) == ()
    assert read(page, "product") == ()


def test_a_pricing_page_without_tiers_says_so() -> None:
    document = parse_document("<html><body><h1>Pricing</h1><p>Soon.</p></body></html>", url="https://app.example/")
    assert read_plans(document, read_structured(document), "pricing") == ()
    assert document.warnings == ["plans: no tiers were found on a page said to be a pricing page"]


@pytest.mark.parametrize(
    ("text", "period", "unit"),
    [
        ("/mo", "month", None),
        ("per user / month", "month", "user"),
        ("a month, billed annually", "month", None),
        ("/mo billed yearly", "month", None),
        ("billed annually", "year", None),
        ("per seat per year", "year", "seat"),
        ("/device/quarter", "quarter", "device"),
        ("one-time payment", "once", None),
        ("pro Nutzer und Monat", None, "user"),
        ("pro Monat", "month", None),
        ("par mois", "month", None),
        ("/用户/年", "year", "user"),
        ("每月", "month", None),
        ("/月，按年付费", "month", None),
        ("/hour", "hour", None),
        ("payment plans may vary", None, None),
    ],
)
def test_what_an_amount_is_for_is_read_from_the_words_after_it(
    text: str, period: str | None, unit: str | None
) -> None:
    assert (read_period(text), read_unit(text)) == (period, unit)


def test_codes_for_periods_are_known() -> None:
    assert [period_from_code(code) for code in ("MON", "ANN", "P1M", "P1Y", "month", None, "XXX")] == [
        "month",
        "year",
        "month",
        "year",
        "month",
        None,
        None,
    ]


def test_free_and_contact_us_are_told_from_sentences_about_them() -> None:
    assert all(map(says_free, ["Free", "Free forever", "免费", "kostenlos", "Gratis!"]))
    assert not any(map(says_free, ["Free shipping over $49", "Feel free to ask", ""]))
    assert all(
        map(asks_for_contact, ["Contact us", "Custom", "Let's talk", "联系我们", "Preis auf Anfrage", "Get a quote"])
    )
    assert not any(map(asks_for_contact, ["Contact us if the box is damaged", "Custom covers", ""]))
