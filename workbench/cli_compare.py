"""`workbench engines compare` and `search`, beside those of cli_engines. One command, one function, no logic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from workbench.cli_engines import engines_app
from workbench.cli_options import (
    CalibrationOption,
    EnginesOption,
    MethodOption,
    ModelName,
    PolicyOption,
    TargetOption,
    ValidationOption,
    words_of,
)
from workbench.settings import settings
from workbench.tasks.precision import DEFAULT_RANGE_METHOD

if TYPE_CHECKING:
    from workbench.workspace import Policies

__all__ = ["compare", "engines_app", "judge", "search"]


@engines_app.command("compare")
def compare(
    task: Annotated[str, typer.Option(help="Any of sentiment, topics, entities, with commas.")] = (
        "sentiment,topics,entities"
    ),
    model: ModelName = "reviews",
    engines: EnginesOption = "",
    validation: ValidationOption = None,
    workspace: PolicyOption = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for compare.html, .md and .json; default: reports/engines/<model>."),
    ] = None,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Time the engines too.")] = True,
) -> None:
    """Judge engines against FP32: table, HTML, verdicts into the manifests. Exit code 1 when one fails."""
    from workbench.errors import ParameterError

    tasks = words_of(task)
    if validation is not None and len(tasks) != 1:
        raise ParameterError("A validation file is for one task. Name the task too: --task sentiment")
    failed = judge(
        model,
        tasks,
        engines=words_of(engines) or None,
        validation={tasks[0]: validation} if validation is not None else None,
        policy=_policy(workspace),
        out=out,
        speed=speed,
    )
    raise typer.Exit(1 if failed else 0)


def judge(model: str, tasks: Sequence[str], *, policy: Policies | None, out: Path | None, **options: Any) -> bool:
    """Compare, write the report, say what was found and who reads from now on; whether an engine failed."""
    from workbench.engine.compare import compare_engines
    from workbench.report.engines import write_comparison
    from workbench.scoring.choosing import choose_engines

    found = compare_engines(model, tasks, policy=policy, **options)
    folder = out or settings().reports / "engines" / found.folder.name
    typer.echo(found.summary())
    for choice in choose_engines(found.folder, found.tasks, policy=policy):
        typer.echo(f"{choice.task}: {choice.why}")
    typer.echo(f"Report: {write_comparison(found, folder)}")
    return bool(found.failed)


@engines_app.command("search")
def search(
    task: Annotated[str, typer.Option(help="sentiment, topics or entities.")],
    model: ModelName = "reviews",
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.01, help="Points it may lose; default: the policy's."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Go on until the verdict is pass.")] = False,
    runtime: Annotated[str, typer.Option(help="Of the engine that confirms it.")] = "onnxruntime",
    target: TargetOption = None,
    method: MethodOption = DEFAULT_RANGE_METHOD,
    calibration: CalibrationOption = None,
    validation: ValidationOption = None,
    workspace: PolicyOption = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for search-<task>.html; default: reports/engines/<model>."),
    ] = None,
) -> None:
    """Find the layer groups that must stay in FP16 so that INT8 holds the budget. Exit code 1 when none do, or the
    engine with them does not."""
    from workbench.engine.compare import model_home
    from workbench.engine.search import search as search_groups
    from workbench.report.engines import write_search

    found = search_groups(
        task,
        model,
        budget=budget,
        policy=_policy(workspace),
        strict=strict,
        runtime=runtime,
        target=target,
        method=method,
        calibration=calibration,
        validation=validation,
    )
    folder = out or settings().reports / "engines" / model_home(model).name
    typer.echo(found.summary())
    typer.echo(f"Report: {write_search(found, folder)}")
    raise typer.Exit(0 if found.holds else 1)


def _policy(workspace: Path | None) -> Policies | None:
    from workbench.params import resolve_workspace

    return resolve_workspace(workspace).policy if workspace is not None else None
