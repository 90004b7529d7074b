"""One frozen parameter model per notebook.

Papermill only warns about a misspelt parameter, so every notebook's second cell hands its parameters to its model
here, and ``flow`` does the same before it starts a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from workbench.errors import ParameterError
from workbench.settings import settings
from workbench.weeks import Week
from workbench.workspace import Workspace, load_workspace

__all__ = [
    "NOTEBOOKS",
    "ExtractPages",
    "NotebookParams",
    "ScoreTexts",
    "WeeklyReport",
    "resolve_week",
    "resolve_workspace",
]


def resolve_workspace(folder: str | Path | None) -> Workspace:
    """Load the named workspace, or the one WORKBENCH_WORKSPACE names. Raises ParameterError, WorkspaceError."""
    chosen = folder or settings().workspace
    if not chosen:
        raise ParameterError(
            "No workspace was named. Give one with -w DIR (notebooks: the parameter `workspace`), "
            "or set WORKBENCH_WORKSPACE."
        )
    return load_workspace(chosen)


def resolve_week(week: str) -> Week:
    """Read the named week, or the one WORKBENCH_WEEK names. Raises ParameterError."""
    chosen = week or settings().week
    if not chosen:
        raise ParameterError(
            "No week was named. Give one with --week (notebooks: the parameter `week`), for example 2026-W47."
        )
    return Week.parse(chosen)


class NotebookParams(BaseModel):
    """What every notebook takes.

    ``workspace``: folder with workspace.toml; empty means the one WORKBENCH_WORKSPACE names.
    ``week``: ISO week, such as 2026-W47; empty means the one WORKBENCH_WEEK names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    notebook: ClassVar[str]

    workspace: str = ""
    week: str = ""

    @classmethod
    def check(cls, **values: Any) -> Self:
        """Validate ``values``. Raises ParameterError with one line per problem."""
        try:
            made = cls(**values)
        except ValidationError as error:
            allowed = ", ".join(cls.model_fields)
            problems = "\n".join(
                f"  {'.'.join(str(p) for p in item['loc'])}: "
                + (f"unknown parameter; allowed: {allowed}" if item["type"] == "extra_forbidden" else item["msg"])
                for item in error.errors(include_url=False)
            )
            raise ParameterError(
                f"Parameters of {cls.notebook} are wrong:\n{problems}\nMend the parameters cell or the -p options."
            ) from None
        resolve_week(made.week)
        return made

    def load(self) -> tuple[Workspace, Week]:
        """The workspace and the week these parameters name."""
        return resolve_workspace(self.workspace), resolve_week(self.week)


class ExtractPages(NotebookParams):
    """Parameters of 01_extract_pages."""

    notebook: ClassVar[str] = "01_extract_pages"

    window_days: int = 28
    """Days before the week whose snapshots are read too, as the baseline for changes."""


class ScoreTexts(NotebookParams):
    """Parameters of 03_score_texts."""

    notebook: ClassVar[str] = "03_score_texts"

    backend: str = "auto"
    """What runs the models: auto, onnxruntime or tensorrt."""
    rows_shown: int = 8
    """How many texts are shown per company, and of the least certain ones per language."""


class WeeklyReport(NotebookParams):
    """Parameters of 04_weekly_report."""

    notebook: ClassVar[str] = "04_weekly_report"

    output: str = ""
    """Folder for report.html, report.json and report.csv; empty: reports/<workspace>/<week>."""


NOTEBOOKS: Mapping[str, type[NotebookParams]] = {
    model.notebook: model for model in (ExtractPages, ScoreTexts, WeeklyReport)
}
"""Notebook name (no suffix) to its parameter model."""
