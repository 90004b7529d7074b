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

__all__ = ["q_words", "sentiment_table", "shift_table"]

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
    cells: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["company_id"], row["topic"]), {})[row["measure"]] = row
    made: list[dict[str, Any]] = []
    thin: dict[str, list[str]] = {}
    for (company_id, topic), measures in cells.items():
        mood, complaints = measures["negative"], measures.get("complaints")
        if topic != ALL and not any(row["delta"] is not None for row in measures.values()):
            name = topic_name(material.workspace, topic)
            thin.setdefault(company_id, []).append(
                f"{name} ({mood['reviews_week']}, before {mood['reviews_baseline']})"
            )
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
    for company_id, topics in thin.items():
        row = {
            "company": material.company_name(company_id),
            "topic": Markup('<span class="none">{}</span>').format(", ".join(topics)),
            "change": _NOT_ENOUGH,
            "change_complaints": _NOT_ENOUGH,
        }
        # Under the company's own rows.
        last = max((n for n, other in enumerate(made) if other["company"] == row["company"]), default=len(made) - 1)
        made.insert(last + 1, row)
    caption = "Negative reviews this week and in the four weeks before, by topic."
    return table("t-sentiment", caption, columns, view.cut(made), group="company", total=len(made))


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
