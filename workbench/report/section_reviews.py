"""Section 5 while no review was read by a model, and the counts of reviews that it always gives."""

from __future__ import annotations

from typing import Any

import polars as pl
from markupsafe import Markup

from workbench.report.html import plural, render, words
from workbench.report.material import Material, View
from workbench.report.model import Section
from workbench.report.tables import Column, table
from workbench.report.wording import language_word

__all__ = ["build_unscored", "review_counts"]


def build_unscored(material: Material, view: View, number: int, title: str) -> Section:
    """Section 5 while nothing was read by a model: how many reviews there are, and whether they will be enough."""
    needed = material.workspace.thresholds.min_reviews
    rows = review_counts(material)
    total = sum(row["reviews"] for row in rows)
    new = sum(row["new_this_week"] for row in rows)
    body = render(
        "waiting",
        id="sentiment",
        number=number,
        title=title,
        notice="Reviews are collected but not scored yet, so no sentiment is stated here. To read them: "
        f"workbench score -w DIR --week {material.week}",
        paragraphs=[
            f"{plural(total, 'review')} are in the lake, {new:,} of them first seen this week. A company needs "
            f"{needed} before a sentiment will be stated. The mean rating is what reviewers gave, not a reading of "
            "what they wrote."
        ]
        if total
        else ["No reviews were collected yet. Add sources of kind “reviews” to workspace.toml."],
        table=_reviews_table(rows, needed, view) if total else "",
    )
    return Section("sentiment", number, title, "not-yet", {"min_reviews": needed, "companies": rows}, body)


def review_counts(material: Material) -> list[dict[str, Any]]:
    """The reviews in the lake by company, in the workspace's order."""
    week = material.week
    found = material.reviews.group_by("company_id").agg(
        pl.len().alias("reviews"),
        pl.col("fetched_at").is_between(week.start, week.end, closed="left").sum().alias("new_this_week"),
        pl.col("rating").is_not_null().sum().alias("rated"),
        # Ratings are brought to one scale of five; a page that shows no scale is left out.
        (pl.col("rating") / pl.col("rating_scale") * 5).mean().alias("mean_rating_of_5"),
        pl.col("language").drop_nulls().unique().sort().alias("languages"),
        pl.col("published").max().alias("newest"),
    )
    newest = (
        material.reviews.sort("fetched_at", "snapshot_id")
        .group_by("company_id", "source_id", "url")
        .agg(pl.col("snapshot_id").last())
        .sort("source_id", "url")
        .group_by("company_id")
        .agg("snapshot_id")
    )
    pages = dict(newest.iter_rows())
    by_id = {row["company_id"]: row for row in found.iter_rows(named=True)}
    rows = []
    for company in material.workspace.companies:
        row = by_id.get(company.id, {})
        mean = row.get("mean_rating_of_5")
        rows.append(
            {
                "company_id": company.id,
                "company": company.name,
                "reviews": row.get("reviews", 0),
                "new_this_week": row.get("new_this_week", 0),
                "rated": row.get("rated", 0),
                "mean_rating_of_5": None if mean is None else round(mean, 2),
                "languages": list(row.get("languages", [])),
                "newest": row.get("newest"),
                "snapshot_ids": list(pages.get(company.id, [])),
            }
        )
    return rows


def _reviews_table(rows: list[dict[str, Any]], needed: int, view: View) -> Markup:
    columns = [
        Column("company", "Company"),
        Column("reviews", "Reviews", "right"),
        Column("new", "New this week", "right"),
        Column("rating", "Mean rating of 5", "right"),
        Column("languages", "Languages"),
        Column("enough", f"At least {needed}"),
        Column("evidence", "Newest read from"),
    ]
    made = [
        {
            "company": row["company"],
            "reviews": f"{row['reviews']:,}",
            "new": f"{row['new_this_week']:,}",
            "rating": None if row["mean_rating_of_5"] is None else f"{row['mean_rating_of_5']:.1f}",
            "languages": words(language_word(code) for code in row["languages"]),
            "enough": "yes" if row["reviews"] >= needed else f"no, {needed - row['reviews']} short",
            "evidence": view.evidence.listed(row["snapshot_ids"]),
        }
        for row in rows
    ]
    return table("t-reviews", "Reviews waiting to be scored.", columns, made)
