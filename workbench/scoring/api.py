"""Texts to a frame of scores: ``workbench.score``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl

from workbench.errors import ParameterError
from workbench.runtime import Session
from workbench.runtime.read import Reading, read_texts
from workbench.scoring.choosing import Choice, open_readers
from workbench.settings import settings
from workbench.store.tables import ENTITY
from workbench.tasks.labels import SENTIMENTS, TASKS
from workbench.workspace import Policies

__all__ = ["SCORE_SCHEMA", "Scorer", "bundled_model", "open_scorer", "score", "score_columns"]

_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    "sentiment": {"sentiment": pl.String, **{f"p_{label}": pl.Float32 for label in SENTIMENTS}},
    "topics": {"topics": pl.List(pl.String)},
    "entities": {"entities": pl.List(ENTITY)},
}
_ORIGIN: Final[dict[str, Any]] = {
    "language": pl.String,
    "reason": pl.String,
    "model": pl.String,
    "engine_id": pl.String,
    "backend": pl.String,
    "precision": pl.String,
}


def score_columns(tasks: Sequence[str] = TASKS) -> pl.Schema:
    """The columns that scores for ``tasks`` have, in order."""
    return pl.Schema({**{k: v for task in TASKS if task in tasks for k, v in _COLUMNS[task].items()}, **_ORIGIN})


SCORE_SCHEMA: Final = score_columns()
"""Columns of a score of all tasks. ``entities`` are code points of the text, end exclusive."""


def bundled_model(name: str = "reviews") -> Path:
    """The folder of a bundled model."""
    return settings().home / "engines" / name


def score(
    texts: Sequence[str | None] | pl.Series,
    *,
    tasks: Sequence[str] = TASKS,
    backend: str = "auto",
    models: Mapping[str, Path | str] | None = None,
    policy: Policies | None = None,
    progress: bool = False,
) -> pl.DataFrame:
    """Read ``texts`` and return one row each, in input order, with the columns of ``score_columns(tasks)``.

    ``models`` names a model folder for a task; the bundled one reads the others. Of a model's built engines the
    fastest reads that passed the gate and that ``policy`` allows, else its FP32 network. A text that nothing can be
    said about has null scores and a ``reason``. Where several engines read, their names and ids are joined by "+".
    Raises ParameterError for a task or a text that is none, ModelError when a model cannot be loaded.
    """
    with open_scorer(tasks=tasks, backend=backend, models=models, policy=policy) as scorer:
        return scorer.score(texts, progress=progress)


class Scorer:
    """Loaded models for some tasks; made by ``open_scorer``."""

    def __init__(self, sessions: Mapping[Session, tuple[str, ...]], choices: Sequence[Choice] = ()) -> None:
        self._sessions = dict(sessions)
        self.choices = tuple(choices)
        self.tasks = tuple(task for task in TASKS if any(task in own for own in self._sessions.values()))

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The models, in the order of the tasks they read."""
        return tuple(self._sessions)

    @property
    def schema(self) -> pl.Schema:
        """The columns of ``score``."""
        return score_columns(self.tasks)

    def score(self, texts: Sequence[str | None] | pl.Series, *, progress: bool = False) -> pl.DataFrame:
        """One row for each text; see ``workbench.score``."""
        checked = _check_texts(texts)
        columns: dict[str, Any] = {}
        reasons: list[list[str | None]] = []
        for session, tasks in self._sessions.items():
            reading = read_texts(session, checked, tasks, progress=progress)
            columns |= _columns(reading)
            reasons.append(reading.reason)
            # A text that one model cannot read may be plain to another.
            before = columns.get("language", reading.language)
            columns["language"] = [old or new for old, new in zip(before, reading.language, strict=True)]
        columns["reason"] = [_join_reasons(row) for row in zip(*reasons, strict=True)]
        origin: dict[str, list[str]] = {
            "model": [session.spec.title for session in self._sessions],
            "engine_id": [session.engine_id for session in self._sessions],
            "backend": [session.backend for session in self._sessions],
            "precision": [session.precision for session in self._sessions],
        }
        frame = pl.DataFrame(columns, schema={name: kind for name, kind in self.schema.items() if name not in origin})
        return frame.with_columns(
            pl.lit("+".join(dict.fromkeys(values) if name in ("backend", "precision") else values)).alias(name)
            for name, values in origin.items()
        ).select(list(self.schema))


@contextmanager
def open_scorer(
    *,
    tasks: Sequence[str] = TASKS,
    backend: str = "auto",
    models: Mapping[str, Path | str] | None = None,
    policy: Policies | None = None,
) -> Iterator[Scorer]:
    """Load the models for ``tasks`` once, for scoring many times; see ``workbench.score`` for the parameters."""
    wanted = _check_tasks(tasks)
    named = dict(models or {})
    if strange := sorted(set(named) - set(TASKS)):
        raise ParameterError(f"models names {strange[0]!r}, which is no task. Tasks: {', '.join(TASKS)}")
    folders = {task: Path(named.get(task, bundled_model())) for task in wanted}
    with open_readers(folders, backend=backend, policy=policy) as readers:
        yield Scorer(
            {reader.session: reader.tasks for reader in readers},
            [choice for reader in readers for choice in reader.choices],
        )


def _check_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    asked = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if unknown := [task for task in asked if task not in TASKS]:
        raise ParameterError(f"No task is named {unknown[0]!r}. Use any of: {', '.join(TASKS)}")
    if not asked:
        raise ParameterError(f"No task was named. Use any of: {', '.join(TASKS)}")
    return tuple(task for task in TASKS if task in asked)


def _check_texts(texts: Sequence[str | None] | pl.Series) -> list[str | None]:
    if isinstance(texts, str):
        raise ParameterError("texts is one text, not a list of texts. Put it into a list: [text]")
    checked: list[str | None] = []
    for index, text in enumerate(texts):
        if text is None or isinstance(text, str):
            checked.append(text)
        elif isinstance(text, float) and math.isnan(text):
            checked.append(None)  # how a missing text looks in a column of other libraries
        else:
            raise ParameterError(
                f"Text {index} is {text!r} ({type(text).__name__}), not a text. Convert the column to text first."
            )
    return checked


def _columns(reading: Reading) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if "sentiment" in reading.tasks:
        columns["sentiment"] = reading.sentiment
        for place, label in enumerate(SENTIMENTS):
            values = pl.Series(reading.p_sentiment[:, place], dtype=pl.Float32)
            columns[f"p_{label}"] = values.fill_nan(None)
    if "topics" in reading.tasks:
        columns["topics"] = [None if topics is None else list(topics) for topics in reading.topics]
    if "entities" in reading.tasks:
        columns["entities"] = [
            None
            if entities is None
            else [{"start": e.start, "end": e.end, "label": e.label, "text": _storable(e.text)} for e in entities]
            for entities in reading.entities
        ]
    return columns


def _storable(text: str) -> str:
    """Half a character, as broken JSON leaves behind, cannot be stored as UTF-8."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def _join_reasons(reasons: Sequence[str | None]) -> str | None:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None
