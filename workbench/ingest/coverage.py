"""What was seen in a week and what was not: one row a source and address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from workbench.store.archive import Entry
from workbench.store.tables import TABLES
from workbench.weeks import Week
from workbench.workspace import SourceRef, Workspace

__all__ = ["sources_frame"]

_SEEN = ("fetched", "not-modified")


def sources_frame(workspace: Workspace, week: Week, entries: Sequence[Entry], *, window_days: int) -> pl.DataFrame:
    """Rows of the table sources for one week.

    ``entries``: all attempts before the week's end, in time order. The status is that of the week's last attempt. It
    is ``stale`` when there was none, or when the newest snapshot is older at the week's end than the workspace's
    ``stale_after_days``; an attempt that failed, was blocked or denied says more and stays what it is.

    A source's own address always has a row. A discovered address has one when it was tried in the week; or in the
    ``window_days`` before, if the sitemap or feed itself could not be read this week: then nobody can tell whether it
    is still listed.
    """
    by_source: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        by_source[entry.source_id][entry.url].append(entry)
    rows = (
        _row(workspace, week, ref, url=url, attempts=attempts)
        for ref in workspace.sources()
        for url, attempts in _addresses(ref, by_source[ref.source.id], week, window_days)
    )
    return pl.DataFrame(list(rows), schema=TABLES["sources"].schema)


def _addresses(
    ref: SourceRef, attempts: dict[str, list[Entry]], week: Week, window_days: int
) -> Iterator[tuple[str, list[Entry]]]:
    own = attempts.get(ref.source.url, [])
    yield ref.source.url, own
    unlisted = ref.source.discover != "none" and not any(e.status in _SEEN for e in own if e.attempted_at in week)
    since = week.start - timedelta(days=window_days) if unlisted else week.start
    for url in sorted(attempts.keys() - {ref.source.url}):
        if any(entry.attempted_at >= since for entry in attempts[url]):
            yield url, attempts[url]


def _row(workspace: Workspace, week: Week, ref: SourceRef, *, url: str, attempts: list[Entry]) -> dict[str, Any]:
    last = attempts[-1] if attempts else None
    newest = next((entry for entry in reversed(attempts) if entry.snapshot_id is not None), None)
    limit = timedelta(days=workspace.thresholds.stale_after_days)
    status, note = "stale", ""
    if last is None:
        note = "never fetched; run: workbench collect"
    elif last.attempted_at not in week:
        note = f"not tried this week; last try {last.attempted_at:%Y-%m-%d}: {_said(last)}; run: workbench collect"
    elif last.status in _SEEN and week.end - last.attempted_at > limit:
        note = f"last seen {last.attempted_at:%Y-%m-%d}, more than {limit.days} days before the week's end"
    else:
        status, note = last.status, last.note
    return {
        "week": str(week),
        "company_id": ref.company.id,
        "source_id": ref.source.id,
        "url": url,
        "kind": ref.source.kind,
        "status": status,
        "http_status": last.http_status if last else None,
        "attempted_at": last.attempted_at if last else None,
        "snapshot_id": newest.snapshot_id if newest else None,
        "snapshot_at": newest.attempted_at if newest else None,
        "note": note,
    }


def _said(entry: Entry) -> str:
    return f"{entry.status} ({entry.note})" if entry.note else entry.status
