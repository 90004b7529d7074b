"""Running notebooks: validate parameters, Papermill, HTML, run manifest.

``run_week`` is the whole weekly job. Its folder, reports/<workspace>/<week>/, holds afterwards

    01_extract_pages.ipynb  03_score_texts.ipynb  04_weekly_report.ipynb    as executed
    report.html  report.json  report.csv  sentiment.csv  voice.csv          what readers get
    run.json                                                                what ran, on what, how it ended

A failed run keeps the notebook of the cell that failed as far as it came, and ``run.json`` says where that is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from filelock import FileLock, Timeout

import workbench
from workbench.errors import ArchiveError, FlowError, NotebookError, RunLockedError
from workbench.extract import EXTRACTOR
from workbench.files import write_text
from workbench.ingest.evidence import import_entries, import_payload
from workbench.params import NOTEBOOKS, NotebookParams, resolve_workspace
from workbench.settings import settings
from workbench.store.archive import Archive, Entry
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = [
    "KERNEL",
    "NotebookRun",
    "RunResult",
    "find_snapshot",
    "lab_environment",
    "newest_week",
    "report_folder",
    "run_notebook",
    "run_week",
]

log = logging.getLogger(__name__)

KERNEL = "python3"
"""The kernel every notebook runs on: the one ipykernel brings into the environment the workbench is installed in."""

WEEKLY = ("01_extract_pages", "03_score_texts", "04_weekly_report")

# What a reader of run.json needs to repeat a run.
_PACKAGES = ("polars", "deltalake", "trafilatura", "extruct", "price-parser", "papermill", "nbconvert", "matplotlib")


@dataclass(frozen=True)
class NotebookRun:
    """One executed notebook."""

    notebook: str
    output: Path
    source_sha256: str
    duration_s: float


@dataclass
class RunResult:
    """A finished week: where its files are and how long each step took."""

    folder: Path
    notebooks: list[NotebookRun] = field(default_factory=list)

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"


def report_folder(workspace: Workspace, week: Week) -> Path:
    """reports/<workspace>/<week>/ under the workbench's home."""
    return settings().reports / workspace.name / str(week)


def newest_week(workspace: Workspace) -> Week:
    """The week of the newest entry in the archive. Raises FlowError when the archive is empty."""
    entries = Archive(workspace.archive_dir).entries()
    if not entries:
        raise FlowError(
            f"Nothing was collected yet in {workspace.archive_dir}. "
            f"Fetch first: workbench collect -w {workspace.root}"
        )
    return Week.of(entries[-1].attempted_at)


def find_snapshot(workspace: Workspace, snapshot_id: str) -> tuple[Entry, bytes]:
    """The archive entry whose id starts with ``snapshot_id``, and its page, or imported file, as it was received.

    Raises ArchiveError when there is none, when several fit, or when the record was tampered with.
    """
    archive = Archive(workspace.archive_dir)
    imported = import_entries(workspace)
    entries = [*archive.entries(), *imported]
    found = [e for e in entries if e.snapshot_id and e.snapshot_id.startswith(snapshot_id.lower())]
    if len(found) != 1:
        what = "No snapshot" if not found else f"{len(found)} snapshots"
        raise ArchiveError(
            f"{what} in {archive.root} with an id that starts with {snapshot_id!r}. Give more of the id, "
            "as the report's evidence table or the column snapshot_id shows it."
        )
    entry = found[0]
    return entry, import_payload(workspace, entry) if entry in imported else archive.payload(entry)


def lab_environment(folder: Path | None, week: str) -> dict[str, str]:
    """The environment variables JupyterLab is started with: workspace and week set, the demo's when none is named.

    Raises FlowError when JupyterLab is not installed, ParameterError when there is no workspace.
    """
    if find_spec("jupyterlab") is None:
        raise FlowError("JupyterLab is not installed. Install and open it with: make lab")
    demo = settings().workspaces / "demo"
    if folder is None and settings().workspace is None and (demo / "workspace.toml").is_file():
        folder = demo
    workspace = resolve_workspace(folder)
    if not week and Archive(workspace.archive_dir).entries():
        week = str(newest_week(workspace))
    return {**os.environ, "WORKBENCH_WORKSPACE": str(workspace.root), "WORKBENCH_WEEK": week}


def run_notebook(params: NotebookParams, output: Path, *, progress: bool = True) -> NotebookRun:
    """Execute the notebook that belongs to ``params`` and write it, as executed, to ``output``.

    The parameters are validated and the workspace is loaded before a kernel starts. Raises ParameterError,
    WorkspaceError; NotebookError when a cell fails, with ``output`` kept as far as it came.
    """
    # Papermill takes half a second to import; a wrong parameter should be told at once.
    params.load()
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source = settings().notebooks / f"{params.notebook}.ipynb"
    if not source.is_file():
        raise FlowError(
            f"{source} is missing. The workbench runs from its checkout: install it with `pip install -e .` there, "
            "or set WORKBENCH_HOME to the checkout."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    started = perf_counter()
    try:
        with _quiet_kernel():
            papermill.execute_notebook(
                str(source),
                str(output),
                parameters=params.model_dump(),
                kernel_name=KERNEL,
                progress_bar={"desc": params.notebook, "unit": "cell"} if progress else False,
                log_output=False,
                cwd=str(source.parent),
                # A kernel on this machine's loopback address need not warn of eavesdroppers at every start.
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )
    except PapermillExecutionError as error:
        index = _cell_index(source, error.source, error.cell_index)
        raise NotebookError(
            f"{params.notebook} failed in cell {index}: {error.ename}: {error.evalue}\n"
            f"The notebook as far as it came, with that cell marked: {output}",
            notebook=output,
            cell_index=index,
            source=error.source,
            traceback=_plain("\n".join(error.traceback)),
        ) from None
    return NotebookRun(params.notebook, output, _sha256(source), round(perf_counter() - started, 2))


def _cell_index(notebook: Path, source: str, fallback: int) -> int:
    """Position (from 0) of a cell in the notebook as committed; Papermill counts the cell it injects as well."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    return texts.index(source) if source in texts else fallback


def run_week(
    workspace: Workspace,
    week: Week,
    *,
    before: Callable[[], None] | None = None,
    notebooks: Sequence[str] = WEEKLY,
    progress: bool = True,
) -> RunResult:
    """Extract, show the texts, report: one week of one workspace, from its archive.

    ``before`` runs first, under the same lock (collecting does). Running a week again gives the same tables and the
    same report. Raises RunLockedError when the same week is being run already, NotebookError when a cell fails, and
    what ``before`` raises; run.json is written in every case but the first.
    """
    from workbench.report import render_report

    folder = report_folder(workspace, week)
    result = RunResult(folder)
    with _lock(folder, workspace, week):
        manifest = _manifest(workspace, week, notebooks)
        started = perf_counter()
        try:
            if before is not None:
                before()
                manifest["durations_s"]["collect"] = round(perf_counter() - started, 2)
            for name in notebooks:
                params = NOTEBOOKS[name].check(workspace=str(workspace.root), week=str(week))
                manifest["parameters"][name] = params.model_dump()
                run = run_notebook(params, folder / f"{name}.ipynb", progress=progress)
                result.notebooks.append(run)
                manifest["durations_s"][name] = run.duration_s
                manifest["notebooks_sha256"][name] = run.source_sha256
            if "04_weekly_report" in notebooks:
                rendering = perf_counter()
                render_report(folder / "04_weekly_report.ipynb", result.report)
                manifest["durations_s"]["render"] = round(perf_counter() - rendering, 2)
            manifest["status"] = "done"
        except NotebookError as error:
            manifest["error"] = {
                "notebook": str(error.notebook),
                "cell_index": error.cell_index,
                "source": error.source,
                "traceback": error.traceback,
            }
            raise
        except BaseException as error:
            manifest["error"] = {"type": type(error).__name__, "message": str(error)}
            raise
        finally:
            manifest["durations_s"]["total"] = round(perf_counter() - started, 2)
            manifest["outputs_sha256"] = {
                path.name: _sha256(path)
                for path in sorted(folder.glob("*.*"))
                if path.suffix in (".html", ".json", ".csv")
                and path.name != "run.json"
                and manifest["status"] == "done"
            }
            write_text(folder / "run.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return result


def _manifest(workspace: Workspace, week: Week, notebooks: Sequence[str]) -> dict[str, Any]:
    return {
        "workspace": workspace.name,
        "week": str(week),
        "status": "failed",
        "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "workspace_toml_sha256": _sha256(workspace.root / "workspace.toml"),
        "extractor": EXTRACTOR,
        "versions": {"workbench": workbench.__version__, "python": platform.python_version(), **_versions()},
        "kernel": KERNEL,
        "notebooks": list(notebooks),
        "parameters": {},
        "notebooks_sha256": {},
        "durations_s": {},
    }


def _versions() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


@contextmanager
def _lock(folder: Path, workspace: Workspace, week: Week) -> Iterator[None]:
    """Keep two runs of one week apart. The lock is the system's, so a killed run leaves none behind."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunLockedError(
            f"Week {week} of {workspace.name} is being run already ({folder / '.lock'}). "
            "Wait for that run to end and start again."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _quiet_kernel() -> Iterator[None]:
    """Say to the kernel that its frozen standard modules are no news (a warning of debugpy on Python 3.11+)."""
    name = "PYDEVD_DISABLE_FILE_VALIDATION"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _plain(text: str) -> str:
    """Without the terminal colours IPython puts into tracebacks."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
