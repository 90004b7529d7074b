"""Imported files as evidence: kept unchanged in the workspace's folder ``imports``, with how they were read.

imports/<SHA-256 of the file>.<suffix>   the file
imports/<import id>.json                 what it was imported as, and the snapshots its reviews came from
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from workbench.errors import ArchiveError
from workbench.files import write_bytes, write_text
from workbench.store.archive import Entry
from workbench.workspace import Workspace

__all__ = [
    "Import",
    "evidence_of",
    "import_entries",
    "import_payload",
    "imports_of",
    "keep_import",
    "known_import",
    "prune_imports",
    "sha256_of",
]

_TYPES: Final = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".xml": "application/xml",
    ".rss": "application/rss+xml",
    ".atom": "application/atom+xml",
}


_ID: Final = 16  # hex digits


@dataclass(frozen=True)
class Import:
    """How a file was read; written beside it as JSON."""

    import_id: str
    file: str
    """Name in the folder imports."""
    original_name: str
    payload_sha256: str
    exported: str
    name: str
    company: str | None
    mapping: dict[str, str]
    rating_scale: float | None
    records: str | None
    country: str | None
    snapshots: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Snapshot id to company and source."""

    @property
    def at(self) -> dt.datetime:
        return dt.datetime.fromisoformat(self.exported)


def import_entries(workspace: Workspace) -> list[Entry]:
    """The imported files as entries of the archive are: one for each company in a file, oldest first."""
    entries = [
        Entry(
            snapshot_id=snapshot_id,
            source_id=source_id,
            url=source_id,
            final_url=None,
            attempted_at=plan.at,
            status="fetched",
            http_status=None,
            content_type=_TYPES.get(Path(plan.file).suffix, "application/x-ndjson"),
            etag=None,
            last_modified=None,
            payload_sha256=plan.payload_sha256,
            note=plan.original_name,
            warc=f"imports/{plan.file}",
            offset=0,
            refers_to=None,
        )
        for plan in imports_of(workspace)
        for snapshot_id, (_, source_id) in plan.snapshots.items()
    ]
    return sorted(entries, key=lambda entry: (entry.attempted_at, entry.source_id, str(entry.snapshot_id)))


def import_payload(workspace: Workspace, entry: Entry) -> bytes:
    """The file behind an entry of ``import_entries``. Raises ArchiveError when it is gone or was changed."""
    for plan in imports_of(workspace):
        if entry.snapshot_id in plan.snapshots:
            return evidence_of(workspace, plan)
    raise ArchiveError(f"No import with snapshot {entry.snapshot_id} in {_folder(workspace)}. Import the file again.")


def prune_imports(workspace: Workspace, before: dt.datetime) -> int:
    """Delete imported files that were exported before that time; the number of imports deleted. The lake stays."""
    plans = imports_of(workspace)
    old = [plan for plan in plans if plan.at < before]
    kept = {plan.file for plan in plans if plan.at >= before}
    for plan in old:
        (_folder(workspace) / f"{plan.import_id}.json").unlink()
        if plan.file not in kept:
            (_folder(workspace) / plan.file).unlink(missing_ok=True)
    return len(old)


def imports_of(workspace: Workspace) -> list[Import]:
    """All imports of the workspace, by id. Raises ArchiveError when one of their files is damaged."""
    found = (_read(path) for path in sorted(_folder(workspace).glob("*.json")) if len(path.stem) == _ID)
    return [plan for plan in found if plan is not None]


def known_import(workspace: Workspace, import_id: str) -> Import | None:
    """The import with that id, if there was one before."""
    return _read(_folder(workspace) / f"{import_id}.json")


def keep_import(workspace: Workspace, plan: Import, payload: bytes) -> None:
    """Write the file, unless it is there, and how it was read."""
    path = _folder(workspace) / plan.file
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != plan.payload_sha256:
        write_bytes(path, payload)
    text = json.dumps(asdict(plan), indent=2, ensure_ascii=False)
    write_text(_folder(workspace) / f"{plan.import_id}.json", text + "\n")


def evidence_of(workspace: Workspace, plan: Import) -> bytes:
    """The file of an import. Raises ArchiveError when it is gone or was changed."""
    path = _folder(workspace) / plan.file
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read ({error}). Import {plan.original_name} again.") from None
    if hashlib.sha256(payload).hexdigest() != plan.payload_sha256:
        raise ArchiveError(f"{path} was changed since it was imported. Import {plan.original_name} again.")
    return payload


def sha256_of(*parts: str) -> str:
    """SHA-256 of the parts, one a line, in hex."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "imports"


def _read(path: Path) -> Import | None:
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        snapshots = {key: (str(pair[0]), str(pair[1])) for key, pair in data.pop("snapshots").items()}
        return Import(**data, snapshots=snapshots)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ArchiveError(f"{path} is damaged ({error}). Delete it and import the file again.") from None
