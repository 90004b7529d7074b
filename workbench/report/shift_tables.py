"""The tables of section 5: for the page, and for sentiment.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from workbench.insight.sentiment import ALL, topic_name
from workbench.insight.shift_story import percent_words
from workbench.report.figure_shift import points
from workbench.report.material import Material, View
from workbench.report.tables import Column, table

__all__ = ["q_words", "sentiment_table", "shift_table", "thin_topics"]

_NOT_ENOUGH = Markup('<span class="small">not enough reviews</span>')


def sentiment_table(material: Material) -> pl.DataFrame:
    """The shifts as a table for sentiment.csv."""
    names = {company.id: company.name for company in material.workspace.companies}
    return material.shifts.select(
        pl.lit(str(material.week)).alias("week"),
        pl.col("company_id").replace(names).alias("company"),
        pl.all().exclude("snapshot_ids"),
        pl.col("snapshot_ids").list.join(" ").alias("snapshot_ids"),
    )


def shift_table(material: Material, view: View, rows: Sequence[Mapping[str, Any]]) -> Markup:
    columns = [
        Column("topic", "Topic"),
        Column("reviews", "Reviews", "right"),
        Column("negative", "Negative", "right"),
        Column("change", "Change, points", "right"),
        Column("complaints", "Complaints", "right"),
        Column("change_complaints", "Change, points", "right"),
    ]
    made: list[dict[str, Any]] = []
    for (company_id, topic), measures in _cells(rows).items():
        mood, complaints = measures["negative"], measures.get("complaints")
        if _thin(topic, measures):
            continue
        name = topic_name(material.workspace, topic)
        made.append(
            {
                "company": material.company_name(company_id),
                "topic": Markup("<strong>{}</strong>").format(name) if topic == ALL else name,
                "reviews": _two(f"{mood['reviews_week']:,}", f"before {mood['reviews_baseline']:,}"),
                "negative": _share(mood),
                "change": _change(mood),
                "complaints": _share(complaints) if complaints else None,
                "change_complaints": _change(complaints) if complaints else None,
            }
        )
    caption = "Negative reviews this week and in the four weeks before, by topic."
    return table("t-sentiment", caption, columns, view.cut(made), group="company", total=len(made))


def thin_topics(material: Material, rows: Sequence[Mapping[str, Any]]) -> str:
    """The topics that are not in the table, as a sentence; empty when all are."""
    found: dict[str, list[str]] = {}
    for (company_id, topic), measures in _cells(rows).items():
        if _thin(topic, measures):
            counts = f"{measures['negative']['reviews_week']}, before {measures['negative']['reviews_baseline']}"
            found.setdefault(company_id, []).append(f"{topic_name(material.workspace, topic)} ({counts})")
    if not found:
        return ""
    listed = "; ".join(f"{material.company_name(company)}: {', '.join(topics)}" for company, topics in found.items())
    return f"Not in the table, not enough reviews: {listed}."


def _cells(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Mapping[str, Any]]]:
    """The measures of each company and topic."""
    cells: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["company_id"], row["topic"]), {})[row["measure"]] = row
    return cells


def _thin(topic: str, measures: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether there is nothing to compare on a topic. All reviews of a company always stand in the table."""
    return topic != ALL and all(row["delta"] is None for row in measures.values())


def _two(first: str, second: str) -> Markup:
    return Markup('{}<span class="small">{}</span>').format(first, second)


def _share(row: Mapping[str, Any]) -> Markup | str | None:
    if row["share_week"] is None:
        return Markup('<span class="none">{} of {}</span>').format(row["cases_week"], row["reviews_week"])
    before = (
        f"before {percent_words(row['share_baseline'])}" if row["share_baseline"] is not None else "before: too few"
    )
    return _two(percent_words(row["share_week"]), before)


def _change(row: Mapping[str, Any]) -> Markup | str:
    if row["delta"] is None:
        return _NOT_ENOUGH
    shown = points(row["delta"])
    interval = f"{points(row['low'])} to {points(row['high'])}"
    q = q_words(row["q"])
    if row["verdict"] == "shift":
        sign = "▲" if row["delta"] > 0 else "▼"
        return Markup('<strong>{} {}</strong><span class="small">{}, {}</span>').format(sign, shown, interval, q)
    return _two(shown, f"{interval}, {q}")


def q_words(q: float) -> str:
    """``q < 0.001``, ``q 0.024``, ``q 0.36``."""
    return "q < 0.001" if q < 0.001 else f"q {q:.3f}" if q < 0.1 else f"q {q:.2f}"
