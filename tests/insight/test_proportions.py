"""Intervals, tests and their correction against published numbers."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.insight.proportions import correct_for_many, difference_interval, difference_p, share_interval

# Newcombe (1998), Statistics in Medicine 17:873-890, table II, method 10.
NEWCOMBE = [
    ((56, 70, 48, 80), (0.0524, 0.3339)),
    ((9, 10, 3, 10), (0.1705, 0.8090)),
    ((6, 7, 2, 7), (0.0582, 0.8062)),
    ((5, 56, 0, 29), (-0.0381, 0.1926)),
    ((0, 10, 0, 20), (-0.1611, 0.2775)),
    ((0, 10, 0, 10), (-0.2775, 0.2775)),
    ((10, 10, 0, 20), (0.6791, 1.0)),
    ((10, 10, 0, 10), (0.6075, 1.0)),
]


@pytest.mark.parametrize(("counts", "expected"), NEWCOMBE)
def test_differences_are_newcombes(counts: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    assert difference_interval(*counts) == pytest.approx(expected, abs=5e-5)


# Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("cases", "total", "expected"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_shares_are_wilsons(cases: int, total: int, expected: tuple[float, float]) -> None:
    assert share_interval(cases, total) == pytest.approx(expected, abs=5e-5)


def test_the_test_is_fishers() -> None:
    # The lady tasting tea: three of four cups right; Fisher's own example, one-sided 0.243, two-sided 0.486.
    assert difference_p(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert difference_p(4, 4, 0, 4) == pytest.approx(2 / 70)


def test_the_correction_is_benjamini_and_hochbergs() -> None:
    # Benjamini and Hochberg (1995), Journal of the Royal Statistical Society B 57:289-300, the thrombolysis example:
    # at 0.05 the four smallest of the fifteen are rejected.
    p = [
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
        *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0),
    ]
    q = correct_for_many(p)
    assert [value < 0.05 for value in q] == [True] * 4 + [False] * 11
    assert q[0] == pytest.approx(0.0015)
    assert q[3] == pytest.approx(0.0095 * 15 / 4)
    assert correct_for_many([]) == []


COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, COUNTS)
def test_an_interval_holds_its_estimate_and_turns_with_its_sides(a: tuple[int, int], b: tuple[int, int]) -> None:
    low, high = difference_interval(*a, *b)
    delta = a[0] / a[1] - b[0] / b[1]
    assert -1 <= low <= delta + 1e-8
    assert delta - 1e-8 <= high <= 1
    turned = difference_interval(*b, *a)
    assert (-turned.high, -turned.low) == pytest.approx((low, high), abs=1e-8)
    assert 0 <= difference_p(*a, *b) <= 1 + 1e-9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_is_never_below_p_and_keeps_the_order(p: list[float]) -> None:
    q = correct_for_many(p)
    assert all(b >= a - 1e-8 and b <= 1 for a, b in zip(p, q, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert all(q[i] <= q[j] + 1e-8 for i, j in itertools.pairwise(order))


@pytest.mark.parametrize(("cases", "total"), [(1, 0), (-1, 3), (4, 3)])
def test_what_is_no_share_is_refused(cases: int, total: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        share_interval(cases, total)
    with pytest.raises(ValueError, match="is not a share"):
        difference_p(cases, total, 1, 2)


def test_intervals_are_numbers() -> None:
    assert all(math.isfinite(value) for value in (*share_interval(1, 1), *difference_interval(0, 1, 1, 1)))
