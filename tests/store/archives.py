"""Helpers for tests that write archives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from workbench.store.archive import Archive, ArchiveWriter, Entry

MONDAY = datetime(2026, 11, 16, 6, 0, tzinfo=timezone.utc)
HTML = (("Content-Type", "text/html; charset=utf-8"), ("ETag", '"1"'))


def day(number: float) -> datetime:
    """Monday of the report week plus some days."""
    return MONDAY + timedelta(days=number)


def put(
    writer: ArchiveWriter,
    payload: bytes = b"<p>page</p>",
    *,
    at: datetime = MONDAY,
    url: str = "https://ondine.example/folio",
    source: str = "ondine-folio",
    status: int = 200,
    headers: Sequence[tuple[str, str]] = HTML,
) -> Entry:
    """One response with what a test does not care about filled in."""
    return writer.response(
        source_id=source, url=url, fetched_at=at, http_status=status, headers=headers, payload=payload
    )


def only_file(root: Path) -> Path:
    """The one WARC file of an archive."""
    (path,) = root.glob("*.warc.gz*")
    return path


def reread(root: Path) -> list[Entry]:
    """Entries as another process would read them, without the index."""
    for index in (root / "index").glob("*"):
        index.unlink()
    return Archive(root).entries()
