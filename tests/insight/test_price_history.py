"""Price history, index, plan matrix and stock, worked by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insight_world import WEEK, Pages, day, market, offer, plan

from workbench.insight.prices import (
    PLAN_MATRIX,
    PRICE_HISTORY,
    PRICE_INDEX,
    STOCK_TRANSITIONS,
    plan_matrix,
    price_history,
    price_index,
    stock_transitions,
)

OWN = {"company_id": "larkpaper", "source_id": "larkpaper-slate", "url": "https://larkpaper.example/slate"}
MOSHU = {"company_id": "moshu", "source_id": "moshu-m2", "url": "https://moshu.example/m2"}
PRICING = {"source_id": "ondine-pricing", "url": "https://ondine.example/pricing", "kind": "pricing"}


def _history(pages: Pages, **kwargs: Any) -> list[dict[str, Any]]:
    found = price_history(
        pages.frame("offers"), pages.frame("plans"), workspace=kwargs.get("workspace") or market(), week=WEEK
    )
    assert found.schema == PRICE_HISTORY
    return found.to_dicts()


def _weeks(*prices: str | None, **fields: Any) -> Pages:
    """A price a week, the last in WEEK; None: not seen."""
    pages = Pages()
    for back, price in enumerate(reversed(prices)):
        if price is not None:
            pages.add(day(back), offers=[offer(price, **fields)])
    return pages


def test_one_row_with_days_low_and_previous_price() -> None:
    (row,) = _history(_weeks("449", "469", "429", "429"))
    assert (row["product"], row["category"], row["item"]) == ("Ondine Folio", "paper-tablet", "product")
    assert (row["price"], row["previous_price"]) == (Decimal(429), Decimal(469))
    assert row["percent"] == pytest.approx(-8.5288, abs=1e-4)  # -40 / 469
    assert (row["since"], row["days_at_price"], row["at_least"]) == (day(1), 7, False)
    assert (row["low"], row["high"]) == (Decimal(429), Decimal(469))
    assert not row["new_low"]  # it fell last week
    assert (row["snapshot_id"], row["snapshot_previous"]) == ("ondine-folio@111709", "ondine-folio@110309")


def test_new_low_and_new_high() -> None:
    assert _history(_weeks("449", "469", "429"))[0]["new_low"]
    assert _history(_weeks("449", "469", "479"))[0]["new_high"]
    again = _history(_weeks("429", "469", "429"))[0]
    assert not again["new_low"]
    assert not again["new_high"]


def test_history_that_begins_with_the_price_says_at_least() -> None:
    (row,) = _history(_weeks("449", "449", "449"))
    assert (row["at_least"], row["days_at_price"], row["previous_price"], row["percent"]) == (True, 14, None, None)
    assert (row["low"], row["high"], row["new_low"], row["new_high"]) == (Decimal(449), Decimal(449), False, False)


def test_gap_keeps_the_last_known_price_and_says_so() -> None:
    (row,) = _history(_weeks("449", "399", None))
    assert (row["price"], row["seen_in_week"], row["new_low"], row["last_seen"]) == (
        Decimal(399),
        False,
        False,
        day(1),
    )


def test_later_snapshots_do_not_count() -> None:
    pages = _weeks("449")
    pages.add(day(-1), offers=[offer("1")])
    assert _history(pages)[0]["price"] == Decimal(449)


def test_promotion_and_stock() -> None:
    pages = _weeks("449", availability="InStock")
    pages.rows["offers"][0]["fetched_at"] = day(0)
    older = Pages()
    older.add(day(2), offers=[offer("449")])
    older.add(day(1), offers=[offer("399", list_price="449", availability="OutOfStock")])
    older.add(day(0), offers=[offer("399", list_price="449", availability="OutOfStock")])
    (row,) = _history(older)
    assert (row["promotion"], row["list_price"]) == (True, Decimal(449))
    assert (row["availability"], row["availability_since"]) == ("OutOfStock", day(1))
    assert _history(pages)[0]["promotion"] is False


def test_list_price_below_the_price_is_no_promotion() -> None:
    (row,) = _history(_weeks("449", list_price="400"))
    assert (row["promotion"], row["list_price"]) == (False, None)


def test_two_currencies_are_two_rows_and_an_unread_one_is_not_a_third() -> None:
    pages = Pages()
    for back, currency in ((2, "USD"), (1, None), (0, "USD")):
        pages.add(day(back), offers=[offer("449", currency=currency)])
    pages.add(
        day(0), offers=[offer("419", currency="EUR", name="Folio")], source_id="eu", url="https://eu.ondine.example/"
    )
    rows = _history(pages)
    assert [(r["product"], r["currency"], r["snapshots"]) for r in rows] == [
        ("Ondine Folio", "USD", 3),
        ("Ondine Folio", "EUR", 1),
    ]


def test_product_on_two_pages_is_followed_on_its_product_page() -> None:
    pages = _weeks("449")
    pages.add(day(0, 3), offers=[offer("439")], **{**PRICING, "kind": "landing"})
    (row,) = _history(pages)
    assert (row["source_id"], row["price"]) == ("ondine-folio", Decimal(449))


def test_what_left_a_page_is_no_longer_on_offer() -> None:
    pages = Pages()
    pages.add(day(1), plans=[plan("Free", "0"), plan("Plus", "5")], **PRICING)
    pages.add(day(0), plans=[plan("Plus", "6")], **PRICING)
    (row,) = _history(pages)
    assert (row["item"], row["product"], row["previous_price"], row["new_high"]) == ("plan", "Plus", Decimal(5), True)


def test_tiers_of_a_pricing_page_are_not_products_too() -> None:
    pages = Pages()
    pages.add(day(0), plans=[plan("Plus", "5")], offers=[offer("5", name="plus", sku=None)], **PRICING)
    assert [(r["item"], r["product"]) for r in _history(pages)] == [("plan", "Plus")]


def test_teasers_on_a_product_page_are_left_out() -> None:
    pages = Pages()
    pages.add(day(0), offers=[offer("449"), offer("9", name="Sleeve", sku="S")])
    assert [r["product"] for r in _history(pages)] == ["Ondine Folio"]
    page = {"source_id": "accessories", "url": "https://ondine.example/accessories"}
    pages.add(day(0), offers=[offer("19", name="Pen", sku="P"), offer("9", name="Sleeve", sku="S")], **page)
    # A page that is about no one product lists them all.
    assert [r["product"] for r in _history(pages)] == ["Ondine Folio", "Pen", "Sleeve"]


# Index


def _index(pages: Pages, **changes: Any) -> dict[str, dict[str, Any]]:
    workspace = market()
    if changes:
        workspace = workspace.model_copy(update=changes)
    found = price_index(pl.DataFrame(_history(pages, workspace=workspace), schema=PRICE_HISTORY), workspace)
    assert found.schema == PRICE_INDEX
    return {row["company_id"]: row for row in found.to_dicts()}


def test_index_is_in_percent_of_the_own_price() -> None:
    pages = _weeks("387")
    pages.add(day(0), offers=[offer("430", name="Larkpaper Slate 10", sku="L")], **OWN)
    rows = _index(pages)
    ondine, moshu = rows["ondine"], rows["moshu"]
    assert (ondine["index"], ondine["products"], ondine["own_price"], ondine["base"]) == (90, 1, Decimal(430), "USD")
    assert ondine["reason"] is None
    assert ondine["snapshot_ids"] == ["ondine-folio@111709"]
    assert (moshu["index"], moshu["reason"]) == (None, "no price of Moshu in paper-tablet is known")


def test_index_converts_at_the_workspaces_rate() -> None:
    pages = Pages()
    pages.add(day(0), offers=[offer("400", currency="EUR")])
    pages.add(day(0), offers=[offer("550", name="Larkpaper Slate 10", sku="L")], **OWN)
    pages.add(day(0), offers=[offer("2799", currency="CNY", name="墨舒 M2", sku="M")], **MOSHU)
    rows = _index(pages)
    assert rows["ondine"]["index"] == 80  # 400 EUR × 1.10 = 440 USD, of 550
    assert rows["moshu"]["index"] is None
    assert "no rate from CNY to USD" in rows["moshu"]["reason"]


def test_same_currency_needs_no_rate() -> None:
    pages = Pages()
    pages.add(day(0), offers=[offer("900", currency="CNY")])
    pages.add(day(0), offers=[offer("1000", currency="CNY", name="Larkpaper Slate 10", sku="L")], **OWN)
    row = _index(pages)["ondine"]
    assert (row["index"], row["base"]) == (90, "CNY")


def test_index_without_an_own_price_or_from_an_old_one_says_so() -> None:
    row = _index(_weeks("449"))["ondine"]
    assert row["index"] is None
    assert "no price of your own" in row["reason"]
    pages = Pages()
    pages.add(day(1), offers=[offer("449")])
    pages.add(day(0), offers=[offer("449", name="Larkpaper Slate 10", sku="L")], **OWN)
    row = _index(pages)["ondine"]
    assert row["index"] == 100
    assert "not seen this week" in row["reason"]


# Plans and stock


def test_plan_matrix_shows_the_newest_page_by_the_month() -> None:
    pages = Pages()
    pages.add(day(1), plans=[plan("Old", "1")], **PRICING)
    tiers = [plan("Free", "0"), plan("Plus", "96", billing_period="year"), plan("Team", None, "SSO")]
    pages.add(day(0), plans=tiers, **PRICING)
    pages.add(day(-1), plans=[plan("Later", "1")], **PRICING)
    found = plan_matrix(pages.frame("plans"), WEEK)
    assert found.schema == PLAN_MATRIX
    assert found.select("tier", "price", "monthly_price", "seen_in_week").rows() == [
        ("Free", Decimal(0), Decimal(0), True),
        ("Plus", Decimal(96), Decimal(8), True),
        ("Team", None, None, True),
    ]


def test_stock_transitions_skip_what_is_not_stated() -> None:
    pages = Pages()
    for back, value in enumerate(("InStock", "OutOfStock", None, "InStock", "InStock")):
        pages.add(day(back), offers=[offer(availability=value), offer(name="Ondine Folio", sku="v2")])
    found = stock_transitions(pages.frame("offers"), workspace=market(), week=WEEK)
    assert found.schema == STOCK_TRANSITIONS
    assert found.select("before", "after", "at", "in_week").rows() == [
        ("InStock", "OutOfStock", day(1), False),
        ("OutOfStock", "InStock", day(0), True),
    ]


def test_nothing_gives_empty_tables() -> None:
    pages = Pages()
    assert _history(pages) == []
    assert plan_matrix(pages.frame("plans"), WEEK).height == 0
    assert stock_transitions(pages.frame("offers"), workspace=market(), week=WEEK).height == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4) | st.none(), min_size=1, max_size=8), st.integers(0, 5))
def test_history_agrees_with_a_plain_reading(prices: list[int | None], seed: int) -> None:
    pages = _weeks(*(None if p is None else str(p) for p in prices))
    seen = [p for p in prices if p is not None]
    offers = pages.frame("offers")
    found = price_history(
        offers.sample(fraction=1, shuffle=True, seed=seed) if offers.height else offers, workspace=market(), week=WEEK
    )
    assert found.height == bool(seen)
    if seen:
        row = found.to_dicts()[0]
        others = [p for p in seen if p != seen[-1]]
        assert row["price"] == seen[-1]
        assert row["previous_price"] == (others[-1] if others else None)
        assert (row["low"], row["high"]) == (min(seen), max(seen))
        assert row["seen_in_week"] == (prices[-1] is not None)
        assert row["at_least"] == (not others)
