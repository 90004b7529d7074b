"""Adding records to a file of the archive."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from workbench.errors import ArchiveError
from workbench.store import warc
from workbench.store.entries import (
    Entry,
    SourceStatus,
    entry_from_record,
    inherit,
    snapshot_id,
    snapshot_id_from_digest,
)

__all__ = ["ArchiveWriter", "sync_folder"]

_PROFILE = "http://netpreserve.org/warc/1.1/revisit/"


class ArchiveWriter:
    """Adds records to one file. Made by ``Archive.writer``; may be shared by threads."""

    def __init__(self, root: Path, opened_at: datetime | None, *, find: Callable[[str], Entry]) -> None:
        moment = opened_at or datetime.now(timezone.utc)
        stamp = re.sub(r"[-:.]", "", warc.date_from_time(moment))
        token = secrets.token_hex(4) if opened_at is None else hashlib.sha256(stamp.encode()).hexdigest()[:8]
        self._root = root
        self._find = find
        self._moment = moment
        self._name = f"{stamp}-{token}{warc.SUFFIX}"
        self._stream: IO[bytes] | None = None
        self._mutex = threading.Lock()

    def response(
        self,
        *,
        source_id: str,
        url: str,
        fetched_at: datetime,
        http_status: int,
        headers: Sequence[tuple[str, str]],
        payload: bytes,
        final_url: str | None = None,
        reason: str = "OK",
    ) -> Entry:
        """Archive a response. ``payload``: the body with gzip or brotli undone, in the page's own charset."""
        identity = snapshot_id(url, fetched_at, payload)
        return self._add(
            "response",
            {
                **self._fields(source_id, url, fetched_at, identity),
                "WARC-X-Final-Url": _quote_final(final_url),
            },
            url=url,
            status=f"{http_status} {reason}".strip(),
            headers=headers,
            payload=payload,
        )

    def revisit(
        self,
        *,
        source_id: str,
        url: str,
        fetched_at: datetime,
        original: Entry,
        http_status: int = 304,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Entry:
        """Archive that a page is what it was at ``original``, which may be a revisit itself.

        The snapshot gets an id of its own, from the original's payload and the new time. Raises ArchiveError when the
        original has no payload or is gone.
        """
        if original.refers_to is not None:
            original = self._find(original.refers_to)
        if original.snapshot_id is None or original.payload_sha256 is None:
            raise ArchiveError(f"The original of {url} has no payload. Fetch the page in full: workbench collect")
        identity = snapshot_id_from_digest(url, fetched_at, original.payload_sha256)
        same = "server-not-modified" if http_status == 304 else "identical-payload-digest"
        entry = self._add(
            "revisit",
            {
                **self._fields(source_id, url, fetched_at, identity),
                "WARC-Profile": _PROFILE + same,
                "WARC-Refers-To": warc.record_id("snapshot", original.snapshot_id),
                "WARC-Refers-To-Target-URI": original.url,
                "WARC-Refers-To-Date": warc.date_from_time(original.attempted_at),
                "WARC-Payload-Digest": warc.digest_from_sha256(original.payload_sha256),
                "WARC-X-Refers-To": original.snapshot_id,
            },
            url=url,
            status=f"{http_status} {_phrase(http_status)}".strip(),
            headers=headers,
        )
        return inherit(entry, original)

    def attempt(
        self,
        *,
        source_id: str,
        url: str,
        attempted_at: datetime,
        status: SourceStatus,
        http_status: int | None = None,
        note: str,
    ) -> Entry:
        """Archive that an attempt gave no payload, and why. ``status``: robots-denied, blocked or failed."""
        if status not in ("robots-denied", "blocked", "failed"):
            raise ValueError(f"an attempt without a payload cannot be {status!r}; use response() or revisit()")
        said = {"status": status, "http_status": http_status, "note": note}
        return self._add(
            "metadata",
            self._fields(source_id, url, attempted_at, None),
            url=url,
            content_type="application/json",
            payload=json.dumps(said, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace"),
        )

    def _fields(self, source_id: str, url: str, moment: datetime, identity: str | None) -> dict[str, str | None]:
        if not url.startswith(("http://", "https://")) or re.search(r"[\s\x00-\x20\x7f-\x9f]", url):
            raise ArchiveError(f"{url!r} is not a web address that can be archived. Mend it in workspace.toml.")
        date = warc.date_from_time(moment)
        about = ("snapshot", identity) if identity else ("attempt", source_id, url, date)
        return {
            "WARC-Record-ID": warc.record_id(*about),
            "WARC-Date": date,
            "WARC-Warcinfo-ID": warc.warcinfo_id(self._name),
            "WARC-X-Source-Id": source_id,
            "WARC-X-Snapshot-Id": identity,
        }

    def _add(self, kind: str, fields: dict[str, str | None], **content: Any) -> Entry:
        member = warc.member_from_record(kind, fields, **content)
        with self._mutex:
            stream = self._stream or self._begin()
            offset = stream.tell()
            # One write for one record, past all buffers: a killed process tears the last one at most.
            if stream.write(member) != len(member):
                # The disk is full. What comes next must not stand behind half a record.
                stream.truncate(offset)
                stream.seek(offset)
                raise ArchiveError(
                    f"{self._root} is full; {content['url']} was not archived. Make room and run it again."
                )
            # The entry is what a reader will make of these bytes, not what was meant to be written.
            stream.seek(offset)
            entry = entry_from_record(warc.read_record(stream, offset), self._name)
            stream.seek(0, os.SEEK_END)
        if entry is None:
            raise ArchiveError(f"The record of {content['url']} was written but cannot be read back; check the disk.")
        return entry

    def _begin(self) -> IO[bytes]:
        if (self._root / self._name).exists():
            raise ArchiveError(f"{self._name} is in the archive already. Delete it first, or open another session.")
        try:
            self._stream = (self._root / (self._name + warc.OPEN)).open("x+b", buffering=0)
        except FileExistsError:
            raise ArchiveError(f"{self._name} is being written by another process; wait until it is done.") from None
        info = "software: workbench\r\nformat: WARC File Format 1.1\r\n"
        self._stream.write(
            warc.member_from_record(
                "warcinfo",
                {
                    "WARC-Record-ID": warc.warcinfo_id(self._name),
                    "WARC-Date": warc.date_from_time(self._moment),
                    "WARC-Filename": self._name,
                },
                content_type="application/warc-fields",
                payload=info.encode(),
            )
        )
        return self._stream

    def close(self) -> None:
        """Give the file its final name. Called by ``Archive.writer``."""
        if self._stream is None:
            return
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._stream = None
        final = self._root / self._name
        final.with_name(self._name + warc.OPEN).rename(final)
        sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _phrase(http_status: int) -> str:
    try:
        return HTTPStatus(http_status).phrase
    except ValueError:
        return ""


def _quote_final(url: str | None) -> str | None:
    return None if url is None else quote(url, safe="".join(map(chr, range(0x21, 0x7F))))
