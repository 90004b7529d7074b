"""Fetch every source of a workspace once, and archive what came of it.

What becomes of an answer:

    200, 203                      archived as a response
    404, 410                      archived as a response too: that a page is gone is a finding, and this its proof
    the same as last time         archived as a revisit
    304 to a conditional GET      archived as a revisit
    401, 403, 451, a challenge    blocked
    anything else, or nothing     failed

Header fields that would tie an archive to a session or to one connection (Set-Cookie, Connection, …) are left out.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, TypeVar

from workbench.collect.discover import (
    Listed,
    Listing,
    choose_pages,
    order_by_newest,
    read_feed,
    read_sitemap,
    same_site,
)
from workbench.collect.earlier import Earlier, earlier_by_url
from workbench.collect.http import Fetcher, Response, Visit
from workbench.collect.pacing import Pacing
from workbench.collect.problems import BlockedError, PageError
from workbench.collect.result import CollectResult, Outcome
from workbench.collect.robots import Robots
from workbench.errors import CollectError
from workbench.progress import tqdm
from workbench.store.archive import Archive, ArchiveWriter, Entry
from workbench.workspace import Source, SourceRef, Workspace

__all__ = ["collect"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_GONE = (404, 410)
_MAX_SITEMAPS = 20
_NOT_KEPT = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "set-cookie",
        "set-cookie2",
        "te",
        "trailer",
        "upgrade",
    }
)


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


def collect(
    workspace: Workspace,
    *,
    only: Sequence[str] | None = None,
    progress: bool = True,
    clock: Callable[[], datetime] = _utc_now,
    pacing: Pacing | None = None,
) -> CollectResult:
    """Fetch the sources of ``workspace`` once and archive each outcome in ``workspace.archive_dir``.

    ``only``: ids of sources or companies; everything when None. ``clock`` gives the time (UTC) that snapshots are
    dated with. ``pacing``: waiting times other than the standard ones. Works inside a running event loop too, as in
    JupyterLab. Stopped with Ctrl-C, it keeps what has been archived so far.

    A page that cannot be had is an outcome, not an error. Raises CollectError when there is nothing to collect, and
    ArchiveError or OSError when the archive cannot be written.
    """
    refs = _chosen(workspace, only)
    if not workspace.collect.contact:
        log.warning(
            "collect.contact is empty: sites cannot tell who is asking. Add an address to workspace.toml, for "
            'example contact = "https://example.com/bot"'
        )
    archive = Archive(workspace.archive_dir)
    # Read before the writer is open: what this run writes is no earlier snapshot.
    earlier = earlier_by_url(archive.entries())
    started_at = clock()
    with archive.writer() as writer, tqdm(total=len(refs), unit="page", desc="collect", disable=not progress) as bar:
        run = _Run(workspace, archive, writer, earlier, clock, pacing, bar)
        outcomes = _run_anywhere(lambda: run.all(refs))
    return CollectResult(tuple(outcomes), started_at, clock())


def _chosen(workspace: Workspace, only: Sequence[str] | None) -> list[SourceRef]:
    refs = list(workspace.sources())
    if not refs:
        raise CollectError(
            f"Workspace {workspace.name} has no sources. Add [[competitors.sources]] tables to "
            f"{workspace.root / 'workspace.toml'} and check with: workbench doctor -w {workspace.root}"
        )
    if bad := [ref.source.url for ref in refs if re.search(r"[\s\x00-\x20\x7f-\x9f]", ref.source.url)]:
        raise CollectError(f"{bad[0]!r} has a space in it. Write it as %20 in {workspace.root / 'workspace.toml'}")
    if only is None:
        return refs
    known = {ref.source.id for ref in refs} | {company.id for company in workspace.companies}
    if unknown := [name for name in only if name not in known]:
        raise CollectError(
            f"No source or company has the id {', '.join(map(repr, unknown))}. Known: {', '.join(sorted(known))}. "
            f"Collect everything with: workbench collect -w {workspace.root}"
        )
    return [ref for ref in refs if ref.source.id in only or ref.company.id in only]


def _run_anywhere(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine to its end, in a thread when this one has an event loop at work already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        running = False
    else:
        running = True
    if not running:
        return asyncio.run(main())
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def watched() -> _T:
        started.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await main()

    # The context goes along: in a notebook it says which cell the progress bar belongs to.
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="collect") as pool:
        future = pool.submit(context.run, lambda: asyncio.run(watched()))
        try:
            return future.result()
        except KeyboardInterrupt:
            for loop, task in started:
                if task is not None and not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)
            raise


@dataclass(frozen=True)
class _Visited:
    """An outcome. ``payload`` and ``final_url`` are kept of documents that name pages, and of nothing else."""

    outcome: Outcome
    payload: bytes | None = None
    final_url: str = ""


class _Run:
    def __init__(
        self,
        workspace: Workspace,
        archive: Archive,
        writer: ArchiveWriter,
        earlier: dict[str, Earlier],
        clock: Callable[[], datetime],
        pacing: Pacing | None,
        bar: tqdm[Any],
    ) -> None:
        self._workspace = workspace
        self._archive = archive
        self._writer = writer
        self._earlier = earlier
        self._clock = clock
        self._pacing = pacing
        self._bar = bar

    async def all(self, refs: Sequence[SourceRef]) -> list[Outcome]:
        """Visit all sources, then the pages that sitemaps and feeds among them name."""
        async with Fetcher(self._workspace.collect, pacing=self._pacing) as self._fetcher:
            self._robots = Robots(self._fetcher)
            first = await asyncio.gather(*(self._source(ref) for ref in refs))
            # Chosen only now and in order, so that it never depends on which server was faster.
            taken = {ref.source.url for ref in self._workspace.sources()}
            chosen = [self._choose(ref.source, found, taken) for ref, found in zip(refs, first, strict=True)]
            self._expect(sum(map(len, chosen)))
            second = await asyncio.gather(
                *(
                    asyncio.gather(*(self._page(ref, url) for url in urls))
                    for ref, urls in zip(refs, chosen, strict=True)
                )
            )
        found = zip(first, second, strict=True)
        return [visited.outcome for (documents, _), pages in found for visited in (*documents, *pages)]

    def _expect(self, pages: int) -> None:
        self._bar.total = (self._bar.total or 0) + pages
        self._bar.refresh()

    def _choose(self, source: Source, found: tuple[list[_Visited], list[Listed]], taken: set[str]) -> list[str]:
        """The pages of one source to visit; adds them to ``taken`` and says how many in the document's note."""
        documents, listed = found
        if not listed:
            return []
        chosen = choose_pages(
            listed, site=source.url, include=source.include, max_pages=source.max_pages, taken=taken
        )
        taken.update(chosen)
        documents[0] = _with_note(documents[0], f"names {len(listed)} pages, {len(chosen)} taken")
        return chosen

    async def _source(self, ref: SourceRef) -> tuple[list[_Visited], list[Listed]]:
        """Visit a source's own address. For a sitemap or feed: what was visited to read it, and what it names."""
        source = ref.source
        if source.discover == "none":
            return [await self._page(ref, source.url)], []
        document, listing = await self._document(ref, source.url)
        if listing.kind == "pages":
            return [document], order_by_newest(listing.listed) if source.discover == "sitemap" else [*listing.listed]
        parts = [item.url for item in order_by_newest(listing.listed) if same_site(item.url, source.url)]
        # An index names no further index (sitemaps.org), so one step down is all there is.
        read = list(dict.fromkeys(parts))[:_MAX_SITEMAPS]
        if len(read) < len(parts):
            log.warning("%s names %d sitemaps; the newest %d are read", source.url, len(parts), len(read))
        self._expect(len(read))
        children = await asyncio.gather(*(self._document(ref, url) for url in read))
        listed = [item for _, child in children if child.kind == "pages" for item in child.listed]
        return [document, *(child for child, _ in children)], order_by_newest(listed)

    async def _document(self, ref: SourceRef, url: str) -> tuple[_Visited, Listing]:
        """Visit a sitemap or feed and read what it names: nothing, with a note, when it cannot be read."""
        visited = await self._page(ref, url, keep=True)
        payload, nothing = visited.payload, Listing("pages", ())
        visited = replace(visited, payload=None)
        if payload is None:
            return visited, nothing
        try:
            if ref.source.discover == "feed":
                return visited, read_feed(payload, url=visited.final_url)
            limit = self._workspace.collect.max_bytes
            return visited, read_sitemap(payload, url=visited.final_url, max_bytes=limit)
        except PageError as error:
            return _with_note(visited, str(error)), nothing
        except Exception as error:
            log.exception("Reading %s failed in an unforeseen way", url)
            return _with_note(visited, f"cannot be read: {error!r}"), nothing

    async def _page(self, ref: SourceRef, url: str, *, keep: bool = False) -> _Visited:
        """Fetch and archive one address. Whatever goes wrong with the page ends here."""
        visit, earlier = Visit(), self._earlier.get(url)
        size, payload, final_url, note = 0, None, url, ""
        try:
            response = await self._fetcher.get(
                url,
                visit=visit,
                permit=self._robots.permit,
                validators=earlier.validators if earlier else None,
            )
            entry = self._archive_response(ref, url, response, earlier)
            size, final_url = len(response.payload), response.url
            if response.http_status in _GONE:
                note = f"HTTP {response.http_status}: the page is gone"
            elif keep:
                unsent = earlier and response.http_status == 304
                payload = self._archive.payload(earlier.original) if earlier and unsent else response.payload
        except PageError as error:
            entry, note = self._nothing(ref, url, error), str(error)
        except Exception as error:  # a page must not end the run; what it did is in the log and the archive
            log.exception("Fetching %s failed in an unforeseen way", url)
            note = f"unforeseen: {type(error).__name__}: {error}"
            entry = self._nothing(ref, url, PageError(note))
        self._bar.update()
        outcome = Outcome(
            company_id=ref.company.id,
            source_id=ref.source.id,
            url=url,
            status=entry.status,
            http_status=entry.http_status,
            note=note,
            bytes=size,
            seconds=round(visit.seconds, 3),
            snapshot_id=entry.snapshot_id,
        )
        return _Visited(outcome, payload, final_url)

    def _nothing(self, ref: SourceRef, url: str, error: PageError) -> Entry:
        log.info("%s: %s", url, error)
        return self._writer.attempt(
            source_id=ref.source.id,
            url=url,
            attempted_at=self._clock(),
            status=error.status,
            http_status=error.http_status,
            note=str(error),
        )

    def _archive_response(self, ref: SourceRef, url: str, response: Response, earlier: Earlier | None) -> Entry:
        """Archive an answer. Raises PageError for one that is no page."""
        status = response.http_status
        headers = [pair for pair in response.headers if pair[0].lower() not in _NOT_KEPT]
        if status in (401, 403, 451):
            raise BlockedError(f"HTTP {status}", http_status=status)
        if status == 304:
            same = earlier is not None and earlier.answers(response)
            if not same:
                raise PageError("HTTP 304, although nothing was asked that it could answer", http_status=status)
        elif status in (200, 203, *_GONE):
            if status not in _GONE and not response.payload.strip():
                raise PageError(f"HTTP {status} with an empty page", http_status=status)
            same = earlier is not None and earlier.equals(response)
        else:
            raise PageError(f"HTTP {status}", http_status=status)
        fetched_at = self._clock()
        if earlier is not None and same:
            return self._writer.revisit(
                source_id=ref.source.id,
                url=url,
                fetched_at=fetched_at,
                original=earlier.original,
                http_status=status,
                headers=headers,
            )
        return self._writer.response(
            source_id=ref.source.id,
            url=url,
            fetched_at=fetched_at,
            http_status=status,
            headers=headers,
            payload=response.payload,
            final_url=response.url,
            reason=response.reason,
        )


def _with_note(visited: _Visited, note: str) -> _Visited:
    if not note:
        return visited
    joined = "; ".join(part for part in (visited.outcome.note, note) if part)
    return replace(visited, outcome=replace(visited.outcome, note=joined))
