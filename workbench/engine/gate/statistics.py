"""The statistics behind a verdict: two engines, the same texts.

Everything is paired: both engines read the same texts, so only the texts on which they differ carry information.

- ``mcnemar_exact``: McNemar's test (1947) in its exact conditional form, as statsmodels computes it.
- ``score_interval``: Tango's score interval for the difference of two paired shares (Tango 1998, Statistics in
  Medicine 17:891-908). It inverts the test whose form for non-inferiority Liu, Hsueh, Hsieh and Chen (2002,
  Statistics in Medicine 21:231-245) recommend over Wald's: "the lower end lies above minus the margin" is that test.
  Where nothing differs it is still as wide as the number of texts demands, while a bootstrap would then be [0, 0].
- ``paired_bootstrap``: percentile interval (Efron and Tibshirani 1993, chapter 13) for metrics that are no share,
  such as F1: whole texts are drawn again, for the words of one text are not independent.
- ``verdict``: pass, fail or inconclusive against a budget; ``needed_samples``: how many texts would decide.

Shares, differences, intervals and budgets are in points (hundredths) wherever a person sees them; the functions here
take and give shares between 0 and 1, or -1 and 1, unless their names say points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "Interval",
    "Verdict",
    "mcnemar_exact",
    "needed_samples",
    "paired_bootstrap",
    "score_interval",
    "unseen_margin",
    "verdict",
    "widen",
]

Verdict = Literal["pass", "fail", "inconclusive", "unmeasured"]

CONFIDENCE: Final = 0.95
"""Of every interval, two-sided."""

RESAMPLES: Final = 10_000
POWER: Final = 0.8
"""The chance ``needed_samples`` allows for: with so many texts, four new sets in five would decide."""

_Z: Final = 1.959963984540054  # normal quantile of 0.975
_Z_POWER: Final = 0.8416212335729143  # normal quantile of 0.8
_MOST: Final = 10_000_000  # texts nobody will label
_FEW: Final = 10  # changed texts below which a bootstrap is not trusted alone
_BLOCK: Final = 4_000_000  # counts drawn at a time: 32 MB


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: ``lost`` texts only the reference has right, ``gained`` only the other."""
    from statsmodels.stats.contingency_tables import mcnemar

    if lost < 0 or gained < 0:
        raise ValueError(f"{lost} lost and {gained} gained are no counts")
    if lost + gained == 0:
        return 1.0
    return min(1.0, float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue))


def score_interval(lost: float, gained: float, n: float, *, z: float = _Z) -> Interval:
    """Tango's interval for (``gained`` - ``lost``) / ``n``.

    The counts may be fractions: ``needed_samples`` asks for sets that do not exist yet. Raises ValueError when there
    are more differences than texts.
    """
    from scipy.optimize import brentq

    if n <= 0 or lost < 0 or gained < 0 or lost + gained > n * (1 + 1e-12):
        raise ValueError(f"{lost} lost and {gained} gained of {n} texts is impossible; count again")
    estimate = (gained - lost) / n

    def statistic(delta: float) -> float:
        """The score statistic of the hypothesis that the difference is ``delta``; 0 at the estimate."""
        # The maximum-likelihood share of "lost" given delta: the larger root of a quadratic (Tango 1998, eq. 5).
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        if variance <= 0:
            return 0.0 if gained - lost == n * delta else math.copysign(math.inf, gained - lost - n * delta)
        return (gained - lost - n * delta) / math.sqrt(variance)

    edge = 1 - 1e-12
    low = -1.0 if estimate <= -edge or statistic(-edge) < z else brentq(lambda d: statistic(d) - z, -edge, estimate)
    high = 1.0 if estimate >= edge or statistic(edge) > -z else brentq(lambda d: statistic(d) + z, estimate, edge)
    return Interval(float(low), float(high))


def unseen_margin(n: float, *, z: float = _Z) -> float:
    """What ``n`` texts without any difference leave open: half the width of Tango's interval for 0 of ``n``."""
    return z * z / (n + z * z)


def paired_bootstrap(
    counts: NDArray[np.integer],
    difference: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a difference between two engines, by drawing texts again.

    ``counts`` [texts, k] is what each text adds to both engines' metrics; ``difference`` takes sums of rows [m, k]
    and gives the metric's difference [m]. The same seed gives the same interval, whatever the order of the texts.
    """
    if len(counts) == 0:
        raise ValueError("no texts: nothing can be drawn")
    # Texts with equal counts are the same to a draw, and most are equal: drawing how many of each kind come is the
    # same lottery, in a fraction of the time.
    kinds, sizes = np.unique(np.asarray(counts, np.int64), axis=0, return_counts=True)
    shares = sizes / sizes.sum()
    random = np.random.default_rng(seed)
    step = max(1, _BLOCK // len(kinds))
    values = np.concatenate(
        [
            difference(random.multinomial(len(counts), shares, size=min(step, resamples - done)) @ kinds)
            for done in range(0, resamples, step)
        ]
    )
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def widen(interval: Interval, estimate: float, n: int, *, changed: int) -> Interval:
    """``interval``, at least as wide as ``unseen_margin`` where fewer than ten of the ``n`` texts ``changed``.

    A bootstrap knows only differences that were seen; with few of them it is too sure of itself.
    """
    margin = unseen_margin(n) if changed < _FEW else 0.0
    return Interval(max(-1.0, min(interval.low, estimate - margin)), min(1.0, max(interval.high, estimate + margin)))


def verdict(delta: float, interval: tuple[float, float], budget: float) -> Verdict:
    """Non-inferiority against ``budget`` (all three in the same unit; a positive budget allows a loss).

    - pass: the interval's lower end lies above -budget. At most one engine in forty that costs more than the budget
      passes.
    - fail: the estimate lies below -budget, and the engine is worse beyond doubt: the interval's upper end lies below
      0. An interval that lies below -budget as a whole is the clearest case.
    - inconclusive: neither; more texts are needed.
    """
    if budget < 0:
        raise ValueError(f"a budget of {budget} allows nothing; give 0 or more")
    if interval[0] > -budget:
        return "pass"
    if delta < -budget and interval[1] < 0:
        return "fail"
    return "inconclusive"


def needed_samples(
    delta: float,
    interval: Interval,
    n: int,
    budget: float,
    *,
    flips: tuple[int, int] | None = None,
    changed: int = _FEW,
) -> int | None:
    """How many texts like these ``n`` would decide, with a chance of 80 %, were the rates seen here the true ones.

    ``delta``, ``interval`` and ``budget`` are shares. With ``flips`` (lost, gained) Tango's interval is asked;
    without, ``interval`` is a plain bootstrap's, taken to shrink with the root of n, of a set in which ``changed``
    texts differ. None where no number below ten million would do.
    """
    z = _Z + _Z_POWER

    def decides(texts: float) -> bool:
        if flips is not None:
            low, high = score_interval(flips[0] * texts / n, flips[1] * texts / n, texts, z=z)
        else:
            shrink = math.sqrt(n / texts) * z / _Z
            margin = unseen_margin(texts, z=z) if changed * texts / n < _FEW else 0.0
            low = delta - max((delta - interval.low) * shrink, margin)
            high = delta + max((interval.high - delta) * shrink, margin)
        return verdict(delta, (low, high), budget) != "inconclusive"

    if not decides(_MOST):
        return None
    low, high = 1, _MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle + 1, high)
    return low
