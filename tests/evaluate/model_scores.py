"""What a model is scored by: accuracy, calibration error, F1, confusion. Numbers in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.insight.proportions import share_interval

__all__ = [
    "Accuracy",
    "Counts",
    "accuracy",
    "calibration_error",
    "confusion",
    "count_labels",
    "count_spans",
    "f1_interval",
    "macro_f1",
    "pairs_of_labels",
]

Span = tuple[int, int, str]
"""Start, end (exclusive), label."""

BINS = 15
"""Of the calibration error, as Guo et al. 2017 have it."""


@dataclass(frozen=True)
class Accuracy:
    """Right answers of ``n``, with the Wilson interval at 95 %."""

    right: int
    n: int

    @property
    def share(self) -> float:
        """Right answers, as a share."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return share_interval(self.right, self.n)


def accuracy(gold: Sequence[str], answers: Sequence[str | None]) -> Accuracy:
    """How many answers are right; none is wrong. Raises ValueError for no texts."""
    if not gold:
        raise ValueError("no texts: nothing can be measured")
    return Accuracy(sum(a == b for a, b in zip(gold, answers, strict=True)), len(gold))


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = BINS) -> float:
    """Expected calibration error: mean over texts of |share right − mean confidence| of the text's bin.

    ``confidence`` [N], the probability of the answer that was given; ``right`` [N]. Bins are of equal width, open
    below: (0, 1/15], (1/15, 2/15], … (Guo, Pleiss, Sun and Weinberger 2017). Not a number for no texts.
    """
    confidence = np.asarray(confidence, np.float64)
    if not len(confidence):
        return float("nan")
    edges = np.arange(1, bins + 1) / bins
    # Probabilities are float32: 1/3 as such lies a little above 1/3 and belongs to the bin that ends there.
    place = np.minimum(np.searchsorted(edges + 1e-7, confidence), bins - 1)
    gap = np.abs(np.bincount(place, right - confidence, minlength=bins))
    return float(gap.sum() / len(confidence))


def confusion(gold: Iterable[str], answers: Iterable[str | None], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts by gold label, then by answer; "none" where there was no answer."""
    counts = Counter(zip(gold, answers, strict=True))
    columns: list[str | None] = [*names, *([None] if any(answer is None for _, answer in counts) else [])]
    return {row: {column or "none": counts[row, column] for column in columns} for row in names}


@dataclass(frozen=True)
class Counts:
    """Of one label: found and right, found and wrong, missed."""

    hits: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hits + other.hits, self.wrong + other.wrong, self.missed + other.missed)

    @property
    def precision(self) -> float:
        """Share of what was found that is right; 0 when nothing was found."""
        return self.hits / (self.hits + self.wrong) if self.hits + self.wrong else 0.0

    @property
    def recall(self) -> float:
        """Share of what is there that was found; 0 when nothing is there."""
        return self.hits / (self.hits + self.missed) if self.hits + self.missed else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        total = 2 * self.hits + self.wrong + self.missed
        return 2 * self.hits / total if total else 0.0

    @property
    def there(self) -> int:
        """How often the label is in the gold."""
        return self.hits + self.missed


def count_labels(gold: Iterable[str], found: Iterable[str], names: Sequence[str]) -> dict[str, Counts]:
    """One text's counts by label, for texts with any number of labels."""
    is_there, is_found = set(gold), set(found)
    return {
        name: Counts(
            int(name in is_there and name in is_found),
            int(name not in is_there and name in is_found),
            int(name in is_there and name not in is_found),
        )
        for name in names
    }


def pairs_of_labels(
    gold: Iterable[Iterable[str]], found: Iterable[Iterable[str]], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """How many texts have the row's label in the gold and the column's among those found.

    A text with several labels counts in several cells: this is a table of co-occurrence, not a partition.
    """
    table = {row: dict.fromkeys(names, 0) for row in names}
    for there, answers in zip(gold, found, strict=True):
        for row in set(there):
            for column in set(answers):
                table[row][column] += 1
    return table


def count_spans(gold: Iterable[Span], found: Iterable[Span], types: Sequence[str]) -> dict[str, Counts]:
    """One text's counts by type: a span is right when start, end and label are. Other types are left out."""
    counts = {}
    is_there, is_found = set(gold), set(found)
    for name in types:
        there = {span for span in is_there if span[2] == name}
        answers = {span for span in is_found if span[2] == name}
        counts[name] = Counts(len(there & answers), len(answers - there), len(there - answers))
    return counts


def macro_f1(counts: Mapping[str, Counts]) -> float:
    """Mean F1 of the labels that are there at least once."""
    present = [each.f1 for each in counts.values() if each.there]
    return float(np.mean(present)) if present else 0.0


def f1_interval(by_text: Sequence[Counts], *, rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of micro F1, by drawing whole texts again: words of a text are not independent."""
    table = np.array([[each.hits, each.wrong, each.missed] for each in by_text], np.int64).reshape(-1, 3)
    # A text without spans changes no F1 but counts in the draw; drawing counts for each text is the same and cheap.
    draws = np.random.default_rng(seed).multinomial(len(table), np.full(len(table), 1 / len(table)), size=rounds)
    hits, wrong, missed = (draws @ table).T
    total = 2 * hits + wrong + missed
    values = np.divide(2 * hits, total, out=np.zeros(rounds), where=total > 0)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
