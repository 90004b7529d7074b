"""Logits to answers: calibrated sentiment, topics above their thresholds, entities as spans of the text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.tasks.labels import SENTIMENTS
from workbench.tasks.language import LANGUAGES
from workbench.tasks.spec import OutputSpec
from workbench.tasks.words import word_starts

__all__ = [
    "READING",
    "TOPIC_SHARE",
    "Entity",
    "choose_all_topics",
    "choose_topics",
    "class_probabilities",
    "find_all_entities",
    "find_entities",
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
_SURELY: Final = 1e-3  # far more than what rounding can do to a difference of logits
_OPENING: Final = {")": "(", "）": "（", "]": "[", "】": "【", "》": "《", "」": "「", "』": "『"}
# Part of names: Wave+, C#, Yahoo!, Inc., 50%.
_KEPT_AT_END: Final = frozenset("+#*%°™®")


@dataclass(frozen=True)
class Entity:
    """A name in a text: code points ``start`` to ``end`` (exclusive) of the text as it was given."""

    start: int
    end: int
    label: str
    text: str
    score: float
    """Mean probability of the label over the entity's tokens."""


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


def find_entities(
    text: str,
    logits: FloatArray,
    spec: OutputSpec,
    *,
    offsets: NDArray[np.int32],
) -> list[Entity]:
    """The entities of ``text`` from tag logits [n, K] of its n tokens at ``offsets`` [n, 2]; none overlap.

    The pieces of one written word are read as one. An I tag begins an entity where none of its type is open, except
    in a ``strict`` output: there the likeliest tags without such a thing are taken. Spaces and punctuation around a
    span are not part of it.
    """
    starts = np.array([0, len(offsets)], np.int32)
    words = word_starts([text], offsets, starts)
    return find_all_entities([text], logits, spec, offsets=offsets, starts=starts, words=words)[0]


def find_all_entities(
    texts: Sequence[str],
    logits: FloatArray,
    spec: OutputSpec,
    *,
    offsets: NDArray[np.int32],
    starts: NDArray[np.int32],
    words: NDArray[np.bool_],
) -> list[list[Entity]]:
    """``find_entities`` for U texts, whose n tokens stand end to end: text u has those from ``starts[u]`` to
    ``starts[u + 1]``, at least one. ``words`` [n]: whether a token begins a written word; see EncodedTokens."""
    result: list[list[Entity]] = [[] for _ in texts]
    if not len(logits):
        return result
    outside, types, begins, inside = _columns(spec)
    # Most texts name nothing, and that is plain to see: each token is outside with more than half of the probability.
    within = [column for column in range(logits.shape[1]) if column not in outside]
    sure = logits[:, outside[0]] - logits[:, within].max(axis=1) > np.log(len(within)) + _SURELY
    texts_of = np.flatnonzero(~np.logical_and.reduceat(sure, starts[:-1]))
    if not len(texts_of):
        return result
    lengths = np.diff(starts)[texts_of]
    tokens = _ranges(starts[texts_of], lengths)
    offsets, tags = offsets[tokens], _softmax(logits[tokens])
    groups = np.flatnonzero(words[tokens])
    text_of = np.searchsorted(np.cumsum(lengths), groups, side="right")
    chosen, goes_on = _read_words(tags, groups, text_of, spec)
    firsts = np.flatnonzero((chosen > 0) & ~goes_on)
    if not len(firsts):
        return result
    breaks = np.append(np.flatnonzero(~goes_on), len(groups))
    lasts = breaks[np.searchsorted(breaks, firsts, side="right")]
    bounds = np.append(groups, len(tags))
    sizes = bounds[lasts] - bounds[firsts]
    tokens, runs = _ranges(bounds[firsts], sizes), np.cumsum(sizes) - sizes
    kinds = chosen[firsts] - 1
    # Each token's probability of its span's type, B and I together.
    by_kind = np.stack([tags[tokens][:, [*begins[kind], *inside[kind]]].sum(1) for kind in types])
    scores = np.add.reduceat(by_kind[np.repeat(kinds, sizes), np.arange(len(tokens))], runs) / sizes
    low, high = np.minimum.reduceat(offsets[tokens, 0], runs), np.maximum.reduceat(offsets[tokens, 1], runs)
    columns = (texts_of[text_of[firsts]], kinds, scores, low, high)
    for place, kind, score, start, end in zip(*(column.tolist() for column in columns), strict=True):
        entity = _entity(texts[place], start, end, label=types[kind], score=score)
        found = result[place]
        # Offsets of odd text may share a character; a span never begins before the last one ended.
        if entity is not None and (not found or entity.start >= found[-1].end):
            found.append(entity)
    return result


def _read_words(
    tags: FloatArray, groups: NDArray[np.intp], text_of: NDArray[np.intp], spec: OutputSpec
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """What each of m words is: 0 outside, else one more than the place of its type; and whether it goes on with the
    entity of the word before it.

    ``tags`` [n, K] are probabilities of tokens, ``groups`` [m] the first token of each word and ``text_of`` [m] its
    text.
    """
    outside, types, begins, inside = _columns(spec)
    sizes = np.diff(np.append(groups, len(tags)))
    mean = np.add.reduceat(tags, groups, axis=0) / sizes[:, None]
    # Per word: outside against each type, whichever of B and I carries it; its first token says whether it begins.
    by_tag, first_by_tag = np.ascontiguousarray(mean.T), np.ascontiguousarray(tags[groups].T)
    none = by_tag[outside].sum(0)
    kinds = np.stack([by_tag[[*begins[t], *inside[t]]].sum(0) for t in types], axis=1)
    first = np.stack([first_by_tag[begins[t]].sum(0) for t in types], axis=1)
    after = np.stack([first_by_tag[inside[t]].sum(0) for t in types], axis=1)
    chosen = np.concatenate([none[:, None], kinds], axis=1).argmax(1)
    begin = (first > after)[np.arange(len(groups)), np.maximum(chosen - 1, 0)]
    fresh = np.diff(text_of, prepend=-1) > 0  # a text's first word
    wrong = np.unique(text_of[_begins_inside(chosen, begin, fresh)]) if spec.strict else ()
    if len(wrong):
        low = np.searchsorted(text_of, wrong)
        lengths = np.searchsorted(text_of, wrong, side="right") - low
        own = _ranges(low, lengths)
        chosen[own], begin[own] = _best_paths(lengths, none[own], kinds[own], first[own], after[own])
    return chosen, (chosen > 0) & (chosen == np.concatenate([[0], chosen[:-1]])) & ~begin & ~fresh


def _begins_inside(chosen: NDArray[np.intp], begin: NDArray[np.bool_], fresh: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where an entity begins with an I tag; ``fresh``: the first words of texts."""
    before = np.where(fresh, 0, np.concatenate([[0], chosen[:-1]]))
    return np.asarray((chosen > 0) & (chosen != before) & ~begin)


def _best_paths(
    lengths: NDArray[np.intp], outside: FloatArray, kinds: FloatArray, first: FloatArray, after: FloatArray
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The likeliest types and beginnings of words in which no entity begins with an I tag (Viterbi).

    The words of B texts stand end to end, ``lengths`` [B] of them each, n in all. ``outside`` [n]; ``kinds``,
    ``first``, ``after`` [n, T]: the probability of a type, and of its B and I tags in the word's first token. States:
    outside, T times B, T times I. All texts take a step together.
    """
    number = kinds.shape[1]
    share = first / np.maximum(first + after, 1e-9)
    states = np.concatenate([outside[:, None], kinds * share, kinds * (1 - share)], axis=1)
    scores = np.log(np.maximum(states, 1e-9))
    inside = np.arange(number + 1, 2 * number + 1)
    # The longest come first, so that those that have a word at some place are the first few.
    order = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[order]
    best = scores[starts]
    best[:, inside] = -np.inf
    steps = []
    for place in range(1, int(lengths[order[0]])):
        going = np.arange(np.count_nonzero(lengths > place))
        before = best[going]
        step = np.repeat(before.argmax(axis=1)[:, None], before.shape[1], axis=1)
        # An I tag follows the B or the I tag of its own type.
        step[:, inside] = np.where(before[:, inside - number] >= before[:, inside], inside - number, inside)
        steps.append(step)
        best[going] = np.take_along_axis(before, step, axis=1) + scores[starts[going] + place]
    state = best.argmax(axis=1)
    path = np.empty(len(scores), np.intp)
    for place in range(len(steps), -1, -1):
        going = np.arange(np.count_nonzero(lengths > place))
        path[starts[going] + place] = state[going]
        if place:
            state[going] = steps[place - 1][going, state[going]]
    return np.where(path > number, path - number, path), path <= number


def _ranges(firsts: NDArray[np.signedinteger[Any]], sizes: NDArray[np.signedinteger[Any]]) -> NDArray[np.intp]:
    """The numbers of many ranges, end to end."""
    ends = np.cumsum(sizes)
    return np.asarray(np.arange(sizes.sum()) + np.repeat(firsts - (ends - sizes), sizes), np.intp)


def _columns(spec: OutputSpec) -> tuple[list[int], list[str], dict[str, list[int]], dict[str, list[int]]]:
    outside = [column for column, tag in enumerate(spec.labels) if tag == "O"]
    types = list(dict.fromkeys(tag[2:] for tag in spec.labels if tag != "O"))
    begins = {kind: [c for c, tag in enumerate(spec.labels) if tag == f"B-{kind}"] for kind in types}
    inside = {kind: [c for c, tag in enumerate(spec.labels) if tag == f"I-{kind}"] for kind in types}
    return outside, types, begins, inside


def _entity(text: str, start: int, end: int, *, label: str, score: float) -> Entity | None:
    # A composed character may be given by its first code point; its marks belong to it.
    while end < len(text) and unicodedata.category(text[end])[0] == "M":
        end += 1
    before = (-1, -1)
    while before != (start, end):
        before = (start, end)
        while start < end and not _stands_first(text[start], text[start:end]):
            start += 1
        while start < end and not _stands_last(text[end - 1], text[start:end]):
            end -= 1
        if start < end and _OPENING.get(text[end - 1]) == text[start]:
            start, end = start + 1, end - 1
    if not any(char.isalnum() for char in text[start:end]):
        return None
    return Entity(start, end, label, text[start:end], score)


def _stands_first(char: str, span: str) -> bool:
    if char in _OPENING.values():
        return any(closing in span for closing, opening in _OPENING.items() if opening == char)
    return unicodedata.category(char)[0] not in "ZCPM"


def _stands_last(char: str, span: str) -> bool:
    if char in _OPENING:
        return _OPENING[char] in span
    return char in _KEPT_AT_END or unicodedata.category(char)[0] not in "ZCP"


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
