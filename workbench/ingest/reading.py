"""Reading many archived pages: in worker processes when that pays, one after the other when it does not."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

from workbench.errors import ArchiveError
from workbench.extract import extract_page
from workbench.extract.page import Page
from workbench.progress import tqdm
from workbench.store.archive import Archive, Entry

__all__ = ["POOL_PAYS_S", "Job", "read_pages"]

log = logging.getLogger(__name__)

POOL_PAYS_S = 6.0
"""Seconds of reading left from which worker processes pay: each takes one to three until it can read."""

_TIMED = 8
"""Pages that are read here first, to know how long the rest would take."""


@dataclass(frozen=True)
class Job:
    """One payload to read. ``original``: the snapshot that holds it, not a revisit."""

    original: Entry
    kind: str

    @property
    def key(self) -> tuple[str | None, ...]:
        """What the page depends on; jobs with the same key give the same page."""
        o = self.original
        return (o.payload_sha256, o.url, o.final_url, o.content_type, self.kind)


def read_pages(
    root: Path, jobs: Sequence[Job], *, progress: bool = True, workers: int | None = None
) -> list[Page | ArchiveError]:
    """Read each job's page from the archive at ``root``, in order; an ArchiveError stands for one that cannot be.

    ``workers``: processes to use. None: the first pages are read here and timed, and if much is left then the rest is
    read by one process for each core. When processes cannot be started the pages are read here, and the log says so.
    """
    found: list[Page | ArchiveError] = []
    begun = perf_counter()
    with tqdm(
        total=len(jobs), desc="Reading pages", unit="page", disable=not (progress and jobs), leave=False
    ) as bar:
        while len(found) < len(jobs):
            left = len(jobs) - len(found)
            if workers is None and len(found) == _TIMED:
                workers = _usable_cores() if (perf_counter() - begun) / _TIMED * left > POOL_PAYS_S else 1
            if workers is not None and workers > 1:
                try:
                    for page in _read_in_pool(root, jobs[len(found) :], workers):
                        found.append(page)
                        bar.update()
                except (BrokenProcessPool, OSError, RuntimeError) as error:
                    done = f"{len(found)} of {len(jobs)}"
                    log.warning(
                        "Worker processes failed after %s pages (%s); reading the rest in this one.", done, error
                    )
                    workers = 1
            else:
                found.append(_read(root, jobs[len(found)]))
                bar.update()
    return found


def _read_in_pool(root: Path, jobs: Sequence[Job], workers: int) -> Iterator[Page | ArchiveError]:
    # spawn: a forked child would inherit the locks of threads (polars, deltalake, a notebook's kernel) that it lacks.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(_read, root), jobs, chunksize=2)


def _read(root: Path, job: Job) -> Page | ArchiveError:
    original = job.original
    try:
        payload = Archive(root).payload(original)
    except ArchiveError as error:
        return error
    url = original.final_url or original.url
    return extract_page(payload, url=url, kind=job.kind, content_type=original.content_type)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
