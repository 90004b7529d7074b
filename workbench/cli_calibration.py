"""`workbench calibration`: texts to build INT8 engines with. One command, one function, no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = ["calibration_app"]

calibration_app = typer.Typer(help="Calibration texts for INT8 engines.", no_args_is_help=True)


@calibration_app.callback()
def _group() -> None:
    """With one command alone typer would leave its name out."""


@calibration_app.command("sample")
def sample(
    workspace: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation at run time on Python 3.10
        typer.Option("-w", "--workspace", help="Folder with workspace.toml; default: $WORKBENCH_WORKSPACE."),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for calibration.jsonl; default: calibration in the workspace."),
    ] = None,
    texts: Annotated[int, typer.Option(min=128, help="About how many.")] = 600,
) -> None:
    """Draw a set of texts from the lake, of each language and stratum: normal, boundary and abnormal."""
    from workbench.engine.quantize.sample import sample_lake
    from workbench.params import resolve_workspace

    loaded = resolve_workspace(workspace)
    typer.echo(sample_lake(loaded, out or loaded.root / "calibration", texts).summary())
