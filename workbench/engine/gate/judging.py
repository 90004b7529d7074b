"""Answers of two engines to a verdict. Pure: no files, no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.engine.gate.result import METRICS, Flips, GateResult, Metric, Slice
from workbench.engine.gate.statistics import (
    Interval,
    mcnemar_exact,
    needed_samples,
    paired_bootstrap,
    score_interval,
    verdict,
    widen,
)
from workbench.errors import ParameterError

__all__ = ["judge"]

_SEED: Final = 20261122
_DIGITS: Final = 6

Counts = NDArray[np.int64]


def judge(
    task: str,
    gold: Sequence[Any],
    reference: Sequence[Any],
    candidate: Sequence[Any],
    *,
    budget: float,
    slices: Mapping[str, Sequence[str]] | None = None,
    metric: Metric | None = None,
    data_sha256: str = "",
) -> GateResult:
    """Compare the answers of ``candidate`` with those of ``reference`` (FP32) and with the truth.

    One entry for each text. sentiment: a label; topics: labels; entities: (start, end, label) triples; None where an
    engine gave no answer, which is wrong. ``budget`` in points. ``slices`` names the parts: "language" to one value
    for each text. Slices by label are added.

    Metrics: accuracy (of topics: the whole set right); macro F1, the mean over the labels that are there; entity F1
    over whole spans, start, end and type, of the types that are there. A type the set does not annotate counts
    neither for nor against anybody. Raises ParameterError when the lengths differ, nothing is there, or the metric is
    not the task's.
    """
    if task not in METRICS:
        raise ParameterError(f"No task is named {task!r}. Tasks: {', '.join(METRICS)}")
    chosen = metric or METRICS[task][0]
    if chosen not in METRICS[task]:
        raise ParameterError(f"{task} cannot be judged by {chosen}. Use one of: {', '.join(METRICS[task])}")
    if not len(gold) == len(reference) == len(candidate) or not len(gold):
        raise ParameterError(
            f"{len(gold)} labels, {len(reference)} and {len(candidate)} answers do not belong together. Read the "
            "same texts with both engines."
        )
    truth = [_as_set(task, item) for item in gold]
    labels = sorted({_label(item) for items in truth for item in items})
    old = [_known(_as_set(task, item), labels, task) for item in reference]
    new = [_known(_as_set(task, item), labels, task) for item in candidate]
    right_old = np.array([a == b for a, b in zip(truth, old, strict=True)])
    right_new = np.array([a == b for a, b in zip(truth, new, strict=True)])
    table = np.hstack([_counts(truth, old, labels), _counts(truth, new, labels)])
    n = len(truth)
    lost, gained = int((right_old & ~right_new).sum()), int((~right_old & right_new).sum())
    measured = _Measure(chosen, len(labels))
    ones = np.ones(n, np.int64)
    rows = np.column_stack([right_old, right_new, ones]).astype(np.int64) if chosen == "accuracy" else table
    before, after = measured(rows.sum(axis=0)[None])
    delta = float(after[0] - before[0])
    drawn = paired_bootstrap(rows, measured.difference, seed=_SEED)
    changed = sum(a != b for a, b in zip(old, new, strict=True))
    shares = chosen == "accuracy"
    interval = score_interval(lost, gained, n) if shares else widen(drawn, delta, n, changed=changed)
    decided = verdict(delta, interval, budget / 100)
    needed = None
    if decided == "inconclusive":
        flips = (lost, gained) if shares else None
        needed = needed_samples(delta, drawn, n, budget / 100, flips=flips, changed=changed)
    return GateResult(
        task=task,
        metric=chosen,
        n=n,
        reference=_points(before[0]),
        candidate=_points(after[0]),
        delta=_points(delta),
        interval=_both(interval),
        bootstrap=_both(drawn),
        flips=Flips(changed, _points(changed / n)),
        lost=lost,
        gained=gained,
        mcnemar_p=mcnemar_exact(lost, gained),
        budget=budget,
        verdict=decided,
        needed=needed,
        data_sha256=data_sha256,
        slices={
            **_parts(slices or {}, rows, measured),
            **_by_label(task, labels, truth, table, right_old, right_new),
        },
    )


class _Measure:
    """A metric of both engines from sums of what each text adds."""

    def __init__(self, metric: Metric, labels: int) -> None:
        self.metric = metric
        self.labels = labels

    def __call__(self, sums: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares of reference and candidate, [m] each, from ``sums`` [m, k].

        k for accuracy: right by the reference, right by the candidate, texts. For F1, of both engines: hits, wrong
        and missed of each label.
        """
        if self.metric == "accuracy":
            return sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]
        half = sums.reshape(len(sums), 2, self.labels, 3)
        if self.metric == "entity_f1":
            half = half.sum(axis=2, keepdims=True)
        hits, wrong, missed = half[..., 0], half[..., 1], half[..., 2]
        size = 2 * hits + wrong + missed
        f1 = np.divide(2 * hits, size, out=np.zeros(size.shape), where=size > 0)
        there = hits + missed > 0  # the same for both engines, for the truth is
        mean = (f1 * there).sum(axis=2) / np.maximum(there.sum(axis=2), 1)
        return mean[:, 0], mean[:, 1]

    def difference(self, sums: Counts) -> NDArray[np.float64]:
        """Candidate minus reference."""
        before, after = self(sums)
        return np.asarray(after - before)

    def slice(self, rows: Counts) -> Slice:
        """Both engines on some texts."""
        before, after = self(rows.sum(axis=0)[None])
        return _slice(len(rows), float(before[0]), float(after[0]))


def _parts(slices: Mapping[str, Sequence[str]], rows: Counts, measured: _Measure) -> dict[str, Slice]:
    found = {}
    for name, values in slices.items():
        if len(values) != len(rows):
            raise ParameterError(
                f"The slice {name} has {len(values)} values for {len(rows)} texts. Give one for each."
            )
        for value in sorted(set(values)):
            found[f"{name}={value}"] = measured.slice(rows[np.array([item == value for item in values])])
    return found


def _by_label(
    task: str,
    labels: Sequence[str],
    truth: Sequence[frozenset[Any]],
    table: Counts,
    right_old: NDArray[np.bool_],
    right_new: NDArray[np.bool_],
) -> dict[str, Slice]:
    """Of a text's one label, how often it is found (recall); of topics and entity types their F1."""
    found = {}
    for place, label in enumerate(labels):
        if task == "sentiment":
            own = np.array([label in items for items in truth])
            found[f"label={label}"] = _slice(
                int(own.sum()), float(right_old[own].mean()), float(right_new[own].mean())
            )
            continue
        sums = table.sum(axis=0).reshape(2, len(labels), 3)[:, place]
        (before, after) = (2 * hits / max(2 * hits + wrong + missed, 1) for hits, wrong, missed in sums.tolist())
        found[f"label={label}"] = _slice(int(sums[0][0] + sums[0][2]), before, after)
    return found


def _counts(truth: Sequence[frozenset[Any]], answers: Sequence[frozenset[Any]], labels: Sequence[str]) -> Counts:
    """Hits, wrong and missed of each label, [texts, labels * 3]."""
    place = {label: 3 * index for index, label in enumerate(labels)}
    table = np.zeros((len(truth), 3 * len(labels)), np.int64)
    for row, there, given in zip(table, truth, answers, strict=True):
        for items, column in ((there & given, 0), (given - there, 1), (there - given, 2)):
            for item in items:
                if (at := place.get(_label(item))) is not None:
                    row[at + column] += 1
    return table


def _as_set(task: str, item: Any) -> frozenset[Any]:
    if item is None:
        return frozenset()
    if task == "sentiment":
        return frozenset([item])
    if task == "topics":
        return frozenset(item)
    return frozenset((start, end, label) for start, end, label, *_ in item)


def _known(items: frozenset[Any], labels: Iterable[str], task: str) -> frozenset[Any]:
    """Without entities of types the set does not annotate."""
    return frozenset(item for item in items if item[2] in labels) if task == "entities" else items


def _label(item: Any) -> str:
    return item if isinstance(item, str) else str(item[2])


def _slice(n: int, before: float, after: float) -> Slice:
    return Slice(n, _points(before), _points(after), _points(after - before))


def _points(share: float) -> float:
    return round(100 * float(share), _DIGITS)


def _both(interval: Interval) -> tuple[float, float]:
    return _points(interval.low), _points(interval.high)
