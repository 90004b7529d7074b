"""Shares and how sure they are: the statistics behind review sentiment and share of voice.

Everything here is computed by statsmodels and scipy; this module chooses the methods and gives them one face.

- A share has a Wilson score interval (Wilson 1927).
- The difference of two independent shares has Newcombe's hybrid score interval (Newcombe 1998, Statistics in Medicine
  17:873-890, method 10). It stays inside −1 to 1 and is right for shares near 0 or 1 and for few cases, where the
  textbook interval is not.
- Whether two shares differ is Fisher's exact test, two-sided: it holds for any number of cases, and errs towards
  calling a difference chance.
- Many comparisons in one report are corrected together after Benjamini and Hochberg (1995): of all differences called
  shifts, at most the stated part is expected to be chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["CONFIDENCE", "Interval", "correct_for_many", "difference_interval", "difference_p", "share_interval"]

CONFIDENCE = 0.95
"""Of every interval."""

_DIGITS = 9  # the last digits of a double depend on the machine


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


def share_interval(cases: int, total: int) -> Interval:
    """The interval of the share ``cases`` of ``total``. Raises ValueError when that is no share."""
    from statsmodels.stats.proportion import proportion_confint

    _check(cases, total)
    low, high = proportion_confint(cases, total, alpha=1 - CONFIDENCE, method="wilson")
    return Interval(round(float(low), _DIGITS), round(float(high), _DIGITS))


def difference_interval(cases: int, total: int, cases_before: int, total_before: int) -> Interval:
    """The interval of ``cases / total`` minus ``cases_before / total_before``, from −1 to 1."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    _check(cases, total)
    _check(cases_before, total_before)
    low, high = confint_proportions_2indep(
        cases, total, cases_before, total_before, method="newcomb", compare="diff", alpha=1 - CONFIDENCE
    )
    return Interval(round(float(low), _DIGITS), round(float(high), _DIGITS))


def difference_p(cases: int, total: int, cases_before: int, total_before: int) -> float:
    """Probability of a difference at least this large when both shares are the same in truth."""
    from scipy.stats import fisher_exact

    _check(cases, total)
    _check(cases_before, total_before)
    table = [[cases, total - cases], [cases_before, total_before - cases_before]]
    return float(fisher_exact(table).pvalue)


def correct_for_many(values: Sequence[float]) -> list[float]:
    """The q value of each p value: the smallest rate of false discoveries at which it would still count."""
    from statsmodels.stats.multitest import multipletests

    if not values:
        return []
    return [round(float(q), _DIGITS) for q in multipletests(list(values), method="fdr_bh")[1]]


def _check(cases: int, total: int) -> None:
    if not 0 <= cases <= total or total == 0:
        raise ValueError(f"{cases} of {total} is not a share; count again")
