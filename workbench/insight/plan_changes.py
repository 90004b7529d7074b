"""Tiers of pricing pages: price, name, features, came and went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from workbench.insight import rules
from workbench.insight.drafts import Draft, Followed, draft_flapping, find_shown, lines_of
from workbench.insight.matching import match_texts
from workbench.insight.money import format_plan_price, monthly_amount, percent_change
from workbench.insight.observations import PlanSeen
from workbench.insight.offer_changes import describe_move, price_doubts
from workbench.insight.rules import Reason, Severity
from workbench.insight.series import Flap, Move, Track
from workbench.insight.spans import fold
from workbench.workspace import Thresholds

__all__ = ["compare_plans"]


def compare_plans(followed: Followed[PlanSeen], thresholds: Thresholds) -> Iterator[Draft]:
    """All changes of a page's tiers."""
    names = [fold(track.newest.name) for track in followed.tracks]

    def label(plan: PlanSeen) -> str:
        # The same tier by the month and by the year: the period tells them apart.
        return f"{plan.name} ({plan.period})" if plan.period and names.count(fold(plan.name)) > 1 else plan.name

    moves, notes = find_shown(followed, label, "tier")
    for track, move in moves:
        yield _presence(followed, track, move, label(track.newest))
    yield from notes
    for track in followed.tracks:
        if (plan := track.seen[-1]) is not None:
            yield from _name(followed, track)
            yield from _price(followed, track, thresholds, subject=label(plan))
            yield from _features(followed, track, plan, subject=label(plan))


def _presence(followed: Followed[PlanSeen], track: Track[PlanSeen], move: Move[bool], subject: str) -> Draft:
    plan = track.newest
    doubted = followed.doubt(move) is not None
    reasons, old, new = followed.presence_reasons(move), move.snapshot_before, move.snapshot_after
    text = lines_of([_price_text(plan), *plan.features])
    if move.after:
        severity: Severity = "low" if doubted else "medium"
        draft = Draft("plan_added", subject, None, text, severity, "a tier came", reasons, old, new)
        return replace(draft, amount_after=plan.price, currency=plan.currency)
    severity = "low" if doubted else "high"
    draft = Draft("plan_removed", subject, text, None, severity, "a tier went", reasons, old, new)
    return replace(draft, amount_before=plan.price, currency=plan.currency)


def _name(followed: Followed[PlanSeen], track: Track[PlanSeen]) -> Iterator[Draft]:
    names = {fold(plan.name): plan.name for plan in track.seen if plan is not None}
    found = followed.move(track, lambda plan: fold(plan.name))
    if isinstance(found, Flap):
        yield draft_flapping(names[found.runs[-1]], found, names.__getitem__, "the tier's name")
    elif found is not None:
        weight, reasons = "the same tier under another name", followed.reasons(track, found)
        before, after = names[found.before], names[found.after]
        old, new = found.snapshot_before, found.snapshot_after
        yield Draft("plan_renamed", after, before, after, "low", weight, reasons, old, new)


def _price_text(plan: PlanSeen) -> str:
    return format_plan_price(plan.price, plan.currency, period=plan.period, per_unit=plan.per_unit)


@dataclass(frozen=True)
class _Tier:
    """What a tier costs, as shown; a free one is free in every currency and for any time."""

    amount: Decimal | None
    currency: str | None
    period: str | None
    per_unit: str | None
    stated: bool = field(compare=False)
    """The page itself names the currency."""

    def __str__(self) -> str:
        return format_plan_price(self.amount, self.currency, period=self.period, per_unit=self.per_unit)


def _price(
    followed: Followed[PlanSeen], track: Track[PlanSeen], thresholds: Thresholds, *, subject: str
) -> Iterator[Draft]:
    named = {plan.currency for plan in track.seen if plan is not None and plan.currency}
    only = next(iter(named)) if len(named) == 1 else None

    def read(plan: PlanSeen) -> _Tier:
        if not plan.price:
            return _Tier(plan.price, None, None, None, stated=True)
        return _Tier(plan.price, plan.currency or only, plan.period, plan.per_unit, stated=plan.currency is not None)

    found = followed.move(track, read)
    if isinstance(found, Flap):
        draft = draft_flapping(subject, found, str, "the tier's price")
        old, new = found.runs[-2:]
        currency = new.currency or old.currency
        yield replace(draft, amount_before=old.amount, amount_after=new.amount, currency=currency)
    elif found is not None:
        moved = _weigh(found.before, found.after, thresholds)
        yield Draft(
            moved.kind,
            subject,
            str(found.before),
            str(found.after),
            moved.severity,
            moved.weight,
            (*followed.reasons(track, found), *moved.doubts),
            found.snapshot_before,
            found.snapshot_after,
            notes=moved.notes,
            amount_before=moved.before,
            amount_after=moved.after,
            currency=found.after.currency or found.before.currency,
            percent=moved.percent,
        )


@dataclass(frozen=True)
class _Weighed:
    severity: Severity
    weight: str
    before: Decimal | None
    after: Decimal | None
    percent: float | None = None
    doubts: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()
    kind: rules.ChangeKind = "plan_price"


def _weigh(old: _Tier, new: _Tier, thresholds: Thresholds) -> _Weighed:
    """What a tier's new price amounts to: a percentage only where like is compared with like."""
    before, after = old.amount, new.amount
    if before is None or after is None:
        weight = "the price is now shown" if before is None else "the price is now on request"
        return _Weighed("medium", weight, before, after, doubts=(rules.PRICE_UNSEEN,))
    if before == 0 or after == 0:
        weight = "a free tier now costs money" if before == 0 else "the tier is now free"
        return _Weighed("high", weight, before, after, percent_change(before, after))
    if old.currency is not None and new.currency is not None and old.currency != new.currency:
        weight = "another currency, so the amounts are not compared"
        return _Weighed("medium", weight, before, after, kind="currency")
    if old.per_unit and new.per_unit and fold(old.per_unit) != fold(new.per_unit):
        weight = f"per {new.per_unit} instead of per {old.per_unit}, so the amounts are not compared"
        return _Weighed("medium", weight, before, after)
    notes: tuple[str, ...] = ()
    per_month = ""
    if old.period and new.period and old.period != new.period:
        monthly = monthly_amount(before, old.period), monthly_amount(after, new.period)
        billed = f"billed per {new.period} instead of per {old.period}"
        notes = (f"{billed}; the amounts are as shown, the percentage is per month",)
        if monthly[0] is None or monthly[1] is None:
            return _Weighed("medium", "billed in another way, so the amounts are not compared", before, after)
        percent, per_month = percent_change(monthly[0], monthly[1]), " per month"
    else:
        percent = percent_change(before, after)
    doubts = tuple(price_doubts(percent, stated=old.stated and new.stated))
    if percent == 0:
        return _Weighed(
            "medium", "the same price, billed or counted in another way", before, after, 0.0, doubts, notes
        )
    severity, words = rules.price_severity(percent, thresholds)
    if notes:
        severity = "medium" if severity == "note" else severity
    weight = f"the tier's price{per_month} {describe_move(percent)}, {words}"
    return _Weighed(severity, weight, before, after, percent, doubts, notes)


def _features(
    followed: Followed[PlanSeen], track: Track[PlanSeen], plan: PlanSeen, *, subject: str
) -> Iterator[Draft]:
    texts = {fold(feature): feature for item in track.seen if item is not None for feature in item.features}
    # An empty list of features is a list that was not read: no value, and so no change.
    found = followed.move(track, lambda item: frozenset(map(fold, item.features)) or None)
    if isinstance(found, Flap):
        gone, come = found.runs[-2] - found.runs[-1], found.runs[-1] - found.runs[-2]
        draft = draft_flapping(subject, found, lambda run: f"{len(run)} features", "the tier's list of features")
        yield replace(draft, before=_lines(texts, sorted(gone)), after=_lines(texts, sorted(come)))
    elif found is not None:
        yield _feature_change(followed, track, found, texts, subject=subject)


def _feature_change(
    followed: Followed[PlanSeen],
    track: Track[PlanSeen],
    found: Move[frozenset[str]],
    texts: Mapping[str, str],
    *,
    subject: str,
) -> Draft:
    # ``texts`` keeps page order, oldest snapshot first.
    gone = [key for key in texts if key in found.before - found.after]
    come = [key for key in texts if key in found.after - found.before]
    pairs = match_texts(gone, come)
    lost, numbers = len(gone) - len(pairs), [p for p in pairs if rules.number_changed(gone[p.before], come[p.after])]
    if lost:
        weight = "one feature went" if lost == 1 else f"{lost} features went"
    elif numbers:
        weight = "a number in a feature changed"
    else:
        weight = "features came" if len(come) > len(pairs) else "features are worded differently"
    return Draft(
        "plan_features",
        subject,
        _lines(texts, gone),
        _lines(texts, come),
        "medium" if lost or numbers else "low",
        weight,
        followed.reasons(track, found),
        found.snapshot_before,
        found.snapshot_after,
    )


def _lines(texts: Mapping[str, str], keys: Iterable[str]) -> str | None:
    return lines_of(texts[key] for key in keys)
