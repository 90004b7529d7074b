"""Products on offer: price, list price, currency, availability, came and went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal

from workbench.insight import rules
from workbench.insight.drafts import Draft, Followed, draft_flapping, find_shown
from workbench.insight.matching import offer_label
from workbench.insight.money import format_amount, format_percent, percent_change
from workbench.insight.observations import OfferSeen
from workbench.insight.rules import Severity
from workbench.insight.series import Flap, Move, Track
from workbench.workspace import Thresholds

__all__ = ["compare_offers", "describe_move", "price_doubts"]

_BESIDE = "a product beside the main one"
_MAIN = "the page's main product"


def compare_offers(followed: Followed[OfferSeen], thresholds: Thresholds, *, product: str | None) -> Iterator[Draft]:
    """All changes of a page's products; ``product`` names the main one where the page does not."""

    def label(offer: OfferSeen) -> str:
        page = followed.snapshots[-1]
        return offer_label(offer) or (product if offer.position == 0 else None) or page.title or page.url

    moves, notes = find_shown(followed, label, "product")
    for track, move in moves:
        yield _presence(followed, track, move, label(track.newest))
    yield from notes
    for track in followed.tracks:
        if (offer := track.seen[-1]) is not None:
            yield from _price(followed, track, thresholds, subject=label(offer), main=offer.position == 0)
            yield from _availability(followed, track, subject=label(offer), main=offer.position == 0)


def _presence(followed: Followed[OfferSeen], track: Track[OfferSeen], move: Move[bool], subject: str) -> Draft:
    offer, main = track.newest, track.newest.position == 0
    price = format_amount(offer.price, offer.currency)
    severity: Severity = "medium" if main and followed.doubt(move) is None else "low"
    reasons, weight = followed.presence_reasons(move), _MAIN if main else _BESIDE
    old, new = move.snapshot_before, move.snapshot_after
    if move.after:
        draft = Draft("offer_added", subject, None, price, severity, weight, reasons, old, new)
        return replace(draft, amount_after=offer.price, currency=offer.currency)
    draft = Draft("offer_removed", subject, price, None, severity, weight, reasons, old, new)
    return replace(draft, amount_before=offer.price, currency=offer.currency)


@dataclass(frozen=True)
class _Price:
    """What a product costs; the same price when amount and currency are equal."""

    amount: Decimal
    currency: str | None
    regular: Decimal | None = field(compare=False)
    stated: bool = field(compare=False)
    """The page itself names the currency."""

    def __str__(self) -> str:
        return format_amount(self.amount, self.currency)


def _reader(track: Track[OfferSeen]) -> Callable[[OfferSeen], _Price | None]:
    """Reads a price; one without a currency is taken to be in the only currency the product ever had."""
    named = {offer.currency for offer in track.seen if offer is not None and offer.currency}
    only = next(iter(named)) if len(named) == 1 else None

    def read(offer: OfferSeen) -> _Price | None:
        if offer.price is None:
            return None
        return _Price(offer.price, offer.currency or only, offer.regular, offer.currency is not None)

    return read


def _price(
    followed: Followed[OfferSeen], track: Track[OfferSeen], thresholds: Thresholds, *, subject: str, main: bool
) -> Iterator[Draft]:
    found = followed.move(track, _reader(track))
    if isinstance(found, Flap):
        old, new = found.runs[-2:]
        draft = draft_flapping(subject, found, str, "the price")
        yield replace(draft, amount_before=old.amount, amount_after=new.amount, currency=new.currency)
        return
    if found is None:
        yield from _shown_or_not(followed, track, subject)
    elif None not in (found.before.currency, found.after.currency) and found.before.currency != found.after.currency:
        yield Draft(
            "currency",
            subject,
            str(found.before),
            str(found.after),
            "medium" if main else "low",
            "another currency, so the amounts are not compared",
            followed.reasons(track, found),
            found.snapshot_before,
            found.snapshot_after,
            amount_before=found.before.amount,
            amount_after=found.after.amount,
            currency=found.after.currency,
        )
        return
    elif found.before.amount != found.after.amount:
        old, new = found.before, found.after
        percent = percent_change(old.amount, new.amount)
        severity, words = rules.price_severity(percent, thresholds)
        weight = f"the price {describe_move(percent)}, {words}" + ("" if main else f"; {_BESIDE}")
        yield Draft(
            "price",
            subject,
            str(old),
            str(new),
            severity if main else rules.lower(severity),
            weight,
            (*followed.reasons(track, found), *price_doubts(percent, stated=old.stated and new.stated)),
            found.snapshot_before,
            found.snapshot_after,
            notes=(_promotion(old, new),),
            amount_before=old.amount,
            amount_after=new.amount,
            currency=new.currency or old.currency,
            percent=percent,
        )
    yield from _list_price(followed, track, thresholds, subject=subject, main=main)


def _list_price(
    followed: Followed[OfferSeen], track: Track[OfferSeen], thresholds: Thresholds, *, subject: str, main: bool
) -> Iterator[Draft]:
    """The crossed-out price, unless the price's own change already tells what became of it."""
    read = _reader(track)
    found = followed.move(track, lambda offer: (offer.regular,) if offer.price is not None else None)
    new = track.seen[-1]
    if found is None or new is None:
        return
    shown = next(o for s, o in zip(followed.snapshots, track.seen, strict=True) if s is found.snapshot_before)
    moved = shown is not None and read(shown) != read(new)
    currency = new.currency
    if isinstance(found, Flap):
        if not moved:

            def show(value: tuple[Decimal | None]) -> str:
                return "no list price" if value[0] is None else format_amount(value[0], currency)

            yield draft_flapping(subject, found, show, "the list price")
        return
    (before,), (after,) = found.before, found.after
    if before is None or after is None:
        if moved:
            return  # a promotion that began or ended: the price change says so
        percent = None
        severity: Severity = "low"
        weight = "a list price appeared" if before is None else "the list price is no longer shown"
    else:
        percent = percent_change(before, after)
        severity, words = rules.price_severity(percent, thresholds)
        severity, weight = rules.lower(severity), f"the list price {describe_move(percent)}, {words}"
    yield Draft(
        "list_price",
        subject,
        None if before is None else format_amount(before, currency),
        None if after is None else format_amount(after, currency),
        severity if main else rules.lower(severity),
        weight,
        followed.reasons(track, found),
        found.snapshot_before,
        found.snapshot_after,
        notes=(f"the price itself is {format_amount(new.price, currency)}",),
        amount_before=before,
        amount_after=after,
        currency=currency,
        percent=percent,
    )


def _shown_or_not(followed: Followed[OfferSeen], track: Track[OfferSeen], subject: str) -> Iterator[Draft]:
    """A price that appears on, or goes from, a product that is there before and after."""
    old, new = track.seen[followed.baseline], track.seen[-1]
    if old is None or new is None or (old.price is None) == (new.price is None):
        return
    before = [offer for offer in track.seen[: followed.baseline + 1] if offer is not None]
    if len({offer.price is None for offer in before}) > 1:
        return  # it came and went before: a gap in what we see, not news
    words = "the price is no longer shown" if new.price is None else "a price is shown for the first time"
    yield Draft(
        "price",
        subject,
        None if old.price is None else format_amount(old.price, old.currency),
        None if new.price is None else format_amount(new.price, new.currency),
        "low",
        words,
        (rules.PRICE_UNSEEN, *followed.shared),
        followed.snapshots[followed.baseline],
        followed.snapshots[-1],
        amount_before=old.price,
        amount_after=new.price,
        currency=new.currency or old.currency,
    )


def _availability(
    followed: Followed[OfferSeen], track: Track[OfferSeen], *, subject: str, main: bool
) -> Iterator[Draft]:
    found = followed.move(track, lambda offer: offer.availability or None)
    if isinstance(found, Flap):
        yield draft_flapping(subject, found, str, "the availability")
    elif found is not None:
        yield Draft(
            "availability",
            subject,
            found.before,
            found.after,
            rules.availability_severity(found.after, main=main),
            f"now {found.after}; {_MAIN if main else _BESIDE}",
            followed.reasons(track, found),
            found.snapshot_before,
            found.snapshot_after,
        )


def price_doubts(percent: float | None, *, stated: bool) -> Iterator[rules.Reason]:
    """Reasons to doubt a move of price: its size, a currency that the page does not name."""
    if percent is not None and abs(percent) > 50:
        yield rules.UNUSUAL
    if not stated:
        yield rules.NO_CURRENCY


def describe_move(percent: float | None) -> str:
    """``fell 11.1%``, ``rose 3.0%``."""
    if percent is None:
        return "rose from nothing"
    return f"{'fell' if percent < 0 else 'rose'} {format_percent(percent)}"


def _promotion(before: _Price, after: _Price) -> str:
    if after.regular is not None:
        listed = format_amount(after.regular, after.currency)
        began = before.regular is None
        return f"{rules.PROMOTION_BEGAN if began else rules.PROMOTION_STILL} {listed}"
    if before.regular is None:
        return "a regular price, no list price beside it"
    if after.amount == before.regular:
        return rules.PROMOTION_ENDED
    return f"the list price of {format_amount(before.regular, before.currency)} is no longer shown"
