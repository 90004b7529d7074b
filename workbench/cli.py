"""The command line: one command, one function, no logic.

Exit codes: 0 done, 1 it failed and the message says why, 2 wrong usage, 3 the same week is being run already.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Optional

import typer

from workbench.cli_calibration import calibration_app
from workbench.cli_compare import engines_app
from workbench.cli_options import words_of
from workbench.errors import ExtractError, NotebookError, RunLockedError, WorkbenchError, WorkspaceError
from workbench.settings import settings

__all__ = ["app", "main"]

app = typer.Typer(
    name="workbench",
    help="Competitive intelligence: archived pages in, a weekly report with evidence out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

WorkspaceOption = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads the annotation at run time on Python 3.10
    typer.Option("-w", "--workspace", help="Folder with workspace.toml; default: $WORKBENCH_WORKSPACE."),
]
WeekOption = Annotated[str, typer.Option(help="ISO week, such as 2026-W47; default: the newest week collected.")]


@app.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is done.")] = False) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    # Libraries log each request and each odd tag; that is not the user's business unless asked for.
    for name in ("httpx", "trafilatura", "htmldate", "papermill"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The workspace folder to make.")]) -> None:
    """Make a workspace: a workspace.toml to edit."""
    from workbench.files import write_text

    path = folder / "workspace.toml"
    if path.exists():
        raise WorkspaceError(
            f"{path} is there already and stays as it is. Check it with: workbench doctor -w {folder}"
        )
    write_text(path, files("workbench").joinpath("workspace_template.toml").read_text(encoding="utf-8"))
    typer.echo(f"Made {path}. Edit it, then: workbench doctor -w {folder}")


@app.command()
def collect(
    workspace: WorkspaceOption = None,
    only: Annotated[Optional[list[str]], typer.Option(help="Fetch these source or company ids only.")] = None,  # noqa: UP045
) -> None:
    """Fetch the sources once and archive what came back."""
    from workbench.collect import collect as collect_sources
    from workbench.params import resolve_workspace

    result = collect_sources(resolve_workspace(workspace), only=only or None)
    typer.echo(result.summary())


@app.command()
def weekly(
    workspace: WorkspaceOption = None,
    week: WeekOption = "",
    collect_first: Annotated[bool, typer.Option("--collect", help="Fetch first, then run the current week.")] = False,
) -> None:
    """Run one week: extract, texts, report. The form for a scheduler is `weekly --collect`."""
    from workbench.collect import collect as collect_sources
    from workbench.flow import newest_week, run_week
    from workbench.params import resolve_workspace
    from workbench.weeks import Week

    loaded = resolve_workspace(workspace)
    if week:
        chosen = Week.parse(week)
    else:
        chosen = Week.of(datetime.now(timezone.utc)) if collect_first else newest_week(loaded)
    before = (lambda: typer.echo(collect_sources(loaded).summary())) if collect_first else None
    result = run_week(loaded, chosen, before=before)
    _show(result.report)


@app.command()
def score(
    workspace: WorkspaceOption = None,
    week: WeekOption = "",
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
) -> None:
    """Read what is new in the lake by model: sentiment, topics, entities. Run `weekly` first to fill the lake."""
    from workbench.flow import newest_week
    from workbench.params import resolve_workspace
    from workbench.scoring.week import score_week
    from workbench.weeks import Week

    loaded = resolve_workspace(workspace)
    result = score_week(loaded, Week.parse(week) if week else newest_week(loaded), backend=backend)
    typer.echo(result.report())


@app.command("score-file")
def score_file(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON lines or Parquet.")],
    text_column: Annotated[str, typer.Option(help="The column with the texts.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
    tasks: Annotated[str, typer.Option(help="Any of sentiment, topics, entities.")] = "sentiment,topics,entities",
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    prefix: Annotated[str, typer.Option(help="Put before the names of the new columns.")] = "",
    workspace: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-w", "--workspace", help="Use this workspace's models; default: the bundled one."),
    ] = None,
) -> None:
    """Score the texts in one column of a file; the other columns go along."""
    from workbench.params import resolve_workspace
    from workbench.scoring import score_file as score_rows
    from workbench.scoring.week import workspace_models

    wanted = [task.strip() for task in tasks.split(",") if task.strip()]
    models = workspace_models(resolve_workspace(workspace), wanted) if workspace else None
    result = score_rows(
        source, text_column=text_column, out=out, tasks=wanted, backend=backend, models=models, prefix=prefix
    )
    typer.echo(result.summary())


@app.command("import-reviews")
def import_reviews(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON lines, JSON, Parquet, RSS or Atom.")],
    workspace: WorkspaceOption = None,
    mapping: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--map",
            help="field=column, with commas between; fields: text, title, rating, author, date, company, url, "
            "language, source. Nested columns with dots. Default: columns named like fields.",
        ),
    ] = None,
    company: Annotated[Optional[str], typer.Option(help="The company that all rows are about.")] = None,  # noqa: UP045
    name: Annotated[Optional[str], typer.Option(help="What the source is called; default: the file's name.")] = None,  # noqa: UP045
    rating_scale: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="The best rating possible; default: 5, 10 or 100."),
    ] = None,
    exported: Annotated[Optional[datetime], typer.Option(help="When the file was made (UTC); default: now.")] = None,  # noqa: UP045
    records: Annotated[Optional[str], typer.Option(help="Path of the list inside a JSON file.")] = None,  # noqa: UP045
    country: Annotated[Optional[str], typer.Option(help="Two letters; US reads 03/11 as 11 March.")] = None,  # noqa: UP045
) -> None:
    """Take the reviews of an export, an API dump or a feed into the lake, with the file as evidence."""
    from workbench.ingest.imports import import_reviews as import_file
    from workbench.ingest.imports import parse_mapping
    from workbench.params import resolve_workspace

    result = import_file(
        file,
        resolve_workspace(workspace),
        mapping=parse_mapping(mapping or []),
        company=company,
        name=name,
        rating_scale=rating_scale,
        exported=exported,
        records=records,
        country=country,
    )
    typer.echo(result.summary())


@app.command("extract-page")
def extract_page(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A saved page.")],
    url: Annotated[Optional[str], typer.Option(help="The address it was saved from.")] = None,  # noqa: UP045
    kind: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="product, pricing, changelog, reviews, news, landing or ads."),
    ] = None,
) -> None:
    """Read one saved page and print what was found as JSON."""
    from workbench.extract import extract_page as extract

    if not file.is_file():
        raise ExtractError(f"{file} is not a file. Save the page and name that file.")
    page = extract(file.read_bytes(), url=url, kind=kind)
    typer.echo(page.model_dump_json(indent=2))


@app.command()
def snapshot(
    snapshot_id: Annotated[str, typer.Argument(metavar="ID", help="A snapshot id, or the start of one.")],
    workspace: WorkspaceOption = None,
    out: Annotated[Optional[Path], typer.Option(help="Write the page here, not to the screen.")] = None,  # noqa: UP045
) -> None:
    """Show the archived page behind a statement of a report."""
    from workbench.files import write_bytes
    from workbench.flow import find_snapshot
    from workbench.params import resolve_workspace

    entry, payload = find_snapshot(resolve_workspace(workspace), snapshot_id)
    typer.echo(f"{entry.url}\n{entry.attempted_at.isoformat()}  {entry.status}  {entry.snapshot_id}", err=True)
    if out is None:
        sys.stdout.buffer.write(payload)
    else:
        write_bytes(out, payload)
        typer.echo(f"Wrote {out} ({len(payload)} bytes)", err=True)


@app.command()
def prune(workspace: WorkspaceOption = None) -> None:
    """Delete snapshots and imported files older than the workspace's retention_days."""
    from workbench.ingest.evidence import prune_imports
    from workbench.params import resolve_workspace
    from workbench.store.archive import Archive

    loaded = resolve_workspace(workspace)
    days = loaded.archive.retention_days
    if days is None:
        typer.echo("Nothing is deleted: [archive] retention_days is not set in workspace.toml.")
        return
    oldest = datetime.now(timezone.utc) - timedelta(days=days)
    removed = Archive(loaded.archive_dir).prune(oldest)
    imports = prune_imports(loaded, oldest)
    also = f" and {imports} imported files" if imports else ""
    typer.echo(f"Deleted {removed} records{also} older than {days} days.")


@app.command()
def lab(workspace: WorkspaceOption = None, week: WeekOption = "") -> None:
    """Open JupyterLab on the notebooks, with kernel, workspace and week set."""
    from workbench.flow import lab_environment

    environment = lab_environment(workspace, week)
    typer.echo(f"Workspace {environment['WORKBENCH_WORKSPACE']}, week {environment['WORKBENCH_WEEK'] or 'not set'}")
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "jupyterlab", str(settings().notebooks)], environment)  # noqa: S606


@app.command()
def doctor(workspace: WorkspaceOption = None) -> None:
    """Say what is installed, what is missing and what to run next; exit code 0 means usable."""
    from workbench.doctor import examine, is_usable, next_step

    folder = workspace or settings().workspace
    checks = examine(folder)
    for check in checks:
        sign = {"ok": "ok      ", "optional": "optional", "problem": "PROBLEM "}[check.state]
        typer.echo(f"{sign}  {check.name}: {check.found}" + (f"\n          -> {check.mend}" if check.mend else ""))
    typer.echo(f"Next: {next_step(checks, folder)}")
    raise typer.Exit(0 if is_usable(checks) else 1)


bench_app = typer.Typer(help="Measure the workbench beside others on this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(engines_app, name="engines")
app.add_typer(calibration_app, name="calibration")


@bench_app.command("cpu")
def bench_cpu(
    model: Annotated[Optional[Path], typer.Option(help="A model folder; default: the bundled one.")] = None,  # noqa: UP045
    torch_python: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="An interpreter with torch, transformers and onnx; default: this one."),
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Measure transformers.pipeline beside it.")
    ] = True,
    engines: Annotated[
        str,
        typer.Option(help="Engines to read with too: none, or ids; default: all that passed the gate."),
    ] = "",
    texts: Annotated[str, typer.Option(help="Texts a round, or a file with a column text.")] = "300",
    repeat: Annotated[int, typer.Option(min=1, help="Rounds; the peers take turns in each.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Reviews a second and memory on the CPU, beside transformers.pipeline with the same weights in torch FP32."""
    from workbench.bench import run_cpu

    found = run_cpu(
        model,
        torch_python=torch_python,
        peers=peers,
        engines=[word for word in words_of(engines) if word != "none"] if engines else None,
        texts=int(texts) if texts.isdecimal() else Path(texts),
        rounds=repeat,
    )
    typer.echo(found.to_json() if as_json else found.table())


@bench_app.command("gpu")
def bench_gpu(
    torch_python: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="An interpreter with torch, transformers, onnx and pyarrow; default: this one."),
    ] = None,
    torch_env: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=VALUE for that interpreter, which otherwise gets a clean environment."),
    ] = None,
    peers: Annotated[
        str, typer.Option(help="Any of ours, torch, compile, torch-fp32, pipeline, onnxruntime.")
    ] = "ours,torch,compile,torch-fp32,pipeline,onnxruntime",
    models: Annotated[
        str, typer.Option(help="bert-base (random weights), reviews (the bundled one), or model folders.")
    ] = "bert-base,reviews",
    seconds: Annotated[float, typer.Option(help="Of one measurement.")] = 1.0,
    rounds: Annotated[int, typer.Option(help="Rounds; the peers take turns in each.")] = 3,
    limit: Annotated[float, typer.Option(help="Seconds that all may take, building left out.")] = 360,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for bench-gpu.json, .md and .svg; default: reports/bench."),
    ] = None,
    source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="Measure nothing: show and draw this bench-gpu.json."),
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="Build the engines that are missing first.")] = False,
    tactic_sources: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For --build: TensorRT's tactic sources, none or names with commas."),
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try it out.")] = "cuda",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Speed, latency and memory on a GPU, beside torch, torch.compile, transformers.pipeline and onnxruntime."""
    from workbench.bench.gpu import show

    shown = show(
        source=source,
        torch_python=torch_python,
        torch_env=torch_env or [],
        peers=peers,
        models=models,
        seconds=seconds,
        rounds=rounds,
        limit_s=limit,
        out=out,
        build=build,
        tactic_sources=tactic_sources,
        device=device,
    )
    typer.echo(shown.to_json() if as_json else shown.markdown())


@app.command()
def demo() -> None:
    """Run one week on the bundled demo workspace of fictional companies."""
    from workbench.demo import make_demo
    from workbench.flow import newest_week, run_week
    from workbench.workspace import load_workspace

    workspace = load_workspace(make_demo(settings().workspaces / "demo"))
    result = run_week(workspace, newest_week(workspace))
    _show(result.report)


def _show(report: Path) -> None:
    """Print where the report is and what it found."""
    from workbench.report import read_findings

    for number, finding in enumerate(read_findings(report.with_suffix(".json")), 1):
        typer.echo(f"{number}. {finding}")
    typer.echo(f"Report: {report}")


def main() -> None:
    """Entry point: errors of the workbench become one message and an exit code."""
    try:
        app()
    except RunLockedError as error:
        _fail(str(error), 3)
    except NotebookError as error:
        _fail(f"{error.traceback}\n\n{error}", 1)
    except WorkbenchError as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> None:
    typer.echo(message, err=True)
    raise SystemExit(code)
