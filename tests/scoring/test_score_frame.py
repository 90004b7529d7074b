"""Columns of answers to columns of a frame, without a model."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.runtime.read import Answers
from workbench.scoring.api import _columns, _reasons, score_columns
from workbench.tasks.decode import Spans
from workbench.tasks.encode import REASONS
from workbench.tasks.labels import SENTIMENTS, TASKS

NAMES = ("price", "bug", "other")
TYPES = ("brand", "model")


def make_answers(rows, tasks=TASKS):
    """``rows``: of each text the sentiment or None, its topics, and its entities or None."""
    topics = [at for _, own, _ in rows for at in own]
    found = [entity for _, _, own in rows for entity in own or ()]
    codes = np.array([-1 if place is None else place for place, _, _ in rows], np.int8)
    shares = np.array([[at / 4 if code >= 0 else np.nan for at in range(3)] for code in codes], np.float32)
    return Answers(
        tasks,
        np.full(len(rows), -1, np.int8),
        np.full(len(rows), -1, np.int8),
        codes,
        shares.reshape(-1, 3),
        NAMES,
        np.array(topics, np.int32),
        np.array([len(own) for _, own, _ in rows], np.int32),
        np.empty((len(rows), 3), np.float32),
        Spans(
            TYPES,
            np.array([-1 if own is None else len(own) for _, _, own in rows], np.int32),
            np.array([start for start, _, _ in found], np.int32),
            np.array([start + len(text) for start, _, text in found], np.int32),
            np.array([kind for _, kind, _ in found], np.int32),
            [text for _, _, text in found],
            np.zeros(len(found)),
        ),
    )


ENTITIES = st.tuples(st.integers(0, 99), st.integers(0, 1), st.sampled_from(["Moshu", "索尼", "x" * 30, "a\ud800"]))
ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, 0, 1, 2]),
        st.lists(st.integers(0, 2), max_size=3, unique=True),
        st.none() | st.lists(ENTITIES, max_size=4),
    ),
    max_size=12,
)


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_a_frame_says_what_the_answers_say(rows):
    frame = pl.DataFrame(_columns(make_answers(rows)))
    assert dict(frame.schema) == {name: kind for name, kind in score_columns().items() if name in frame.columns}
    assert frame["sentiment"].to_list() == [None if at is None else SENTIMENTS[at] for at, _, _ in rows]
    for place, label in enumerate(SENTIMENTS):
        assert frame[f"p_{label}"].to_list() == [None if at is None else place / 4 for at, _, _ in rows]
    assert frame["topics"].to_list() == [[NAMES[at] for at in own] or None for _, own, _ in rows]
    wanted = [
        None
        if own is None
        else [
            {"start": start, "end": start + len(text), "label": TYPES[kind], "text": text.replace("\ud800", "?")}
            for start, kind, text in own
        ]
        for _, _, own in rows
    ]
    assert frame["entities"].to_list() == wanted


@pytest.mark.parametrize("own", [[], None])
def test_texts_without_any_entity(own):
    frame = pl.DataFrame(_columns(make_answers([(0, [0], own)] * 3, ("entities",))))
    assert frame["entities"].to_list() == [own] * 3
    assert frame.columns == ["entities"]


def test_the_reasons_of_several_models():
    reasons = [np.array([-1, 0, 6, 6], np.int8), np.array([-1, 0, -1, 5], np.int8)]
    assert _reasons(reasons).to_list() == [None, REASONS[0], REASONS[6], f"{REASONS[6]}; {REASONS[5]}"]
    assert _reasons(reasons[:1]).to_list() == [None, REASONS[0], REASONS[6], REASONS[6]]
