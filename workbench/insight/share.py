"""Share of voice: of the collected texts that name a company of the workspace, how many name which.

A mention is one text that names a company or one of its products, however often; a text that names two companies is a
mention of each. Texts are reviews and the statements and headings on watched pages. What a company's own pages say of
itself is counted apart and is no part of the share: a company can write its own name as often as it likes.

It is a share of what was *collected*. Who is watched, and where, decides it as much as what people say.

A review belongs to a week as in ``workbench.insight.scored``; a statement to the week its company first made it in
those words. Names are found as in ``workbench.insight.names``; what else people name comes from the model's entities.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from workbench.insight.names import NameFinder, normal, whole_word
from workbench.insight.proportions import difference_interval, share_interval
from workbench.insight.scored import BASELINE_WEEKS, ScoredReviews
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = ["ALSO_MENTIONED", "SHARE_OF_VOICE", "Voice", "share_of_voice"]

_COLUMNS: dict[str, Any] = {
    "company_id": pl.String,
    "mentions_week": pl.Int64,  # texts of the week, self-mentions left out
    "mentions_baseline": pl.Int64,
    "in_own_reviews": pl.Int64,  # of mentions_week: reviews of the company's own products
    "in_other_reviews": pl.Int64,  # reviews of other companies' products
    "on_other_pages": pl.Int64,  # statements on other companies' pages
    "self_mentions_week": pl.Int64,  # statements on the company's own pages; not in the share
    "self_mentions_baseline": pl.Int64,
    "share_week": pl.Float64,  # of all companies' mentions; null without any
    "low": pl.Float64,  # of the 95 % interval of share_week
    "high": pl.Float64,
    "share_baseline": pl.Float64,
    "delta": pl.Float64,
    "delta_low": pl.Float64,
    "delta_high": pl.Float64,
    "snapshot_ids": pl.List(pl.String),  # of mentions_week, the newest first
}

SHARE_OF_VOICE = pl.Schema(_COLUMNS)
"""One row a company, as in the workspace. Intervals are Wilson's and Newcombe's, not corrected for their number."""

_ALSO: dict[str, Any] = {
    "name": pl.String,  # as it is written most often
    "label": pl.String,  # product, brand, company, model: as read most often
    "mentions_week": pl.Int64,  # reviews that name it
    "mentions_baseline": pl.Int64,
    "company_ids": pl.List(pl.String),  # whose reviews name it
    "snapshot_ids": pl.List(pl.String),
}

ALSO_MENTIONED = pl.Schema(_ALSO)
"""Names in the week's reviews that the workspace does not know, most often named first. Parts of words are left out,
and so is what is mostly written in small letters, or has its capital only where any word has one: as the first of a
sentence."""

_SHORTEST = 2  # characters of a name worth listing


@dataclass(frozen=True)
class Voice:
    """Who is named, and what else is."""

    shares: pl.DataFrame
    """Schema SHARE_OF_VOICE."""
    also: pl.DataFrame
    """Schema ALSO_MENTIONED, whole."""
    texts_week: int
    """Texts that were looked through."""
    texts_baseline: int
    total_week: int
    """Mentions of all companies, self-mentions left out."""
    total_baseline: int


def share_of_voice(reviews: ScoredReviews, claims: pl.DataFrame, workspace: Workspace, week: Week) -> Voice:
    """Count mentions in the reviews and in ``claims`` (schema of the lake's table) of ``week`` and its baseline."""
    finder = NameFinder(workspace)
    texts = pl.concat([_reviews(reviews), _statements(claims, week)])
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seen: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in texts.iter_rows(named=True):
        for company_id in finder.companies(row["text"]):
            own = row["company_id"] == company_id
            side = row["side"]
            if own and row["kind"] == "claim":
                counts[company_id][f"self_mentions_{side}"] += 1
                continue
            counts[company_id][f"mentions_{side}"] += 1
            if side == "week":
                where = "on_other_pages" if row["kind"] == "claim" else f"in_{'own' if own else 'other'}_reviews"
                counts[company_id][where] += 1
                seen[company_id].setdefault(row["snapshot_id"], row["fetched_at"])
    totals = {s: sum(counts[c.id][f"mentions_{s}"] for c in workspace.companies) for s in ("week", "baseline")}
    rows = [_row(company.id, counts[company.id], totals, seen[company.id]) for company in workspace.companies]
    sides = texts["side"].to_list()
    return Voice(
        shares=pl.DataFrame(rows, schema=SHARE_OF_VOICE),
        also=_also_mentioned(reviews.rows, finder),
        texts_week=sides.count("week"),
        texts_baseline=sides.count("baseline"),
        total_week=totals["week"],
        total_baseline=totals["baseline"],
    )


def _reviews(reviews: ScoredReviews) -> pl.DataFrame:
    return reviews.rows.select(
        "company_id", pl.lit("review").alias("kind"), "side", "text", "snapshot_id", "fetched_at"
    )


def _statements(claims: pl.DataFrame, week: Week) -> pl.DataFrame:
    """Each statement of a company once, with the first snapshot that showed it."""
    first = week.start - timedelta(weeks=BASELINE_WEEKS)
    return (
        claims.sort("fetched_at", "snapshot_id", "position")
        .unique(["company_id", "text"], keep="first", maintain_order=True)
        .filter(pl.col("fetched_at") >= first, pl.col("fetched_at") < week.end)
        .select(
            "company_id",
            pl.lit("claim").alias("kind"),
            pl.when(pl.col("fetched_at") >= week.start)
            .then(pl.lit("week"))
            .otherwise(pl.lit("baseline"))
            .alias("side"),
            "text",
            "snapshot_id",
            "fetched_at",
        )
    )


def _row(company_id: str, counts: Counter[str], totals: dict[str, int], seen: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SHARE_OF_VOICE)
    row["company_id"] = company_id
    for name, dtype in SHARE_OF_VOICE.items():
        if dtype == pl.Int64:
            row[name] = counts[name]
    newest = sorted(seen.items(), key=lambda item: item[0])
    newest.sort(key=lambda item: item[1], reverse=True)
    row["snapshot_ids"] = [snapshot_id for snapshot_id, _ in newest]
    k, n, k0, n0 = row["mentions_week"], totals["week"], row["mentions_baseline"], totals["baseline"]
    if n:
        row["share_week"] = round(k / n, 6)
        row["low"], row["high"] = share_interval(k, n)
    if n0:
        row["share_baseline"] = round(k0 / n0, 6)
    if n and n0:
        row["delta"] = round(k / n - k0 / n0, 6)
        row["delta_low"], row["delta_high"] = difference_interval(k, n, k0, n0)
    return row


def _also_mentioned(reviews: pl.DataFrame, finder: NameFinder) -> pl.DataFrame:
    written: dict[str, Counter[str]] = defaultdict(Counter)
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: {"week": [], "baseline": []})
    known: dict[str, bool] = {}
    capital: set[str] = set()
    for row in reviews.filter(pl.col("entities").list.len() > 0).iter_rows(named=True):
        names: dict[str, tuple[str, str]] = {}
        for entity in row["entities"]:
            if whole_word(row["text"], entity["start"], entity["end"]):
                name = normal(entity["text"])
                names.setdefault(name.casefold(), (name, entity["label"]))
                first = name.islower() or _begins_sentence(row["text"], entity["start"])
                if _more_than_a_first_word(name) or not first:
                    capital.add(name.casefold())
        for key, (name, label) in names.items():
            if key not in known:
                known[key] = not _worth_naming(name) or finder.knows(name)
            if not known[key]:
                written[key][name] += 1
                labels[key][label] += 1
                found[key][row["side"]].append(row)
    rows = []
    for key, sides in found.items():
        # Where a script has capitals, a name has one, or a digit; what is mostly written without is a plain word.
        if key not in capital or not _looks_like_a_name(_most_common(written[key])):
            continue
        now = sorted(sides["week"], key=lambda row: row["snapshot_id"])
        now.sort(key=lambda row: row["fetched_at"], reverse=True)
        if now:
            rows.append(
                {
                    "name": _most_common(written[key]),
                    "label": _most_common(labels[key]),
                    "mentions_week": len(now),
                    "mentions_baseline": len(sides["baseline"]),
                    "company_ids": sorted({row["company_id"] for row in now}),
                    "snapshot_ids": list(dict.fromkeys(row["snapshot_id"] for row in now)),
                }
            )
    frame = pl.DataFrame(rows, schema=ALSO_MENTIONED)
    return frame.sort("mentions_week", "mentions_baseline", "name", descending=[True, True, False])


def _worth_naming(name: str) -> bool:
    return len(name) >= _SHORTEST and any(character.isalpha() for character in name)


def _looks_like_a_name(name: str) -> bool:
    return any(c.isupper() or c.isdigit() or (c.isalpha() and not c.islower()) for c in name)


def _more_than_a_first_word(name: str) -> bool:
    """Whether ``name`` shows that it is one wherever it stands: several words, a digit, a capital inside."""
    return " " in name or any(c.isdigit() or (c.isalpha() and not c.islower()) for c in name[1:])


def _begins_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip(" \t\"'“”‘’([{（【「《*-–—•·>")
    return not before or before[-1] in ".!?…。！？:：;；\n\r"


def _most_common(counts: Counter[str]) -> str:
    return min(counts, key=lambda value: (-counts[value], value))
