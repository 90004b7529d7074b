"""How much a change matters and how sure it is: the rules, as tables.

Severity is one of ``high``, ``medium``, ``low``, ``note``. A note is recorded and never becomes a finding. Changes of
the user's own company are known to the user, so they are ``low`` at most.

    kind                      severity
    price, plan_price         high from thresholds.price_alarm_percent, medium from price_change_percent, else note;
                              one step lower for an offer beside the page's main product;
                              medium when a tier's price appears, goes or is counted otherwise, low for an offer's
    list_price                one step below a price of the same move; low when a list price appears or goes
    currency                  medium: amounts cannot be compared
    availability              see AVAILABILITY; one step lower beside the main product
    offer_added, _removed     medium for the page's main product, low for others; low when the page yielded nothing
    plan_removed              high; low when the page yielded nothing
    plan_added                medium
    plan_features             medium when features went or a number in one changed, low otherwise
    plan_renamed              low
    claim_reworded            medium when a number changed, low otherwise; note when only a date or a count of reviews
                              changed, or when the numbers repeat a price change of the same page (also in
                              proportion, as a monthly rate does) or the row is one of the tiers' own table
    claim_added, _removed     medium for a page's top headings on product, pricing and landing pages, low otherwise;
                              note for removals from news and release notes (old entries drop off)
    claims on review pages    note: readers' words, not the company's
    page_gone                 medium for product and pricing pages, low for others
    page_back, page_added     low; page_added is a note for the first page ever seen of a source
    flapping                  note

Confidence starts at 1 and is multiplied by the factor of every reason that applies; LIMITS caps it. ``why`` in the
changes table holds the reasons in words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from workbench.insight.matching import Match
from workbench.insight.spans import fold, numbers_in
from workbench.workspace import Thresholds

__all__ = [
    "KINDS",
    "SEVERITIES",
    "ChangeKind",
    "Reason",
    "Severity",
    "availability_severity",
    "cap",
    "claim_severity",
    "confidence_of",
    "confirmation",
    "how_matched",
    "lower",
    "number_changed",
    "page_severity",
    "price_severity",
]

ChangeKind = Literal[
    "price",  # what a buyer pays for a product
    "list_price",  # the crossed-out price beside it
    "currency",  # the same product or tier in another currency; never a price change
    "availability",
    "offer_added",
    "offer_removed",
    "plan_added",  # a tier of a pricing page
    "plan_removed",
    "plan_renamed",  # the same tier under another name
    "plan_price",
    "plan_features",  # one change a tier, all feature lines that went and came
    "claim_added",  # a heading or a feature statement
    "claim_removed",
    "claim_reworded",
    "page_gone",  # HTTP 404 or 410
    "page_back",
    "page_added",  # seen for the first time
    "flapping",  # a value that came back inside thresholds.flap_window_days, in place of the change
]
"""What a row of the changes table is about."""

Severity = Literal["high", "medium", "low", "note"]

KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

AVAILABILITY: dict[str, Severity] = {
    "Discontinued": "high",
    "OutOfStock": "medium",
    "SoldOut": "medium",
    "InStock": "medium",
    "PreOrder": "medium",
    "PreSale": "medium",
    "BackOrder": "medium",
}
"""By the new value, schema.org short names; others (LimitedAvailability, OnlineOnly, …) are low."""

_FRONT_KINDS = ("product", "pricing", "landing")
_LIST_KINDS = ("news", "changelog")

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    rf"\d{{4}}-\d{{1,2}}-\d{{1,2}}|\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}|\d{{4}}[./]\d{{1,2}}[./]\d{{1,2}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\s+{_MONTH}(?:,?\s+\d{{4}})?|{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?"
    r"|\d{4}\s*年\s*\d{1,2}\s*月(?:\s*\d{1,2}\s*日)?|\d{1,2}\s*月\s*\d{1,2}\s*日|(?:©|\(c\)|copyright)\s*\d{4}(?:\s*[-–]\s*\d{4})?"
)
_COUNTER = re.compile(
    r"\d+(?:[.,]\d+)*\s*(?:verified\s+|customer\s+|global\s+)*(?:reviews?|ratings?|votes?|comments?|stars?\b)"
    r"|\d+(?:[.,]\d+)*\s*(?:out of|/)\s*(?:5|10)\b"
    r"|\d+(?:[.,]\d+)*\s*[条條则則个個]?\s*(?:评价|評價|评论|評論|点评|評分|评分)"
)


@dataclass(frozen=True)
class Reason:
    """One reason to trust or to doubt a change: a factor from 0 to 1, and the words for it."""

    factor: float
    words: str
    limit: float = 1.0
    """The whole confidence is at most this."""


PROMOTION_BEGAN = "shown as a promotion from a list price of"
PROMOTION_STILL = "still a promotion, list price"
PROMOTION_ENDED = "the promotion ended, the price is the former list price"
"""Words in ``why`` of a price change that the readout looks for."""

UNUSUAL = Reason(0.7, "the move is over 50%, so one of the two prices may be misread")
NO_CURRENCY = Reason(0.75, "the currency is not stated in both snapshots and taken to be the same")
PRICE_UNSEEN = Reason(0.8, "a price is shown in one of the two snapshots only", 0.5)
NOTHING_READ = Reason(
    0.6, "nothing of the kind was read from the newer snapshot though it has text; its template may have changed", 0.5
)
NOTHING_BEFORE = Reason(0.75, "nothing of the kind was read from the older snapshot though it has text")
REWRITTEN = Reason(0.7, "most of the page was rewritten, so single sentences are hard to follow")
PRESENCE = Reason(0.9, "found by comparing all items of both snapshots")
NO_SIMILAR = Reason(0.87, "no similar text in the other snapshot")
OLD_BASELINE = Reason(0.95, "the older snapshot lies before the flapping window")
GONE_410 = Reason(0.98, "HTTP 410 says that the page was removed for good")
GONE_404 = Reason(0.85, "HTTP 404 may also be a passing fault")
SERVED = Reason(0.97, "served with its content")
BACK_AND_FORTH = Reason(0.9, "each value was seen in a snapshot of its own")


def confidence_of(reasons: Sequence[Reason]) -> float:
    """The product of all factors, at most the lowest limit, two decimals."""
    value = 1.0
    for reason in reasons:
        value *= reason.factor
    return round(min([value, *(reason.limit for reason in reasons)]), 2)


def how_matched(match: Match) -> Reason:
    """How sure it is that both snapshots speak of the same item."""
    if match.how == "identifier":
        return Reason(0.98, "the same GTIN, SKU or MPN in both snapshots")
    if match.how == "name":
        return Reason(0.94, "the same name in both snapshots")
    return Reason(
        round(0.6 + 0.35 * match.similarity, 4), f"similar in both snapshots ({match.similarity:.0%} alike)"
    )


def confirmation(snapshots: int) -> Reason:
    """More than one snapshot of the week that shows the new value is better than one."""
    if snapshots > 1:
        return Reason(1.0, f"confirmed by {snapshots} snapshots this week")
    return Reason(0.98, "seen in one snapshot this week")


def lower(severity: Severity, steps: int = 1) -> Severity:
    """``steps`` less severe."""
    return SEVERITIES[min(SEVERITIES.index(severity) + steps, len(SEVERITIES) - 1)]


def cap(severity: Severity, limit: Severity) -> Severity:
    """The less severe of the two."""
    return SEVERITIES[max(SEVERITIES.index(severity), SEVERITIES.index(limit))]


def price_severity(percent: float | None, thresholds: Thresholds) -> tuple[Severity, str]:
    """Severity of a price move and the words for it. ``percent`` None: the price was or became 0."""
    if percent is None:
        return "high", "a price that was nothing is one now"
    size = abs(percent)
    # Six digits keep a move of exactly the threshold on the threshold's side, whatever binary fractions do.
    if round(size, 6) >= thresholds.price_alarm_percent:
        return "high", f"at least the alarm of {thresholds.price_alarm_percent:g}%"
    if round(size, 6) >= thresholds.price_change_percent:
        return "medium", f"at least the threshold of {thresholds.price_change_percent:g}%"
    return "note", f"below the threshold of {thresholds.price_change_percent:g}%"


def availability_severity(after: str, *, main: bool) -> Severity:
    """By the new value; one step lower for an offer beside the page's main product."""
    severity = AVAILABILITY.get(after, "low")
    return severity if main else lower(severity)


def page_severity(kind: ChangeKind, page_kind: str, *, first_of_source: bool = False) -> Severity:
    """Severity of page_gone, page_back and page_added."""
    if kind == "page_gone":
        return "medium" if page_kind in ("product", "pricing") else "low"
    return "note" if first_of_source else "low"


def number_changed(before: str, after: str) -> bool:
    """Whether the numbers of a text differ, dates and review counters aside."""
    return numbers_in(_plain(before)) != numbers_in(_plain(after))


def claim_severity(
    kind: ChangeKind,
    page_kind: str,
    *,
    before: str = "",
    after: str = "",
    level: int | None,
    priced: frozenset[str],
    ratios: Sequence[float] = (),
) -> tuple[Severity, str]:
    """Severity of a claim change and the words for it.

    ``level`` is the heading's level, None for a statement; ``priced`` are the numbers of the page's price changes and
    ``ratios`` what those multiplied the prices by.
    """
    if page_kind == "reviews":
        return "note", "on a page of readers' words"
    if kind == "claim_reworded":
        if fold(before) != fold(after) and _plain(before) == _plain(after):
            return "note", "only a date or a counter of reviews changed"
        if number_changed(before, after):
            moved = set(numbers_in(before)) ^ set(numbers_in(after))
            if moved and (moved <= priced or _in_proportion(before, after, ratios)):
                return "note", "repeats the price change on this page"
            return "medium", "a number changed"
        return "low", "only the wording changed"
    if kind == "claim_removed" and page_kind in _LIST_KINDS:
        return "note", "old entries drop off such a page"
    text = set(numbers_in(before or after))
    if text and text <= priced:
        return "note", "repeats the price change on this page"
    if level is not None and level <= 2 and page_kind in _FRONT_KINDS:
        return "medium", "a top heading of the page"
    return "low", "one statement among others"


def _in_proportion(before: str, after: str, ratios: Sequence[float]) -> bool:
    """Whether every number that changed was multiplied by one of ``ratios``, to within rounding to cents."""
    old, new = numbers_in(before), numbers_in(after)
    if len(old) != len(new):
        return False
    moved = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    # One separator is a decimal sign wherever it stands; several make a date or a version.
    if not moved or any(len(re.findall(r"[.,]", number)) > 1 for pair in moved for number in pair):
        return False
    amounts = [(float(a.replace(",", ".")), float(b.replace(",", "."))) for a, b in moved]
    return all(any(abs(b - a * ratio) <= max(0.011, 0.002 * b) for ratio in ratios) for a, b in amounts)


def _plain(text: str) -> str:
    return _COUNTER.sub("#", _DATE.sub("#", fold(text)))
