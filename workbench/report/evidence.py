"""Which archived pages a report leans on.

A section cites snapshots while it is written; the citations become the evidence table at the report's end, and each
one leads there. Only what was cited is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from workbench.report.html import clean, minute

__all__ = ["Evidence", "Snapshot"]

_SHORT = 12  # hex digits shown and accepted by `workbench snapshot`


@dataclass(frozen=True)
class Snapshot:
    """One archived response, as far as a reader needs to find it."""

    snapshot_id: str
    company: str
    source_id: str
    url: str
    title: str | None
    fetched_at: datetime
    payload_sha256: str | None
    warc: str | None
    """File name in the archive; None when the record was pruned."""


class Evidence:
    """Numbers snapshots in the order in which they are first cited: E1, E2, …"""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._known: Mapping[str, Snapshot] = {snapshot.snapshot_id: snapshot for snapshot in snapshots}
        self._cited: dict[str, int] = {}

    def cite(self, *snapshot_ids: str | None) -> Markup:
        """Links to the evidence table, one for each snapshot, joined by an arrow when there are two in time order."""
        links = [self._link(snapshot_id) for snapshot_id in dict.fromkeys(snapshot_ids) if snapshot_id]
        return Markup(' <span class="to">→</span> ').join(links)

    def listed(self, snapshot_ids: Iterable[str]) -> Markup:
        """Links to the evidence table, separated by commas."""
        return Markup(", ").join(self._link(snapshot_id) for snapshot_id in dict.fromkeys(snapshot_ids))

    def short(self, snapshot_id: str) -> str:
        """The shortest prefix of at least 12 digits that no other known snapshot shares."""
        length = _SHORT
        while sum(other.startswith(snapshot_id[:length]) for other in self._known) > 1 and length < len(snapshot_id):
            length += 4
        return snapshot_id[:length]

    def _link(self, snapshot_id: str) -> Markup:
        number = self._cited.setdefault(snapshot_id, len(self._cited) + 1)
        known = self._known.get(snapshot_id)
        about = (
            f"{clean(known.company)}, fetched {minute(known.fetched_at)} UTC" if known else "no longer in the lake"
        )
        return Markup('<a class="ev" href="#e-{}" title="{}">E{}</a>').format(self.short(snapshot_id), about, number)

    def rows(self) -> list[dict[str, Any]]:
        """What was cited, in order, ready for JSON (times as datetime)."""
        rows = []
        for snapshot_id, number in self._cited.items():
            known = self._known.get(snapshot_id)
            rows.append(
                {
                    "label": f"E{number}",
                    "snapshot_id": snapshot_id,
                    "short_id": self.short(snapshot_id),
                    "company": known.company if known else None,
                    "source_id": known.source_id if known else None,
                    "title": known.title if known else None,
                    "url": known.url if known else None,
                    "fetched_at": known.fetched_at if known else None,
                    "payload_sha256": known.payload_sha256 if known else None,
                    "warc": known.warc if known else None,
                    "command": f"workbench snapshot {self.short(snapshot_id)} -w DIR",
                }
            )
        return rows
