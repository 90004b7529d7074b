import json
import subprocess
import sys

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from workbench.cli import app
from workbench.flow import lab_environment, report_folder
from workbench.store.lake import Lake
from workbench.weeks import Week

PAGE = """<html lang=en><head><title>Thing</title><script type="application/ld+json">
{"@type": "Product", "name": "Thing", "offers": {"price": "12.50", "priceCurrency": "EUR", "availability": "InStock"}}
</script></head><body><h1>Thing</h1><p>It does things.</p></body></html>"""


def invoke(*arguments, ok=True):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert (result.exit_code == 0) == ok, result.output
    return result


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from workbench.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_init_makes_a_workspace_once(tmp_path):
    invoke("init", tmp_path / "mine")
    first = (tmp_path / "mine" / "workspace.toml").read_text()
    again = run("init", tmp_path / "mine")
    assert again.returncode == 1
    assert "stays as it is" in again.stderr
    assert "Traceback" not in again.stderr
    assert (tmp_path / "mine" / "workspace.toml").read_text() == first


def test_extract_page_prints_exactly_the_fields_of_a_page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(PAGE)
    page = json.loads(invoke("extract-page", path, "--url", "https://shop.example/thing").stdout)
    assert set(page) == {
        *("url", "kind", "title", "language", "published", "text", "offers", "plans", "reviews", "claims"),
        *("creatives", "warnings"),
    }
    assert page["offers"][0]["price"] == "12.50"
    assert page["offers"][0]["currency"] == "EUR"
    assert page["offers"][0]["availability"] == "InStock"
    missing = run("extract-page", tmp_path / "nothing.html")
    assert missing.returncode == 1
    assert "is not a file" in missing.stderr


def test_doctor_says_what_is_there_and_what_to_run(demo, tmp_path):
    output = invoke("doctor", "-w", demo.root).output
    assert "PROBLEM" not in output
    assert f"Next: workbench weekly -w {demo.root} --collect" in output
    invoke("init", tmp_path / "new")
    assert "Next: workbench collect" in invoke("doctor", "-w", tmp_path / "new").output
    assert "workbench init" in invoke("doctor", "-w", tmp_path / "nowhere", ok=False).output


def test_weekly_runs_the_newest_week_and_prints_the_findings(demo):
    output = invoke("weekly", "-w", demo.root).stdout
    assert f"Report: {report_folder(demo, Week.parse('2026-W47')) / 'report.html'}" in output
    assert [line[:3] for line in output.splitlines()[:3]] == ["1. ", "2. ", "3. "]


def test_exit_code_three_when_the_week_is_being_run(demo):
    with FileLock(report_folder(demo, Week.parse("2026-W47")) / ".lock"):
        done = run("weekly", "-w", demo.root, "--week", "2026-W47")
    assert done.returncode == 3
    assert "Wait for that run to end" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("weekly", "--week", "2026-W47"), "No workspace was named"),
        (("weekly", "-w", "nowhere"), "workbench init"),
        (("collect", "-w", "nowhere"), "workbench init"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_one(arguments, message, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_week_is_told_so(demo):
    done = run("weekly", "-w", demo.root, "--week", "47")
    assert (done.returncode, "is not an ISO week" in done.stderr) == (1, True)


def test_snapshot_shows_the_archived_page(demo, tmp_path):
    row = (
        Lake(demo.lake_dir)
        .read("pages")
        .filter(Lake(demo.lake_dir).read("pages")["kind"] == "product")
        .row(0, named=True)
    )
    out = tmp_path / "page.html"
    invoke("snapshot", row["snapshot_id"], "-w", demo.root, "--out", out)
    assert b"<h1" in out.read_bytes()


def test_prune_deletes_what_is_older_than_the_retention_only(demo, tmp_path):
    toml = (demo.root / "workspace.toml").read_text()
    assert "retention_days = " in toml
    kept = [line for line in toml.splitlines() if not line.startswith("retention_days")]
    (tmp_path / "workspace.toml").write_text("\n".join(kept))
    assert "Nothing is deleted" in invoke("prune", "-w", tmp_path).output
    assert "Deleted 0 records" in invoke("prune", "-w", demo.root).output


def test_lab_opens_on_the_demo_when_nothing_is_named(demo):
    pytest.importorskip("jupyterlab", reason="JupyterLab is installed by `make lab`")
    environment = lab_environment(None, "")
    assert environment["WORKBENCH_WORKSPACE"] == str(demo.root)
    assert environment["WORKBENCH_WEEK"] == "2026-W47"


def test_every_command_has_help():
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert "Usage" in invoke(name, "--help").output
