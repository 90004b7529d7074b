"""Which texts are read by models.

For now this selects and shows them; the models that read them are added on top.
"""

from __future__ import annotations

import hashlib
from typing import Any

import polars as pl

from workbench.store.lake import Lake
from workbench.store.tables import TIME
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = ["TEXT_SCHEMA", "select_texts", "summarize_texts"]

_COLUMNS: dict[str, Any] = {
    "text_id": pl.String,  # SHA-256 of the text: the same words are read once
    "company_id": pl.String,
    "source_id": pl.String,
    "kind": pl.String,  # review, claim
    "language": pl.String,
    "published": pl.Date,
    "first_seen": TIME,
    "snapshot_id": pl.String,
    "text": pl.String,
}

TEXT_SCHEMA = pl.Schema(_COLUMNS)
"""Columns of the texts a week brings."""


def select_texts(lake: Lake, workspace: Workspace, week: Week) -> pl.DataFrame:
    """The texts first seen in ``week``: reviews, and the claims of pages fetched in it, as TEXT_SCHEMA.

    One row a review; a claim that stands on a page in several snapshots is one row, with its first snapshot. Rows are
    sorted by company, kind, time and text. Companies that left the workspace are left out.
    """
    companies = [company.id for company in workspace.companies]
    reviews = lake.read("reviews").select(
        "company_id",
        "source_id",
        pl.lit("review").alias("kind"),
        "language",
        "published",
        pl.col("fetched_at").alias("first_seen"),
        "snapshot_id",
        pl.concat_str("title", "text", separator="\n", ignore_nulls=True).str.strip_chars().alias("text"),
    )
    languages = lake.read("pages").select("snapshot_id", "language")
    claims = (
        lake.read("claims")
        .filter(pl.col("kind") == "statement")
        .sort("fetched_at", "snapshot_id", "position")
        .unique(["company_id", "source_id", "text"], keep="first", maintain_order=True)
        .join(languages, on="snapshot_id", how="left")
        .select(
            "company_id",
            "source_id",
            pl.lit("claim").alias("kind"),
            "language",
            pl.lit(None, dtype=pl.Date).alias("published"),
            pl.col("fetched_at").alias("first_seen"),
            "snapshot_id",
            "text",
        )
    )
    return (
        pl.concat([reviews, claims])
        .filter(
            pl.col("company_id").is_in(companies),
            pl.col("first_seen") >= week.start,
            pl.col("first_seen") < week.end,
            pl.col("text").str.len_chars() > 0,
        )
        .with_columns(pl.col("text").map_elements(_text_id, return_dtype=pl.String).alias("text_id"))
        .select(list(TEXT_SCHEMA))
        .cast(TEXT_SCHEMA)
        .sort("company_id", "kind", "first_seen", "text")
    )


def _text_id(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def summarize_texts(texts: pl.DataFrame) -> pl.DataFrame:
    """Number of texts and of characters by company, kind and language."""
    return (
        texts.group_by("company_id", "kind", "language")
        .agg(pl.len().alias("texts"), pl.col("text").str.len_chars().sum().alias("characters"))
        .sort("company_id", "kind", "language")
    )
