"""Entities of many texts at once, against a reading word by word that is written out."""

import itertools
import sys
import unicodedata
from dataclasses import FrozenInstanceError, replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.tiny_model import ENTITY_LABELS
from workbench.tasks import spans as spans_module
from workbench.tasks.spans import Entity, Spans, find_entities, find_spans
from workbench.tasks.spec import OutputSpec
from workbench.tasks.trimming import trim_span
from workbench.tasks.words import word_starts

TAGS = OutputSpec("entities", "tags", tuple(ENTITY_LABELS))
STRICT = replace(TAGS, strict=True)


def tag_logits(*names):
    return np.array([[9.0 * (label == name) for label in ENTITY_LABELS] for name in names], np.float32)


WORDS = ("abc", "1", "索", "尼", "Café", "Cafe\u0301", "(", ")", "。", "+", "x-", " ", "\u0301", "Wave+")
LABEL_SETS = (
    TAGS.labels,
    ("O", "B-brand", "I-brand"),
    ("B-a", "O", "I-a", "I-b", "O"),  # no B for one type, and two columns for outside
    ("O", "B-a", "B-a", "I-a", "B-b", "I-b", "I-b"),
)


def read_plainly(text, offsets, words, logits, spec):
    """Entities of one text, word by word: start, end, label, text, score."""
    types = list(dict.fromkeys(label[2:] for label in spec.labels if label != "O"))
    powers = np.exp(logits.astype(np.float64))
    tags = powers / powers.sum(1, keepdims=True)
    groups = [[]]
    for token, begins in enumerate(words):
        if begins and groups[-1]:
            groups.append([])
        groups[-1].append(token)

    def share(token, *names):
        return sum(tags[token, column] for column, label in enumerate(spec.labels) if label in names)

    states = ["O", *(f"B-{kind}" for kind in types), *(f"I-{kind}" for kind in types)]
    rows, path = [], []
    for group in groups if len(words) else []:
        kinds = [np.mean([share(token, f"B-{kind}", f"I-{kind}") for token in group]) for kind in types]
        first = [share(group[0], f"B-{kind}") for kind in types]
        after = [share(group[0], f"I-{kind}") for kind in types]
        none, best = np.mean([share(token, "O") for token in group]), int(np.argmax(kinds))
        path.append("O" if none >= kinds[best] else f"{'B' if first[best] > after[best] else 'I'}-{types[best]}")
        part = [b / max(b + i, 1e-9) for b, i in zip(first, after, strict=True)]
        both = list(zip(kinds, part, strict=True))
        rows.append(np.log(np.maximum([none, *(k * s for k, s in both), *(k * (1 - s) for k, s in both)], 1e-9)))

    def may_follow(before, state):
        return state[0] != "I" or (before != "O" and before[2:] == state[2:])

    if spec.strict and not all(may_follow(*pair) for pair in itertools.pairwise(["O", *path])):
        ways = {"O": (0.0, [])}
        for row in rows:
            steps = {}
            for state, score in zip(states, row, strict=True):
                allowed = [(total + score, [*way, state]) for b, (total, way) in ways.items() if may_follow(b, state)]
                if allowed:
                    steps[state] = max(allowed, key=lambda one: one[0])
            ways = steps
        path = max(ways.values(), key=lambda one: one[0])[1]
    runs = []
    for group, state, before in zip(groups, path, ["O", *path], strict=False):
        if state[0] == "I" and before[2:] == state[2:] and before != "O":
            runs[-1][1].extend(group)
        elif state != "O":
            runs.append((state[2:], list(group)))
    found, last = [], 0
    for kind, run in runs:
        start, end = trim_span(text, int(offsets[run, 0].min()), int(offsets[run, 1].max()))
        if start < end and start >= last:
            score = np.mean([share(token, f"B-{kind}", f"I-{kind}") for token in run])
            found.append((start, end, kind, text[start:end], pytest.approx(score, abs=1e-5)))
            last = end
    return found


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=14), max_size=8),
    st.integers(0, 2**32 - 1),
    st.sampled_from(LABEL_SETS),
    st.booleans(),
    st.sampled_from([0, 10**9]),
    st.sampled_from(
        [0.5, 1.5, 2.5]
    ),  # more, and probabilities round to 0 and 1: equals, which either reading may take
)
@settings(max_examples=250, deadline=None)
def test_all_words_at_once_are_read_as_one_by_one(texts, seed, labels, strict, many, spread):
    spec, random = replace(TAGS, labels=labels, strict=strict), np.random.default_rng(seed)
    pieces, texts = texts, ["".join(text) for text in texts]
    ends = [np.cumsum([len(piece) for piece in text], dtype=np.int32) for text in pieces]
    offsets = [np.stack([end - [len(p) for p in text], end], axis=1) for end, text in zip(ends, pieces, strict=True)]
    starts = np.cumsum([0, *map(len, offsets)], dtype=np.int32)
    together = np.concatenate([np.empty((0, 2)), *offsets]).astype(np.int32)
    words = word_starts(texts, together, starts)
    # Tokens stand among others that are not theirs, as the marks and the overlaps of windows do.
    logits = random.normal(0, spread, (2 * starts[-1] + 3, len(labels))).astype(np.float32)
    logits[:, labels.index("O")] += spread
    places = np.sort(random.choice(len(logits), starts[-1], replace=False)).astype(np.int32)
    order = random.permutation(len(texts)).astype(np.int32)
    given_texts = [texts[at] for at in np.argsort(order)]
    with mock.patch.object(spans_module, "_MANY", many):
        found = find_spans(
            given_texts, logits, spec, places=places, offsets=together, starts=starts, words=words, first=order
        )
    assert len(found) == len(texts)
    for at, (text, own) in enumerate(zip(texts, found.objects(), strict=True)):
        part = slice(starts[at], starts[at + 1])
        wanted = read_plainly(text, together[part], words[part], logits[places[part]], spec)
        assert [(e.start, e.end, e.label, e.text, e.score) for e in own] == wanted


def test_a_letter_or_digit_never_stands_around_a_name():
    kinds = {unicodedata.category(chr(point))[0] for point in range(sys.maxunicode + 1) if chr(point).isalnum()}
    assert kinds == {"L", "N"}


def test_an_entity_over_the_cut_of_two_windows_is_one():
    text, names = "my Slate 10 is", ("O", "B-product", "I-product", "O")
    logits = tag_logits("B-brand", *names[:2], "O", "B-brand", "O", *names[2:], "O")
    found = find_spans(
        [text],
        logits,
        STRICT,
        places=np.array([1, 2, 6, 7], np.int32),
        offsets=np.array([[0, 2], [3, 8], [9, 11], [12, 14]], np.int32),
        starts=np.array([0, 4], np.int32),
        words=np.ones(4, bool),
    )
    assert [found.starts.tolist(), found.ends.tolist(), found.texts] == [[3], [11], ["Slate 10"]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
def test_spans_of_texts_taken_are_those_of_each(counts, data):
    total = sum(counts)
    numbers = np.arange(total, dtype=np.int32)
    spans = Spans(
        ("a", "b"),
        np.array(counts, np.int32),
        numbers,
        numbers + 1,
        numbers % 2,
        [f"n{at}" for at in range(total)],
        numbers / 10,
    )
    rows = data.draw(st.lists(st.integers(-1, len(counts) - 1), max_size=9))
    said = np.array([row >= 0 and data.draw(st.booleans()) for row in rows], bool)
    taken = spans.take(np.array(rows, np.int32), said)
    each = spans.objects()
    assert taken.objects() == [each[row] if own else None for row, own in zip(rows, said, strict=True)]
    assert spans.take(np.arange(len(counts), dtype=np.int32), np.ones(len(counts), bool)).objects() == each


def test_objects_are_like_those_made_one_by_one():
    (made,) = find_entities("Moshu", tag_logits("B-brand"), TAGS, offsets=np.array([[0, 5]], np.int32))
    again = Entity(0, 5, "brand", "Moshu", made.score)
    assert made == again
    assert (hash(made), repr(made), replace(made, start=1)) == (hash(again), repr(again), replace(again, start=1))
    with pytest.raises(FrozenInstanceError):
        made.start = 1


def test_labels_that_name_nothing():
    only = replace(TAGS, labels=("O",))
    assert find_entities("Moshu", np.zeros((1, 1), np.float32), only, offsets=np.array([[0, 5]], np.int32)) == []
    no_outside = replace(TAGS, labels=("B-brand", "I-brand"))
    (found,) = find_entities("Moshu", np.zeros((1, 2), np.float32), no_outside, offsets=np.array([[0, 5]], np.int32))
    assert (found.label, found.score) == ("brand", 1.0)
