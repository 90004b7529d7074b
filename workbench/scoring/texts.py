"""Which texts a week's report needs read: those of the week, and of the four weeks it is compared with.

- Reviews are read for every task. A review belongs to the week it was published in; one without a date, or with a
  date later than the day after it was first seen, to the week it was first seen in (as in ``workbench.insight``).
- Statements (claims, lines of changelogs, news) are read for topics only. A statement belongs to the week in which
  its company first made it in those words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import polars as pl

from workbench.store.lake import Lake
from workbench.store.tables import TIME
from workbench.tasks.labels import TASKS
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = ["BASELINE_WEEKS", "TASKS_OF_KIND", "TEXT_SCHEMA", "select_texts", "summarize_texts", "text_id"]

BASELINE_WEEKS: Final = 4
"""Whole weeks before the week of a report that it is compared with."""

TASKS_OF_KIND: Final[Mapping[str, tuple[str, ...]]] = {"review": TASKS, "statement": ("topics",)}
"""What is read in a text of each kind."""

_COLUMNS: dict[str, Any] = {
    "text_id": pl.String,  # SHA-256 of the text: the same words are read once
    "company_id": pl.String,
    "source_id": pl.String,
    "kind": pl.String,  # review, statement
    "side": pl.String,  # week, baseline
    "day": pl.Date,  # what puts the text into its week
    "language": pl.String,  # of the page; null where it says nothing
    "published": pl.Date,
    "first_seen": TIME,
    "snapshot_id": pl.String,
    "text": pl.String,
}

TEXT_SCHEMA = pl.Schema(_COLUMNS)
"""Columns of the texts a week needs."""


def text_id(text: str) -> str:
    """SHA-256 of a text, the key of its scores."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def select_texts(lake: Lake, workspace: Workspace, week: Week) -> pl.DataFrame:
    """The texts of ``week`` and of the BASELINE_WEEKS before it, as TEXT_SCHEMA.

    One row a review, title and text together; one row a statement and company, with its first snapshot. Rows are
    sorted by company, kind, day and text. Companies that left the workspace are left out.
    """
    companies = [company.id for company in workspace.companies]
    first = week.start - timedelta(weeks=BASELINE_WEEKS)
    day = pl.col("day")
    return (
        pl.concat([_reviews(lake), _statements(lake)])
        .filter(
            pl.col("company_id").is_in(companies),
            day >= first.date(),
            day < week.end.date(),
            pl.col("first_seen") < week.end,
            pl.col("text").str.len_chars() > 0,
        )
        .with_columns(
            pl.col("text").map_elements(text_id, return_dtype=pl.String).alias("text_id"),
            pl.when(day >= week.start.date()).then(pl.lit("week")).otherwise(pl.lit("baseline")).alias("side"),
        )
        .select(list(TEXT_SCHEMA))
        .cast(TEXT_SCHEMA)
        .sort("company_id", "kind", "day", "text", "snapshot_id")
    )


def _reviews(lake: Lake) -> pl.DataFrame:
    seen = pl.col("fetched_at").dt.date()
    # A day of slack, because a review's date is local to its site.
    believed = pl.col("published").is_not_null() & (pl.col("published") <= seen + pl.duration(days=1))
    return lake.read("reviews").select(
        "company_id",
        "source_id",
        pl.lit("review").alias("kind"),
        pl.when(believed).then(pl.col("published")).otherwise(seen).alias("day"),
        "language",
        "published",
        pl.col("fetched_at").alias("first_seen"),
        "snapshot_id",
        pl.concat_str("title", "text", separator="\n", ignore_nulls=True).str.strip_chars().alias("text"),
    )


def _statements(lake: Lake) -> pl.DataFrame:
    languages = lake.read("pages").select("snapshot_id", "language")
    return (
        lake.read("claims")
        .filter(pl.col("kind") == "statement")
        .sort("fetched_at", "snapshot_id", "position")
        .unique(["company_id", "text"], keep="first", maintain_order=True)
        .join(languages, on="snapshot_id", how="left")
        .select(
            "company_id",
            "source_id",
            pl.lit("statement").alias("kind"),
            pl.col("fetched_at").dt.date().alias("day"),
            "language",
            pl.lit(None, dtype=pl.Date).alias("published"),
            pl.col("fetched_at").alias("first_seen"),
            "snapshot_id",
            "text",
        )
    )


def summarize_texts(texts: pl.DataFrame) -> pl.DataFrame:
    """Number of texts of the week and of its baseline, and of characters, by company, kind and language."""
    return (
        texts.group_by("company_id", "kind", "language")
        .agg(
            (pl.col("side") == "week").sum().alias("week"),
            (pl.col("side") == "baseline").sum().alias("baseline"),
            pl.col("text").str.len_chars().sum().alias("characters"),
        )
        .sort("company_id", "kind", "language", nulls_last=True)
    )
