"""What changed between a week and the one before, worked by hand and in general."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insight_world import EXTRACTOR, URL, WEEK, Pages, brief, day, market, offer, plan, two_weeks

from workbench.errors import LakeError
from workbench.insight.changes import KINDS, SEVERITIES, claim_changes, find_changes
from workbench.insight.spans import fold
from workbench.store.lake import Lake
from workbench.store.tables import TABLES


def _only(changes: pl.DataFrame) -> dict[str, Any]:
    assert changes.height == 1, brief(changes)
    return changes.to_dicts()[0]


# Prices


def test_price_cut_as_a_promotion() -> None:
    row = _only(two_weeks({"offers": [offer("449")]}, {"offers": [offer("399", list_price="449")]}))
    assert (row["kind"], row["subject"], row["before"], row["after"]) == (
        "price",
        "Ondine Folio",
        "USD 449",
        "USD 399",
    )
    assert (row["amount_before"], row["amount_after"], row["currency"]) == (Decimal(449), Decimal(399), "USD")
    assert row["percent"] == pytest.approx(-11.1359, abs=1e-4)  # -50 / 449
    assert row["severity"] == "high"  # the alarm is 10 %
    assert row["confidence"] == pytest.approx(0.98 * 0.98, abs=0.005)  # same SKU, seen once
    assert "promotion from a list price of USD 449" in row["why"]
    assert (row["snapshot_before"], row["snapshot_after"]) == ("ondine-folio@111009", "ondine-folio@111709")
    assert row["observed_at"] == day(0)


@pytest.mark.parametrize(
    ("after", "severity"),
    [("404.10", "high"), ("404.11", "medium"), ("444.51", "medium"), ("444.52", "note"), ("493.90", "high")],
)
def test_severity_of_a_price_turns_exactly_at_the_thresholds(after: str, severity: str) -> None:
    # 10 % of 449 is 44.90, 1 % is 4.49.
    assert _only(two_weeks({"offers": [offer("449")]}, {"offers": [offer(after)]}))["severity"] == severity


def test_another_currency_is_not_a_price_change() -> None:
    row = _only(two_weeks({"offers": [offer("449")]}, {"offers": [offer("419", currency="EUR", list_price="500")]}))
    assert (row["kind"], row["before"], row["after"], row["percent"]) == ("currency", "USD 449", "EUR 419", None)


def test_currency_left_out_once_is_taken_to_be_the_same() -> None:
    same = two_weeks({"offers": [offer("449")]}, {"offers": [offer("449", currency=None)]})
    assert same.height == 0
    row = _only(two_weeks({"offers": [offer("449")]}, {"offers": [offer("429", currency=None)]}))
    assert (row["kind"], row["currency"]) == ("price", "USD")
    assert row["confidence"] < 0.8


def test_end_of_a_promotion_is_one_change() -> None:
    row = _only(two_weeks({"offers": [offer("399", list_price="449")]}, {"offers": [offer("449")]}))
    assert row["kind"] == "price"
    assert "promotion ended" in row["why"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, "499", (None, "USD 499")),
        ("499", None, ("USD 499", None)),
        ("499", "529", ("USD 499", "USD 529")),
        ("400", None, None),  # below the price: never was a reduction
        ("449", None, None),
    ],
)
def test_list_price_alone(
    before: str | None, after: str | None, expected: tuple[str | None, str | None] | None
) -> None:
    found = two_weeks({"offers": [offer("449", list_price=before)]}, {"offers": [offer("449", list_price=after)]})
    assert [(k, b, a) for k, _, b, a, _ in brief(found)] == ([("list_price", *expected)] if expected else [])


def test_price_no_longer_shown_is_low_and_unsure() -> None:
    row = _only(two_weeks({"offers": [offer("449")]}, {"offers": [offer(None)]}))
    assert (row["kind"], row["after"], row["severity"], row["percent"]) == ("price", None, "low", None)
    assert row["confidence"] <= 0.5


def test_doubtful_moves_are_less_sure() -> None:
    small = _only(two_weeks({"offers": [offer("449")]}, {"offers": [offer("400")]}))
    large = _only(two_weeks({"offers": [offer("449")]}, {"offers": [offer("44.9")]}))
    named = _only(two_weeks({"offers": [offer("449", sku=None)]}, {"offers": [offer("400", sku=None)]}))
    similar = _only(
        two_weeks({"offers": [offer("449", sku=None)]}, {"offers": [offer("400", sku=None, name="Ondine Folio now")]})
    )
    assert small["confidence"] > named["confidence"] > similar["confidence"] > large["confidence"]


def test_a_second_snapshot_confirms() -> None:
    pages = Pages()
    pages.add(day(1), offers=[offer("449", sku=None)])
    pages.add(day(0, 1), offers=[offer("399", sku=None)])
    once = _only(pages.changes())
    pages.add(day(0, 4), offers=[offer("399", sku=None)])
    twice = _only(pages.changes())
    assert twice["confidence"] > once["confidence"]
    assert "2 snapshots" in twice["why"]
    assert twice["snapshot_after"] == "ondine-folio@112009"


def test_own_changes_are_low_at_most() -> None:
    page = {"company_id": "larkpaper", "source_id": "larkpaper-slate"}
    row = _only(two_weeks({"offers": [offer("449")]}, {"offers": [offer("299")]}, **page))
    assert row["severity"] == "low"
    assert "your own company" in row["why"]


def test_products_beside_the_main_one_weigh_less() -> None:
    main = offer("449")
    before = {"offers": [main, offer("19", name="Pen", sku="P")]}
    after = {"offers": [main, offer("15", name="Pen", sku="P"), offer("9", name="Sleeve", sku="S")]}
    assert brief(two_weeks(before, after)) == [
        ("price", "Pen", "USD 19", "USD 15", "medium"),  # 21 % would be high
        ("offer_added", "Sleeve", None, "USD 9", "low"),
    ]


# Availability and products


@pytest.mark.parametrize(
    ("after", "severity"),
    [("OutOfStock", "medium"), ("Discontinued", "high"), ("LimitedAvailability", "low")],
)
def test_availability(after: str, severity: str) -> None:
    found = two_weeks({"offers": [offer()]}, {"offers": [offer(availability=after)]})
    assert brief(found) == [("availability", "Ondine Folio", "InStock", after, severity)]


def test_availability_not_stated_is_no_change() -> None:
    assert two_weeks({"offers": [offer()]}, {"offers": [offer(availability=None)]}).height == 0


def test_successor_is_added_and_the_old_product_removed() -> None:
    found = two_weeks({"offers": [offer()]}, {"offers": [offer("499", name="Ondine Folio 2", sku="OF-2")]})
    assert brief(found) == [
        ("offer_added", "Ondine Folio 2", None, "USD 499", "medium"),
        ("offer_removed", "Ondine Folio", "USD 449", None, "medium"),
    ]


def test_template_that_yields_nothing_is_doubted() -> None:
    before = {"offers": [offer()], "plans": [plan("Plus", "5")], "claims": ["Writes like paper"]}
    found = two_weeks(before, {})
    assert {row[0] for row in brief(found)} == {"offer_removed", "plan_removed", "claim_removed"}
    assert found["confidence"].max() <= 0.5
    assert set(found["severity"]) == {"low"}
    assert all("template" in why for why in found["why"])


def test_page_without_any_text_was_not_seen() -> None:
    assert two_weeks({"offers": [offer()]}, {"text": " "}).height == 0


# Plans


def _pricing(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> pl.DataFrame:
    page = {"source_id": "ondine-pricing", "url": "https://ondine.example/pricing", "kind": "pricing"}
    return two_weeks({"plans": before}, {"plans": after}, **page)


def test_tier_removed_and_its_feature_moved() -> None:
    before = [plan("Free", "0", "1 GB", "Search"), plan("Plus", "5", "10 GB")]
    after = [plan("Plus", "5", "10 GB", "Search")]
    assert brief(_pricing(before, after)) == [
        ("plan_removed", "Free", "free\n1 GB\nSearch", None, "high"),
        ("plan_features", "Plus", None, "Search", "low"),
    ]


def test_tier_price_and_features() -> None:
    found = _pricing([plan("Plus", "5", "10 GB", "Search")], [plan("Plus", "6", "20 GB")])
    assert brief(found) == [
        ("plan_price", "Plus", "USD 5 per month", "USD 6 per month", "high"),
        ("plan_features", "Plus", "10 GB\nSearch", "20 GB", "medium"),
    ]
    assert found["percent"][0] == pytest.approx(20)


def test_renamed_tier() -> None:
    before, after = plan("Team", "9", "SSO", "Audit"), plan("Business", "9", "SSO", "Audit")
    assert brief(_pricing([before], [after])) == [("plan_renamed", "Business", "Team", "Business", "low")]


def test_yearly_billing_is_compared_by_the_month() -> None:
    row = _only(_pricing([plan("Plus", "10")], [plan("Plus", "96", billing_period="year")]))
    assert (row["kind"], row["amount_before"], row["amount_after"]) == ("plan_price", Decimal(10), Decimal(96))
    assert row["percent"] == pytest.approx(-20)  # 96 / 12 = 8 a month
    assert "per month" in row["why"]


@pytest.mark.parametrize(
    ("before", "after", "severity", "percent"),
    [
        (plan("P", "0"), plan("P", "3"), "high", None),
        (plan("P", "3"), plan("P", "0"), "high", -100.0),
        (plan("P", None), plan("P", "3"), "medium", None),
        (plan("P", "3"), plan("P", None), "medium", None),
        (plan("P", "3", per_unit="user"), plan("P", "3", per_unit="team"), "medium", None),
        (plan("P", "3"), plan("P", "3", per_unit="user"), "medium", 0.0),
        (plan("P", "300"), plan("P", "301"), "note", 0.3333),
    ],
)
def test_tier_price_special_cases(before: Any, after: Any, severity: str, percent: float | None) -> None:
    row = _only(_pricing([before], [after]))
    assert (row["kind"], row["severity"]) == ("plan_price", severity)
    assert row["percent"] == (None if percent is None else pytest.approx(percent))


def test_free_tier_is_free_in_any_period() -> None:
    assert _pricing([plan("Free", "0")], [plan("Free", "0", billing_period=None, currency=None)]).height == 0


def test_same_tier_by_month_and_year_is_told_apart() -> None:
    before = [plan("Plus", "5"), plan("Plus", "50", billing_period="year")]
    after = [plan("Plus", "5"), plan("Plus", "55", billing_period="year")]
    assert [row[:2] for row in brief(_pricing(before, after))] == [("plan_price", "Plus (year)")]


def test_tier_that_is_marked_up_as_an_offer_too_is_told_once() -> None:
    page = {"source_id": "ondine-pricing", "kind": "pricing"}
    before = {"plans": [plan("Plus", "5")], "offers": [offer("5", name="Plus", sku="x")]}
    after = {"plans": [plan("Plus", "6")], "offers": [offer("6", name="Plus", sku="x")]}
    assert [row[0] for row in brief(two_weeks(before, after, **page))] == ["plan_price"]


# Claims


def test_number_in_a_claim() -> None:
    before = ["A tablet", "Battery lasts up to 12 hours", "Made in Europe"]
    after = ["A tablet", "Battery lasts up to 20 hours", "Made in Europe"]
    found = two_weeks({"claims": before}, {"claims": after})
    assert brief(found) == [("claim_reworded", after[1], before[1], after[1], "medium")]
    (view,) = claim_changes(found)
    assert [tuple(span) for span in view.spans] == [
        ("equal", "Battery lasts up to "),
        ("delete", "12"),
        ("insert", "20"),
        ("equal", " hours"),
    ]


def test_chinese_claim() -> None:
    found = two_weeks({"claims": ["续航长达12小时", "纸感书写"]}, {"claims": ["续航长达20小时", "纸感书写"]})
    assert brief(found) == [("claim_reworded", "续航长达20小时", "续航长达12小时", "续航长达20小时", "medium")]


def test_moves_case_and_blanks_are_no_change() -> None:
    found = two_weeks({"claims": ["One thing", "Two things"]}, {"claims": ["two  THINGS", "One thing"]})
    assert found.height == 0


@pytest.mark.parametrize(
    ("before", "after", "severity"),
    [
        ("Updated 12 Nov 2026", "Updated 19 Nov 2026", "note"),
        ("发布于2026年11月12日", "发布于2026年11月19日", "note"),
        ("Rated by 1,234 reviews", "Rated by 1,301 reviews", "note"),
        ("© 2025 Ondine", "© 2026 Ondine", "note"),
        ("Free returns within 14 days of purchase", "Free returns within 30 days of purchase", "medium"),
        ("A soft and quiet pen tip", "A soft and silent pen tip", "low"),
    ],
)
def test_what_kind_of_rewording(before: str, after: str, severity: str) -> None:
    found = two_weeks({"claims": ["x y z", before]}, {"claims": ["x y z", after]})
    assert brief(found) == [("claim_reworded", after, before, after, severity)]


def test_claim_that_repeats_the_price_is_a_note() -> None:
    before = {"offers": [offer("449")], "claims": ["Yours for $449 today"]}
    after = {"offers": [offer("429")], "claims": ["Yours for $429 today"]}
    assert [(row[0], row[4]) for row in brief(two_weeks(before, after))] == [
        ("price", "medium"),
        ("claim_reworded", "note"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "severity"),
    [
        ("or $37.42 a month for 12 months", "or $33.25 a month for 12 months", "note"),  # 449 → 399, a twelfth each
        ("or 37,42 a month", "or 33,25 a month", "note"),
        ("or $37.42 a month for 12 months", "or $33.25 a month for 10 months", "medium"),
        ("or $37.42 a month", "or $30.00 a month", "medium"),
        ("Version 1.2.3 is here", "Version 1.2.4 is here", "medium"),
    ],
)
def test_claim_that_moves_with_the_price_is_a_note(before: str, after: str, severity: str) -> None:
    found = two_weeks(
        {"offers": [offer("449")], "claims": ["x", before]}, {"offers": [offer("399")], "claims": ["x", after]}
    )
    assert {row[0]: row[4] for row in brief(found)} == {"price": "high", "claim_reworded": severity}


def test_row_of_the_tiers_table_is_a_note_when_a_tier_changed() -> None:
    page = {"source_id": "ondine-pricing", "kind": "pricing"}
    before = {"plans": [plan("Free", "0"), plan("Plus", "5")], "claims": ["Storage | 5 GB | 100 GB"]}
    after = {"plans": [plan("Plus", "5")], "claims": ["Storage | 100 GB"]}
    severities = {row[0]: row[4] for row in brief(two_weeks(before, after, **page))}
    assert severities["plan_removed"] == "high"
    assert set(severities.values()) == {"high", "note"}
    same_tiers = {"plans": [plan("Plus", "5")]}
    found = two_weeks(
        {**same_tiers, "claims": ["Storage | 50 GB"]}, {**same_tiers, "claims": ["Storage | 100 GB"]}, **page
    )
    assert brief(found)[0][4] == "medium"


def test_claim_that_repeats_a_tier_is_a_note() -> None:
    page = {"source_id": "ondine-pricing", "kind": "pricing"}
    before = {"plans": [plan("Free", "0", "Search"), plan("Plus", "5")], "claims": ["Free", "Search", "Plus"]}
    after = {"plans": [plan("Plus", "5")], "claims": ["Plus"]}
    found = two_weeks(before, after, **page)
    assert Counter((row[0], row[4]) for row in brief(found)) == {
        ("plan_removed", "high"): 1,
        ("claim_removed", "note"): 2,
    }


def test_headings_weigh_more_and_review_pages_less() -> None:
    heading = {"kind": "heading", "level": 1, "text": "Black Friday is here"}
    assert brief(two_weeks({"claims": ["a"]}, {"claims": ["a", heading]}))[0][4] == "medium"
    assert brief(two_weeks({"claims": ["a"]}, {"claims": ["a", heading]}, kind="news"))[0][4] == "low"
    assert brief(two_weeks({"claims": ["a"]}, {"claims": ["a", heading]}, kind="reviews"))[0][4] == "note"


def test_rewritten_page_is_less_sure() -> None:
    kept = [f"kept line {word}" for word in ("one", "two")]
    few = two_weeks({"claims": kept}, {"claims": [*kept, "Quite another thing"]})
    many = two_weeks({"claims": kept}, {"claims": [*kept, *(f"{chr(97 + n) * 9}" for n in range(12))]})
    assert many["confidence"].max() < few["confidence"].min()


_CLAIMS = st.lists(
    st.text(alphabet="ab cd 12", min_size=1, max_size=14).filter(str.strip)
    | st.sampled_from(["Up to 12 hours", "Up to 20 hours", "Writes like paper", "Writes like real paper"]),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(_CLAIMS, _CLAIMS)
def test_claim_changes_account_for_every_difference(before: list[str], after: list[str]) -> None:
    found = two_weeks({"claims": before}, {"claims": after})
    count = Counter(map(fold, before))
    for row in found.to_dicts():
        if row["before"] is not None:
            count[fold(row["before"])] -= 1
        if row["after"] is not None:
            count[fold(row["after"])] += 1
        assert row["before"] is None or row["after"] is None or fold(row["before"]) != fold(row["after"])
    assert +count == Counter(map(fold, after))
    assert min(count.values(), default=0) >= 0
    assert found["change_id"].n_unique() == found.height


# Flapping


def _weekly(*values: str | None, **fields: Any) -> pl.DataFrame:
    """One price a week, the last in WEEK; None: the page was not seen."""
    pages = Pages()
    for back, value in enumerate(reversed(values)):
        if value is not None:
            pages.add(day(back), offers=[offer(value, **fields)])
    return pages.changes()


def test_there_and_back_is_one_note() -> None:
    row = _only(_weekly("449", "399", "449"))
    assert (row["kind"], row["severity"], row["before"], row["after"]) == ("flapping", "note", "USD 399", "USD 449")
    assert "2 times" in row["why"]
    assert "USD 449 → USD 399 → USD 449" in row["why"]


def test_there_and_back_within_the_week_is_one_note() -> None:
    pages = Pages()
    pages.add(day(1), offers=[offer("449")])
    pages.add(day(0, 1), offers=[offer("399")])
    pages.add(day(0, 4), offers=[offer("449")])
    row = _only(pages.changes())
    assert (row["kind"], row["snapshot_before"], row["snapshot_after"]) == (
        "flapping",
        "ondine-folio@111709",
        "ondine-folio@112009",
    )


def test_new_value_is_never_hidden_by_flapping() -> None:
    row = _only(_weekly("449", "399", "449", "379"))
    assert (row["kind"], row["before"], row["after"]) == ("price", "USD 449", "USD 379")


def test_back_after_the_window_is_a_change() -> None:
    assert _only(_weekly("449", "399", "399", "399", "399", "399", "449"))["kind"] == "price"


def test_window_is_the_workspaces() -> None:
    pages = Pages()
    for back, value in enumerate(("449", "399", "449")):
        pages.add(day(back), offers=[offer(value)])
    assert _only(pages.changes(market(flap_window_days=28)))["kind"] == "flapping"
    assert _only(pages.changes(market(flap_window_days=10)))["kind"] == "price"


def test_currency_that_is_read_now_and_then_does_not_flap() -> None:
    pages = Pages()
    for back, currency in enumerate(("USD", None, "USD")):
        pages.add(day(back), offers=[offer("449", currency=currency)])
    assert pages.changes().height == 0


def test_items_that_come_and_go_are_one_note() -> None:
    pages = Pages()
    pages.add(day(2), claims=["Kept", "Tea with the makers", "Quiet evenings"])
    pages.add(day(1), claims=["Kept"])
    pages.add(day(0), claims=["Kept", "Tea with the makers", "Quiet evenings"])
    row = _only(pages.changes())
    assert (row["kind"], row["subject"], row["before"]) == ("flapping", "2 claims", None)
    assert row["after"] == "Quiet evenings\nTea with the makers"


def test_wording_that_comes_back_is_one_note() -> None:
    pages = Pages()
    for back, hours in enumerate((12, 20, 12)):
        pages.add(day(back), claims=["Kept", f"Battery up to {hours} hours"])
    row = _only(pages.changes())
    assert (row["kind"], row["before"], row["after"]) == (
        "flapping",
        "Battery up to 20 hours",
        "Battery up to 12 hours",
    )


def test_tier_that_lived_two_weeks_is_removed_not_flapping() -> None:
    page = {"source_id": "ondine-pricing", "kind": "pricing"}
    pages = Pages()
    pages.add(day(2), plans=[plan("Plus", "5")], **page)
    pages.add(day(1), plans=[plan("Plus", "5"), plan("Trial", "1")], **page)
    pages.add(day(0), plans=[plan("Plus", "5")], **page)
    assert [row[:2] for row in brief(pages.changes())] == [("plan_removed", "Trial")]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["OutOfStock", "InStock", "PreOrder"]), min_size=2, max_size=5))
def test_one_row_for_one_value_however_it_moves(values: list[str]) -> None:
    pages = Pages()
    for back, value in enumerate(reversed(values)):
        pages.add(day(back), offers=[offer(availability=value)])
    found = pages.changes()
    last = values[-1]
    if values[-2] == last:
        assert found.height == 0
    else:
        # Five weekly snapshots reach back 28 days, the whole window.
        assert _only(found)["kind"] == ("flapping" if last in values[:-1] else "availability")


# Pages


@pytest.mark.parametrize(("status", "kind", "severity"), [(404, "product", "medium"), (410, "news", "low")])
def test_page_gone(status: int, kind: str, severity: str) -> None:
    before, after = {"offers": [offer()], "title": "Folio"}, {"http_status": status, "title": "Not found"}
    row = _only(two_weeks(before, after, kind=kind))
    assert (row["kind"], row["subject"], row["severity"]) == ("page_gone", "Folio", severity)
    assert row["after"] == f"gone (HTTP {status})"


def test_page_back_is_compared_with_the_last_readable_one() -> None:
    pages = Pages()
    pages.add(day(6), offers=[offer("449")])
    pages.add(day(1), http_status=404)
    pages.add(day(0), offers=[offer("399")])
    found = {row["kind"]: row for row in pages.changes().to_dicts()}
    assert set(found) == {"page_back", "price"}
    assert found["page_back"]["snapshot_before"] == "ondine-folio@111009"
    assert found["price"]["snapshot_before"] == "ondine-folio@100609"


def test_page_that_is_gone_and_back_is_one_note() -> None:
    pages = Pages()
    pages.add(day(2), offers=[offer()])
    pages.add(day(1), http_status=404)
    pages.add(day(0), offers=[offer()])
    assert _only(pages.changes())["kind"] == "flapping"


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_server_that_refuses_was_not_seen(status: int) -> None:
    assert two_weeks({"offers": [offer()]}, {"http_status": status, "text": "Sorry"}).height == 0


def test_page_not_seen_this_week_says_nothing() -> None:
    pages = Pages()
    pages.add(day(2), offers=[offer("449")])
    pages.add(day(1), offers=[offer("399")])
    assert pages.changes().height == 0


def test_first_snapshots_are_notes_and_new_addresses_of_a_watched_source_are_not() -> None:
    pages = Pages()
    pages.add(day(0), offers=[offer()], claims=["a"])
    row = _only(pages.changes())
    assert (row["kind"], row["severity"], row["snapshot_before"]) == ("page_added", "note", None)
    pages.add(day(1), offers=[offer()], claims=["a"])
    pages.add(day(0), url=f"{URL}/new", offers=[offer()])
    row = _only(pages.changes())
    assert (row["kind"], row["severity"], row["url"]) == ("page_added", "low", f"{URL}/new")


def test_later_snapshots_and_other_companies_are_left_out() -> None:
    pages = Pages()
    pages.add(day(1), offers=[offer("449")])
    pages.add(day(0), offers=[offer("449")])
    pages.add(day(-1), offers=[offer("1")])
    pages.add(day(1), company_id="former", source_id="former", offers=[offer("449")])
    pages.add(day(0), company_id="former", source_id="former", offers=[offer("1")])
    assert pages.changes().height == 0


def test_two_extractors_are_refused() -> None:
    pages = Pages()
    pages.add(day(1), offers=[offer()], extractor="1.0+00000000")
    pages.add(day(0), offers=[offer("399")])
    with pytest.raises(LakeError, match=r"workbench weekly --week 2026-W47"):
        pages.changes()


def test_older_readable_page_that_is_not_read_again_is_not_compared() -> None:
    # Between it and this week lies an empty page, which is what a run reads again.
    pages = Pages()
    pages.add(day(6), offers=[offer()], extractor="1.0+00000000")
    pages.add(day(5), text="")
    pages.add(day(0), offers=[offer("399")])
    assert [row[0] for row in brief(pages.changes())] == ["page_added"]


def test_older_snapshots_of_another_extractor_do_not_count() -> None:
    pages = Pages()
    pages.add(day(2), offers=[offer("399")], extractor="1.0+00000000")
    pages.add(day(1), offers=[offer("449")])
    pages.add(day(0), offers=[offer("399")])
    assert _only(pages.changes())["kind"] == "price"


# The table


_PRICES = st.sampled_from(["9", "10", "10.05", "12", None])
_OFFERS = st.lists(
    st.builds(
        lambda n, p, a, lp: offer(p, name=f"Thing {n}", sku=n, availability=a, list_price=lp),
        st.sampled_from(["a", "b", "c", ""]),
        _PRICES,
        st.sampled_from(["InStock", "OutOfStock", None]),
        st.sampled_from([None, "11"]),
    ),
    max_size=4,
)
_PLANS = st.lists(
    st.builds(
        lambda n, p, f, period: plan(n, p, *f, billing_period=period),
        st.sampled_from(["Free", "Plus", "Pro"]),
        _PRICES,
        st.lists(st.sampled_from(["Search", "10 GB", "20 GB", "SSO"]), max_size=3, unique=True),
        st.sampled_from(["month", "year", None]),
    ),
    max_size=4,
)
_CONTENTS = st.fixed_dictionaries({"offers": _OFFERS, "plans": _PLANS, "claims": _CLAIMS})


@settings(max_examples=60, deadline=None)
@given(_CONTENTS)
def test_identical_weeks_give_no_change(content: dict[str, Any]) -> None:
    assert two_weeks(content, content).height == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(_CONTENTS, min_size=2, max_size=4), st.integers(0, 9))
def test_order_of_rows_does_not_matter_and_the_table_is_sound(contents: list[dict[str, Any]], seed: int) -> None:
    pages = Pages()
    for back, content in enumerate(contents):
        pages.add(day(back), **content)
        pages.add(day(back), source_id="ondine-pricing", url="https://ondine.example/pricing", **content)
    found = pages.changes()
    assert found.equals(pages.changes(shuffle=seed))
    assert found.schema == TABLES["changes"].schema
    assert found["change_id"].n_unique() == found.height
    assert set(found["kind"]) <= set(KINDS)
    ranks = [SEVERITIES.index(severity) for severity in found["severity"]]
    assert ranks == sorted(ranks)
    assert found["confidence"].is_between(0, 1).all()
    assert not found["why"].str.contains("None").any()
    assert found["snapshot_after"].null_count() == found["snapshot_before"].null_count() == 0


def test_from_the_lake_twice_the_same(tmp_path: Path) -> None:
    pages = Pages()
    pages.add(day(1), offers=[offer("449")], plans=[plan("Plus", "5")], claims=["Writes like paper"])
    pages.add(day(0), offers=[offer("399")], plans=[plan("Plus", "6")], claims=["Writes on paper"])
    lake = Lake(tmp_path)
    for table in pages.rows:
        lake.upsert(table, pages.frame(table))
    found = find_changes(lake, market(), WEEK)
    assert {row[0] for row in brief(found)} == {"price", "plan_price", "claim_reworded"}
    assert found.equals(pages.changes())
    lake.replace("changes", found, where={"week": [str(WEEK)]})
    version = lake.version("changes")
    lake.replace("changes", find_changes(lake, market(), WEEK), where={"week": [str(WEEK)]})
    assert lake.version("changes") == version


def test_empty_lake_has_no_changes(tmp_path: Path) -> None:
    found = find_changes(Lake(tmp_path), market(), WEEK)
    assert found.height == 0
    assert found.schema == TABLES["changes"].schema


def test_insight_stays_light() -> None:
    code = (
        "import sys, pkgutil, importlib, workbench.insight as i\n"
        "[importlib.import_module(f'workbench.insight.{m.name}') for m in pkgutil.iter_modules(i.__path__)]\n"
        "heavy = {'torch', 'transformers', 'tensorrt', 'pycuda', 'trafilatura', 'httpx', 'deltalake',"
        " 'workbench.extract', 'workbench.collect', 'workbench.ingest'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_extractor_of_the_test_pages_is_one() -> None:
    pages = Pages()
    pages.add(day(0))
    assert pages.frame("pages")["extractor"].to_list() == [EXTRACTOR]
