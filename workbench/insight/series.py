"""One value through the snapshots of a page: did it move this week, or does it go back and forth?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from workbench.insight.matching import Match
from workbench.insight.observations import Snapshot

__all__ = ["Flap", "Move", "Track", "build_tracks", "find_move"]

T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True)
class Move(Generic[V]):
    """A value before the week and another one at its end, not seen earlier in the window."""

    before: V
    after: V
    snapshot_before: Snapshot
    snapshot_after: Snapshot
    confirmed: int
    """Snapshots of the week, counted back from the last, that show ``after``."""


@dataclass(frozen=True)
class Flap(Generic[V]):
    """A value that came back: the runs of equal values in time order, the last of them seen before."""

    runs: tuple[V, ...]
    snapshot_before: Snapshot
    """The last one that shows the other value."""
    snapshot_after: Snapshot
    since: datetime

    @property
    def moves(self) -> int:
        """How often the value changed in the window."""
        return len(self.runs) - 1


def find_move(series: Sequence[tuple[Snapshot, V]], week_start: datetime) -> Move[V] | Flap[V] | None:
    """What happened in the week that starts at ``week_start``, given a value at each snapshot in time order.

    A ``Flap`` when the last value was there before the week began and another value since then; a ``Move`` when the
    last value is new; None when nothing moved in the week, or when there is nothing before or in it to compare.
    A new value is always a ``Move``, however often the value went back and forth before.
    """
    before = [pair for pair in series if pair[0].fetched_at < week_start]
    inside = [pair for pair in series if pair[0].fetched_at >= week_start]
    if not before or not inside:
        return None
    last_snapshot, last = inside[-1]
    if all(value == last for _, value in [before[-1], *inside]):
        return None
    if any(value == last for _, value in before):
        runs = [before[0]]
        for pair in [*before[1:], *inside]:
            if pair[1] != runs[-1][1]:
                runs.append(pair)
        other = next(snapshot for snapshot, value in reversed(series) if value != last)
        return Flap(tuple(value for _, value in runs), other, last_snapshot, series[0][0].fetched_at)
    confirmed = 0
    for _, value in reversed(inside):
        if value != last:
            break
        confirmed += 1
    return Move(before[-1][1], last, before[-1][0], last_snapshot, confirmed)


@dataclass(frozen=True)
class Track(Generic[T]):
    """One product, tier or claim through the snapshots of a page.

    ``seen`` runs parallel to the page's snapshots, None where the item was not on the page. ``match`` says how the
    item before the week and the one at its end were recognised as the same; None when it is missing in either.
    """

    seen: tuple[T | None, ...]
    match: Match | None

    @property
    def newest(self) -> T:
        """The item as last seen."""
        return next(item for item in reversed(self.seen) if item is not None)


def build_tracks(
    snapshots: Sequence[Sequence[T]],
    matcher: Callable[[Sequence[T], Sequence[T]], list[Match]],
    *,
    baseline: int | None,
) -> list[Track[T]]:
    """Follow every item of the last snapshot, of the baseline and of those between through all ``snapshots``.

    ``snapshots`` are lists of items in time order; ``baseline`` is the index of the one the last is compared with
    (None: there is none). The two are matched with each other first, then the ones between from the newest back, then
    the ones before. Items seen only before the baseline are not followed: they left before this week.
    """
    last = len(snapshots) - 1
    seen: list[dict[int, T]] = [{last: item} for item in snapshots[last]]
    direct: dict[int, Match] = {}
    between = range(last - 1, -1 if baseline is None else baseline, -1)
    order = [*([] if baseline is None else [baseline]), *between, *range((baseline or 0) - 1, -1, -1)]
    for index in order:
        known = [_nearest(track, index) for track in seen]
        matches = {match.before: match for match in matcher(snapshots[index], known)}
        for position, item in enumerate(snapshots[index]):
            if (match := matches.get(position)) is not None:
                seen[match.after][index] = item
                if index == baseline:
                    direct[match.after] = match
            elif baseline is None or index >= baseline:
                seen.append({index: item})
    return [
        Track(tuple(track.get(index) for index in range(len(snapshots))), direct.get(number))
        for number, track in enumerate(seen)
    ]


def _nearest(track: dict[int, T], index: int) -> T:
    """The item as seen next after ``index``, else as seen last before it."""
    later = [i for i in track if i > index]
    return track[min(later) if later else max(track)]
