"""The readout: what is merged, what is ranked first, how it is worded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from insight_world import WEEK, Pages, day, market, offer, plan, source_frame, source_row

from workbench.insight.prices import price_history, price_index
from workbench.insight.readout import Readout, build_readout

OWN = {"company_id": "larkpaper", "source_id": "larkpaper-slate", "url": "https://larkpaper.example/slate"}
MOSHU = {"company_id": "moshu", "source_id": "moshu-m2", "url": "https://moshu.example/m2"}
PRICING = {"source_id": "ondine-pricing", "url": "https://ondine.example/pricing", "kind": "pricing"}


def _pair(pages: Pages, before: dict[str, Any], after: dict[str, Any], **page: Any) -> None:
    pages.add(day(1), **page, **before)
    pages.add(day(0), **page, **after)


def _read(pages: Pages, **kwargs: Any) -> Readout:
    workspace = market()
    history = price_history(pages.frame("offers"), pages.frame("plans"), workspace=workspace, week=WEEK)
    return build_readout(pages.changes(), workspace, WEEK, index=price_index(history, workspace), **kwargs)


def _headlines(readout: Readout) -> Sequence[str]:
    return [finding.headline for finding in readout.findings]


def test_price_cut_with_its_claim_is_one_finding_set_against_the_own_product() -> None:
    pages = Pages()
    _pair(
        pages,
        {"offers": [offer("449")], "claims": ["Writes like paper"]},
        {"offers": [offer("399", list_price="449")], "claims": ["Writes like paper", "Black Friday sale is on"]},
    )
    own = {"offers": [offer("429", name="Larkpaper Slate 10", sku="L")]}
    _pair(pages, own, own, **OWN)
    readout = _read(pages)
    (finding,) = readout.findings
    assert finding.headline == (
        "Ondine cut the price of Ondine Folio from USD 449 to USD 399, 11.1% lower, shown as a promotion from a list "
        "price of USD 449. The site now says “Black Friday sale is on”."
    )
    # 449 / 429 = 1.0466, 399 / 429 = 0.9301
    assert finding.so_what == (
        "Ondine Folio was 4.7% dearer than Larkpaper Slate 10 and is now 7.0% cheaper than it; "
        "it may win buyers who compare prices. As a promotion it will probably end."
    )
    assert (finding.severity, finding.company_id) == ("high", "ondine")
    assert set(finding.change_ids) == set(pages.changes()["change_id"])
    assert finding.snapshot_ids == ("ondine-folio@111009", "ondine-folio@111709")
    assert readout.quiet is False
    assert readout.summary == "1 finding from 2 changes."


def test_cuts_across_products_and_tiers_are_one_finding() -> None:
    pages = Pages()
    _pair(pages, {"offers": [offer("400")]}, {"offers": [offer("360")]})
    _pair(pages, {"plans": [plan("Plus", "5")]}, {"plans": [plan("Plus", "4")]}, **PRICING)
    assert _headlines(_read(pages)) == [
        "Ondine cut 2 prices by 10.0% to 20.0%: the Plus plan from USD 5 per month to USD 4 per month "
        "and Ondine Folio from USD 400 to USD 360."
    ]


def test_the_same_cut_on_two_pages_is_told_once_with_all_its_evidence() -> None:
    pages = Pages()
    for page in ({}, {**PRICING, "kind": "landing"}):
        _pair(pages, {"offers": [offer("400")]}, {"offers": [offer("360")]}, **page)
    (finding,) = _read(pages).findings
    assert finding.headline.startswith("Ondine cut the price of Ondine Folio from USD 400 to USD 360, 10.0% lower")
    assert (len(finding.change_ids), len(finding.snapshot_ids)) == (2, 4)


def test_cut_and_rise_are_two_findings() -> None:
    pages = Pages()
    _pair(pages, {"offers": [offer("400")]}, {"offers": [offer("360")]})
    _pair(pages, {"plans": [plan("Plus", "5")]}, {"plans": [plan("Plus", "6")]}, **PRICING)
    assert len(_read(pages).findings) == 2


def test_removed_tier_and_moved_feature_are_one_finding() -> None:
    pages = Pages()
    before = {"plans": [plan("Free", "0", "Search in handwriting", "1 GB"), plan("Plus", "5", "10 GB")]}
    after = {"plans": [plan("Plus", "5", "10 GB", "Search in handwriting")]}
    _pair(pages, before, after, **PRICING)
    (finding,) = _read(pages).findings
    assert finding.headline == "Ondine removed the Free plan and moved “Search in handwriting” from Free to Plus."
    assert "may have to pay or leave" in finding.so_what
    assert len(finding.change_ids) == 2


def test_a_tier_removed_and_another_raised_are_one_finding() -> None:
    pages = Pages()
    before = {"plans": [plan("Free", "0"), plan("Team", "10", per_unit="user")]}
    _pair(pages, before, {"plans": [plan("Team", "12", per_unit="user")]}, **PRICING)
    (finding,) = _read(pages).findings
    assert finding.headline == (
        "Ondine removed the Free plan and raised the price of the Team plan "
        "from USD 10 per user per month to USD 12 per user per month (20.0% more)."
    )
    assert finding.severity == "high"


def test_free_tier_that_costs_money_is_told_without_a_percentage() -> None:
    pages = Pages()
    _pair(pages, {"plans": [plan("Basic", "0")]}, {"plans": [plan("Basic", "3")]}, **PRICING)
    (finding,) = _read(pages).findings
    assert finding.headline == "Ondine raised the price of the Basic plan from free to USD 3 per month."
    assert "free" in finding.so_what


@pytest.mark.parametrize(
    ("before", "after", "page", "expected"),
    [
        (
            {"offers": [offer()]},
            {"offers": [offer(availability="OutOfStock")]},
            {},
            "At Ondine, Ondine Folio is now out of stock (in stock before).",
        ),
        (
            {"offers": [offer()]},
            {"offers": [offer("419", currency="EUR")]},
            {},
            "Ondine now shows Ondine Folio in another currency: USD 449 before, EUR 419 now.",
        ),
        (
            {"claims": ["Kept", "Battery up to 12 hours"]},
            {"claims": ["Kept", "Battery up to 20 hours"]},
            {},
            "Ondine changed “Battery up to 12 hours” to “Battery up to 20 hours” on its product page.",
        ),
        (
            {"plans": [plan("Plus", "10", per_unit="user")]},
            {"plans": [plan("Plus", "10", per_unit="team")]},
            PRICING,
            "Ondine changed how it charges: "
            "the Plus plan from USD 10 per user per month to USD 10 per team per month.",
        ),
        (
            {"offers": [offer()], "title": "The Folio"},
            {"http_status": 404},
            {},
            "Ondine took its product page “The Folio” off its site.",
        ),
        (
            {"offers": [offer()]},
            {"offers": [offer("499", name="Ondine Folio 2", sku="OF-2")]},
            {},
            "Ondine now offers Ondine Folio 2 (USD 499) and no longer shows Ondine Folio (USD 449).",
        ),
        (
            {"offers": [offer("400", list_price="500")]},
            {"offers": [offer("400", list_price="600")]},
            {},
            "Ondine changed the list price of Ondine Folio from USD 500 to USD 600; "
            "what a buyer pays stayed the same.",
        ),
    ],
)
def test_headlines(before: dict[str, Any], after: dict[str, Any], page: dict[str, Any], expected: str) -> None:
    pages = Pages()
    _pair(pages, before, after, **page)
    (finding,) = _read(pages).findings
    assert finding.headline == expected
    assert finding.so_what.endswith(".")
    assert finding.action.endswith(".")


def test_number_in_a_claim_is_worked_out() -> None:
    pages = Pages()
    _pair(pages, {"claims": ["Up to 12 hours"]}, {"claims": ["Up to 20 hours"]})
    assert "from 12 to 20, 66.7% more" in _read(pages).findings[0].so_what


def test_three_findings_at_most_and_each_company_gets_a_turn() -> None:
    pages = Pages()
    _pair(pages, {"offers": [offer("400")]}, {"offers": [offer("300", availability="Discontinued")]})
    _pair(pages, {"plans": [plan("Plus", "5")]}, {"plans": [plan("Plus", "6")]}, **PRICING)
    stock = {"name": "墨舒 M2", "sku": "M", "currency": "CNY"}
    _pair(
        pages,
        {"offers": [offer("2799", **stock)]},
        {"offers": [offer("2799", **{**stock, "availability": "OutOfStock"})]},
        **MOSHU,
    )
    readout = _read(pages)
    assert len(readout.findings) == 3
    # Ondine alone has three of high severity; the third place goes to Moshu's medium one.
    assert [f.company_id for f in readout.findings] == ["ondine", "ondine", "moshu"]
    assert [f.severity for f in readout.findings] == ["high", "high", "medium"]


def test_doubtful_changes_rank_below_sure_ones() -> None:
    pages = Pages()
    _pair(pages, {"offers": [offer("400")]}, {"offers": [offer("100")]})
    m2 = {"name": "墨舒 M2", "sku": "M", "currency": "CNY"}
    _pair(pages, {"offers": [offer("2800", **m2)]}, {"offers": [offer("2400", **m2)]}, **MOSHU)
    assert [f.company_id for f in _read(pages).findings] == ["moshu", "ondine"]


def test_quiet_week_says_what_was_seen() -> None:
    pages = Pages()
    _pair(pages, {"offers": [offer("449")]}, {"offers": [offer("448")]})
    seen = source_frame(
        source_row("ondine-folio", "fetched", day(0)),
        source_row("ondine-pricing", "failed", None),
        source_row("larkpaper-slate", "fetched", day(0)),
        source_row("moshu-m2", "robots-denied", None),
    )
    readout = _read(pages, sources=seen)
    assert readout == Readout(
        (),
        True,
        "No change above your thresholds in 2 sources seen; 2 not seen. 1 smaller change recorded.",
    )
    assert _read(Pages()).summary == "No change above your thresholds."


def test_week_without_any_source_does_not_claim_quiet() -> None:
    assert _read(Pages(), sources=source_frame()).summary.startswith("No source was seen this week")


def test_own_changes_and_other_weeks_are_never_findings() -> None:
    pages = Pages()
    _pair(pages, {"offers": [offer("400")]}, {"offers": [offer("300")]}, **OWN)
    assert _read(pages).quiet
    pages = Pages()
    _pair(pages, {"offers": [offer("400")]}, {"offers": [offer("300")]})
    assert build_readout(pages.changes(), market(), WEEK.back(1)).quiet


def test_order_of_rows_does_not_matter() -> None:
    pages = Pages()
    _pair(pages, {"offers": [offer("400")]}, {"offers": [offer("300", availability="OutOfStock")]})
    _pair(pages, {"plans": [plan("Free", "0", "A b c")]}, {"plans": [plan("Plus", "6", "A b c")]}, **PRICING)
    changes = pages.changes()
    for seed in range(5):
        shuffled = changes.sample(fraction=1, shuffle=True, seed=seed)
        assert build_readout(shuffled, market(), WEEK) == build_readout(changes, market(), WEEK)


def test_long_page_texts_are_cut_in_headlines() -> None:
    pages = Pages()
    claim = {"kind": "heading", "level": 1, "text": "word " * 80}
    _pair(pages, {"claims": ["Kept"]}, {"claims": ["Kept", claim]})
    (headline,) = _headlines(_read(pages))
    assert len(headline) < 160
    assert "…”" in headline
