"""The archive: every response as it came, in WARC 1.1 files, and every attempt that gave none.

A *snapshot* is one response at one time. ``response`` records hold it; a ``revisit`` record says that a page had not
changed since an earlier snapshot; a ``metadata`` record (JSON) says that an attempt gave nothing, and why. So the
archive alone tells what was seen and what was not.

Files are named by the time their session began. A session writes to ``<name>.warc.gz.open`` and takes the final name
on close. A killed process leaves the ``.open`` file: it is read up to its last whole record, and the next writer
gives it its final name without the torn tail. What stands in each file is remembered in ``index/``, which may be
deleted at any time.

Our own fields in the WARC header:

    WARC-X-Source-Id        the source in workspace.toml
    WARC-X-Snapshot-Id      see ``snapshot_id``
    WARC-X-Refers-To        revisit: snapshot id of the original
    WARC-X-Final-Url        address after redirects
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Literal, cast, get_args
from urllib.parse import quote

from workbench.errors import ArchiveError
from workbench.files import atomic_write, write_text
from workbench.store import warc

__all__ = ["Archive", "ArchiveWriter", "Entry", "SourceStatus", "snapshot_id"]

log = logging.getLogger(__name__)

SourceStatus = Literal["fetched", "not-modified", "robots-denied", "blocked", "failed"]
"""What came of one attempt on a source."""

_SUFFIX = ".warc.gz"
_OPEN = ".open"
_INDEX_VERSION = 1
_PROFILE = "http://netpreserve.org/warc/1.1/revisit/"


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
    return _snapshot_id(url, fetched_at, hashlib.sha256(payload).hexdigest())


def _snapshot_id(url: str, fetched_at: datetime, payload_sha256: str) -> str:
    text = f"{url}\n{warc.date_from_time(fetched_at)}\n{payload_sha256}\n"
    return hashlib.sha256(text.encode()).hexdigest()


class Archive:
    """The WARC files of one folder. Reading needs no lock; writers may work side by side."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._files: dict[str, tuple[tuple[int, int], list[Entry]]] = {}
        self._mutex = threading.Lock()

    def entries(self, *, start: datetime | None = None, end: datetime | None = None) -> list[Entry]:
        """Attempts from ``start`` up to, not including, ``end``, sorted by time, source and address."""
        return [
            entry
            for entry in self._load()
            if (start is None or entry.attempted_at >= start) and (end is None or entry.attempted_at < end)
        ]

    def latest(self, url: str) -> Entry | None:
        """The newest snapshot of an address, changed or not; None if there never was one."""
        return next((e for e in reversed(self._load()) if e.url == url and e.snapshot_id is not None), None)

    def payload(self, snapshot: Entry | str) -> bytes:
        """The decoded body of a snapshot; for one that had not changed, the original's.

        Raises ArchiveError when there is no such snapshot, or its record is not what its digests say.
        """
        entry = self._find(snapshot) if isinstance(snapshot, str) else snapshot
        if entry.snapshot_id is None:
            raise ArchiveError(
                f"The attempt on {entry.url} at {entry.attempted_at:%Y-%m-%d %H:%M} gave no payload ({entry.status}: "
                f"{entry.note}). Fetch it again with: workbench collect"
            )
        seen = {entry.snapshot_id}
        while entry.refers_to is not None:
            if entry.refers_to in seen:
                raise ArchiveError(f"Snapshot {entry.refers_to} refers to itself. {_RESTORE.format(entry.warc)}")
            seen.add(entry.refers_to)
            entry = self._find(entry.refers_to)
        return self._read_payload(entry)

    @contextmanager
    def writer(self, *, opened_at: datetime | None = None) -> Iterator[ArchiveWriter]:
        """Open a session that writes one file; the file takes its final name when the block ends, error or not.

        With ``opened_at`` the file's name and all its bytes follow from that time and the calls made (and from the
        zlib in use). Raises ArchiveError if a file of that session is there already.
        """
        with self._lock(fcntl.LOCK_SH, salvage=True):
            writer = ArchiveWriter(self, opened_at)
            try:
                yield writer
            finally:
                writer._close()

    def prune(self, before: datetime) -> int:
        """Delete what is older than ``before``; returns the number of records deleted.

        An original stays as long as a younger snapshot refers to it. Each file is rewritten under a temporary name
        and then replaced, so a crash loses nothing. Raises ArchiveError while someone is writing.
        """
        if not self.root.is_dir():
            return 0
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            self._salvage()
            entries = self._load()
            needed = {e.refers_to for e in entries if e.refers_to is not None and e.attempted_at >= before}
            doomed = [e for e in entries if e.attempted_at < before and e.snapshot_id not in needed]
            by_file: dict[str, set[int]] = {}
            for entry in doomed:
                by_file.setdefault(entry.warc, set()).add(entry.offset)
            for name, offsets in by_file.items():
                self._rewrite(self.root / name, offsets)
            return len(doomed)

    # Files and index ------------------------------------------------------------------------------------------------

    def _load(self) -> list[Entry]:
        """All entries of all files. Only files that changed since the last call are looked at again."""
        with self._mutex:
            known, self._files = self._files, {}
            for path in self._paths():
                try:
                    stat = path.stat()
                    signature = (stat.st_size, stat.st_mtime_ns)
                    cached = known.get(path.name)
                    entries = cached[1] if cached and cached[0] == signature else self._index(path, signature)
                except FileNotFoundError:
                    continue  # taken its final name, or pruned, between the listing and now
                self._files[path.name] = (signature, entries)
            found = [entry for _, entries in self._files.values() for entry in entries]
        originals = {e.snapshot_id: e for e in found if e.snapshot_id is not None and e.refers_to is None}
        found = [_inherit(e, originals[e.refers_to]) if e.refers_to in originals else e for e in found]
        return sorted(found, key=lambda e: (e.attempted_at, e.source_id, e.url, e.warc, e.offset))

    def _paths(self) -> list[Path]:
        finished = sorted(self.root.glob(f"*{_SUFFIX}"))
        names = {path.name for path in finished}
        # Both names exist only when a rename was cut short after the copy; the copy is whole.
        running = (p for p in sorted(self.root.glob(f"*{_SUFFIX}{_OPEN}")) if p.name[: -len(_OPEN)] not in names)
        return [*finished, *running]

    def _index(self, path: Path, signature: tuple[int, int]) -> list[Entry]:
        index = self.root / "index" / f"{path.name}.json"
        entries = _entries_from_index(index, signature)
        if entries is None:
            entries = _entries_from_file(path)
            if not path.name.endswith(_OPEN):
                try:
                    write_text(index, _index_from_entries(entries, signature))
                except OSError as error:  # an archive on a read-only disk is still readable
                    log.debug("No index was written for %s: %s", path.name, error)
        return entries

    def _find(self, wanted: str) -> Entry:
        for entry in self._load():
            if entry.snapshot_id == wanted:
                return entry
        raise ArchiveError(
            f"There is no snapshot {wanted} in {self.root}. If it was pruned it is gone; otherwise restore the "
            "missing WARC file from a backup. To go on without it, delete the lake folder and run: workbench weekly"
        )

    def _read_payload(self, entry: Entry) -> bytes:
        record = self._record_at(entry)
        if record is None:  # the file was rewritten since the entry was read
            entry = self._find(cast(str, entry.snapshot_id))
            record = self._record_at(entry)
        if record is None:
            raise ArchiveError(f"Snapshot {entry.snapshot_id} cannot be read. {_RESTORE.format(entry.warc)}")
        payload = record.payload
        if record.problem or entry.snapshot_id != snapshot_id(entry.url, entry.attempted_at, payload):
            raise ArchiveError(
                f"Snapshot {entry.snapshot_id} of {entry.url} is not what was archived: "
                f"{record.problem or 'its payload does not match its snapshot id'}. {_RESTORE.format(entry.warc)}"
            )
        return payload

    def _record_at(self, entry: Entry) -> warc.Record | None:
        for name in (entry.warc, entry.warc + _OPEN):
            try:
                with (self.root / name).open("rb") as stream:
                    record = warc.read_record(stream, entry.offset).record
            except FileNotFoundError:
                continue
            except ValueError:
                return None
            return record if record.fields.get("warc-x-snapshot-id") == entry.snapshot_id else None
        return None

    # Locks, salvage, rewriting --------------------------------------------------------------------------------------

    @contextmanager
    def _lock(self, how: int, *, salvage: bool = False) -> Iterator[None]:
        """Hold the archive's lock: shared by writers, exclusive for pruning. It goes when its process dies."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("ab") as handle:
            if salvage:
                try:
                    # Held alone, so whatever is open belongs to nobody any more.
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass
                else:
                    self._salvage()
            try:
                fcntl.flock(handle, how)
            except BlockingIOError:
                raise ArchiveError(
                    f"{self.root} is being written to. Wait until the collection is done and run it again."
                ) from None
            yield

    def _salvage(self) -> None:
        """Give files that killed processes left open their final names, without the torn tail."""
        for path in self.root.glob(f"*{_SUFFIX}{_OPEN}"):
            final = path.with_name(path.name[: -len(_OPEN)])
            if not final.exists():
                found = [item for item in _scan(path) if isinstance(item, warc.Located)]
                if any(item.record.kind != "warcinfo" for item in found):
                    _copy_records(path, final, found)
                    log.warning(
                        "%s was left open by a killed process; its %d whole records are kept", final, len(found)
                    )
            path.unlink()

    def _rewrite(self, path: Path, without: set[int]) -> None:
        kept = [item for item in _scan(path) if isinstance(item, warc.Located) and item.offset not in without]
        if all(item.record.kind == "warcinfo" for item in kept):
            path.unlink()
            (self.root / "index" / f"{path.name}.json").unlink(missing_ok=True)
        else:
            _copy_records(path, path, kept)


class ArchiveWriter:
    """Adds records to one file. Made by ``Archive.writer``; may be shared by threads."""

    def __init__(self, archive: Archive, opened_at: datetime | None) -> None:
        moment = opened_at or datetime.now(timezone.utc)
        stamp = re.sub(r"[-:.]", "", warc.date_from_time(moment))
        token = secrets.token_hex(4) if opened_at is None else hashlib.sha256(stamp.encode()).hexdigest()[:8]
        self._archive = archive
        self._moment = moment
        self._name = f"{stamp}-{token}{_SUFFIX}"
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
            original = self._archive._find(original.refers_to)
        if original.snapshot_id is None or original.payload_sha256 is None:
            raise ArchiveError(f"The original of {url} has no payload. Fetch the page in full: workbench collect")
        same = "server-not-modified" if http_status == 304 else "identical-payload-digest"
        entry = self._add(
            "revisit",
            {
                **self._fields(source_id, url, fetched_at, _snapshot_id(url, fetched_at, original.payload_sha256)),
                "WARC-Profile": _PROFILE + same,
                "WARC-Refers-To": warc.record_id("snapshot", original.snapshot_id),
                "WARC-Refers-To-Target-URI": original.url,
                "WARC-Refers-To-Date": warc.date_from_time(original.attempted_at),
                "WARC-Payload-Digest": warc.digest_from_sha256(original.payload_sha256),
                "WARC-X-Refers-To": original.snapshot_id,
            },
            url=url,
            status=f"{http_status} Not Modified" if http_status == 304 else f"{http_status} OK",
            headers=headers,
        )
        return _inherit(entry, original)

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
            "WARC-Warcinfo-ID": _warcinfo_id(self._name),
            "WARC-X-Source-Id": source_id,
            "WARC-X-Snapshot-Id": identity,
        }

    def _add(self, kind: str, fields: dict[str, str | None], **content: Any) -> Entry:
        member = warc.member_from_record(kind, fields, **content)
        with self._mutex:
            stream = self._stream or self._begin()
            offset = stream.tell()
            # One write for one record, handed to the system at once: a killed process tears the last one at most.
            stream.write(member)
            stream.flush()
            # The entry is what a reader will make of these bytes, not what was meant to be written.
            stream.seek(offset)
            entry = _entry_from_record(warc.read_record(stream, offset), self._name)
            stream.seek(0, os.SEEK_END)
        if entry is None:
            raise ArchiveError(f"The record of {content['url']} was written but cannot be read back; check the disk.")
        return entry

    def _begin(self) -> IO[bytes]:
        if (self._archive.root / self._name).exists():
            raise ArchiveError(f"{self._name} is in the archive already. Delete it first, or open another session.")
        try:
            self._stream = (self._archive.root / (self._name + _OPEN)).open("x+b")
        except FileExistsError:
            raise ArchiveError(f"{self._name} is being written by another process; wait until it is done.") from None
        info = "software: workbench\r\nformat: WARC File Format 1.1\r\n"
        self._stream.write(
            warc.member_from_record(
                "warcinfo",
                {
                    "WARC-Record-ID": _warcinfo_id(self._name),
                    "WARC-Date": warc.date_from_time(self._moment),
                    "WARC-Filename": self._name,
                },
                content_type="application/warc-fields",
                payload=info.encode(),
            )
        )
        return self._stream

    def _close(self) -> None:
        if self._stream is None:
            return
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._stream = None
        final = self._archive.root / self._name
        final.with_name(self._name + _OPEN).rename(final)
        _sync_folder(final.parent)


_RESTORE = "Restore {} from a backup, or delete it and the lake folder and run: workbench weekly"


def _warcinfo_id(name: str) -> str:
    return warc.record_id("warcinfo", name)


def _scan(path: Path) -> Iterator[warc.Located | warc.Damage]:
    """Records of a file, with a warning for each stretch that is none."""
    name = path.name.removesuffix(_OPEN)
    for item in warc.scan(path, warcinfo_id=_warcinfo_id(name)):
        if isinstance(item, warc.Damage):
            where = "at the end of" if item.at_end else f"at byte {item.offset} of"
            log.warning("Skipped %d bytes %s %s: %s", item.length, where, path, item.reason)
        elif item.record.problem:
            log.warning("The record at byte %d of %s was altered: %s", item.offset, path, item.record.problem)
        yield item


def _entries_from_file(path: Path) -> list[Entry]:
    name = path.name.removesuffix(_OPEN)
    found = (_entry_from_record(item, name) for item in _scan(path) if isinstance(item, warc.Located))
    return [entry for entry in found if entry is not None]


def _entry_from_record(found: warc.Located, name: str) -> Entry | None:
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


_SEEN = ("fetched", "not-modified")


def _inherit(entry: Entry, original: Entry) -> Entry:
    """A revisit with what the server did not repeat."""
    return replace(
        entry,
        final_url=entry.final_url or original.final_url,
        content_type=original.content_type,
        etag=entry.etag or original.etag,
        last_modified=entry.last_modified or original.last_modified,
    )


def _index_from_entries(entries: list[Entry], signature: tuple[int, int]) -> str:
    rows = [{**asdict(entry), "attempted_at": warc.date_from_time(entry.attempted_at)} for entry in entries]
    return json.dumps({"version": _INDEX_VERSION, "signature": signature, "entries": rows}, ensure_ascii=False)


def _entries_from_index(path: Path, signature: tuple[int, int]) -> list[Entry] | None:
    """The remembered entries; None when there are none, or they are of another state of the file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != _INDEX_VERSION or data["signature"] != list(signature):
            return None
        return [Entry(**{**row, "attempted_at": warc.time_from_date(row["attempted_at"])}) for row in data["entries"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _copy_records(source: Path, target: Path, records: Sequence[warc.Located]) -> None:
    with source.open("rb") as read, atomic_write(target) as write:
        for item in records:
            read.seek(item.offset)
            write.write(read.read(item.length))
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _quote_final(url: str | None) -> str | None:
    return None if url is None else quote(url, safe="".join(map(chr, range(0x21, 0x7F))))
