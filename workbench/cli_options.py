"""Options that several commands of `workbench engines` share, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = [
    "CalibrationOption",
    "EnginesOption",
    "MethodOption",
    "ModelName",
    "ModelOption",
    "PolicyOption",
    "TargetOption",
    "ValidationOption",
    "words_of",
]

# typer reads annotations at run time, where Python 3.10 knows no `X | None` inside Annotated: hence Optional.
ModelOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="A model folder under engines/, or a path to one."),
]
ModelName = Annotated[str, typer.Option(help="A model folder under engines/, or a path to one.")]
EnginesOption = Annotated[str, typer.Option(help="Ids, or beginnings of them, with commas; default: all.")]
TargetOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Build for this GPU, such as sm_89 (tensorrt-rtx); default: the one here."),
]
MethodOption = Annotated[
    str, typer.Option(help="How INT8 ranges are found: entropy, percentile-99.9, percentile-99.99 or minmax.")
]
CalibrationOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder with calibration texts; default: the project's."),
]
ValidationOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Another validation file, for one task; default: the project's."),
]
PolicyOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("-w", "--workspace", help="Take metric and budget from the policies of this workspace."),
]


def words_of(text: str) -> list[str]:
    """The words of an option that takes several with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
