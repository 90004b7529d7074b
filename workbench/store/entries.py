"""What a record says about one attempt, and how the entries of a file are remembered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, cast, get_args

from workbench.store import warc

__all__ = [
    "Entry",
    "SourceStatus",
    "entries_from_index",
    "entry_from_record",
    "index_from_entries",
    "inherit",
    "snapshot_id",
    "snapshot_id_from_digest",
]

_INDEX_VERSION = 1

SourceStatus = Literal["fetched", "not-modified", "robots-denied", "blocked", "failed"]
"""What came of one attempt on a source."""

_SEEN = ("fetched", "not-modified")


@dataclass(frozen=True)
class Entry:
    """One attempt on one address: a snapshot, or why there is none."""

    snapshot_id: str | None
    """None when the attempt gave no payload."""
    source_id: str
    url: str
    final_url: str | None
    attempted_at: datetime
    """UTC."""
    status: SourceStatus
    http_status: int | None
    content_type: str | None
    etag: str | None
    last_modified: str | None
    payload_sha256: str | None
    note: str
    warc: str
    """Final name of the file in the archive."""
    offset: int
    """Of the record in that file, in bytes."""
    refers_to: str | None
    """Snapshot id of the original when this one says that nothing changed."""


def snapshot_id(url: str, fetched_at: datetime, payload: bytes) -> str:
    """Name of a snapshot: SHA-256 of its address, time and payload, in hex.

    Exactly: SHA-256 of the UTF-8 text ``<url>\\n<time>\\n<digest>\\n``, with the time in UTC as
    ``2026-11-16T06:00:00.000000Z`` and the digest the SHA-256 of ``payload`` in lower-case hex. Raises ValueError for
    a time without a zone.
    """
    return snapshot_id_from_digest(url, fetched_at, hashlib.sha256(payload).hexdigest())


def snapshot_id_from_digest(url: str, fetched_at: datetime, payload_sha256: str) -> str:
    text = f"{url}\n{warc.date_from_time(fetched_at)}\n{payload_sha256}\n"
    return hashlib.sha256(text.encode()).hexdigest()


def entry_from_record(found: warc.Located, name: str) -> Entry | None:
    """What a record says; None for a record that is not one of ours, such as warcinfo."""
    record, fields = found.record, found.record.fields
    source_id, identity = fields.get("warc-x-source-id"), fields.get("warc-x-snapshot-id")
    status: str | None = {"response": "fetched", "revisit": "not-modified"}.get(record.kind)
    http_status: int | None = None
    note = ""
    try:
        moment = warc.time_from_date(fields["warc-date"])
        if record.kind == "metadata" and source_id is not None:
            said = json.loads(record.payload)
            status, http_status, note = said["status"], said["http_status"], said["note"]
        elif status is not None:
            http_status = int(record.status.split(" ", 1)[0])
    except (ValueError, KeyError, TypeError):
        return None
    if source_id is None or status not in get_args(SourceStatus) or (status in _SEEN) != (identity is not None):
        return None
    return Entry(
        snapshot_id=identity,
        source_id=source_id,
        url=fields.get("warc-target-uri", ""),
        final_url=fields.get("warc-x-final-url"),
        attempted_at=moment,
        status=cast(SourceStatus, status),
        http_status=http_status,
        content_type=record.header("content-type"),
        etag=record.header("etag"),
        last_modified=record.header("last-modified"),
        payload_sha256=warc.sha256_from_digest(fields.get("warc-payload-digest")) if identity else None,
        note=note,
        warc=name,
        offset=found.offset,
        refers_to=fields.get("warc-x-refers-to"),
    )


def inherit(entry: Entry, original: Entry) -> Entry:
    """A revisit with what the server did not repeat."""
    return replace(
        entry,
        final_url=entry.final_url or original.final_url,
        content_type=original.content_type,
        etag=entry.etag or original.etag,
        last_modified=entry.last_modified or original.last_modified,
    )


def index_from_entries(entries: list[Entry], signature: tuple[int, int]) -> str:
    rows = [{**asdict(entry), "attempted_at": warc.date_from_time(entry.attempted_at)} for entry in entries]
    return json.dumps({"version": _INDEX_VERSION, "signature": signature, "entries": rows}, ensure_ascii=False)


def entries_from_index(path: Path, signature: tuple[int, int]) -> list[Entry] | None:
    """The remembered entries; None when there are none, or they are of another state of the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != _INDEX_VERSION or data["signature"] != list(signature):
            return None
        return [Entry(**{**row, "attempted_at": warc.time_from_date(row["attempted_at"])}) for row in data["entries"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
