from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from worlds import Site, make_workspace, on, product_page

from workbench.errors import ArchiveError
from workbench.extract import extract_page
from workbench.extract.page import Page
from workbench.ingest import reading
from workbench.ingest.reading import Job, read_pages
from workbench.store.archive import Archive


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(make_workspace(tmp_path / "workspace"))
    for number in range(6):
        made.show(product_page(f"{100 + number}.00"), on(number / 10), url=f"https://ondine.example/{number}")
    return made


def jobs(site: Site) -> list[Job]:
    return [Job(entry, "product") for entry in site.archive.entries()]


def test_workers_read_the_same_pages_in_the_same_order(site: Site) -> None:
    here = read_pages(site.archive.root, jobs(site), progress=False)
    there = read_pages(site.archive.root, jobs(site), progress=False, workers=2)
    assert here == there
    assert [page.url for page in here if not isinstance(page, ArchiveError)] == [
        f"https://ondine.example/{number}" for number in range(6)
    ]
    assert here[3] == extract_page(
        product_page("103.00"),
        url="https://ondine.example/3",
        kind="product",
        content_type="text/html; charset=utf-8",
    )


def test_workers_are_started_when_much_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = jobs(site) * 2
    pools: list[int] = []
    original = reading._read_in_pool

    def watched(root: Path, rest: Sequence[Job], workers: int) -> Iterator[Page | ArchiveError]:
        pools.append(len(rest))
        return original(root, rest, workers)

    monkeypatch.setattr(reading, "_read_in_pool", watched)
    monkeypatch.setattr(reading, "_usable_cores", lambda: 2)
    here = read_pages(site.archive.root, wanted, progress=False)
    assert pools == [], "twelve small pages are read at once"
    monkeypatch.setattr(reading, "POOL_PAYS_S", 0.0)
    assert read_pages(site.archive.root, wanted, progress=False) == here
    assert pools == [4], "the first eight were timed here"


def test_a_damaged_snapshot_does_not_stop_the_others(site: Site) -> None:
    wanted = jobs(site)
    path = site.archive.root / wanted[2].original.warc
    path.write_bytes(path.read_bytes()[:-30])
    found = read_pages(site.archive.root, wanted, progress=False)
    assert [isinstance(page, ArchiveError) for page in found] == [False, False, True, False, False, False]


CALL = """
from pathlib import Path
from workbench.ingest.reading import Job, read_pages
from workbench.store.archive import Archive
archive = Archive(Path({root!r}))
pages = read_pages(archive.root, [Job(entry, "product") for entry in archive.entries()], workers=2)
"""


def test_a_script_without_a_main_guard_still_gets_its_pages(site: Site, tmp_path: Path) -> None:
    """Worker processes import the script again; without a guard they cannot start, and the pages are read here."""
    script = tmp_path / "script.py"
    begin = f"import logging\nlogging.basicConfig()\nprint('started')\n{CALL.format(root=str(site.archive.root))}"
    script.write_text(begin + "print(len(pages), 'pages')\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("6 pages\n")
    assert "reading the rest in this one" in done.stderr


def test_workers_start_from_a_notebook(site: Site, tmp_path: Path) -> None:
    """In a kernel there is no script that a worker could import."""
    source = f"""
import logging
records = []
logging.getLogger("workbench.ingest.reading").addFilter(lambda record: records.append(record) or True)
{CALL.format(root=str(site.archive.root))}
assert len(pages) == 6 and not records, records
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="only")])
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()


def test_the_archive_is_read_by_offset(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker must not list the whole archive to read one page."""
    wanted = jobs(site)

    def refuse(_: Archive) -> list[Path]:
        raise AssertionError("the archive was listed")

    monkeypatch.setattr(Archive, "_paths", refuse)
    assert len(read_pages(site.archive.root, wanted, progress=False, workers=1)) == 6
