"""What came of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from workbench.store.archive import SourceStatus

__all__ = ["CollectResult", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What came of one address.

    ``bytes``: size of the decoded body, 0 when none was sent. ``seconds``: time spent with the server, without the
    waiting for its turn.
    """

    company_id: str
    source_id: str
    url: str
    status: SourceStatus
    http_status: int | None
    note: str
    bytes: int
    seconds: float
    snapshot_id: str | None


@dataclass(frozen=True)
class CollectResult:
    """What came of a run: one outcome for each address, in the order of workspace.toml."""

    outcomes: tuple[Outcome, ...]
    started_at: datetime
    finished_at: datetime

    @property
    def counts(self) -> dict[SourceStatus, int]:
        """Number of addresses by status; every status is named."""
        found = Counter(outcome.status for outcome in self.outcomes)
        return {status: found[status] for status in get_args(SourceStatus)}

    def summary(self) -> str:
        """One line of counts, then a line for each address that gave no page."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        minutes, seconds = divmod(round((self.finished_at - self.started_at).total_seconds()), 60)
        took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        size = sum(outcome.bytes for outcome in self.outcomes) / 1e6
        pages = "1 page" if len(self.outcomes) == 1 else f"{len(self.outcomes)} pages"
        lines = [f"{pages}: {counts or 'nothing to fetch'} ({size:.1f} MB, {took})"]
        lines += [
            f"  {outcome.status:<13}  {outcome.source_id}  {outcome.url}  {outcome.note}"
            for outcome in self.outcomes
            if outcome.note or outcome.status not in ("fetched", "not-modified")
        ]
        return "\n".join(lines)
