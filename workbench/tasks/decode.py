"""Logits to answers: calibrated sentiment, topics above their thresholds, entities as spans of the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workbench.tasks.labels import SENTIMENTS
from workbench.tasks.language import LANGUAGES
from workbench.tasks.spans import Entity, Spans, find_all_entities, find_entities, find_spans
from workbench.tasks.spec import OutputSpec

__all__ = [
    "READING",
    "TOPIC_SHARE",
    "Entity",
    "Spans",
    "choose_all_topics",
    "choose_topics",
    "class_probabilities",
    "find_all_entities",
    "find_entities",
    "find_spans",
    "label_probabilities",
    "pool_classes",
    "pool_labels",
    "sentiment_probabilities",
    "topic_names",
    "topic_probabilities",
]

FloatArray = NDArray[np.float32]
Languages = Sequence[str | None] | NDArray[np.int8]
"""A language for each row: its code, or its place in LANGUAGES (-1: none)."""

READING: Final = 2
"""Raised when the same logits give other answers than before. It is part of the engine id, so texts scored before are
read again."""

TOPIC_SHARE: Final = 1 / 3
"""Part of a long text that must be about a topic. Measured on app reviews put together, one kind a text: from 3 to
100 kB the topics of a text rose from 1.5 to 2.5 (praise) and from 3.2 to 5.0 (feature requests) when the best window
counted, and fell to 1.0 and 3.0 when a third did, with the text's own kind always among them. Of a second kind in a
text of seven windows, one that made up 30 % was found in 20 of 20 texts, 20 % in 17, 10 % in none."""

_OTHER: Final = "other"


def class_probabilities(logits: FloatArray, spec: OutputSpec, languages: Languages) -> FloatArray:
    """Softmax of ``logits`` [N, K] over the temperature of each row's language: [N, K]."""
    return _softmax(_tempered(logits, spec, languages))


def sentiment_probabilities(logits: FloatArray, spec: OutputSpec, languages: Languages) -> FloatArray:
    """Negative, neutral and positive for each row of ``logits`` [N, K]: [N, 3]. A class the model lacks is 0."""
    classes = class_probabilities(logits, spec, languages)
    result = np.zeros((len(logits), len(SENTIMENTS)), np.float32)
    for column, label in enumerate(spec.labels):
        result[:, SENTIMENTS.index(label)] += classes[:, column]
    return result


def label_probabilities(logits: FloatArray, spec: OutputSpec, languages: Languages) -> FloatArray:
    """Probability of each topic by itself (kind "labels") or among all (kind "classes"): [N, K]."""
    if spec.kind == "classes":
        return class_probabilities(logits, spec, languages)
    scaled = _tempered(logits, spec, languages)
    # exp of a large positive number overflows; this form does not.
    small = np.exp(-np.abs(scaled))
    return np.where(scaled >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def pool_classes(shares: FloatArray, sizes: Sequence[int]) -> FloatArray:
    """One text's probabilities [K] from those of its windows [W, K]: the mean, weighed by tokens ``sizes`` [W]."""
    weights = np.array(sizes, np.float64) / sum(sizes)
    return np.asarray((shares * weights[:, None]).sum(0), np.float32)


def pool_labels(shares: FloatArray, sizes: Sequence[int]) -> FloatArray:
    """The same for labels that do not exclude each other: for each, the mean over the TOPIC_SHARE of the tokens that
    say most of it.

    The best window alone would give a long text ever more topics, for one of many windows is always off the mark;
    the mean over all would leave a text with two subjects without either.
    """
    order = np.argsort(-shares, axis=0, kind="stable")
    weights = (np.array(sizes, np.float64) / sum(sizes))[order]
    before = np.cumsum(weights, axis=0) - weights
    used = np.clip(TOPIC_SHARE - before, 0, weights)
    best = np.take_along_axis(shares, order, axis=0)
    return np.asarray((best * used).sum(0) / used.sum(0), np.float32)


def topic_names(spec: OutputSpec) -> tuple[str, ...]:
    """The topics an output can give, each once, in the order of its logits."""
    return tuple(dict.fromkeys(spec.labels))


def topic_probabilities(probabilities: FloatArray, spec: OutputSpec) -> FloatArray:
    """``probabilities`` [N, K] by label as probabilities [N, U] by topic name."""
    names = topic_names(spec)
    if len(names) == len(spec.labels):
        return np.array(probabilities, np.float32)
    result = np.zeros((len(probabilities), len(names)), np.float32)
    for column, label in enumerate(spec.labels):
        at = names.index(label)
        if spec.kind == "classes":
            result[:, at] += probabilities[:, column]
        else:
            result[:, at] = np.maximum(result[:, at], probabilities[:, column])
    return result


def choose_topics(probabilities: FloatArray, spec: OutputSpec) -> tuple[str, ...]:
    """The topics of one text from its probabilities [K], the likeliest first.

    At least one, and "other" only by itself. Of equals, the one whose label stands first.
    """
    by_name = topic_probabilities(probabilities[None], spec)
    names, (places, _) = topic_names(spec), choose_all_topics(probabilities[None], by_name, spec)
    return tuple(names[place] for place in places)


def choose_all_topics(
    probabilities: FloatArray, by_name: FloatArray, spec: OutputSpec
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """``choose_topics`` for N texts, from their probabilities by label [N, K] and by topic name [N, U].

    Gives the places of the topics in ``topic_names``, end to end, and how many each text has [N].
    """
    best = by_name.argmax(axis=1).astype(np.int32)
    if spec.kind == "classes":
        return best, np.ones(len(by_name), np.int32)
    names = topic_names(spec)
    over = by_label = probabilities >= np.array(spec.thresholds, np.float32)
    if len(names) < len(spec.labels):
        over = np.stack([by_label[:, [label == name for label in spec.labels]].any(axis=1) for name in names], axis=1)
    if _OTHER in names:
        other = names.index(_OTHER)
        over[:, other] &= over.sum(axis=1) == over[:, other]
    none = np.flatnonzero(~over.any(axis=1))
    over[none, best[none]] = True
    counts = over.sum(axis=1, dtype=np.int32)
    # Most texts have one topic; only the others have an order.
    places = np.nonzero(over)[1].astype(np.int32)
    starts = np.cumsum(counts) - counts
    for count in range(2, int(counts.max(initial=0)) + 1):
        at = starts[counts == count][:, None] + np.arange(count)
        own = places[at]
        order = np.argsort(-by_name[counts == count][np.arange(len(own))[:, None], own], axis=1, kind="stable")
        places[at] = np.take_along_axis(own, order, axis=1)
    return places, counts


def _tempered(logits: FloatArray, spec: OutputSpec, languages: Languages) -> FloatArray:
    if isinstance(languages, np.ndarray):
        temperatures = np.full(len(languages), spec.temperature, np.float32)
        for language, temperature in spec.temperatures.items():
            if language in LANGUAGES:
                temperatures[languages == LANGUAGES.index(language)] = temperature
    else:
        temperatures = np.array([spec.temperature_of(language) for language in languages], np.float32)
    return np.divide(logits, temperatures[:, None], dtype=np.float32)


def _softmax(logits: FloatArray) -> FloatArray:
    powers: FloatArray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers
