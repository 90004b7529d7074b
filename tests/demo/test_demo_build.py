"""The bundled workspace: complete, the same bytes each time, and careful with what is in the folder already."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from workbench.demo import make_demo
from workbench.demo.world import World, load_world
from workbench.errors import WorkspaceError
from workbench.store.archive import Archive, Entry
from workbench.weeks import Week
from workbench.workspace import Workspace, load_workspace

WEEKS = [Week.parse(f"2026-W{number}") for number in (44, 45, 46, 47)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo") / "workspace")


@pytest.fixture(scope="module")
def workspace(demo: Path) -> Workspace:
    return load_workspace(demo)


@pytest.fixture(scope="module")
def entries(workspace: Workspace) -> list[Entry]:
    return Archive(workspace.archive_dir).entries()


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def digests(folder: Path) -> dict[str, str]:
    """Every file that a demo writes; the archive's index and lock are the archive's own."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in written(folder)
    }


def written(folder: Path) -> Iterator[Path]:
    yield from (folder / "archive").glob("*.warc.gz")
    yield folder / "workspace.toml"
    yield folder / ".demo.json"


def test_workspace_names_what_the_issue_asks_for(workspace: Workspace) -> None:
    assert [company.id for company in workspace.companies] == ["larkpaper", "ondine", "penrill", "moshu"]
    kinds = {ref.source.kind for ref in workspace.sources()}
    assert kinds >= {"product", "pricing", "changelog", "reviews", "news", "landing"}
    assert {topic.id for topic in workspace.topics} == {
        "price", "quality", "delivery", "service", "usability", "feature-request", "bug",
    }  # fmt: skip
    categories = [{product.category for product in company.products} for company in workspace.companies]
    assert all(found == {"paper-tablet", "cloud-plan"} for found in categories)


def test_sources_and_pages_agree(workspace: Workspace, world: World) -> None:
    pages = {(page.company_id, page.source_id, page.url) for page in world.pages}
    sources = {(ref.company.id, ref.source.id, ref.source.url) for ref in workspace.sources()}
    without_page = {o.source for o in world.outcomes if o.since is None and o.until is None}
    assert pages == {source for source in sources if source[1] not in without_page}
    assert without_page < {source for _, source, _ in sources}


def test_every_currency_on_a_page_has_a_rate(workspace: Workspace, world: World) -> None:
    currencies = {
        value["currency"]
        for company in world.companies
        for value in world.state(company, world.sessions[-1]).values()
        if isinstance(value, dict) and "currency" in value
    }
    assert currencies == {"USD", "CNY", "TWD"}
    assert currencies <= {workspace.currency.base, *workspace.currency.rates}


def test_every_source_is_attempted_in_every_session(workspace: Workspace, world: World, entries: list[Entry]) -> None:
    attempts = Counter(entry.source_id for entry in entries)
    assert attempts == dict.fromkeys((ref.source.id for ref in workspace.sources()), len(world.sessions))
    last = world.sessions[-1]
    assert max(entry.attempted_at for entry in entries) < last + timedelta(minutes=5)


def test_each_week_has_a_session_and_some_have_two(entries: list[Entry]) -> None:
    days = {week: {e.attempted_at.date() for e in entries if e.attempted_at in week} for week in WEEKS}
    assert all(days.values())
    assert sum(len(found) for found in days.values()) == len({e.attempted_at.date() for e in entries})
    assert len(days[WEEKS[-1]]) == 2


def test_every_kind_of_status_occurs(entries: list[Entry]) -> None:
    statuses = {entry.status for entry in entries}
    assert statuses == {"fetched", "not-modified", "robots-denied", "blocked", "failed"}
    by_source = {e.source_id: {o.status for o in entries if o.source_id == e.source_id} for e in entries}
    assert by_source["ondine-campaigns"] == {"robots-denied"}
    community = [(e.status, e.http_status) for e in entries if e.source_id == "penrill-community"]
    assert community[0] == ("fetched", 200)
    assert set(community[1:]) == {("failed", 503), ("failed", None)}


def test_a_page_goes_in_the_last_week(entries: list[Entry]) -> None:
    seen = [(entry.attempted_at in WEEKS[-1], entry.http_status) for entry in entries if "free-cloud" in entry.url]
    assert {status for last, status in seen if last} == {404}
    assert {status for last, status in seen if not last} == {200}


def test_what_did_not_change_is_a_revisit_with_the_same_payload(workspace: Workspace, entries: list[Entry]) -> None:
    archive = Archive(workspace.archive_dir)
    originals = {entry.snapshot_id: entry for entry in entries}
    revisits = [entry for entry in entries if entry.status == "not-modified"]
    assert {entry.http_status for entry in revisits} == {200, 304, 404}
    for entry in revisits:
        assert entry.refers_to is not None
        original = originals[entry.refers_to]
        assert original.url == entry.url
        assert entry.snapshot_id != original.snapshot_id
        assert archive.payload(entry) == archive.payload(original)


def test_all_reviews_written_are_shown(world: World) -> None:
    lists = [page for page in world.pages if page.review_page]
    shown = set()
    for page in lists:
        product = world.companies[page.company_id]["reviews"]["product"]
        for moment in world.sessions:
            first = (page.review_page - 1) * world.page_size
            some = world.reviews_at(product, moment)[first : first + world.page_size]
            assert some, f"{page.url} is empty at {moment}"
            shown.update(review.id for review in some)
    assert shown == {review.id for review in world.reviews}
    assert len(shown) >= 300


def test_two_builds_are_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    other = make_demo(tmp_path / "elsewhere")
    assert digests(other) == digests(demo)
    assert len(digests(demo)) == 2 + len(load_world().sessions)


def test_demo_stays_small(demo: Path) -> None:
    assert sum(path.stat().st_size for path in written(demo)) < 600_000


def test_a_second_build_touches_nothing(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo")
    (folder / "lake").mkdir()
    (folder / "lake" / "table").write_text("made from the archive")
    (folder / "notes.md").write_text("mine")
    (folder / "archive" / "20270101T000000000000Z-00000000.warc.gz").write_bytes(b"")
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}
    assert make_demo(folder) == folder
    after = {path: (path.read_bytes(), path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}
    manifest = folder / ".demo.json"
    assert before.pop(manifest)[0] == after.pop(manifest)[0]
    assert after == before


def test_a_damaged_demo_is_mended(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo")
    whole = digests(folder)
    first, second, *_ = sorted((folder / "archive").glob("*.warc.gz"))
    first.unlink()
    second.write_bytes(b"torn")
    (folder / "lake").mkdir()
    (folder / "lake" / "table").write_text("made from another archive")
    (folder / "notes.md").write_text("mine")
    make_demo(folder)
    assert digests(folder) == whole
    assert not (folder / "lake").exists()
    assert (folder / "notes.md").read_text() == "mine"
    assert not list(folder.glob(".demo-*"))


def test_files_of_an_older_demo_go(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo")
    whole = digests(folder)
    old = folder / "archive" / "20260101T000000000000Z-00000000.warc.gz"
    old.write_bytes(b"from an older release")
    manifest = folder / ".demo.json"
    manifest.write_text(manifest.read_text().replace('"files": {', f'"files": {{"archive/{old.name}": "0",'))
    make_demo(folder)
    assert digests(folder) == whole


def test_an_edited_workspace_is_kept_beside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_demo(tmp_path / "demo")
    path = folder / "workspace.toml"
    original = path.read_text(encoding="utf-8")
    edited = original.replace("min_reviews = 30", "min_reviews = 5")
    path.write_text(edited, encoding="utf-8")
    make_demo(folder)
    assert path.read_text(encoding="utf-8") == original
    assert (folder / "workspace.toml.bak").read_text(encoding="utf-8") == edited
    assert "workspace.toml.bak" in caplog.text


@pytest.mark.parametrize("name", ["workspace.toml", "archive"])
def test_another_workspace_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(WorkspaceError, match="not the demo"):
        make_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(WorkspaceError, match="is a file"):
        make_demo(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', '{"files": {"../x": "0"}}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    folder = make_demo(tmp_path / "demo")
    (folder / ".demo.json").write_text(text)
    with pytest.raises(WorkspaceError, match="damaged"):
        make_demo(folder)
