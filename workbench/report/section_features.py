"""The part of section 4 that files new statements by product area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from workbench.insight.scored import with_topics
from workbench.insight.sentiment import topic_name
from workbench.report.html import plural, quoted
from workbench.report.material import Material, View
from workbench.report.tables import Column, table
from workbench.tasks.labels import TOPICS

__all__ = ["Areas", "build_areas"]

_LONGEST = 240  # characters of a statement


@dataclass(frozen=True)
class Areas:
    """``rows`` for JSON, ``body`` for HTML (empty when nothing is filed), ``notes`` to stand before it."""

    rows: list[dict[str, Any]]
    body: Markup
    notes: list[str]


def build_areas(material: Material, view: View) -> Areas:
    """New statements (section 4's claims that were added) under the topics a model gave them.

    Headings are not read by a model and are left out. Without scores there is nothing to say.
    """
    rows = _filed(material)
    known = [row for row in rows if row["topics"]]
    if not known:
        return Areas([], Markup(""), [])
    notes = [
        f"{plural(len(known), 'statement')} that the pages did not make before, filed by a model under what they are "
        "about. One that is about several areas stands under the likeliest."
    ]
    if len(known) < len(rows):
        notes.append(f"{plural(len(rows) - len(known), 'new statement')} not filed: not read by a model, or no area.")
    return Areas(rows, _table(known, material, view), notes)


def _filed(material: Material) -> list[dict[str, Any]]:
    added = material.changes.filter(pl.col("kind") == "claim_added", pl.col("severity") != "note")
    statements = (
        material.claims.filter(pl.col("kind") == "statement")
        .select(pl.col("snapshot_id").alias("snapshot_after"), pl.col("text").alias("after"))
        .unique()
    )
    rows = (
        added.join(statements, on=["snapshot_after", "after"], how="semi")
        .sort("observed_at", "change_id")
        .unique(["company_id", "after"], keep="first", maintain_order=True)
        .rename({"after": "text"})
    )
    return [
        {
            "company_id": row["company_id"],
            "company": material.company_name(row["company_id"]),
            "source_id": row["source_id"],
            "text": row["text"],
            "topics": row["topics"],
            "observed_at": row["observed_at"],
            "snapshot_id": row["snapshot_after"],
        }
        for row in with_topics(rows, material.scores).iter_rows(named=True)
    ]


def _table(rows: Sequence[dict[str, Any]], material: Material, view: View) -> Markup:
    columns = [
        Column("company", "Company"),
        Column("text", "Statement"),
        Column("evidence", "Evidence"),
    ]
    order = {topic: place for place, topic in enumerate(TOPICS)}

    def rank(row: dict[str, Any]) -> tuple[int, str, int, str]:
        first = row["topics"][0]
        return (order.get(first, len(order)), first, material.company_rank(row["company_id"]), row["text"])

    made = []
    ordered = sorted(rows, key=rank)
    for row in view.cut(ordered):
        also = [topic_name(material.workspace, topic) for topic in row["topics"][1:]]
        about = f"{row['source_id']}{'; also: ' + ', '.join(also) if also else ''}"
        made.append(
            {
                "area": topic_name(material.workspace, row["topics"][0]),
                "company": row["company"],
                "text": Markup('{}<span class="small">{}</span>').format(quoted(row["text"], _LONGEST), about),
                "evidence": view.evidence.cite(row["snapshot_id"]),
            }
        )
    return table("t-areas", "New statements by area.", columns, made, group="area", total=len(ordered))
