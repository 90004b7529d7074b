"""The tables of the lake: columns, types and keys, declared once.

Times are UTC with microseconds. A ``snapshot_id`` leads back to one archived response. Money is Decimal(18, 4) in
the currency of the same row (ISO 4217).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

__all__ = ["ENTITY", "MONEY", "TABLES", "TIME", "Table"]

TIME = pl.Datetime("us", "UTC")
MONEY = pl.Decimal(18, 4)
ENTITY = pl.Struct({"start": pl.Int32, "end": pl.Int32, "label": pl.String, "text": pl.String})
"""A name found in a text: code-point offsets, end exclusive."""


@dataclass(frozen=True)
class Table:
    """One table: its name, the columns that identify a row, and all columns with their types."""

    name: str
    key: tuple[str, ...]
    schema: pl.Schema


def _schema(columns: dict[str, Any]) -> pl.Schema:
    """A schema of polars types, as classes or instances."""
    return pl.Schema(columns)


# Where a row comes from, on every table that is read off a page.
_ORIGIN: dict[str, Any] = {
    "snapshot_id": pl.String,
    "company_id": pl.String,
    "source_id": pl.String,
    "url": pl.String,
    "fetched_at": TIME,
}

_TABLES = (
    Table(
        "sources",
        ("week", "source_id", "url"),
        _schema(
            {
                "week": pl.String,
                "company_id": pl.String,
                "source_id": pl.String,
                "url": pl.String,
                "kind": pl.String,
                "status": pl.String,  # fetched, not-modified, robots-denied, blocked, failed, stale
                "http_status": pl.Int32,
                "attempted_at": TIME,  # last attempt inside or before the week
                "snapshot_id": pl.String,  # newest snapshot up to the week's end, null if there never was one
                "snapshot_at": TIME,
                "note": pl.String,
            }
        ),
    ),
    Table(
        "pages",
        ("snapshot_id",),
        _schema(
            {
                **_ORIGIN,
                "kind": pl.String,
                "http_status": pl.Int32,
                "payload_sha256": pl.String,
                "title": pl.String,
                "language": pl.String,
                "published": pl.Date,
                "text": pl.String,
                "warnings": pl.List(pl.String),
                "extractor": pl.String,  # id of the extraction code that read the row
            }
        ),
    ),
    Table(
        "offers",
        ("snapshot_id", "position"),
        _schema(
            {
                **_ORIGIN,
                "position": pl.Int32,  # 0 is the page's main product
                "offer_key": pl.String,  # the same product over time: gtin, sku, mpn or the folded name
                "name": pl.String,
                "price": MONEY,
                "currency": pl.String,
                "list_price": MONEY,
                "availability": pl.String,
                "sku": pl.String,
                "gtin": pl.String,
                "mpn": pl.String,
                "brand": pl.String,
                "condition": pl.String,
            }
        ),
    ),
    Table(
        "plans",
        ("snapshot_id", "position"),
        _schema(
            {
                **_ORIGIN,
                "position": pl.Int32,
                "name": pl.String,
                "price": MONEY,
                "currency": pl.String,
                "billing_period": pl.String,
                "per_unit": pl.String,
                "features": pl.List(pl.String),
            }
        ),
    ),
    Table(
        "claims",
        ("snapshot_id", "position"),
        _schema(
            {
                **_ORIGIN,
                "position": pl.Int32,
                "kind": pl.String,  # heading, statement
                "level": pl.Int32,  # 1-6 for headings
                "text": pl.String,
            }
        ),
    ),
    Table(
        "reviews",
        ("review_id",),
        _schema(
            {
                "review_id": pl.String,
                **_ORIGIN,  # of the first snapshot that showed the review
                "author_hash": pl.String,  # keyed hash with the workspace's salt; the name itself is never stored
                "rating": pl.Float64,
                "rating_scale": pl.Float64,  # the best rating possible
                "title": pl.String,
                "text": pl.String,
                "language": pl.String,
                "published": pl.Date,
            }
        ),
    ),
    Table(
        "creatives",
        ("snapshot_id", "position"),
        _schema(
            {
                **_ORIGIN,
                "position": pl.Int32,
                "image_url": pl.String,
                "alt": pl.String,
                "width": pl.Int32,
                "height": pl.Int32,
            }
        ),
    ),
    Table(
        "scores",
        ("text_id", "task", "engine_id"),
        _schema(
            {
                "text_id": pl.String,  # SHA-256 of the text: the same words are read once by an engine
                "task": pl.String,  # sentiment, topics, entities
                "engine_id": pl.String,
                "model": pl.String,
                "backend": pl.String,
                "precision": pl.String,
                "language": pl.String,
                "sentiment": pl.String,  # negative, neutral, positive
                "p_negative": pl.Float32,
                "p_neutral": pl.Float32,
                "p_positive": pl.Float32,
                "topics": pl.List(pl.String),
                "entities": pl.List(ENTITY),
                "reason": pl.String,  # why nothing can be said; null where something is
            }
        ),
    ),
    Table(
        "engines",
        ("week", "task"),
        _schema(
            {
                "week": pl.String,
                "task": pl.String,
                "engine_id": pl.String,  # whose scores count for the week: that of the workspace's model
                "model": pl.String,
                "backend": pl.String,
                "precision": pl.String,
            }
        ),
    ),
    Table(
        "changes",
        ("change_id",),
        _schema(
            {
                "change_id": pl.String,  # hash of week, url, kind and subject
                "week": pl.String,
                "company_id": pl.String,
                "source_id": pl.String,
                "url": pl.String,
                "kind": pl.String,  # see workbench.insight.changes.ChangeKind
                "subject": pl.String,  # product, tier or claim the change is about
                "before": pl.String,
                "after": pl.String,
                "amount_before": MONEY,  # prices only
                "amount_after": MONEY,
                "currency": pl.String,
                "percent": pl.Float64,
                "severity": pl.String,  # high, medium, low, note
                "confidence": pl.Float64,  # 0 to 1
                "why": pl.String,  # why this severity and confidence, in words
                "observed_at": TIME,  # fetch time of the newer snapshot
                "snapshot_before": pl.String,
                "snapshot_after": pl.String,
            }
        ),
    ),
)

TABLES: Mapping[str, Table] = {table.name: table for table in _TABLES}
"""All tables by name."""
