"""Temperatures and thresholds: what turns logits into probabilities and topics that can be taken at their word.

Fitted on rows the network did not see in training, as ``held_out_rows`` chooses them: the sets' dev parts and a share
of the project's own calibration texts that training leaves out.

- Sentiment: one temperature for each language, the one that gives the held-out labels the highest likelihood (Guo et
  al. 2017, On Calibration of Modern Neural Networks). In a set without neutral texts the probabilities of negative
  and positive are first divided by their sum: its labels say nothing of the third.
- Topics: one threshold for each topic, the one with the highest F1. Few examples move it little: the step away from
  0.5 is multiplied by p / (p + 20) for p texts that have the topic, and the result stays between 0.2 and 0.8. Labels
  that a word list gave take no part, nor do app reviews, whose one label does not say what else they talk about.

Quality is told by the expected calibration error: the mean distance, over 15 bins of equal width, between how sure
the network was and how often it was right, weighted by the texts in each bin.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from workbench.engine.training.sets import OWN_SETS, data_set
from workbench.errors import ParameterError
from workbench.tasks.labels import SENTIMENTS, TOPICS

if TYPE_CHECKING:
    from workbench.engine.training.batches import Arrays

__all__ = [
    "Calibration",
    "TemperatureFit",
    "ThresholdFit",
    "calibrate",
    "calibration_error",
    "draw_rows",
    "held_out_rows",
    "spread",
    "unseen_rows",
]

log = logging.getLogger(__name__)

_LEAST_TEXTS: Final = 50
"""Texts of a language below which it has no temperature of its own."""
_COLDEST, _HOTTEST = 0.25, 8.0
_FLOOR, _CEILING = 0.2, 0.8
_PRIOR_TEXTS: Final = 20
_BINS: Final = 15
_NEGATIVE, _POSITIVE = SENTIMENTS.index("negative"), SENTIMENTS.index("positive")


@dataclass(frozen=True)
class TemperatureFit:
    """One language: the temperature, and likelihood and calibration error at 1 and at it."""

    language: str
    texts: int
    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class ThresholdFit:
    """One topic: the threshold, and F1 at 0.5 and at it. ``best`` is the threshold before it was held back."""

    topic: str
    texts: int
    positives: int
    best: float
    threshold: float
    f1_before: float
    f1_after: float


@dataclass(frozen=True)
class Calibration:
    """How a bundle's logits are to be read; the default changes nothing.

    ``temperature`` is for languages without one in ``temperatures``. ``thresholds`` stand in the order of TOPICS. The
    fits say what each rests on.
    """

    temperature: float = 1.0
    temperatures: Mapping[str, float] = field(default_factory=dict)
    thresholds: tuple[float, ...] = (0.5,) * len(TOPICS)
    languages: tuple[TemperatureFit, ...] = ()
    topics: tuple[ThresholdFit, ...] = ()


def spread(strata: Sequence[Hashable], limit: int, *, seed: int) -> list[int]:
    """At most ``limit`` indices into ``strata``, in order, drawn at random but evenly from all strata.

    Every stratum gives the same number, the small ones all they have. The same arguments draw the same indices.
    """
    if len(strata) <= limit:
        return list(range(len(strata)))
    members: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    smallest_first = sorted(members.values(), key=len)
    for done, group in enumerate(smallest_first):
        take = min(len(group), (limit - len(chosen)) // (len(smallest_first) - done))
        chosen += random.choice(group, take, replace=False).tolist()
    return sorted(chosen)


def draw_rows(arrays: Arrays, rows: NDArray[np.int64], limit: int, *, seed: int = 7) -> NDArray[np.int64]:
    """At most ``limit`` of ``rows``, evenly from all sources."""
    return rows[spread(arrays.source[rows].tolist(), limit, seed=seed)]


def held_out_rows(arrays: Arrays, *, own_share: float = 0.25, seed: int = 7) -> NDArray[np.int64]:
    """Rows to calibrate by: all dev parts, and ``own_share`` of each of the project's own training parts.

    The same arguments give the same rows: leave them out of training with ``numpy.setdiff1d``, then calibrate.
    """
    parts = [arrays.where(split="dev")]
    for number, source in enumerate(name for name in OWN_SETS if name in arrays.sources):
        own = arrays.where(split="train", source=source)
        random = np.random.default_rng([seed, number])
        parts.append(random.choice(own, round(own_share * len(own)), replace=False))
    return np.sort(np.concatenate(parts))


def unseen_rows(arrays: Arrays, rows: NDArray[np.int64], trained: NDArray[np.int64]) -> NDArray[np.int64]:
    """``rows`` without those whose tokens are those of a trained text ("很好" is in every set).

    Raises ParameterError when a row itself was trained on.
    """
    both = np.intersect1d(rows, trained)
    if len(both):
        names = sorted({arrays.sources[source] for source in arrays.source[both]})
        raise ParameterError(
            f"{len(both)} of {len(rows)} rows to calibrate by were trained on ({', '.join(names)}); a network is "
            "surer of those than of anything else. Calibrate by held_out_rows(arrays) and leave them out of training."
        )
    seen = {arrays.ids[arrays.starts[row] : arrays.ends[row]].tobytes() for row in trained}
    fresh = np.array([arrays.ids[arrays.starts[row] : arrays.ends[row]].tobytes() not in seen for row in rows], bool)
    if not fresh.all():
        log.info("%d rows to calibrate by have the words of a trained text and are left out", int((~fresh).sum()))
    unseen: NDArray[np.int64] = rows[fresh]
    return unseen


def calibrate(predictions: Mapping[str, Any], arrays: Arrays, rows: NDArray[np.int64]) -> Calibration:
    """Fit temperatures and thresholds to logits (``sentiment`` [N, 3], ``topics`` [N, 8]) of ``rows``, held out.

    What too few rows say anything about keeps its default: temperature 1, threshold 0.5.
    """
    languages = np.array([data_set(arrays.sources[source]).language for source in arrays.source[rows]])
    weak = np.array([data_set(arrays.sources[source]).weak_topics for source in arrays.source[rows]], bool)
    labels, two_class = arrays.sentiment[rows].astype(np.int64), arrays.two_class[rows]
    known = labels >= 0
    fits = []
    for language in sorted(set(languages[known].tolist())):
        own = known & (languages == language)
        if own.sum() >= _LEAST_TEXTS:
            fits.append(_fit_temperature(language, predictions["sentiment"][own], labels[own], two_class[own]))
    topics = []
    for index, topic in enumerate(TOPICS):
        own = (arrays.topics[rows, index] >= 0) & ~weak
        topics.append(_fit_threshold(topic, predictions["topics"][own, index], arrays.topics[rows[own], index] == 1))
    # A language without a temperature of its own gets the middle of those that have one (of their logarithms).
    middle = float(np.exp(np.mean([np.log(fit.temperature) for fit in fits]))) if fits else 1.0
    return Calibration(
        temperature=round(middle, 3),
        temperatures={fit.language: fit.temperature for fit in fits},
        thresholds=tuple(fit.threshold for fit in topics),
        languages=tuple(fits),
        topics=tuple(topics),
    )


def calibration_error(sure: NDArray[np.floating[Any]], right: NDArray[np.bool_]) -> float:
    """Expected calibration error of answers given with probability ``sure`` [N], ``right`` or not."""
    bins = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
    error = 0.0
    for index in np.unique(bins):
        own = bins == index
        error += float(own.mean()) * abs(float(sure[own].mean()) - float(right[own].mean()))
    return error


def _probabilities(
    logits: NDArray[np.float32], two_class: NDArray[np.bool_], temperature: float
) -> NDArray[np.float64]:
    """[N, 3]; in rows of two-class sets neutral is 0 and the others are divided by their sum."""
    scaled = logits.astype(np.float64) / temperature
    scaled[two_class, SENTIMENTS.index("neutral")] = -np.inf
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _fit_temperature(
    language: str, logits: NDArray[np.float32], labels: NDArray[np.int64], two_class: NDArray[np.bool_]
) -> TemperatureFit:
    def nll(temperature: float) -> float:
        shares = _probabilities(logits, two_class, temperature)
        return float(-np.log(np.maximum(shares[np.arange(len(labels)), labels], 1e-12)).mean())

    def ece(temperature: float) -> float:
        shares = _probabilities(logits, two_class, temperature)
        return calibration_error(shares.max(axis=1), shares.argmax(axis=1) == labels)

    found = minimize_scalar(
        lambda logarithm: nll(float(np.exp(logarithm))), bounds=np.log([_COLDEST, _HOTTEST]), method="bounded"
    )
    temperature = round(float(np.exp(found.x)), 3)
    return TemperatureFit(language, len(labels), temperature, nll(1.0), nll(temperature), ece(1.0), ece(temperature))


def _fit_threshold(topic: str, logits: NDArray[np.float32], there: NDArray[np.bool_]) -> ThresholdFit:
    positives = int(there.sum())
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    before = _f1(probabilities >= 0.5, there)
    if positives == 0 or positives == len(there):
        return ThresholdFit(topic, len(there), positives, 0.5, 0.5, before, before)
    # Between two neighbours every threshold says the same; of equally good ones the nearest to 0.5.
    steps = np.unique(probabilities)
    candidates = [0.5, *((steps[1:] + steps[:-1]) / 2).tolist()]
    best = max(candidates, key=lambda limit: (_f1(probabilities >= limit, there), -abs(limit - 0.5)))
    held = 0.5 + (best - 0.5) * positives / (positives + _PRIOR_TEXTS)
    threshold = round(float(np.clip(held, _FLOOR, _CEILING)), 3)
    after = _f1(probabilities >= threshold, there)
    return ThresholdFit(topic, len(there), positives, round(float(best), 3), threshold, before, after)


def _f1(said: NDArray[np.bool_], there: NDArray[np.bool_]) -> float:
    return 2 * float((said & there).sum()) / max(1.0, float(said.sum() + there.sum()))
