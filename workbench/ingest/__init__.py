"""From the archive to the lake: one week's pages are read and their rows merged.

Only what is not in the lake yet is read, or was read by another version of the extraction code, so a second run of a
week reads nothing and changes nothing. ``pages`` is written last: a run that dies half-way leaves its snapshots
unread, and the next one reads them again.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

import polars as pl

from workbench.errors import ArchiveError, ParameterError
from workbench.extract import EXTRACTOR
from workbench.extract.page import Page
from workbench.ingest.authors import vocabulary
from workbench.ingest.coverage import sources_frame
from workbench.ingest.imports import restore_imports
from workbench.ingest.reading import Job, read_pages
from workbench.ingest.rows import Shown, first_shown, rows_from_pages
from workbench.store.archive import Archive, Entry
from workbench.store.lake import Lake, Upsert
from workbench.weeks import Week
from workbench.workspace import Source, SourceRef, Workspace

__all__ = ["IngestResult", "ingest_week"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestResult:
    """What reading a week did."""

    week: str
    snapshots: int
    """Snapshots in the week and its window."""
    pages_read: int
    """Payloads that had to be read: new ones, and those another extractor had read."""
    ignored: int
    """Attempts on sources that are no longer in the workspace."""
    changed: Mapping[str, Upsert] = field(default_factory=dict)
    """Rows written, by table."""
    warnings: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(table)}</td><td>{u.inserted}</td><td>{u.updated}</td><td>{u.deleted}</td></tr>"
            for table, u in self.changed.items()
        )
        notes = "".join(f"<li>{html.escape(warning)}</li>" for warning in self.warnings)
        return (
            f"<p>{self.week}: {self.snapshots} snapshots, {self.pages_read} pages read, {self.ignored} attempts "
            "ignored</p><table><thead><tr><th>table</th><th>new</th><th>updated</th><th>deleted</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "")
        )


def ingest_week(workspace: Workspace, week: Week, *, window_days: int = 28, progress: bool = True) -> IngestResult:
    """Read the archived pages of ``week`` and of the ``window_days`` before it, and merge their rows into the lake.

    For each address the newest snapshot before the window is read too, and the newest one that was not an error: what
    the week is compared with must be read by the same code. The table sources gets the rows of ``week`` alone.

    Raises ParameterError for a negative window and LakeError when the lake does not fit this version. A snapshot
    whose record is damaged is a warning in the result, and its rows stay as they are.
    """
    if window_days < 0:
        raise ParameterError(f"window_days is {window_days}; give 0 or more, for example 28.")
    archive, lake = Archive(workspace.archive_dir), Lake(workspace.lake_dir)
    refs = {ref.source.id: ref for ref in workspace.sources()}
    attempts = archive.entries()
    entries = [entry for entry in attempts if entry.source_id in refs]
    snapshots = {e.snapshot_id: e for e in reversed(entries) if e.snapshot_id is not None}
    originals = {e.snapshot_id: e for e in attempts if e.snapshot_id is not None and e.refers_to is None}

    wanted = _wanted(snapshots.values(), week, window_days)
    unread = _unread(lake, wanted, refs) | _outdated_owners(lake, snapshots)
    chosen = [snapshots[snapshot_id] for snapshot_id in sorted(unread)]
    plan = [(entry, originals.get(entry.refers_to or "", entry)) for entry in chosen]
    warnings: list[str] = []
    shown, pages_read = _show(archive, plan, refs=refs, progress=progress, warnings=warnings)

    restore_imports(workspace, lake)
    changed = _write(lake, workspace, shown)
    until = [entry for entry in entries if entry.attempted_at < week.end]
    coverage = sources_frame(workspace, week, until, window_days=window_days)
    changed["sources"] = lake.replace("sources", coverage, where={"week": [str(week)]})
    for warning in warnings:
        log.warning("%s", warning)
    return IngestResult(
        week=str(week),
        snapshots=len(wanted),
        pages_read=pages_read,
        ignored=len(attempts) - len(entries),
        changed=changed,
        warnings=tuple(warnings),
    )


def _wanted(snapshots: Iterable[Entry], week: Week, window_days: int) -> list[Entry]:
    """The snapshots of the window, and for each address the ones a change is measured from, if they are older."""
    start = week.start - timedelta(days=window_days)
    found: dict[str, Entry] = {}
    baseline: dict[tuple[str, str, bool], Entry] = {}
    for entry in sorted(snapshots, key=lambda e: e.attempted_at):
        if start <= entry.attempted_at < week.end:
            found[str(entry.snapshot_id)] = entry
        if entry.attempted_at < week.start:
            baseline[entry.source_id, entry.url, False] = entry
            if (entry.http_status or 0) < 400:
                baseline[entry.source_id, entry.url, True] = entry
    found.update((str(entry.snapshot_id), entry) for entry in baseline.values())
    return list(found.values())


def _unread(lake: Lake, wanted: Sequence[Entry], refs: Mapping[str, SourceRef]) -> set[str]:
    """Ids of the snapshots that are not in pages as today's code and workspace would have them."""
    rows = lake.scan("pages").select("snapshot_id", "extractor", "kind", "company_id", "source_id").collect()
    known = set(rows.iter_rows())
    return {
        str(e.snapshot_id)
        for e in wanted
        if (e.snapshot_id, EXTRACTOR, refs[e.source_id].source.kind, refs[e.source_id].company.id, e.source_id)
        not in known
    }


def _outdated_owners(lake: Lake, snapshots: Mapping[str, Entry]) -> set[str]:
    """Snapshots outside the window that reviews came from and another extractor read.

    A review belongs to the first snapshot that showed it. If that one kept its old reading while the window is read
    anew, a review that reads a little differently now would stand twice in the table.
    """
    owners = lake.scan("reviews").select("snapshot_id").unique()
    old = lake.scan("pages").filter(pl.col("extractor") != EXTRACTOR).select("snapshot_id")
    found = owners.join(old, on="snapshot_id", how="semi").collect()["snapshot_id"]
    return {snapshot_id for snapshot_id in found if snapshot_id in snapshots}


def _show(
    archive: Archive,
    plan: Sequence[tuple[Entry, Entry]],
    *,
    refs: Mapping[str, SourceRef],
    progress: bool,
    warnings: list[str],
) -> tuple[list[Shown], int]:
    """The pages of the snapshots in ``plan`` and how many payloads were read for them.

    ``plan``: each snapshot with the one that holds its payload, itself or an earlier one. Each payload is read once.
    """
    jobs: dict[tuple[str | None, ...], Job] = {}
    planned: list[tuple[Entry, Entry, Job | None]] = []
    for entry, original in plan:
        source = refs[entry.source_id].source
        job = None
        if not _names_pages(source, original):
            job = jobs.setdefault((made := Job(original, source.kind)).key, made)
        planned.append((entry, original, job))
    read = dict(zip(jobs, read_pages(archive.root, list(jobs.values()), progress=progress), strict=True))
    shown = []
    for entry, original, job in planned:
        page = read[job.key] if job else Page(url=entry.url, kind=refs[entry.source_id].source.kind)
        if isinstance(page, ArchiveError):
            warnings.append(f"Not read: {page}")
            continue
        shown.append(
            Shown(
                snapshot_id=str(entry.snapshot_id),
                company_id=refs[entry.source_id].company.id,
                source_id=entry.source_id,
                url=entry.url,
                fetched_at=entry.attempted_at,
                kind=refs[entry.source_id].source.kind,
                # 304 says that the page is as it was: what it was stands in the original.
                http_status=original.http_status if entry.refers_to else entry.http_status,
                payload_sha256=entry.payload_sha256,
                page=page,
            )
        )
    return shown, len(jobs)


def _names_pages(source: Source, original: Entry) -> bool:
    """Whether a snapshot is a sitemap or feed: a list of pages and none itself."""
    content_type = (original.content_type or "").casefold()
    # Parts of a sitemap are named .xml or .xml.gz, whatever type the server gives them.
    a_list = ("xml" in content_type and "xhtml" not in content_type) or "gzip" in content_type
    named_so = urlsplit(original.url).path.casefold().endswith((".xml", ".xml.gz"))
    return source.discover != "none" and (original.url == source.url or a_list or named_so)


def _write(lake: Lake, workspace: Workspace, shown: Sequence[Shown]) -> dict[str, Upsert]:
    tables = ("offers", "plans", "claims", "creatives", "reviews", "pages")
    if not shown:
        return dict.fromkeys(tables, Upsert())
    rows = rows_from_pages(shown, extractor=EXTRACTOR, salt=workspace.salt(), keep=vocabulary(workspace))
    ids = [item.snapshot_id for item in shown]
    where = {"snapshot_id": ids}
    frames = {table: rows.frame(table) for table in tables}
    frames["reviews"] = first_shown(frames["reviews"], lake.read("reviews"), ids)
    return {table: lake.replace(table, frames[table], where=where) for table in tables}
