"""Which item is which."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.insight.matching import match_offers, match_plans, match_texts
from workbench.insight.observations import OfferSeen, PlanSeen
from workbench.insight.spans import fold


def _offer(name: str, position: int = 0, *, key: str = "", sku: str = "", currency: str = "USD") -> OfferSeen:
    return OfferSeen(
        position=position,
        key=key or sku or name.casefold(),
        name=name,
        price=Decimal(1),
        currency=currency,
        list_price=None,
        availability=None,
        identifiers=frozenset({f"sku {sku}"} if sku else ()),
        condition=None,
    )


def _plan(name: str, price: int, *features: str, period: str = "month") -> PlanSeen:
    return PlanSeen(0, name, Decimal(price), "USD", period, None, features)


def _pairs(before: list[str], after: list[str]) -> set[tuple[str, str]]:
    return {(before[m.before], after[m.after]) for m in match_texts(before, after)}


def test_offers_follow_their_key_wherever_they_stand() -> None:
    before = [_offer("Folio", 0, sku="A"), _offer("Pen", 1, sku="B")]
    after = [_offer("Pen, black", 0, sku="B"), _offer("Folio, new name altogether", 1, sku="A")]
    assert [(m.before, m.after, m.how) for m in match_offers(before, after)] == [
        (1, 0, "identifier"),
        (0, 1, "identifier"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("Ondine Folio", "Ondine Folio – Black Friday deal", True),
        ("Ondine Folio", "Ondine Folio, save 20%", True),
        ("Ondine Folio", "Ondine Folio 2", False),
        ("Ondine Folio 64 GB", "Ondine Folio 128 GB", False),
        ("墨舒 M2 纸感平板", "墨舒 M2 纸感平板 标准版", True),
        ("墨舒 M2 纸感平板", "墨舒 M3 纸感平板", False),
        ("Ondine Folio", "Garden chair", False),
    ],
)
def test_main_offer_keeps_its_identity_under_a_similar_name(before: str, after: str, same: bool) -> None:
    found = match_offers([_offer(before, key="a")], [_offer(after, key="b")])
    assert bool(found) is same
    assert all(match.how == "similar" and match.similarity < 1 for match in found)


def test_the_same_key_in_two_currencies_is_paired_by_currency() -> None:
    before = [_offer("Folio", 0, sku="A", currency="USD"), _offer("Folio", 1, sku="A", currency="EUR")]
    after = [_offer("Folio", 0, sku="A", currency="EUR"), _offer("Folio", 1, sku="A", currency="USD")]
    assert {(m.before, m.after) for m in match_offers(before, after)} == {(0, 1), (1, 0)}


def test_plans_by_name_then_period_then_renamed() -> None:
    before = [_plan("Pro", 10), _plan("Pro", 100, period="year"), _plan("Team", 9, "Search", "SSO")]
    after = [_plan("Business", 9, "Search", "SSO"), _plan("Pro", 99, period="year"), _plan("pro", 11)]
    assert {(m.before, m.after, m.how) for m in match_plans(before, after)} == {
        (0, 2, "name"),
        (1, 1, "name"),
        (2, 0, "similar"),
    }


def test_another_tier_at_another_price_is_not_a_renamed_one() -> None:
    assert match_plans([_plan("Team", 9, "Search", "SSO")], [_plan("Business", 12, "Search", "SSO")]) == []
    assert match_plans([_plan("Team", 9, "Search")], [_plan("Business", 9, "Video")]) == []


def test_numbers_in_place_are_a_rewording_however_short() -> None:
    assert _pairs(["Intro", "12小时", "End"], ["Intro", "20小时", "End"]) >= {("12小时", "20小时")}


def test_entries_at_both_ends_of_a_list_are_not_each_other() -> None:
    before = ["Version 2.3", "Faster pages today", "Version 2.2", "New pen settings", "Version 2.1"]
    after = ["Version 2.4", "Version 2.3", "Faster pages today", "Version 2.2", "New pen settings"]
    found = _pairs(before, after)
    assert ("Version 2.1", "Version 2.4") not in found
    assert len(found) == 4


def test_moves_are_matches() -> None:
    before = ["one thing", "another matter", "a third case"]
    assert _pairs(before, before[::-1]) == {(text, text) for text in before}


def test_extended_sentence_is_a_rewording() -> None:
    assert _pairs(["Writes like paper"], ["Writes like paper, now with a much softer tip and ten colours"])
    assert not _pairs(["Writes like paper"], ["Ships in two days to all of Europe"])


_SENTENCES = st.lists(st.text(alphabet="abc 12", min_size=1, max_size=12), max_size=8)


@given(_SENTENCES, _SENTENCES)
def test_every_text_is_paired_at_most_once_and_equal_ones_always(before: list[str], after: list[str]) -> None:
    matches = match_texts(before, after)
    assert len({m.before for m in matches}) == len(matches) == len({m.after for m in matches})
    # Blanks and case make no difference, so "b" may be paired with " b".
    for text in {fold(b) for b in before} & {fold(a) for a in after}:
        assert any(fold(before[m.before]) == fold(after[m.after]) == text for m in matches)


@given(_SENTENCES)
def test_a_list_matches_itself(texts: list[str]) -> None:
    assert [(m.before, m.after) for m in match_texts(texts, texts)] == [(i, i) for i in range(len(texts))]
