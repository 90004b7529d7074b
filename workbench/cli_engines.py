"""`workbench engines`: build, list, check, prune, refresh, warm-up. One command, one function, no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from workbench.cli_options import (
    CalibrationOption,
    EnginesOption,
    MethodOption,
    ModelName,
    ModelOption,
    TargetOption,
    words_of,
)
from workbench.tasks.precision import DEFAULT_RANGE_METHOD

__all__ = ["engines_app"]

engines_app = typer.Typer(
    help="Engines of the models: a precision, a runtime, and a proof that they read as FP32 does.",
    no_args_is_help=True,
)


@engines_app.command("build")
def build(
    model: ModelOption = None,
    task: Annotated[Optional[str], typer.Option(help="Every model that gives this task.")] = None,  # noqa: UP045
    every: Annotated[bool, typer.Option("--all", help="Every model under engines/.")] = False,
    precision: Annotated[
        str, typer.Option(help="Any of fp32, fp16, int8, and mixed after a search, with commas.")
    ] = "fp32,fp16,int8",
    runtime: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="onnxruntime, tensorrt or tensorrt-rtx; default: tensorrt with a GPU, else onnxruntime."),
    ] = None,
    target: TargetOption = None,
    keep: Annotated[
        str, typer.Option(help="Layer groups to keep out of INT8, such as layer0.ffn2,layer5.output.")
    ] = "",
    method: MethodOption = DEFAULT_RANGE_METHOD,
    calibration: CalibrationOption = None,
    profile: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Shapes min:opt:max, batch x tokens, with commas; default: from the calibration texts."),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="padded, packed (TensorRT 8.6, FP16 or INT8), or auto: packed where it can be.")
    ] = "auto",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="A plan that newer TensorRT of the same major runs too.")
    ] = False,
    workspace_gb: Annotated[float, typer.Option(help="GPU memory that a kernel may use.")] = 4,
    optimization_level: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, max=5, help="How long TensorRT searches."),
    ] = None,
    tactic_sources: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="TensorRT's tactic sources: none, or names with commas."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build again what is there already.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Judge them too: those that pass and are faster read from now on.")
    ] = False,
) -> None:
    """Build engines. They land in engines/<model>/plans/<engine id> with a manifest each."""
    from workbench.cli_compare import judge
    from workbench.engine.engines import build_engines, model_folders
    from workbench.tasks.spec import load_spec

    folders = model_folders(model=model, task=task, every=every)
    made = build_engines(
        folders,
        words_of(precision),
        task=task,
        runtime=runtime,
        target=target,
        keep=words_of(keep),
        method=method,
        calibration=calibration,
        profiles=profile,
        layout=layout,
        version_compatible=version_compatible,
        workspace_gb=workspace_gb,
        optimization_level=optimization_level,
        tactic_sources=tactic_sources,
        force=force,
    )
    for item in made:
        typer.echo(
            f"{item.engine_id}  {item.model}  {item.precision}  {item.runtime}  {item.target}  "
            f"{item.plan_bytes / 1e6:.1f} MB  {item.verified}  {item.build_s:.1f} s"
            + ("  (kept ranges or timings)" if item.cached else "")
        )
    if not compare:
        typer.echo("Next: workbench engines compare")
        return
    failed = []
    for folder in folders:
        ids = [item.engine_id for item in made if item.model == folder.name]
        failed.append(judge(str(folder), tuple(load_spec(folder).outputs), policy=None, out=None, engines=ids))
    raise typer.Exit(1 if any(failed) else 0)


@engines_app.command("list")
def list_all(model: ModelOption = None) -> None:
    """Every engine: id, precision, runtime, target, verdicts, and whether it is fresh."""
    from workbench.engine.engines import list_engines

    states = list_engines(model=model)
    for state in states:
        item = state.manifest
        what = f"{item.precision}  {item.runtime} {item.runtime_version}  {item.target}" if item else "damaged"
        typer.echo(
            f"{state.engine_id}  {state.model}  {what}  {state.verdicts}  {'fresh' if state.is_fresh else 'stale'}"
        )
        for reason in state.reasons:
            typer.echo(f"    {reason}")
        if not state.is_fresh:
            typer.echo(f"    -> {state.command}")
    if not states:
        typer.echo("No engines are built. Build some: workbench engines build --all")


@engines_app.command("check")
def check(model: ModelOption = None) -> None:
    """Exit code 1 when an engine is stale or damaged, with the reasons and the command that builds it again."""
    from workbench.engine.engines import list_engines

    states = list_engines(model=model)
    stale = [state for state in states if not state.is_fresh]
    for state in stale:
        typer.echo(f"{state.engine_id} is stale: {'; '.join(state.reasons)}\n    -> {state.command}")
    typer.echo(f"{len(states) - len(stale)} of {len(states)} engines are fresh.")
    if stale:
        typer.echo("Build all stale ones again: workbench engines refresh")
    raise typer.Exit(1 if stale else 0)


@engines_app.command("prune")
def prune(
    model: ModelOption = None,
    caches: Annotated[bool, typer.Option("--caches", help="Kept ranges and timings too.")] = False,
) -> None:
    """Delete engines that are stale or damaged."""
    from workbench.engine.engines import prune_engines

    gone = prune_engines(model=model, caches=caches)
    for state in gone:
        typer.echo(f"Deleted {state.engine_id} ({state.model}): {'; '.join(state.reasons)}")
    typer.echo(f"{len(gone)} engines deleted.")


@engines_app.command("refresh")
def refresh(model: ModelOption = None) -> None:
    """Build again what is stale: for a schedule, or after a new driver, GPU, TensorRT or model."""
    from workbench.engine.engines import refresh_engines

    done = refresh_engines(model=model)
    typer.echo(done.summary())
    raise typer.Exit(1 if done.failed else 0)


@engines_app.command("warm-up")
def warm_up(
    model: ModelName = "reviews",
    engines: EnginesOption = "",
    calibration: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder with texts as long as those to read; default: the project's."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For each engine, without loading it.")] = 10,
) -> None:
    """Measure how texts are best batched for the GPU engines here; their manifests keep it."""
    from workbench.engine.warm_up import warm_up_engines

    done = warm_up_engines(model, engines=words_of(engines) or None, calibration=calibration, seconds=seconds)
    for item in done:
        typer.echo(item.summary())
    if not done:
        typer.echo("No engines are built. Build some: workbench engines build --all")
