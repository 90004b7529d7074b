"""Moves and flapping of one value."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insight_world import WEEK

from workbench.insight.observations import Snapshot
from workbench.insight.series import Flap, Move, find_move


def _series(earlier: str, inside: str) -> list[tuple[Snapshot, str]]:
    """One letter a snapshot: weeks before the week, hours inside it."""
    times = [WEEK.start - timedelta(days=len(earlier) - i) for i in range(len(earlier))]
    times += [WEEK.start + timedelta(hours=i) for i in range(len(inside))]
    return [
        (Snapshot(f"{at}", "c", "s", "u", at, "product", "", 200, "x", True, (), (), ()), value)
        for at, value in zip(times, earlier + inside, strict=True)
    ]


@pytest.mark.parametrize(
    ("earlier", "inside", "expected"),
    [
        ("A", "A", None),
        ("A", "", None),
        ("", "AB", None),
        ("A", "B", ("A", "B", 1)),
        ("A", "BB", ("A", "B", 2)),
        ("AB", "BB", None),  # moved last week, told then
        ("ABA", "AA", None),  # flapped before, told then
        ("AB", "A", "ABA"),
        ("A", "BA", "ABA"),
        ("ABA", "B", "ABAB"),
        ("AB", "C", ("B", "C", 1)),
        ("ABAB", "C", ("B", "C", 1)),  # flapping never hides a new value
        ("A", "BAC", ("A", "C", 1)),
        ("A", "BCB", ("A", "B", 1)),  # new this week, though C came between
        ("ABC", "B", "ABCB"),
    ],
)
def test_moves_and_flaps(earlier: str, inside: str, expected: object) -> None:
    found = find_move(_series(earlier, inside), WEEK.start)
    if isinstance(expected, str):
        assert isinstance(found, Flap)
        assert "".join(found.runs) == expected
        assert found.moves == len(expected) - 1
    elif expected is None:
        assert found is None
    else:
        assert isinstance(found, Move)
        assert (found.before, found.after, found.confirmed) == expected


_VALUES = st.text(alphabet="ABC", max_size=6)


@given(_VALUES, _VALUES)
def test_what_a_result_says_is_so(earlier: str, inside: str) -> None:
    found = find_move(_series(earlier, inside), WEEK.start)
    if isinstance(found, Move):
        assert found.before == earlier[-1] != found.after == inside[-1]
        assert found.after not in earlier
    elif isinstance(found, Flap):
        assert inside[-1] in earlier
        assert set(earlier[-1] + inside) != {inside[-1]}
        assert found.runs[-1] == inside[-1] != found.runs[-2]
    elif earlier and inside:
        assert set(earlier[-1] + inside) == {inside[-1]}
