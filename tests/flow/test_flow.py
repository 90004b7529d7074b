import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from homes import make_home

from workbench.demo import make_demo
from workbench.errors import FlowError, NotebookError, ParameterError, RunLockedError
from workbench.flow import find_snapshot, newest_week, report_folder, run_notebook, run_week
from workbench.params import ExtractPages
from workbench.store.archive import Archive
from workbench.store.lake import Lake
from workbench.store.tables import TABLES
from workbench.weeks import Week
from workbench.workspace import load_workspace

WEEK = Week.parse("2026-W47")


def versions(workspace):
    lake = Lake(workspace.lake_dir)
    return {name: lake.version(name) for name in TABLES}


def test_a_week_leaves_report_notebooks_and_manifest(demo):
    folder = report_folder(demo, WEEK)
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        *("01_extract_pages.ipynb", "03_score_texts.ipynb", "04_weekly_report.ipynb"),
        *("report.html", "report.json", "report.csv", "sentiment.csv", "voice.csv", "run.json"),
    }
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["status"] == "done"
    assert "error" not in manifest
    assert set(manifest["outputs_sha256"]) == {
        *("report.html", "report.json", "report.csv", "sentiment.csv", "voice.csv")
    }
    assert manifest["parameters"]["01_extract_pages"]["week"] == "2026-W47"
    assert all(seconds >= 0 for seconds in manifest["durations_s"].values())
    assert (folder / "report.html").stat().st_size < 2_000_000


def test_the_demo_fills_every_table(demo):
    lake = Lake(demo.lake_dir)
    # Scores come with a model.
    heights = {name: lake.read(name).height for name in TABLES if name not in ("scores", "engines")}
    assert all(heights.values()), heights
    assert heights["reviews"] >= 300
    assert set(lake.read("sources")["status"]) >= {"fetched", "not-modified", "robots-denied", "failed"}
    assert "flapping" in set(lake.read("changes")["kind"])


def test_running_a_week_again_changes_nothing(demo):
    folder = report_folder(demo, WEEK)
    names = ("report.html", "report.json", "report.csv")
    before = versions(demo), [(folder / name).read_bytes() for name in names]
    run_week(demo, WEEK, progress=False)
    assert (versions(demo), [(folder / name).read_bytes() for name in names]) == before


def test_the_report_can_be_rebuilt_from_the_archive_alone(demo, tmp_path, use_home):
    """A second workspace with a copy of workspace.toml and archive, and nothing else, gives the same report."""
    first = (report_folder(demo, WEEK) / "report.json").read_text()
    use_home(make_home(tmp_path / "home"))
    again = load_workspace(make_demo(tmp_path / "elsewhere"))
    run_week(again, WEEK, progress=False)
    assert (report_folder(again, WEEK) / "report.json").read_text() == first


def test_a_failed_cell_keeps_the_notebook_and_names_the_cell(tmp_path, use_home):
    home = use_home(make_home(tmp_path / "home"))
    path = home / "notebooks" / "01_extract_pages.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[5].source = "marker = 'reached'\nraise ValueError('a cell that fails')"
    nbformat.write(notebook, path)
    workspace = load_workspace(make_demo(tmp_path / "demo"))
    with pytest.raises(NotebookError, match="a cell that fails") as caught:
        run_week(workspace, WEEK, progress=False)
    error = caught.value
    assert "reached" in error.source
    assert "ValueError" in error.traceback
    assert "\x1b" not in error.traceback
    partial = nbformat.read(error.notebook, as_version=4)
    assert "a cell that fails" in str([cell.get("outputs") for cell in partial.cells])
    manifest = json.loads((report_folder(workspace, WEEK) / "run.json").read_text())
    assert manifest["status"] == "failed"
    assert manifest["error"]["cell_index"] == error.cell_index
    assert notebook.cells[error.cell_index].source == error.source
    assert manifest["outputs_sha256"] == {}


def test_two_runs_of_one_week_are_kept_apart(demo):
    with FileLock(report_folder(demo, WEEK) / ".lock"), pytest.raises(RunLockedError, match="being run already"):
        run_week(demo, WEEK, progress=False)


def test_what_runs_first_runs_under_the_lock_and_its_failure_is_recorded(demo, tmp_path, use_home):
    use_home(make_home(tmp_path / "home"))

    def fail():
        with pytest.raises(RunLockedError):
            run_week(demo, WEEK, progress=False)
        raise FlowError("no network here")

    with pytest.raises(FlowError, match="no network here"):
        run_week(demo, WEEK, before=fail, progress=False)
    manifest = json.loads((report_folder(demo, WEEK) / "run.json").read_text())
    assert manifest["error"] == {"type": "FlowError", "message": "no network here"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workspace": "x", "weak": "2026-W47"}, "weak: unknown parameter; allowed: workspace, week, window_days"),
        ({"workspace": "x", "week": "2026-47"}, "is not an ISO week"),
        ({"workspace": "x", "week": "2026-W47", "window_days": "28"}, "window_days"),
        ({"workspace": "x"}, "No week was named"),
    ],
)
def test_parameters_are_checked(values, message, use_home, tmp_path):
    use_home(tmp_path)
    with pytest.raises(ParameterError, match=re.escape(message)):
        ExtractPages.check(**values)


def test_no_kernel_starts_for_a_workspace_that_is_not_there(tmp_path):
    params = ExtractPages.check(workspace=str(tmp_path / "nowhere"), week="2026-W47")
    with pytest.raises(Exception, match="workbench init"):
        run_notebook(params, tmp_path / "out.ipynb", progress=False)
    assert not (tmp_path / "out.ipynb").exists()


def test_an_empty_archive_says_what_to_run(tmp_path, demo):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "workspace.toml").write_bytes((demo.root / "workspace.toml").read_bytes())
    with pytest.raises(FlowError, match="workbench collect"):
        newest_week(load_workspace(folder))


def test_a_statement_leads_to_the_archived_page(demo):
    changes = Lake(demo.lake_dir).read("changes").filter(Lake(demo.lake_dir).read("changes")["kind"] == "price")
    row = changes.row(0, named=True)
    entry, payload = find_snapshot(demo, row["snapshot_after"][:12])
    assert entry.url == row["url"]
    assert str(int(row["amount_after"])).encode() in payload
    with pytest.raises(Exception, match="No snapshot"):
        find_snapshot(demo, "0" * 64)
    with pytest.raises(Exception, match="Give more of the id"):
        find_snapshot(demo, "")


def test_plain_papermill_works(demo, tmp_path):
    """What the README promises to people who run Papermill themselves."""
    root = Path(__file__).resolve().parents[2]
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", "notebooks/01_extract_pages.ipynb", str(out)]
    command += ["-p", "workspace", str(demo.root), "-p", "week", "2026-W47", "--no-progress-bar"]
    before = versions(demo)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    texts = str([cell.get("outputs") for cell in nbformat.read(out, as_version=4).cells])
    assert "all read" in texts
    assert versions(demo) == before


def test_an_older_week_gets_its_own_report(demo):
    run_week(demo, Week.parse("2026-W46"), progress=False)
    report = json.loads((report_folder(demo, Week.parse("2026-W46")) / "report.json").read_text())
    assert report["week"] == "2026-W46"
    assert {Week.of(entry.attempted_at) for entry in Archive(demo.archive_dir).entries()} >= {
        WEEK,
        Week.parse("2026-W46"),
    }
