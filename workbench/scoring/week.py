"""A week's texts to the lake's table ``scores``: ``workbench score`` and notebook 03.

Scores are kept by text, task and engine id, so nothing is read twice by the same engine, and a second run of a week
writes nothing. When a task gets another model, what the week and its baseline need is read again by it; what the
model before it said stays in the table. Which engine counts for a week stands in the table ``engines``.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import polars as pl

from workbench.errors import ModelError
from workbench.runtime import Session
from workbench.runtime.read import reading_bar, split_texts
from workbench.scoring.api import Scorer, bundled_model
from workbench.scoring.choosing import open_readers
from workbench.scoring.texts import TASKS_OF_KIND, select_texts
from workbench.settings import settings
from workbench.store.lake import Lake
from workbench.store.tables import TABLES
from workbench.tasks.labels import SENTIMENTS, TASKS
from workbench.tasks.spec import MODEL_FILES
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = ["ScoredBy", "WeekScores", "missing_bundle", "score_week", "score_week_if_bundled", "workspace_models"]

_BUNDLED: Final = "reviews"
_MOST_NAMES: Final = 5  # of one label, as examples
_WRITE: Final = 8192  # texts between two writes: an interrupted run loses these and what is under way

_SCORES: Final = TABLES["scores"].schema
_Scored = tuple[Sequence[tuple[str, str]], pl.DataFrame]  # texts by id, and their rows
_ORIGIN: Final = ("engine_id", "model", "backend", "precision")
_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "sentiment": ("sentiment", *(f"p_{label}" for label in SENTIMENTS)),
    "topics": ("topics",),
    "entities": ("entities",),
}


@dataclass(frozen=True)
class ScoredBy:
    """The engine that reads for a task."""

    task: str
    model: str
    engine_id: str
    backend: str
    precision: str


@dataclass(frozen=True)
class WeekScores:
    """What the models said about a week's texts, and what this run had to read for it."""

    week: str
    texts: pl.DataFrame
    """Columns of TEXT_SCHEMA: the week and its baseline."""
    scores: pl.DataFrame
    """Rows of the table ``scores`` for these texts, by the engines of ``engines``."""
    engines: tuple[ScoredBy, ...] = ()
    texts_read: int = 0
    """Texts this run read; the others were in the lake already."""
    seconds: float = 0.0
    """Reading and writing together, without loading models."""
    reason: str | None = None
    """Why nothing could be scored; None otherwise."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Who reads for each task, and why: an engine that passed, or the FP32 model."""

    @property
    def available(self) -> bool:
        """Whether there is a model to score with."""
        return self.reason is None

    @property
    def texts_per_second(self) -> float | None:
        """Texts read and written a second in this run; None when it read nothing."""
        return self.texts_read / self.seconds if self.texts_read and self.seconds else None

    def summary(self) -> str:
        """One line for a person."""
        if self.reason is not None:
            return self.reason
        speed = f" at {self.texts_per_second:,.0f} a second" if self.texts_per_second else ""
        return (
            f"{self.week}: {self._distinct:,} texts in the week and its baseline, {self.texts_read:,} read now"
            f"{speed}, {self._distinct - self.texts_read:,} scored before."
        )

    def report(self) -> str:
        """The summary, then a line for each engine: the tasks that it reads, and why it does."""
        tasks: dict[str, list[str]] = {}
        for task, why in self.chosen.items():
            tasks.setdefault(why, []).append(task)
        return "\n".join([self.summary(), *(f"{', '.join(own)}: {why}" for why, own in tasks.items())])

    def by_task(self) -> pl.DataFrame:
        """One row a task: model, engine, where it ran, texts with an answer and texts without."""
        rows = []
        for engine in self.engines:
            own = self.scores.filter(pl.col("task") == engine.task)
            unread = own["reason"].count()
            rows.append(
                {
                    **{
                        name: getattr(engine, name) for name in ("task", "model", "engine_id", "backend", "precision")
                    },
                    "texts": own.height - unread,
                    "without_answer": unread,
                }
            )
        integers: dict[str, Any] = {"texts": pl.Int64, "without_answer": pl.Int64}
        names = ("task", "model", "engine_id", "backend", "precision")
        return pl.DataFrame(rows, schema={**dict.fromkeys(names, pl.String), **integers})

    def missing(self) -> pl.DataFrame:
        """Text and task of what should be read and is not; empty after ``score_week``."""
        tasks = [(kind, task) for kind, own in TASKS_OF_KIND.items() for task in own]
        wanted = pl.DataFrame(tasks, schema={"kind": pl.String, "task": pl.String}, orient="row")
        pairs = self.texts.join(wanted, on="kind").select("text_id", "task").unique()
        return pairs.join(self.scores, on=["text_id", "task"], how="anti").sort("text_id", "task")

    def reasons(self) -> pl.DataFrame:
        """Why texts have no answer, by task, the most frequent first."""
        return (
            self.scores.drop_nulls("reason")
            .group_by("task", "reason")
            .agg(pl.len().alias("texts"))
            .sort("texts", "task", "reason", descending=[True, False, False])
        )

    def sentiments(self) -> pl.DataFrame:
        """Reviews of the week by company, language (as the model's reader found it) and sentiment."""
        week = self._joined("sentiment").filter(pl.col("side") == "week").drop_nulls("sentiment")
        counts = [(pl.col("sentiment") == label).sum().alias(label) for label in SENTIMENTS]
        return (
            week.group_by("company_id", "language")
            .agg(pl.len().alias("reviews"), *counts)
            .sort("company_id", "language", nulls_last=True)
        )

    def topics(self) -> pl.DataFrame:
        """Texts of the week by topic, language and kind; a text on two topics counts for both."""
        week = self._joined("topics").filter(pl.col("side") == "week").explode("topics").drop_nulls("topics")
        kinds = [(pl.col("kind") == kind).sum().alias(f"{kind}s") for kind in TASKS_OF_KIND]
        return (
            week.group_by("topics", "language")
            .agg(*kinds)
            .rename({"topics": "topic"})
            .sort(
                "reviews", "statements", "topic", "language", descending=[True, True, False, False], nulls_last=True
            )
        )

    def entities(self) -> pl.DataFrame:
        """Names in the week's reviews by label and language: how often, in how many reviews, the most frequent."""
        named = (
            self._joined("entities")
            .filter(pl.col("side") == "week")
            .select("text_id", "snapshot_id", "language", "entities")
            .with_row_index("review")
            .explode("entities")
            .drop_nulls("entities")
            .with_columns(pl.col("entities").struct.field("label"), pl.col("entities").struct.field("text"))
        )
        names = (
            named.group_by("label", "language", "text")
            .agg(pl.len().alias("count"))
            .sort("count", "text", descending=[True, False])
            .group_by("label", "language", maintain_order=True)
            .agg(pl.col("text").head(_MOST_NAMES).alias("most_frequent"))
        )
        return (
            named.group_by("label", "language")
            .agg(pl.len().alias("names"), pl.col("review").n_unique().alias("reviews"))
            .join(names, on=["label", "language"], how="left", nulls_equal=True)
            .sort("names", "label", "language", descending=[True, False, False], nulls_last=True)
        )

    def least_certain(self, rows: int = 8) -> pl.DataFrame:
        """The week's reviews whose sentiment the model is least sure of: ``rows`` for each language, worst first."""
        p = pl.max_horizontal([f"p_{label}" for label in SENTIMENTS])
        return (
            self._joined("sentiment")
            .filter(pl.col("side") == "week")
            .drop_nulls("sentiment")
            .with_columns(p.alias("certainty"))
            .unique("text_id", keep="first", maintain_order=True)
            .sort("language", "certainty", "text_id", nulls_last=True)
            .group_by("language", maintain_order=True)
            .head(rows)
            .select("language", "company_id", "certainty", *_VALUES["sentiment"], "text", "snapshot_id")
        )

    @property
    def _distinct(self) -> int:
        return self.texts["text_id"].n_unique()

    def _joined(self, task: str) -> pl.DataFrame:
        own = self.scores.filter(pl.col("task") == task).select("text_id", "language", *_VALUES[task])
        kinds = [kind for kind, tasks in TASKS_OF_KIND.items() if task in tasks]
        texts = self.texts.filter(pl.col("kind").is_in(kinds)).drop("language")
        return texts.join(own, on="text_id", how="inner", maintain_order="left")

    def _repr_html_(self) -> str:
        if self.reason is not None:
            return f"<p><strong>Nothing is scored.</strong> {html.escape(self.reason)}</p>"
        frame = self.by_task()
        left = ' style="text-align:left"'  # notebooks put everything to the right
        head = "".join(f"<th{left}>{html.escape(name.replace('_', ' '))}</th>" for name in frame.columns)
        body = "".join(
            "<tr>" + "".join(f"<td{left}>{html.escape(str(value))}</td>" for value in row) + "</tr>"
            for row in frame.rows()
        )
        why = "".join(f"<li>{html.escape(task)}: {html.escape(text)}</li>" for task, text in self.chosen.items())
        return (
            f"<p>{html.escape(self.summary())}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            + (f"<ul>{why}</ul>" if why else "")
        )


def score_week(workspace: Workspace, week: Week, *, backend: str = "auto", progress: bool = True) -> WeekScores:
    """Score what is new in the lake up to ``week``: its texts and those of the four weeks before.

    Each task is read by the model that workspace.toml names for it; tasks with the same model share one pass. A
    checkpoint is exported first (once). Raises ModelError when a model is missing, cannot be loaded or does not give
    its task, and LakeError when the lake does not fit this version.
    """
    if (reason := missing_bundle(workspace, week)) is not None:
        raise ModelError(reason)
    lake = Lake(workspace.lake_dir)
    texts = select_texts(lake, workspace, week)
    with open_readers(workspace_models(workspace), backend=backend, policy=workspace.policy) as readers:
        sessions = {reader.session: reader.tasks for reader in readers}
        chosen = {choice.task: choice.why for reader in readers for choice in reader.choices}
        plan = [
            (session, tasks, waiting)
            for session, own in sessions.items()
            for tasks, waiting in _waiting(lake, texts, session, own).items()
        ]
        engines = {
            task: ScoredBy(task, s.spec.title, s.engine_id, s.backend, s.precision)
            for s, own in sessions.items()
            for task in own
        }
        read, seconds = _read(lake, plan, progress=progress)
    ordered = tuple(engines[task] for task in TASKS)
    used = pl.DataFrame(
        [{"week": str(week), **asdict(engine)} for engine in ordered], schema=TABLES["engines"].schema
    )
    lake.replace("engines", used, where={"week": [str(week)]})
    return WeekScores(str(week), texts, _stored(lake, texts, ordered), ordered, len(read), seconds, chosen=chosen)


def score_week_if_bundled(
    workspace: Workspace, week: Week, *, backend: str = "auto", progress: bool = True
) -> WeekScores:
    """``score_week``; when the bundled model that workspace.toml asks for is not there, a result that says so.

    That one case is not an error, because a checkout may come without weights and the rest of a week's report does
    not need them: the result has ``available`` False, the ``reason`` and the ``texts``. Everything else raises.
    """
    reason = missing_bundle(workspace, week)
    if reason is None:
        return score_week(workspace, week, backend=backend, progress=progress)
    texts = select_texts(Lake(workspace.lake_dir), workspace, week)
    return WeekScores(str(week), texts, pl.DataFrame(schema=_SCORES), reason=reason)


def workspace_models(workspace: Workspace, tasks: Sequence[str] = TASKS) -> dict[str, Path]:
    """The model folder of each task, as workspace.toml names it; a checkpoint is exported first (once).

    Raises ModelError when a model is missing or cannot be exported.
    """
    # Loaded here, for it brings more along than reading with a bundled model needs.
    from workbench.engine.export import model_folder

    return {task: model_folder(getattr(workspace.models, task), task, workspace) for task in TASKS if task in tasks}


def missing_bundle(workspace: Workspace, week: Week | None = None) -> str | None:
    """Why the model that comes with the checkout cannot be used, or None when it can or is not asked for."""
    asking = [task for task in TASKS if getattr(workspace.models, task).bundled == _BUNDLED]
    absent = [name for name in MODEL_FILES if not (bundled_model(_BUNDLED) / name).is_file()]
    if not asking or not absent:
        return None
    folder = Path("engines") / _BUNDLED
    again = f"workbench score -w {workspace.root}" + (f" --week {week}" if week else "")
    return (
        f"No model is bundled for {', '.join(asking)}: {folder} in {settings().home} has no {', '.join(absent)}. "
        f"Get the folder back with `git checkout -- engines`, or name models of your own under [models] in "
        f"{workspace.root / 'workspace.toml'}; then: {again}"
    )


def _waiting(
    lake: Lake, texts: pl.DataFrame, session: Session, tasks: Sequence[str]
) -> dict[tuple[str, ...], dict[str, str]]:
    """The texts (id to text) that the engine still has to read, by the tasks it has to read them for."""
    wanted: dict[str, set[str]] = defaultdict(set)
    words: dict[str, str] = {}
    for text_id, kind, text in texts.select("text_id", "kind", "text").iter_rows():
        wanted[text_id].update(TASKS_OF_KIND[kind])
        words[text_id] = text
    stored = (
        lake.scan("scores")
        .filter(pl.col("engine_id") == session.engine_id, pl.col("text_id").is_in(list(wanted)))
        .select("text_id", "task")
        .collect()
    )
    for text_id, task in stored.iter_rows():
        wanted[text_id].discard(task)
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for text_id, left in wanted.items():
        own = tuple(task for task in tasks if task in left)
        if own:
            groups.setdefault(own, {})[text_id] = words[text_id]
    return groups


def _read(
    lake: Lake, plan: Sequence[tuple[Session, tuple[str, ...], Mapping[str, str]]], *, progress: bool
) -> tuple[set[str], float]:
    """Read what the plan says and write it; the ids of the texts read and the seconds that both took together."""
    read: set[str] = set()
    seconds = 0.0
    total = sum(len(waiting) for _, _, waiting in plan)
    with reading_bar(total, progress and total > 0) as advance:
        for session, tasks, waiting in plan:
            # A scorer of one session: every row of it is by one engine.
            items, started = list(waiting.items()), perf_counter()
            with closing(Scorer({session: tasks})) as scorer:
                ranges = split_texts([text for _, text in items], parts=scorer.workers)
                parts = [items[start:end] for start, end in ranges]
                chunks = ([text for _, text in part] for part in parts)
                scored = scorer.score_chunks(chunks, expected=len(items), advance=advance)
                with closing(scored):
                    for block in _blocks(zip(parts, scored, strict=True)):
                        ids = [text_id for part, _ in block for text_id, _ in part]
                        lake.upsert("scores", _rows(ids, pl.concat(frame for _, frame in block), tasks))
                        read.update(ids)
            seconds += perf_counter() - started
    return read, seconds


def _blocks(parts: Iterable[_Scored]) -> Iterator[list[_Scored]]:
    """As many parts together as are written at once."""
    block: list[_Scored] = []
    for part in parts:
        block.append(part)
        if sum(len(frame) for _, frame in block) >= _WRITE:
            yield block
            block = []
    if block:
        yield block


def _rows(ids: Sequence[str], scores: pl.DataFrame, tasks: Sequence[str]) -> pl.DataFrame:
    """One row a text and task, in the schema of the table ``scores``."""
    known = scores.with_columns(pl.Series("text_id", ids, dtype=pl.String))
    parts = []
    for task in tasks:
        kept = {"text_id", "task", "language", "reason", *_ORIGIN, *_VALUES[task]}
        # A text may have a sentiment and no topics: the reason stands where nothing is said.
        unread = pl.col(_VALUES[task][0]).is_null()
        part = known.with_columns(pl.lit(task).alias("task"), pl.when(unread).then("reason").alias("reason"))
        parts.append(
            part.select(
                pl.col(name) if name in kept else pl.lit(None, dtype=kind).alias(name)
                for name, kind in _SCORES.items()
            )
        )
    return pl.concat(parts)


def _stored(lake: Lake, texts: pl.DataFrame, engines: Sequence[ScoredBy]) -> pl.DataFrame:
    used = pl.DataFrame(
        [{"task": engine.task, "engine_id": engine.engine_id} for engine in engines],
        schema={"task": pl.String, "engine_id": pl.String},
    )
    ids = texts.select("text_id").unique()
    return (
        lake.scan("scores")
        .join(used.lazy(), on=["task", "engine_id"], how="semi")
        .join(ids.lazy(), on="text_id", how="semi")
        .sort("text_id", "task")
        .collect()
    )
