"""Texts of the lake joined with what the models read in them.

A review belongs to the week it was published in; one without a date, or with a date later than the day after it was
first seen, to the week in which it was first seen. It counts once, however many pages and snapshots show it.

Scores of two engines are never compared with each other: for each task one engine is chosen, the one that read the
most of the week's reviews (of equals the one that read the most of the baseline, then the first by id). Where the
workspace's model read a text, what other engines said about it is left out before (``prefer_engines``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from workbench.store.tables import ENTITY, TIME
from workbench.tasks.labels import TASKS
from workbench.weeks import Week

__all__ = [
    "BASELINE_WEEKS",
    "SCORED_REVIEWS",
    "EngineUse",
    "ScoredReviews",
    "join_reviews",
    "prefer_engines",
    "text_id",
    "with_topics",
]

BASELINE_WEEKS = 4
"""Whole weeks before the week of the report that it is compared with."""

_COLUMNS: dict[str, Any] = {
    "review_id": pl.String,
    "text_id": pl.String,
    "company_id": pl.String,
    "source_id": pl.String,
    "snapshot_id": pl.String,
    "fetched_at": TIME,
    "day": pl.Date,  # published, else first seen
    "side": pl.String,  # week, baseline
    "rating": pl.Float64,
    "rating_scale": pl.Float64,
    "title": pl.String,
    "text": pl.String,  # title and text, as the models read them
    "body": pl.String,  # the text alone
    "author_hash": pl.String,
    "language": pl.String,
    "sentiment": pl.String,
    "p_negative": pl.Float32,
    "p_neutral": pl.Float32,
    "p_positive": pl.Float32,
    "topics": pl.List(pl.String),
    "entities": pl.List(ENTITY),
    **{f"has_{task}": pl.Boolean for task in TASKS},  # a row of the chosen engine is there, with a value or a reason
}

SCORED_REVIEWS = pl.Schema(_COLUMNS)
"""Reviews of the week and its baseline with the scores of the chosen engines; null where there are none."""

_VALUES: Mapping[str, tuple[str, ...]] = {
    "sentiment": ("sentiment", "p_negative", "p_neutral", "p_positive"),
    "topics": ("topics",),
    "entities": ("entities",),
}


@dataclass(frozen=True)
class EngineUse:
    """The engine whose scores of a task are used, and how far they go. Counts are of texts with such a row."""

    task: str
    engine_id: str | None
    """None when nothing was scored for the task."""
    model: str | None
    backend: str | None
    precision: str | None
    scored_week: int
    scored_baseline: int
    missing_week: int
    """Reviews of the week without a row of this engine."""
    missing_baseline: int
    other_engines: Mapping[str, int]
    """Other engines and how many of the reviews missing here they read: score those again to compare them."""


@dataclass(frozen=True)
class ScoredReviews:
    """``rows`` has the schema SCORED_REVIEWS, sorted by company, day and review; ``engines`` by task."""

    rows: pl.DataFrame
    engines: Mapping[str, EngineUse]

    @property
    def any_scores(self) -> bool:
        """Whether the sentiment of any review was read."""
        return self.engines["sentiment"].engine_id is not None


def text_id(text: str) -> str:
    """SHA-256 of a text, the key of its scores."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def prefer_engines(scores: pl.DataFrame, engines: pl.DataFrame) -> pl.DataFrame:
    """``scores`` without what other engines said about texts that those of ``engines`` read for the same task.

    ``engines`` has columns task and engine_id, one row a task: those that the workspace uses.
    """
    chosen = scores.join(engines.select("task", "engine_id"), on=["task", "engine_id"], how="semi")
    return pl.concat([chosen, scores.join(chosen, on=["text_id", "task"], how="anti")])


def join_reviews(reviews: pl.DataFrame, scores: pl.DataFrame, week: Week) -> ScoredReviews:
    """The reviews of ``week`` and of the BASELINE_WEEKS before it, with their scores.

    ``reviews`` and ``scores`` have the schemas of the lake's tables.
    """
    rows = _with_side(_with_text(reviews), week)
    engines = {}
    for task in TASKS:
        found = scores.filter(pl.col("task") == task, pl.col("text_id").is_in(rows["text_id"].to_list()))
        use = _choose_engine(rows, found, task)
        engines[task] = use
        chosen = (
            found.filter(pl.col("engine_id") == pl.lit(use.engine_id, dtype=pl.String))
            .unique("text_id", keep="first", maintain_order=True)
            .select("text_id", *_VALUES[task], pl.lit(True).alias(f"has_{task}"))
        )
        rows = rows.join(chosen, on="text_id", how="left").with_columns(pl.col(f"has_{task}").fill_null(False))
    rows = rows.select(list(SCORED_REVIEWS)).cast(SCORED_REVIEWS).sort("company_id", "day", "review_id")
    return ScoredReviews(rows, engines)


def _with_text(reviews: pl.DataFrame) -> pl.DataFrame:
    """With the text as the models get it and its id; reviews without words are left out."""
    text = pl.concat_str("title", "text", separator="\n", ignore_nulls=True).str.strip_chars()
    return (
        reviews.with_columns(pl.col("text").alias("body"), text.alias("text"))
        .filter(pl.col("text").str.len_chars() > 0)
        .with_columns(pl.col("text").map_elements(text_id, return_dtype=pl.String).alias("text_id"))
    )


def _with_side(reviews: pl.DataFrame, week: Week) -> pl.DataFrame:
    seen = pl.col("fetched_at").dt.date()
    # A day of slack, because a review's date is local to its site.
    believed = pl.col("published").is_not_null() & (pl.col("published") <= seen + pl.duration(days=1))
    first = (week.start - timedelta(weeks=BASELINE_WEEKS)).date()
    day = pl.col("day")
    return (
        reviews.with_columns(pl.when(believed).then(pl.col("published")).otherwise(seen).alias("day"))
        .filter(day >= first, day < week.end.date(), pl.col("fetched_at") < week.end)
        .with_columns(
            pl.when(day >= week.start.date()).then(pl.lit("week")).otherwise(pl.lit("baseline")).alias("side")
        )
    )


def _choose_engine(rows: pl.DataFrame, scores: pl.DataFrame, task: str) -> EngineUse:
    total = {side: rows.filter(pl.col("side") == side).height for side in ("week", "baseline")}
    counts = (
        rows.select("review_id", "text_id", "side")
        .join(scores.select("text_id", "engine_id").unique(), on="text_id")
        .group_by("engine_id")
        .agg((pl.col("side") == "week").sum().alias("week"), (pl.col("side") == "baseline").sum().alias("baseline"))
        .sort("week", "baseline", "engine_id", descending=[True, True, False])
    )
    if counts.is_empty():
        return EngineUse(task, None, None, None, None, 0, 0, total["week"], total["baseline"], {})
    best = counts.row(0, named=True)
    engine_id = best["engine_id"]
    own = scores.filter(pl.col("engine_id") == engine_id).sort("text_id").row(0, named=True)
    read = scores.filter(pl.col("engine_id") == engine_id).select("text_id")
    others = (
        rows.join(read, on="text_id", how="anti")
        .join(scores.select("text_id", "engine_id").unique(), on="text_id")
        .group_by("engine_id")
        .len()
        .sort("engine_id")
    )
    return EngineUse(
        task=task,
        engine_id=engine_id,
        model=own["model"],
        backend=own["backend"],
        precision=own["precision"],
        scored_week=best["week"],
        scored_baseline=best["baseline"],
        missing_week=total["week"] - best["week"],
        missing_baseline=total["baseline"] - best["baseline"],
        other_engines=dict(others.iter_rows()),
    )


def with_topics(claims: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """``claims`` with a column ``topics`` from the engine that read the most of them; null where none did.

    ``claims`` needs a column ``text``; the order of rows is kept.
    """
    rows = claims.with_columns(pl.col("text").map_elements(text_id, return_dtype=pl.String).alias("text_id"))
    found = scores.filter(pl.col("task") == "topics", pl.col("text_id").is_in(rows["text_id"].to_list()))
    counts = found.group_by("engine_id").agg(pl.col("text_id").n_unique().alias("n"))
    if counts.is_empty():
        return rows.with_columns(pl.lit(None, dtype=pl.List(pl.String)).alias("topics"))
    engine_id = counts.sort("n", "engine_id", descending=[True, False])["engine_id"][0]
    chosen = found.filter(pl.col("engine_id") == engine_id).unique("text_id", keep="first", maintain_order=True)
    return rows.join(chosen.select("text_id", "topics"), on="text_id", how="left", maintain_order="left")
