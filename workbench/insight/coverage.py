"""Which sources were seen in a week, and which were not: "no change" is said of the former only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from workbench.store.tables import TABLES, TIME
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = ["COVERAGE", "STATUSES", "Coverage", "coverage"]

STATUSES = ("fetched", "not-modified", "stale", "failed", "blocked", "robots-denied")
"""In the order they are counted in. ``stale``: the last answer is older than thresholds.stale_after_days at the
end of the week, or the source was never asked."""

COVERAGE = pl.Schema(
    {
        "company_id": pl.String(),
        "source_id": pl.String(),
        "url": pl.String(),
        "kind": pl.String(),
        "status": pl.String(),
        "http_status": pl.Int32(),
        "seen": pl.Boolean(),  # a snapshot lies inside the week
        "age_days": pl.Float64(),  # of the newest snapshot at the week's end, null without one
        "attempted_at": TIME,
        "snapshot_id": pl.String(),
        "snapshot_at": TIME,
        "note": pl.String(),
    }
)


@dataclass(frozen=True)
class Coverage:
    """``rows`` has the schema COVERAGE, in the workspace's order of companies, then by source and address."""

    rows: pl.DataFrame
    counts: Mapping[str, int]
    """Pages by status, every status of STATUSES."""
    seen: int
    not_seen: tuple[str, ...]
    """Source ids without a snapshot inside the week; with its address where a source has several pages."""


def coverage(sources: pl.DataFrame, workspace: Workspace, week: Week) -> Coverage:
    """Status and age of every watched page at the end of ``week``.

    ``sources`` has the schema of the lake's table; rows of other weeks and of sources that the workspace no longer
    names are left out. A source of the workspace without a row counts as stale.
    """
    refs = [(ref.company.id, ref.source) for ref in workspace.sources()]
    known = {source.id for _, source in refs}
    rows = sources.filter(pl.col("week") == str(week), pl.col("source_id").is_in(sorted(known)))
    missing = [
        {
            "week": str(week),
            "company_id": company_id,
            "source_id": source.id,
            "url": source.url,
            "kind": source.kind,
            "status": "stale",
            "note": "never asked; run: workbench collect",
        }
        for company_id, source in refs
        if source.id not in set(rows["source_id"])
    ]
    rows = pl.concat([rows, pl.DataFrame(missing, schema=TABLES["sources"].schema)])
    age = (pl.lit(week.end).cast(TIME) - pl.col("snapshot_at")).dt.total_seconds() / 86_400
    old = age > workspace.thresholds.stale_after_days
    answered = pl.col("status").is_in(["fetched", "not-modified"])
    order = {company.id: place for place, company in enumerate(workspace.companies)}
    rows = (
        rows.with_columns(
            age_days=age.round(2),
            seen=((pl.col("snapshot_at") >= week.start) & (pl.col("snapshot_at") < week.end)).fill_null(False),
            status=pl.when(answered & (old | age.is_null())).then(pl.lit("stale")).otherwise("status"),
        )
        .sort(
            pl.col("company_id").replace_strict(order, default=len(order), return_dtype=pl.Int32), "source_id", "url"
        )
        .select(pl.col(name).cast(dtype) for name, dtype in COVERAGE.items())
    )
    counted = dict(rows.group_by("status").len().rows())
    unseen = rows.filter(~pl.col("seen"))
    several = set(rows.filter(pl.len().over("source_id") > 1)["source_id"])
    names = (
        f"{source_id} ({url})" if source_id in several else source_id
        for source_id, url in unseen.select("source_id", "url").iter_rows()
    )
    return Coverage(
        rows=rows,
        counts={status: counted.get(status, 0) for status in STATUSES},
        seen=rows.height - unseen.height,
        not_seen=tuple(names),
    )
