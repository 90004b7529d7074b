"""The gate's statistics against published worked examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.gate.statistics import (
    Interval,
    mcnemar_exact,
    needed_samples,
    paired_bootstrap,
    score_interval,
    unseen_margin,
    verdict,
    widen,
)

# Published examples, as pairs on which only the first and only the second is a success, of n.
# Fagerland, Lydersen and Laake: Statistical Analysis of Contingency Tables (2017), chapter 8; the first two also in
# their Statistics in Medicine 33:2850-2875 (2014). Airway hyper-responsiveness before and after stem cell
# transplantation (Bentur et al. 2009); complete response before and after consolidation therapy (Cavo et al. 2012).
BENTUR, CAVO = (1, 7, 21), (6, 16, 161)
# Agresti: Categorical Data Analysis, section 10.1: approval of a prime minister in two surveys.
AGRESTI = (150, 86, 1600)
# Armitage and Berry: Statistical Methods in Medical Research (1994), page 127: two media for cultures.
ARMITAGE = (12, 2, 50)


@pytest.mark.parametrize(
    ("example", "p"), [(BENTUR, 0.0703), (CAVO, 0.052479), (ARMITAGE, 0.0129), (AGRESTI, 3.716e-5)]
)
def test_mcnemar_exact_as_published(example, p):
    first, second, _ = example
    assert mcnemar_exact(first, second) == pytest.approx(p, rel=0.005)
    assert mcnemar_exact(second, first) == mcnemar_exact(first, second)


def test_mcnemar_without_differences():
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(3, 3) == 1
    with pytest.raises(ValueError, match="no counts"):
        mcnemar_exact(-1, 3)


@pytest.mark.parametrize(
    ("example", "low", "high", "digits"),
    [
        (BENTUR, -0.517, -0.026, 3),  # first share minus second
        (CAVO, -0.1240, -0.0054, 4),
        (AGRESTI, 0.021, 0.059, 3),  # Wald's in the book, the same to three digits at n = 1600
    ],
)
def test_score_interval_as_published(example, low, high, digits):
    first, second, n = example
    found = score_interval(second, first, n)
    assert (round(found.low, digits), round(found.high, digits)) == (low, high)


def test_score_interval_agrees_with_the_test_it_inverts():
    """0 is the end of the interval at that z at which McNemar's uncorrected statistic is just significant."""
    z = (16 - 6) / np.sqrt(16 + 6)
    assert score_interval(16, 6, 161, z=z).high == pytest.approx(0, abs=1e-9)
    # Cavo et al.: the uncorrected statistic is 2.132, P = 0.033 (the same book).
    assert z == pytest.approx(2.132, abs=5e-4)


def test_score_interval_at_the_edges():
    assert score_interval(21, 0, 21).low == -1
    assert score_interval(0, 21, 21).high == 1
    nothing = score_interval(0, 0, 456)
    assert (-nothing.low, nothing.high) == pytest.approx((unseen_margin(456),) * 2, abs=1e-9)
    assert unseen_margin(456) == pytest.approx(3.8415 / (456 + 3.8415), abs=1e-6)
    for impossible in ((3, 3, 5), (-1, 0, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="count again"):
            score_interval(*impossible)


@given(st.integers(1, 400), st.data())
def test_score_interval_holds_the_estimate_and_is_a_mirror(n, data):
    lost = data.draw(st.integers(0, n))
    gained = data.draw(st.integers(0, n - lost))
    low, high = score_interval(lost, gained, n)
    assert -1 <= low <= (gained - lost) / n + 1e-9
    assert (gained - lost) / n - 1e-9 <= high <= 1
    assert score_interval(gained, lost, n) == pytest.approx((-high, -low), abs=1e-7)


def accuracy_difference(sums):
    return (sums[:, 1] - sums[:, 0]) / sums[:, 2]


def pairs(lost, gained, n):
    rows = [[1, 0, 1]] * lost + [[0, 1, 1]] * gained + [[1, 1, 1]] * (n - lost - gained)
    return np.array(rows)


def test_bootstrap_of_a_difference_of_shares_is_near_the_score_interval():
    """For 1600 pairs both are the normal interval: Agresti's 0.021 to 0.059."""
    low, high = paired_bootstrap(pairs(86, 150, 1600), accuracy_difference)
    assert (low, high) == pytest.approx((0.021, 0.059), abs=0.0015)


def test_bootstrap_of_a_mean_has_the_classic_standard_error():
    """The bootstrap's standard error of a mean is known exactly: the root of the plug-in variance over n."""
    values = np.random.default_rng(3).integers(0, 40, 300)
    low, high = paired_bootstrap(
        np.column_stack([values, np.ones_like(values)]), lambda sums: sums[:, 0] / sums[:, 1], resamples=20_000
    )
    assert (high - low) / 2 / 1.96 == pytest.approx(values.std() / np.sqrt(300), rel=0.03)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.1)


def test_bootstrap_depends_on_the_seed_alone():
    rows = pairs(30, 20, 500)

    def tilted(sums):
        return accuracy_difference(sums) * (1 + sums[:, 0] / 7)  # many values, so that no two seeds meet in one

    first = paired_bootstrap(rows, tilted, seed=5)
    assert paired_bootstrap(rows[::-1], tilted, seed=5) == first
    assert paired_bootstrap(rows, tilted, seed=6) != first
    with pytest.raises(ValueError, match="no texts"):
        paired_bootstrap(rows[:0], accuracy_difference)


def test_bootstrap_covers_the_truth():
    """Of 200 samples from a world in which both are equally good, about 95 % of the intervals hold 0."""
    random = np.random.default_rng(11)
    hits = 0
    for _ in range(200):
        lost, gained, _ = random.multinomial(400, [0.06, 0.06, 0.88])
        low, high = paired_bootstrap(pairs(lost, gained, 400), accuracy_difference, resamples=1000)
        hits += low <= 0 <= high
    assert 181 <= hits <= 199


def test_an_interval_is_never_surer_than_its_number_of_texts():
    margin = unseen_margin(100)
    assert widen(Interval(0, 0), 0, 100, changed=0) == pytest.approx((-margin, margin))
    assert widen(Interval(-0.2, 0.3), 0.1, 1000, changed=3) == (-0.2, 0.3)
    assert widen(Interval(0.9, 1.0), 0.99, 10, changed=9) == pytest.approx((0.99 - unseen_margin(10), 1))
    # With ten texts that differ the bootstrap has seen enough.
    assert widen(Interval(-0.02, -0.01), -0.015, 100, changed=10) == (-0.02, -0.01)


@pytest.mark.parametrize(
    ("delta", "interval", "expected"),
    [
        (0.1, (-0.2, 0.4), "pass"),
        (-0.5, (-0.9, -0.1), "pass"),  # worse beyond doubt, yet within the budget beyond doubt
        (-0.5, (-1.0, 0.0), "inconclusive"),  # exactly the budget is not above it
        (-0.8, (-1.6, 0.1), "inconclusive"),
        (-0.8, (-1.5, -0.1), "inconclusive"),  # worse, and perhaps by more than the budget
        (-1.2, (-2.6, 0.2), "inconclusive"),  # an estimate over the budget that may be chance
        (-1.2, (-2.3, -0.1), "fail"),
        (-3.0, (-4.0, -2.0), "fail"),
    ],
)
def test_verdicts_against_a_budget_of_one_point(delta, interval, expected):
    assert verdict(delta, interval, 1.0) == expected


def test_a_negative_budget_is_refused():
    with pytest.raises(ValueError, match="allows nothing"):
        verdict(0, (0, 0), -1)


def test_needed_samples_match_the_textbook_formula():
    """n = (z_alpha + z_beta)² · (p_lost + p_gained − delta²) / (margin + delta)²: Liu et al. 2002, sample-based."""
    lost = gained = 30
    interval = score_interval(lost, gained, 1000)
    needed = needed_samples(0.0, interval, 1000, 0.01, flips=(lost, gained))
    assert needed == pytest.approx(
        (1.96 + 0.8416) ** 2 * 0.06 / 0.01**2, rel=0.04
    )  # ours rests on the restricted estimate
    without = needed_samples(0.0, interval, 1000, 0.01)
    assert without == pytest.approx(needed, rel=0.04)


def test_needed_samples_decide_four_times_in_five():
    random = np.random.default_rng(2)
    shares = [0.02, 0.018, 0.962]
    seen = score_interval(20, 18, 1000)
    needed = needed_samples(-0.002, seen, 1000, 0.01, flips=(20, 18))
    decided = 0
    for _ in range(300):
        lost, gained, _ = random.multinomial(needed, shares)
        decided += verdict((gained - lost) / needed, score_interval(lost, gained, needed), 0.01) == "pass"
    assert 0.73 <= decided / 300 <= 0.87


def test_needed_samples_for_a_loss_over_the_budget_count_towards_failing():
    interval = score_interval(40, 25, 1000)
    assert verdict(-0.015, interval, 0.01) == "inconclusive"
    needed = needed_samples(-0.015, interval, 1000, 0.01, flips=(40, 25))
    assert needed == pytest.approx((1.96 + 0.8416) ** 2 * 0.065 / 0.015**2, rel=0.05)


def test_no_number_of_texts_decides_a_loss_of_exactly_the_budget():
    interval = score_interval(20, 10, 1000)
    assert needed_samples(-0.01, interval, 1000, 0.01, flips=(20, 10)) is None


def test_without_differences_the_number_of_texts_alone_decides():
    needed = needed_samples(0.0, score_interval(0, 0, 100), 100, 0.003, flips=(0, 0))
    assert unseen_margin(needed, z=2.8016) < 0.003 <= unseen_margin(needed - 1, z=2.8016)
