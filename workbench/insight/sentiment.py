"""Review sentiment of a week against the four weeks before it, by company and topic.

Two measures, both differences of shares:

- ``negative``: of the reviews on a topic (or of all reviews), how many are negative;
- ``complaints``: of all reviews of the company, how many are negative *and* on the topic. Reviews that report bugs
  are always negative, so a burst of them leaves the first measure where it was and shows in this one.

Intervals are Newcombe's, tests Fisher's, and all tests of a week, own company included, are corrected together after
Benjamini and Hochberg (``workbench.insight.proportions``). A difference is a ``shift`` when its q is below
FALSE_DISCOVERIES. What has too few reviews is not tested and says so: a company needs thresholds.min_reviews on both
sides, a topic ``topic_minimum`` of them (``negative``: on both sides; ``complaints``: on both together).

Sentiment is that of the whole review. A negative review on price and bugs counts for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from workbench.insight.proportions import correct_for_many, difference_interval, difference_p
from workbench.insight.scored import ScoredReviews
from workbench.tasks.labels import TOPICS
from workbench.workspace import Workspace

__all__ = [
    "ALL",
    "FALSE_DISCOVERIES",
    "SHIFTS",
    "select_cell",
    "sentiment_shifts",
    "telling_shifts",
    "topic_minimum",
    "topic_name",
]

FALSE_DISCOVERIES = 0.05
"""Of what is called a shift, the part that may be chance."""

ALL = "all"
"""In place of a topic: all reviews of a company."""

_COLUMNS: dict[str, Any] = {
    "company_id": pl.String,
    "topic": pl.String,  # ALL or a topic of the model
    "measure": pl.String,  # negative, complaints
    "reviews_week": pl.Int64,  # n: what the share is of
    "reviews_baseline": pl.Int64,
    "cases_week": pl.Int64,  # k: negative ones, or complaints
    "cases_baseline": pl.Int64,
    "share_week": pl.Float64,  # null below the minimum
    "share_baseline": pl.Float64,
    "delta": pl.Float64,  # share_week minus share_baseline
    "low": pl.Float64,  # of the 95 % interval of delta
    "high": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,  # p corrected for all comparisons of the week
    "verdict": pl.String,  # shift, no shift, not enough reviews
    "needed": pl.Int64,  # the minimum for reviews_week and for reviews_baseline
    "positive_week": pl.Int64,  # positive ones among reviews_week, for ``negative``; null for ``complaints``
    "positive_baseline": pl.Int64,
    "score_week": pl.Float64,  # mean of p_positive - p_negative over reviews_week; null as share_week
    "score_baseline": pl.Float64,
    "snapshot_ids": pl.List(pl.String),  # where the week's cases were read from, the newest first
}

SHIFTS = pl.Schema(_COLUMNS)
"""One row a company, topic and measure: companies as in the workspace, ALL first, then topics as in TOPICS, then any
others by name."""

_DIGITS = 6


def topic_minimum(min_reviews: int) -> int:
    """The fewest reviews for a statement on a topic: a fifth of ``min_reviews``, but at least five or all of it."""
    return min(min_reviews, max(5, math.ceil(min_reviews / 5)))


def topic_name(workspace: Workspace, topic: str) -> str:
    """The words for a topic: the label in workspace.toml of the topic with that id, else the topic's own name."""
    labels = {known.id.replace("-", " "): known.label for known in workspace.topics}
    return "All reviews" if topic == ALL else labels.get(topic, topic.capitalize())


def sentiment_shifts(reviews: ScoredReviews, workspace: Workspace) -> pl.DataFrame:
    """The week's shares against the baseline's, as SHIFTS. Empty when no sentiment was read."""
    if not reviews.any_scores:
        return pl.DataFrame(schema=SHIFTS)
    known = reviews.rows.filter(pl.col("sentiment").is_not_null())
    rows: list[dict[str, Any]] = []
    for company in workspace.companies:
        own = known.filter(pl.col("company_id") == company.id)
        rows += _company_rows(company.id, own, workspace.thresholds.min_reviews)
    tested = [row for row in rows if row["p"] is not None]
    for row, q in zip(tested, correct_for_many([row["p"] for row in tested]), strict=True):
        row["q"] = q
        row["verdict"] = "shift" if q < FALSE_DISCOVERIES else "no shift"
    return pl.DataFrame(rows, schema=SHIFTS)


def _company_rows(company_id: str, known: pl.DataFrame, needed: int) -> Iterable[dict[str, Any]]:
    few = topic_minimum(needed)
    yield _row(company_id, ALL, "negative", known, known, needed=needed)
    with_topics = known.filter(pl.col("has_topics"))
    others = with_topics["topics"].explode().drop_nulls().unique().sort().to_list()
    for topic in dict.fromkeys((*TOPICS, *others)):  # a model of the user's own may have other topics
        cell = select_cell(with_topics, topic)
        if cell.is_empty():
            continue
        yield _row(company_id, topic, "negative", cell, cell, needed=few)
        rare = cell.height < few
        yield _row(company_id, topic, "complaints", with_topics, cell, needed=needed, rare=rare)


def telling_shifts(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The shifts among ``rows`` (of SHIFTS), a company and topic once: by its complaints where they shifted."""
    chosen: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        key = (row["company_id"], row["topic"])
        if row["verdict"] == "shift" and (key not in chosen or row["measure"] == "complaints"):
            chosen[key] = row
    return list(chosen.values())


def select_cell(reviews: pl.DataFrame, topic: str) -> pl.DataFrame:
    """The reviews on ``topic``; all of them for ALL."""
    return reviews if topic == ALL else reviews.filter(pl.col("topics").list.contains(topic).fill_null(False))


def _row(
    company_id: str,
    topic: str,
    measure: str,
    base: pl.DataFrame,
    cell: pl.DataFrame,
    *,
    needed: int,
    rare: bool = False,
) -> dict[str, Any]:
    """One row: negative reviews of ``cell`` as a share of ``base``, which needs ``needed`` reviews on each side."""
    row: dict[str, Any] = dict.fromkeys(SHIFTS)
    row.update(company_id=company_id, topic=topic, measure=measure, needed=needed, verdict="not enough reviews")
    cases = cell.filter(pl.col("sentiment") == "negative")
    for side in ("week", "baseline"):
        of = base.filter(pl.col("side") == side)
        total, k = of.height, cases.filter(pl.col("side") == side).height
        row[f"reviews_{side}"], row[f"cases_{side}"] = total, k
        if measure == "negative":
            row[f"positive_{side}"] = of.filter(pl.col("sentiment") == "positive").height
            row[f"score_{side}"] = _mean_score(of) if total >= needed else None
        if total >= needed and not rare:
            row[f"share_{side}"] = round(k / total, _DIGITS)
    now = cases.filter(pl.col("side") == "week").sort("fetched_at", "snapshot_id", descending=[True, False])
    row["snapshot_ids"] = now["snapshot_id"].unique(maintain_order=True).to_list()
    if row["share_week"] is not None and row["share_baseline"] is not None:
        counts = (row["cases_week"], row["reviews_week"], row["cases_baseline"], row["reviews_baseline"])
        row["delta"] = round(counts[0] / counts[1] - counts[2] / counts[3], _DIGITS)
        row["low"], row["high"] = difference_interval(*counts)
        row["p"] = difference_p(*counts)
    return row


def _mean_score(reviews: pl.DataFrame) -> float | None:
    mean: Any = (reviews["p_positive"].cast(pl.Float64) - reviews["p_negative"].cast(pl.Float64)).mean()
    return None if mean is None else round(mean, _DIGITS)
