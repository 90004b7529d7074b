"""Which item of one snapshot is which item of another: products, plan tiers, claims.

Every function pairs two lists and gives ``Match``es, at most one for each item. Certain pairs are made first, and
only the rest is left to the fuzzy steps; there the most similar pair goes first (greedy, ties by distance, then by
position), so that the result depends on nothing but the two lists.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from workbench.insight.observations import ClaimSeen, OfferSeen, PlanSeen
from workbench.insight.spans import fold, numbers_in

__all__ = ["Match", "match_claims", "match_offers", "match_plans", "match_texts", "name_similarity", "offer_label"]

_T = TypeVar("_T")

MAIN_OFFER = 0.6
"""A page's main product keeps its identity down to this similarity of names."""
OTHER_OFFER = 0.88
PLAN_NAME = 0.8
PLAN_FEATURES = 0.5
"""A tier of the same price that keeps this share of its features is the same tier under a new name."""
CLAIM_IN_PLACE = 0.62
"""Two sentences between the same neighbours, this similar, are one sentence reworded."""
CLAIM_MOVED = 0.85
"""The same for two sentences in different places."""
_NUMBERS_ALIKE = 0.99
_EXTENDED = 0.75
_NUMBERS_APART = 2
"""Texts further apart than this with other numbers are two: "Version 2.4" tops a list, "Version 2.1" drops off it."""


@dataclass(frozen=True)
class Match:
    """Item ``before`` of the old list is item ``after`` of the new one.

    ``how``: ``identifier`` (the same GTIN, SKU or MPN), ``name`` (equal names or texts) or ``similar``.
    """

    before: int
    after: int
    how: Literal["identifier", "name", "similar"]
    similarity: float


class _Pairing:
    """Items not paired yet, and the pairs made so far."""

    def __init__(self, before: int, after: int) -> None:
        self.before = set(range(before))
        self.after = set(range(after))
        self.matches: list[Match] = []

    def add(self, before: int, after: int, how: Literal["identifier", "name", "similar"], similarity: float) -> None:
        if before in self.before and after in self.after:
            self.before.discard(before)
            self.after.discard(after)
            self.matches.append(Match(before, after, how, similarity))

    def equal(
        self,
        before: Sequence[_T],
        after: Sequence[_T],
        key: Callable[[_T], Hashable | None],
        *,
        how: Literal["identifier", "name"] = "name",
    ) -> None:
        """Pair items of equal key (None: no key) in the order they have on the page."""
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for j in sorted(self.after):
            if (found := key(after[j])) is not None:
                waiting[found].append(j)
        for i in sorted(self.before):
            found = key(before[i])
            if found is not None and waiting.get(found):
                self.add(i, waiting[found].pop(0), how, 1.0)

    def similar(self, score: Callable[[int, int], float]) -> None:
        """Pair the rest greedily; a score of 0 is no pair."""
        scored = [(score(i, j), i, j) for i in sorted(self.before) for j in sorted(self.after)]
        for value, i, j in sorted(
            (s for s in scored if s[0] > 0), key=lambda s: (-s[0], abs(s[1] - s[2]), s[1], s[2])
        ):
            self.add(i, j, "similar", round(value, 4))

    def result(self) -> list[Match]:
        return sorted(self.matches, key=lambda match: (match.after, match.before))


def name_similarity(before: str, after: str) -> float:
    """0 to 1: the better of letter order and word order, case and width made equal."""
    a, b = fold(before), fold(after)
    return max(fuzz.ratio(a, b), fuzz.token_sort_ratio(a, b)) / 100


def offer_label(offer: OfferSeen) -> str:
    """What identifies an offer to a reader: its name, else one of its identifiers."""
    return offer.name or next(iter(sorted(offer.identifiers)), "")


def match_offers(before: Sequence[OfferSeen], after: Sequence[OfferSeen]) -> list[Match]:
    """By key and currency, by key, by a shared identifier, the main product by a similar name, the rest by name.

    Names that differ in a number ("Folio", "Folio 2"; "64 GB", "128 GB") are different products.
    """
    pairing = _Pairing(len(before), len(after))
    for by_identifier in (True, False):

        def in_currency(offer: OfferSeen, wanted: bool = by_identifier) -> Hashable | None:
            usable = bool(offer.key) and bool(offer.identifiers) is wanted
            return (offer.key, offer.currency, offer.condition) if usable else None

        pairing.equal(before, after, in_currency, how="identifier" if by_identifier else "name")

    def key(offer: OfferSeen) -> Hashable | None:
        return offer.key or None

    pairing.equal(before, after, key)
    for kind in ("gtin", "sku", "mpn"):

        def identifier(offer: OfferSeen, start: str = f"{kind} ") -> Hashable | None:
            return next((i for i in sorted(offer.identifiers) if i.startswith(start)), None)

        pairing.equal(before, after, identifier, how="identifier")

    def main(i: int, j: int) -> float:
        old, new = before[i], after[j]
        if old.position != 0 or new.position != 0:
            return 0
        if not old.name or not new.name:
            return MAIN_OFFER
        # A name that only gained or lost words ("… – Black Friday") is still the page's one product.
        likeness = max(
            name_similarity(old.name, new.name), 0.9 * fuzz.token_set_ratio(fold(old.name), fold(new.name)) / 100
        )
        return likeness if likeness >= MAIN_OFFER and _same_model(old.name, new.name) else 0

    def other(i: int, j: int) -> float:
        old, new = before[i].name, after[j].name
        if not old or not new or not _same_model(old, new):
            return 0
        likeness = name_similarity(old, new)
        return likeness if likeness >= OTHER_OFFER else 0

    pairing.similar(main)
    pairing.similar(other)
    return pairing.result()


def _same_model(before: str, after: str) -> bool:
    """Whether the numbers that tell models apart agree; percentages and years of a sale do not count."""
    return _model_numbers(before) == _model_numbers(after)


def _model_numbers(name: str) -> list[str]:
    plain = re.sub(r"[$€£¥]\s*\d+(?:[.,]\d+)*|\d+(?:[.,]\d+)*\s*(?:%|percent\b|折)", " ", fold(name))
    # "m2" is a model as much as "2" is.
    return sorted(re.findall(r"[a-z]*\d+(?:[.,]\d+)*", plain))


def match_plans(before: Sequence[PlanSeen], after: Sequence[PlanSeen]) -> list[Match]:
    """By name with period and currency, by name, by a similar name, then tiers renamed at the same price."""
    pairing = _Pairing(len(before), len(after))

    def exactly(plan: PlanSeen) -> Hashable | None:
        return (fold(plan.name), plan.period, plan.currency, plan.per_unit)

    def in_period(plan: PlanSeen) -> Hashable | None:
        return (fold(plan.name), plan.period)

    def named(plan: PlanSeen) -> Hashable | None:
        return fold(plan.name)

    for key in (exactly, in_period, named):
        pairing.equal(before, after, key)

    def similar_name(i: int, j: int) -> float:
        likeness = name_similarity(before[i].name, after[j].name)
        return likeness if likeness >= PLAN_NAME and before[i].period == after[j].period else 0

    def renamed(i: int, j: int) -> float:
        old, new = before[i], after[j]
        if (old.price, old.currency, old.period) != (new.price, new.currency, new.period):
            return 0
        ours, theirs = {fold(f) for f in old.features}, {fold(f) for f in new.features}
        if not ours or not theirs:
            return 0
        shared = len(ours & theirs) / len(ours | theirs)
        return shared if shared >= PLAN_FEATURES else 0

    pairing.similar(similar_name)
    pairing.similar(renamed)
    return pairing.result()


def match_claims(before: Sequence[ClaimSeen], after: Sequence[ClaimSeen]) -> list[Match]:
    """Claims by their text; see ``match_texts``."""
    return match_texts([claim.text for claim in before], [claim.text for claim in after])


def match_texts(before: Sequence[str], after: Sequence[str]) -> list[Match]:
    """Equal texts wherever they stand (a move is no change), then rewordings.

    A rewording needs a similarity of CLAIM_IN_PLACE when both texts stand between the same unchanged neighbours, and
    of CLAIM_MOVED anywhere else. In place, texts that differ in numbers only ("up to 12 hours", "up to 20 hours") are
    a rewording however short they are, and so is a text that was extended or cut short.
    """
    old, new = [fold(text) for text in before], [fold(text) for text in after]
    pairing = _Pairing(len(old), len(new))
    gap_before, gap_after = _gaps(old, new, pairing)
    pairing.equal(old, new, lambda text: text)

    numbers = {text: numbers_in(text) for text in (*old, *new)}
    letters = {text: _without_numbers(text) for text in numbers}
    in_order = {text: " ".join(sorted(text.split())) for text in numbers}

    def score(i: int, j: int) -> float:
        a, b = old[i], new[j]
        in_place = gap_before.get(i) is not None and gap_before.get(i) == gap_after.get(j)
        if not in_place and abs(i - j) > _NUMBERS_APART and numbers[a] != numbers[b]:
            return 0
        floor = CLAIM_IN_PLACE if in_place else CLAIM_MOVED
        least = 100 * floor  # lets the library stop early
        likeness = fuzz.ratio(a, b, score_cutoff=least)
        likeness = max(likeness, fuzz.ratio(in_order[a], in_order[b], score_cutoff=least)) / 100
        if in_place and numbers[a] and letters[a] == letters[b]:
            likeness = max(likeness, _NUMBERS_ALIKE)
        elif in_place and (_extends(a, b) or _extends(b, a)):
            likeness = max(likeness, _EXTENDED)
        return likeness if likeness >= floor else 0

    pairing.similar(score)
    return pairing.result()


def _gaps(old: Sequence[str], new: Sequence[str], pairing: _Pairing) -> tuple[dict[int, int], dict[int, int]]:
    """Pair the longest run of texts that kept their order, and number the gaps between them."""
    gap_before: dict[int, int] = {}
    gap_after: dict[int, int] = {}
    gap = 0
    for code in LCSseq.opcodes(old, new):
        if code.tag == "equal":
            gap += 1
            for i, j in zip(range(code.src_start, code.src_end), range(code.dest_start, code.dest_end), strict=True):
                pairing.add(i, j, "name", 1.0)
        else:
            gap_before.update(dict.fromkeys(range(code.src_start, code.src_end), gap))
            gap_after.update(dict.fromkeys(range(code.dest_start, code.dest_end), gap))
    return gap_before, gap_after


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+(?:[.,]\d+)*", "0", text)


def _extends(short: str, long: str) -> bool:
    """Whether ``long`` holds ``short`` whole; very short texts are found in anything."""
    if len(short) > len(long) or len(short) < 6 or short.rstrip(".!。！") not in long:
        return False
    return len(short) >= 12 or any(ord(char) > 0x2E80 for char in short)
