"""Everything a report is made of, read once: the week's tables, the archive's list of attempts, what insight says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import polars as pl

from workbench.insight.scored import ScoredReviews
from workbench.insight.share import Voice
from workbench.insight.stars import Agreement
from workbench.report.evidence import Evidence
from workbench.store.archive import Entry
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = ["DAYS_SHOWN", "Material", "View"]

DAYS_SHOWN = 28
"""How far back figures go, counted from the week's end."""

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Material:
    """The input of every section. Frames hold nothing newer than the week's end."""

    workspace: Workspace
    week: Week
    sources: pl.DataFrame
    """The week's rows of the table ``sources``."""
    pages: pl.DataFrame
    offers: pl.DataFrame
    plans: pl.DataFrame
    claims: pl.DataFrame
    reviews: pl.DataFrame
    creatives: pl.DataFrame
    changes: pl.DataFrame
    """The week's changes."""
    history: pl.DataFrame
    """What ``price_history`` gives."""
    index: pl.DataFrame
    """What ``price_index`` gives."""
    entries: Sequence[Entry]
    """Every attempt in the archive."""
    scores: pl.DataFrame
    """What models read in the texts; schema of the lake's table."""
    scored: ScoredReviews
    """The reviews of the week and its baseline with their scores."""
    shifts: pl.DataFrame
    """What ``sentiment_shifts`` gives."""
    agreement: Agreement
    """How often the reading agrees with the reviewers' stars."""
    voice: Voice
    """What ``share_of_voice`` gives."""

    @property
    def shown_from(self) -> datetime:
        """First moment that figures show."""
        return self.week.end - timedelta(days=DAYS_SHOWN)

    @property
    def as_of(self) -> datetime | None:
        """When a page was last asked for: the report's own "now", so that no clock is needed."""
        latest: Any = self.sources["attempted_at"].max()
        return latest if isinstance(latest, datetime) else None

    def company_name(self, company_id: str) -> str:
        """The name in workspace.toml, or the id of a company that has left it."""
        try:
            return self.workspace.company_by_id(company_id).name
        except KeyError:
            return company_id

    def company_rank(self, company_id: str) -> int:
        """Position in workspace.toml, the own company first."""
        ids = [company.id for company in self.workspace.companies]
        return ids.index(company_id) if company_id in ids else len(ids)


@dataclass(frozen=True)
class View:
    """How one rendering shows the material: where citations go, and how many rows a table may have."""

    evidence: Evidence
    max_rows: int

    def cut(self, rows: Sequence[_Row]) -> list[_Row]:
        """The rows that a table has room for."""
        return list(rows[: self.max_rows])
