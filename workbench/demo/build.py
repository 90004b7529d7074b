"""Write the demo workspace: its workspace.toml and an archive of four weeks."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from workbench.demo.pages import render_page
from workbench.demo.world import CONTENT, World, load_world
from workbench.errors import WorkspaceError
from workbench.files import write_text
from workbench.store.archive import Archive, ArchiveWriter, Entry
from workbench.workspace import FILE_NAME, Workspace, load_workspace

__all__ = ["make_demo"]

log = logging.getLogger(__name__)

# A polite collector: this long between two requests.
_PAUSE = timedelta(seconds=2, microseconds=137_000)
_MANIFEST = ".demo.json"
_OURS = re.compile(rf"{re.escape(FILE_NAME)}|archive/[0-9A-Za-z-]+\.warc\.gz")


def make_demo(folder: Path) -> Path:
    """Write the demo workspace into ``folder`` and return the folder.

    The files are the same bytes each time. A demo that is there already is brought up to date: workspace.toml (an
    edited one is kept as workspace.toml.bak) and the archive files of the demo, each replaced at once or not at all.
    When one of those archive files changes, the lake that was made from it goes too. Everything else in the folder
    stays. Raises WorkspaceError when the folder holds a workspace that is not a demo, or is not a folder.
    """
    folder = Path(folder).expanduser().resolve()
    known = _known_files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Inside the folder, so that the finished files only need a new name.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".demo-") as scratch:
        fresh = Path(scratch)
        shutil.copyfile(CONTENT / FILE_NAME, fresh / FILE_NAME)
        workspace = load_workspace(fresh)
        _write_archive(workspace, load_world())
        _install(fresh, folder, known)
    return folder


def _write_archive(workspace: Workspace, world: World) -> None:
    archive = Archive(workspace.archive_dir)
    originals: dict[str, Entry] = {}
    for start in world.sessions:
        with archive.writer(opened_at=start) as writer:
            _run_session(writer, start, workspace, world, originals)


def _run_session(
    writer: ArchiveWriter, start: datetime, workspace: Workspace, world: World, originals: dict[str, Entry]
) -> None:
    """Visit every source once. ``originals`` holds the last full response of each address, and is kept up to date."""
    specs = {spec.source_id: spec for spec in world.pages}
    for index, (_, source) in enumerate(workspace.sources()):
        moment = start + index * _PAUSE
        outcome = world.outcome(source.id, moment)
        if outcome is not None:
            writer.attempt(
                source_id=source.id,
                url=source.url,
                attempted_at=moment,
                status=outcome.status,
                http_status=outcome.http_status,
                note=outcome.note,
            )
            continue
        spec = specs[source.id]
        page = render_page(world, spec, moment)
        original = originals.get(source.url)
        answer = (page.http_status, _sha256(page.payload))
        if original and (original.http_status, original.payload_sha256) == answer:
            # A server that gave an ETag is asked with it and answers 304; another sends the same answer again.
            writer.revisit(
                source_id=source.id,
                url=source.url,
                fetched_at=moment,
                original=original,
                http_status=304 if "ETag" in dict(page.headers) else page.http_status,
                headers=page.headers,
            )
            continue
        originals[source.url] = writer.response(
            source_id=source.id,
            url=source.url,
            fetched_at=moment,
            http_status=page.http_status,
            reason=page.reason,
            headers=page.headers,
            payload=page.payload,
        )


# Into the folder ----------------------------------------------------------------------------------------------------


def _known_files(folder: Path) -> Mapping[str, str]:
    """What an earlier call wrote into ``folder``: path inside it to SHA-256."""
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"{folder} is a file. Name a folder for the demo workspace.")
    manifest = folder / _MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        # These files get deleted, so nothing but our own kind of name is believed.
        if not all(_OURS.fullmatch(name) and isinstance(digest, str) for name, digest in files.items()):
            raise ValueError("names a file that the demo does not write")
    except FileNotFoundError:
        if (folder / FILE_NAME).exists() or (folder / "archive").exists():
            raise WorkspaceError(
                f"{folder} holds a workspace that is not the demo. Name another folder, or move that one away first."
            ) from None
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WorkspaceError(f"{manifest} is damaged. Delete {folder} and make the demo again.") from None
    return dict(files)


def _install(fresh: Path, folder: Path, known: Mapping[str, str]) -> None:
    """Move the finished files to where they belong.

    The order makes a killed call harmless: the lake goes before the archive files that it was made from, and the
    manifest, which lets the next call finish the job, knows old and new files meanwhile.
    """
    names = [FILE_NAME, *sorted(f"archive/{path.name}" for path in (fresh / "archive").glob("*.warc.gz"))]
    digests = {name: _sha256((fresh / name).read_bytes()) for name in names}
    stale = [name for name in known if name not in digests]
    changed = [name for name in names if _digest_of(folder / name) != digests[name]]
    _write_manifest(folder, {**known, **{name: known.get(name, digests[name]) for name in names}})
    if any(name.startswith("archive/") for name in [*stale, *changed]):
        shutil.rmtree(folder / "lake", ignore_errors=True)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    for name in changed:
        target = folder / name
        if name == FILE_NAME and _digest_of(target) not in (None, known.get(name)):
            backup = target.with_name(f"{FILE_NAME}.bak")
            target.replace(backup)
            log.warning("%s had been edited; it is now %s, and the demo's own is back.", target, backup.name)
        target.parent.mkdir(exist_ok=True)
        (fresh / name).replace(target)
    _write_manifest(folder, digests)


def _write_manifest(folder: Path, digests: Mapping[str, str]) -> None:
    about = "Files that the demo wrote; the next `make demo` replaces them."
    write_text(
        folder / _MANIFEST, json.dumps({"about": about, "files": dict(sorted(digests.items()))}, indent=1) + "\n"
    )


def _digest_of(path: Path) -> str | None:
    return _sha256(path.read_bytes()) if path.is_file() else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
