"""Texts to a frame of scores: ``workbench.score``."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache
from itertools import tee
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workbench.errors import ParameterError
from workbench.runtime import Session
from workbench.runtime.read import Answers, make_encoders, read_chunks, reading_bar, split_texts
from workbench.runtime.workers import Encoders
from workbench.scoring.choosing import Choice, open_readers
from workbench.settings import settings
from workbench.store.tables import ENTITY
from workbench.tasks.decode import Spans
from workbench.tasks.encode import REASONS
from workbench.tasks.labels import SENTIMENTS, TASKS
from workbench.tasks.language import LANGUAGES
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


_EncodersKey: TypeAlias = tuple[Path, int, str]


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
    """Loaded models for some tasks; made by ``open_scorer``.

    ``encoders``: what tokenizes for a session (``workbench.runtime.read.make_encoders``) where the caller keeps it
    for longer than the scorer: used here, and left open. For the other sessions the scorer starts and ends its own.
    """

    def __init__(
        self,
        sessions: Mapping[Session, tuple[str, ...]],
        choices: Sequence[Choice] = (),
        *,
        encoders: Mapping[Session, Encoders] | None = None,
    ) -> None:
        self._sessions = dict(sessions)
        self.choices = tuple(choices)
        self._borrowed = {_encoders_key(session): own for session, own in (encoders or {}).items()}
        self._encoders: dict[_EncodersKey, Encoders] = {}
        self.tasks = tuple(task for task in TASKS if any(task in own for own in self._sessions.values()))

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The models, in the order of the tasks they read."""
        return tuple(self._sessions)

    @property
    def schema(self) -> pl.Schema:
        """The columns of ``score``."""
        return score_columns(self.tasks)

    @property
    def workers(self) -> int:
        """How many chunks can be tokenized at once, once there is enough to do: 0 for one, in this process."""
        return max((self._encoders_of(session).workers for session in self._sessions), default=0)

    def score(self, texts: Sequence[str | None] | pl.Series, *, progress: bool = False) -> pl.DataFrame:
        """One row for each text; see ``workbench.score``."""
        checked = _check_texts(texts)
        chunks = (checked[start:end] for start, end in split_texts(checked, parts=self.workers))
        with reading_bar(len(checked), progress) as advance:
            frames = list(self.score_chunks(chunks, expected=len(checked), advance=advance))
        return pl.concat(frames) if frames else pl.DataFrame(schema=self.schema)

    def score_chunks(
        self,
        chunks: Iterable[Sequence[str | None]],
        *,
        expected: int = 0,
        advance: Callable[[int], None] | None = None,
    ) -> Generator[pl.DataFrame, None, None]:
        """The rows for each of ``chunks``, in order, a few chunks being under way at a time; see ``score``.

        A chunk should be a few thousand texts. ``expected``: how many texts will come, where that is known.
        ``advance`` is called with the number of texts finished since its last call.
        """
        sources = tee(chunks, len(self._sessions))
        with ExitStack() as stack:
            streams = []
            for place, ((session, tasks), source) in enumerate(zip(self._sessions.items(), sources, strict=True)):
                encoders = self._encoders_of(session)
                encoders.expect(expected)
                last = place == len(self._sessions) - 1
                answers = read_chunks(session, source, tasks, encoders=encoders, advance=advance if last else None)
                streams.append(stack.enter_context(closing(answers)))
            for together in zip(*streams, strict=True):
                yield self._frame(together)

    def close(self) -> None:
        """End the processes that tokenize; sessions and ``encoders`` are closed by who opened them."""
        while self._encoders:
            self._encoders.popitem()[1].close()

    def _encoders_of(self, session: Session) -> Encoders:
        """Those of its model, which several engines may share: their processes would fight for the same cores."""
        key = _encoders_key(session)
        if key in self._borrowed:
            return self._borrowed[key]
        if key not in self._encoders:
            self._encoders[key] = make_encoders(session)
        return self._encoders[key]

    def _frame(self, answers: Sequence[Answers]) -> pl.DataFrame:
        columns: dict[str, pl.Series] = {}
        languages = answers[0].languages
        for own in answers:
            columns |= _columns(own)
            # A text that one model cannot read may be plain to another.
            languages = np.where(languages < 0, own.languages, languages)
        columns["language"] = _named(LANGUAGES, languages)
        columns["reason"] = _reasons([own.reasons for own in answers])
        origin: dict[str, Iterable[str]] = {
            "model": [session.spec.title for session in self._sessions],
            "engine_id": [session.engine_id for session in self._sessions],
            "backend": dict.fromkeys(session.backend for session in self._sessions),
            "precision": dict.fromkeys(session.precision for session in self._sessions),
        }
        for name, values in origin.items():
            columns[name] = pl.Series(["+".join(values)], dtype=pl.String).new_from_index(0, len(answers[0]))
        return pl.DataFrame({name: columns[name] for name in self.schema})


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
        scorer = Scorer(
            {reader.session: reader.tasks for reader in readers},
            [choice for reader in readers for choice in reader.choices],
        )
        with closing(scorer):
            yield scorer


def _encoders_key(session: Session) -> _EncodersKey:
    """The same for sessions that can share what tokenizes."""
    return session.spec.folder, session.spec.max_tokens, session.backend


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
    if isinstance(texts, pl.Series) and texts.dtype == pl.String:
        return texts.to_list()
    if {*map(type, texts)} <= {str, type(None)}:
        return list(texts)
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


# The functions below hand nothing to polars' threads but the making of lists: a query costs more than what it does to
# a few thousand rows, and its threads take the cores of the processes that tokenize.


def _columns(answers: Answers) -> dict[str, pl.Series]:
    columns: dict[str, pl.Series] = {}
    if "sentiment" in answers.tasks:
        columns["sentiment"] = _named(SENTIMENTS, answers.sentiments)
        for place, label in enumerate(SENTIMENTS):
            columns[f"p_{label}"] = pl.Series(np.ascontiguousarray(answers.p_sentiment[:, place]), nan_to_null=True)
    if "topics" in answers.tasks:
        columns["topics"] = _topics(answers.topic_names, answers.topics, answers.topic_counts)
    if answers.spans is not None:
        columns["entities"] = _records(answers.spans)
    return columns


def _named(names: tuple[str, ...], places: NDArray[np.signedinteger[Any]]) -> pl.Series:
    """The name at each of ``places``, null at -1."""
    return _take(_table(names), np.where(places < 0, len(names), places))


@lru_cache(maxsize=64)
def _table(names: tuple[str, ...]) -> pl.Series:
    return pl.Series([*names, None], dtype=pl.String)


def _take(values: pl.Series, places: NDArray[np.integer[Any]]) -> pl.Series:
    """``values`` at ``places``, by the way that is no query; gather is one."""
    return values[pl.Series(places.astype(np.uint32))]


def _topics(names: tuple[str, ...], places: NDArray[np.int32], counts: NDArray[np.int32]) -> pl.Series:
    """Lists of names: for each of ``counts`` so many of the names at ``places``, null where it is 0."""
    return _only(_grouped(_named(names, places), counts), counts > 0)


def _records(spans: Spans) -> pl.Series:
    """Lists of records; null where a text has no answer."""
    try:
        texts = pl.Series(spans.texts, dtype=pl.String)
    except UnicodeEncodeError:  # half a character, as broken JSON leaves behind, cannot be stored as UTF-8
        texts = pl.Series([text.encode("utf-8", "replace").decode() for text in spans.texts], dtype=pl.String)
    columns = {
        "start": pl.Series(spans.starts),
        "end": pl.Series(spans.ends),
        "label": _named(spans.types, spans.labels),
        "text": texts,
    }
    lists = _grouped(pl.DataFrame(columns, schema=dict(ENTITY)).to_struct(), np.maximum(spans.counts, 0))
    return _only(lists, spans.counts >= 0)


def _only(lists: pl.Series, said: NDArray[np.bool_]) -> pl.Series:
    """``lists``, null where not ``said``."""
    return lists if said.all() else lists.zip_with(pl.Series(said), pl.Series([None], dtype=lists.dtype))


def _grouped(values: pl.Series, counts: NDArray[np.int32]) -> pl.Series:
    """``values`` as lists, as many in each as ``counts`` says."""
    if not len(values):
        return pl.Series([[]], dtype=pl.List(values.dtype)).new_from_index(0, len(counts))
    # Rows known to be sorted are grouped without a hash table.
    sizes = np.maximum(counts, 1)
    rows = pl.Series(np.repeat(np.arange(len(counts), dtype=np.uint32), sizes)).set_sorted()
    if len(rows) == len(values):
        return pl.DataFrame({"row": rows, "value": values}).group_by("row", maintain_order=True).agg("value")["value"]
    # An empty list is one of any value, cut to none.
    real = np.repeat(counts > 0, sizes)
    at = np.minimum(np.cumsum(real) - real, len(values) - 1)
    frame = pl.DataFrame({"row": rows, "value": _take(values, at), "count": np.repeat(counts, sizes)})
    lists = pl.col("value").head(pl.col("count").first())
    return frame.group_by("row", maintain_order=True).agg(lists)["value"]


def _reasons(reasons: Sequence[NDArray[np.int8]]) -> pl.Series:
    """Why each text has no answer, by each of the models that have none."""
    if len(reasons) == 1:
        return _named(REASONS, reasons[0])
    together, places = np.unique(np.stack(reasons), axis=1, return_inverse=True)
    joined = [
        "; ".join(dict.fromkeys(REASONS[place] for place in column if place >= 0)) or None for column in together.T
    ]
    return _take(pl.Series(joined, dtype=pl.String), places.reshape(-1))
