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
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import cast

from workbench.errors import ArchiveError
from workbench.files import atomic_write, write_text
from workbench.store import warc
from workbench.store.entries import (
    Entry,
    SourceStatus,
    entries_from_index,
    entry_from_record,
    index_from_entries,
    inherit,
    snapshot_id,
)
from workbench.store.writer import ArchiveWriter, sync_folder

__all__ = ["Archive", "ArchiveWriter", "Entry", "SourceStatus", "snapshot_id"]

log = logging.getLogger(__name__)


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
        if entry.refers_to is not None:
            entry = self._find(entry.refers_to)  # never a revisit itself, see ArchiveWriter.revisit
        return self._read_payload(entry)

    @contextmanager
    def writer(self, *, opened_at: datetime | None = None) -> Iterator[ArchiveWriter]:
        """Open a session that writes one file; the file takes its final name when the block ends, error or not.

        With ``opened_at`` the file's name and all its bytes follow from that time and the calls made (and from the
        zlib in use). Raises ArchiveError if a file of that session is there already.
        """
        with self._lock(fcntl.LOCK_SH, salvage=True):
            writer = ArchiveWriter(self.root, opened_at, find=self._find)
            try:
                yield writer
            finally:
                writer.close()

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
        found = [inherit(e, originals[e.refers_to]) if e.refers_to in originals else e for e in found]
        return sorted(found, key=lambda e: (e.attempted_at, e.source_id, e.url, e.warc, e.offset))

    def _paths(self) -> list[Path]:
        # In this order: a session that takes its final name between the two listings is in both, not in neither.
        running = sorted(self.root.glob(f"*{warc.SUFFIX}{warc.OPEN}"))
        finished = sorted(self.root.glob(f"*{warc.SUFFIX}"))
        names = {path.name for path in finished}
        return [*finished, *(path for path in running if path.name.removesuffix(warc.OPEN) not in names)]

    def _index(self, path: Path, signature: tuple[int, int]) -> list[Entry]:
        index = self.root / "index" / f"{path.name}.json"
        entries = entries_from_index(index, signature)
        if entries is None:
            entries = _entries_from_file(path)
            if not path.name.endswith(warc.OPEN):
                try:
                    write_text(index, index_from_entries(entries, signature))
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
        for name in (entry.warc, entry.warc + warc.OPEN):
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
        for path in self.root.glob(f"*{warc.SUFFIX}{warc.OPEN}"):
            final = path.with_name(path.name.removesuffix(warc.OPEN))
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


_RESTORE = "Restore {} from a backup, or delete it and the lake folder and run: workbench weekly"


def _scan(path: Path) -> Iterator[warc.Located | warc.Damage]:
    """Records of a file, with a warning for each stretch that is none."""
    name = path.name.removesuffix(warc.OPEN)
    for item in warc.scan(path, warcinfo_id=warc.warcinfo_id(name)):
        if isinstance(item, warc.Damage):
            where = "at the end of" if item.at_end else f"at byte {item.offset} of"
            log.warning("Skipped %d bytes %s %s: %s", item.length, where, path, item.reason)
        elif item.record.problem:
            log.warning("The record at byte %d of %s was altered: %s", item.offset, path, item.record.problem)
        yield item


def _entries_from_file(path: Path) -> list[Entry]:
    name = path.name.removesuffix(warc.OPEN)
    found = (entry_from_record(item, name) for item in _scan(path) if isinstance(item, warc.Located))
    return [entry for entry in found if entry is not None]


def _copy_records(source: Path, target: Path, records: Sequence[warc.Located]) -> None:
    with source.open("rb") as read, atomic_write(target) as write:
        for item in records:
            read.seek(item.offset)
            write.write(read.read(item.length))
    sync_folder(target.parent)
