"""What the comparisons of products, tiers and claims share: a change in the making, and items followed over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Generic, TypeVar

from workbench.insight import rules
from workbench.insight.matching import Match
from workbench.insight.observations import Snapshot
from workbench.insight.rules import ChangeKind, Reason, Severity
from workbench.insight.series import Flap, Move, Track, build_tracks, find_move
from workbench.weeks import Week
from workbench.workspace import Thresholds

__all__ = ["Draft", "Followed", "draft_flapping", "find_shown", "follow", "lines_of"]

T = TypeVar("T")
V = TypeVar("V")

_SHOWN_RUNS = 6


@dataclass(frozen=True)
class Draft:
    """A change before it has an id."""

    kind: ChangeKind
    subject: str
    before: str | None
    after: str | None
    severity: Severity
    weight: str
    """Why this severity."""
    reasons: tuple[Reason, ...]
    """Why this confidence."""
    snapshot_before: Snapshot | None
    snapshot_after: Snapshot
    notes: tuple[str, ...] = ()
    amount_before: Decimal | None = None
    amount_after: Decimal | None = None
    currency: str | None = None
    percent: float | None = None


@dataclass(frozen=True)
class Followed(Generic[T]):
    """The readable snapshots of a page with its items of one type followed through them.

    ``tracks`` run parallel to ``snapshots``; ``baseline`` is the index of the newest one before the week.
    """

    snapshots: tuple[Snapshot, ...]
    baseline: int
    tracks: tuple[Track[T], ...]
    week: Week
    shared: tuple[Reason, ...]
    """Reasons that hold for every change found here."""
    nothing_read: bool
    """The last snapshot has text and none of the items, the baseline has some: its template may have changed."""
    nothing_before: bool
    """The other way round."""

    def series(self, track: Track[T], value: Callable[[T], V | None]) -> list[tuple[Snapshot, V]]:
        """The values of a track in time order, where it has one."""
        found = []
        for snapshot, item in zip(self.snapshots, track.seen, strict=True):
            seen = None if item is None else value(item)
            if seen is not None:
                found.append((snapshot, seen))
        return found

    def move(self, track: Track[T], value: Callable[[T], V | None]) -> Move[V] | Flap[V] | None:
        """The value's move up to the week's last snapshot; None when that one does not show it (not seen)."""
        series = self.series(track, value)
        if not series or series[-1][0] is not self.snapshots[-1]:
            return None
        return find_move(series, self.week.start)

    def reasons(self, track: Track[T], move: Move[V]) -> tuple[Reason, ...]:
        """Reasons for a value of one item that moved."""
        matched = () if track.match is None else (rules.how_matched(track.match),)
        return (*matched, rules.confirmation(move.confirmed), *self.shared)

    def presence_reasons(self, move: Move[bool]) -> tuple[Reason, ...]:
        """Reasons for an item that came or went."""
        found = [rules.PRESENCE, rules.confirmation(move.confirmed), *self.shared]
        if (doubt := self.doubt(move)) is not None:
            found.append(doubt)
        return tuple(found)

    def doubt(self, move: Move[bool]) -> Reason | None:
        """Why coming or going may be the extractor's view only; None when it is not in doubt."""
        if move.after:
            return rules.NOTHING_BEFORE if self.nothing_before else None
        return rules.NOTHING_READ if self.nothing_read else None


def follow(
    snapshots: tuple[Snapshot, ...],
    items: Callable[[Snapshot], Sequence[T]],
    matcher: Callable[[Sequence[T], Sequence[T]], list[Match]],
    *,
    week: Week,
    thresholds: Thresholds,
) -> Followed[T]:
    """Follow ``items`` through readable snapshots in time order, of which at least one lies before the week."""
    baseline = max(i for i, snapshot in enumerate(snapshots) if snapshot.fetched_at < week.start)
    lists = [items(snapshot) for snapshot in snapshots]
    older, last = snapshots[baseline], snapshots[-1]
    old = (last.fetched_at - older.fetched_at).days > thresholds.flap_window_days
    return Followed(
        snapshots=snapshots,
        baseline=baseline,
        tracks=tuple(build_tracks(lists, matcher, baseline=baseline)),
        week=week,
        shared=(rules.OLD_BASELINE,) if old else (),
        nothing_read=bool(lists[baseline]) and not lists[-1] and last.has_text,
        nothing_before=bool(lists[-1]) and not lists[baseline] and older.has_text,
    )


def draft_flapping(subject: str, flap: Flap[V], show: Callable[[V], str], what: str) -> Draft:
    """The one note for a value that came back: the values and how often, in words."""
    runs = [show(value) for value in flap.runs]
    shown = " → ".join(runs[-_SHOWN_RUNS:])
    return Draft(
        "flapping",
        subject,
        runs[-2],
        runs[-1],
        "note",
        f"{what} moved {flap.moves} times since {flap.since:%Y-%m-%d} and is back where it was: {shown}",
        (rules.BACK_AND_FORTH,),
        flap.snapshot_before,
        flap.snapshot_after,
    )


def find_shown(
    followed: Followed[T], label: Callable[[T], str], what: str
) -> tuple[list[tuple[Track[T], Move[bool]]], list[Draft]]:
    """Items that came or went for real, and one note for all those of the page that come and go."""
    moves, flaps = [], []
    for track in followed.tracks:
        series = [(s, item is not None) for s, item in zip(followed.snapshots, track.seen, strict=True)]
        # Not being there before it first came is no value to go back to, except for what came and went in the week.
        first = next(i for i, (_, shown) in enumerate(series) if shown)
        found = find_move(series[min(first, followed.baseline) :], followed.week.start)
        if isinstance(found, Flap):
            flaps.append((label(track.newest), found))
        elif found is not None:
            moves.append((track, found))
    flaps.sort(key=lambda pair: pair[0])
    return moves, _one_note(flaps, what)


def _one_note(flaps: list[tuple[str, Flap[bool]]], what: str) -> list[Draft]:
    if not flaps:
        return []

    def show(shown: bool) -> str:
        return "shown" if shown else "not shown"

    if len(flaps) == 1:
        return [draft_flapping(*flaps[0], show, f"the {what}")]
    most = max((flap for _, flap in flaps), key=lambda flap: (flap.moves, flap.snapshot_before.fetched_at))
    draft = draft_flapping(f"{len(flaps)} {what}s", most, show, f"one of {len(flaps)} {what}s that come and go")
    away = lines_of(name for name, flap in flaps if not flap.runs[-1])
    return [replace(draft, before=away, after=lines_of(name for name, flap in flaps if flap.runs[-1]))]


def lines_of(texts: Iterable[str]) -> str | None:
    """The texts, one a line; None when there are none."""
    return "\n".join(texts) or None
