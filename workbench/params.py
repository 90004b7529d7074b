"""One frozen parameter model per notebook.

Papermill only warns about a misspelt parameter, so every notebook's second cell hands its parameters to its model
here, and ``flow`` does the same before it starts a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from workbench.errors import ParameterError
from workbench.settings import settings
from workbench.weeks import Week
from workbench.workspace import Policies, Workspace, load_workspace

__all__ = [
    "NOTEBOOKS",
    "BuildEngines",
    "ComparePrecisions",
    "ExtractPages",
    "FineTune",
    "FineTuneFolders",
    "NotebookParams",
    "ScoreTexts",
    "WeekParams",
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
    """What every parameter model can do: check values, and load what they name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    notebook: ClassVar[str]

    @classmethod
    def check(cls, **values: Any) -> Self:
        """Validate ``values``. Raises ParameterError with one line per problem."""
        try:
            return cls(**values)
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

    def load(self) -> Any:
        """What these parameters name, looked for on disk; raises a WorkbenchError when it is not there."""
        raise NotImplementedError


class WeekParams(NotebookParams):
    """What the notebooks of a week take.

    ``workspace``: folder with workspace.toml; empty means the one WORKBENCH_WORKSPACE names.
    ``week``: ISO week, such as 2026-W47; empty means the one WORKBENCH_WEEK names.
    """

    workspace: str = ""
    week: str = ""

    @classmethod
    def check(cls, **values: Any) -> Self:
        """Validate ``values``, the week with them. Raises ParameterError with one line per problem."""
        made = super().check(**values)
        resolve_week(made.week)
        return made

    def load(self) -> tuple[Workspace, Week]:
        """The workspace and the week these parameters name."""
        return resolve_workspace(self.workspace), resolve_week(self.week)


class ExtractPages(WeekParams):
    """Parameters of 01_extract_pages."""

    notebook: ClassVar[str] = "01_extract_pages"

    window_days: int = 28
    """Days before the week whose snapshots are read too, as the baseline for changes."""


class ScoreTexts(WeekParams):
    """Parameters of 03_score_texts."""

    notebook: ClassVar[str] = "03_score_texts"

    backend: str = "auto"
    """What runs the models: auto, onnxruntime or tensorrt."""
    rows_shown: int = 8
    """How many texts are shown per company, and of the least certain ones per language."""


class WeeklyReport(WeekParams):
    """Parameters of 04_weekly_report."""

    notebook: ClassVar[str] = "04_weekly_report"

    output: str = ""
    """Folder for report.html, report.json and report.csv; empty: reports/<workspace>/<week>."""


@dataclass(frozen=True)
class FineTuneFolders:
    """Where training reads and writes.

    ``data`` holds ``text``, ``calibration`` the project's own texts. ``out`` becomes the model folder; ``work`` keeps
    what it can be made from again: prepared texts, tokenizer, weights.
    """

    data: Path
    calibration: Path
    out: Path
    work: Path


class FineTune(NotebookParams):
    """Parameters of fine_tune."""

    notebook: ClassVar[str] = "fine_tune"

    data: str = ""
    """Folder that holds ``text``; empty: the one WORKBENCH_DATA names, or ../shared/data. From the checkout."""
    out: str = ""
    """Model folder to write; empty: build/fine_tune/<name>. From the checkout."""
    name: str = Field("reviews", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """The model's name."""
    version: str = Field("1", min_length=1)
    """The model's version."""
    rows: int = Field(0, ge=0)
    """At most so many texts, drawn evenly from all sets, splits and labels; 0: all."""
    vocabulary: int = Field(16_000, ge=300, le=65_000)
    """Pieces of the vocabulary."""
    layers: int = Field(6, ge=1, le=24)
    """Layers of the network."""
    width: int = Field(256, ge=64, le=1024, multiple_of=64)
    """Width of the hidden states, heads of 64."""
    pretrain_steps: int = Field(5_000, ge=1)
    """Steps of guessing masked words."""
    tune_steps: int = Field(6_000, ge=1)
    """Steps of learning the tasks."""
    teachers: int = Field(0, ge=0, le=4)
    """Larger networks that teach beside the labels; the bundled model had 2. Needs the extra ``train``."""
    batch_tokens: int = Field(32_768, ge=64)
    """Tokens of a batch, padding included."""
    own_share: float = Field(0.25, ge=0, le=0.9)
    """Share of the project's own training texts that is kept for calibration."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    """auto (a GPU if there is one), cpu, cuda or cuda:1."""
    seed: int = Field(7, ge=0)
    """Seed of everything that is drawn."""
    replace: bool = False
    """Whether a model folder that is there already is replaced."""

    def load(self) -> FineTuneFolders:
        """The folders. Raises ParameterError when there is no data, or when ``out`` is taken."""
        home = settings().home
        # Not from the folder a kernel happens to run in, which is another for Papermill than for JupyterLab.
        data = (home / Path(self.data or settings().data or home.parent / "shared" / "data").expanduser()).resolve()
        if not any((data / "text").glob("*.parquet")):
            raise ParameterError(
                f"There is no labelled data in {data}: it has no text/*.parquet. Set the parameter `data`, or the "
                "variable WORKBENCH_DATA, to the folder that holds text."
            )
        out = (home / Path(self.out or f"build/fine_tune/{self.name}").expanduser()).resolve()
        if out.exists() and (not out.is_dir() or any(out.iterdir())) and not self.replace:
            raise ParameterError(
                f"{out} exists and is not empty. Name another folder with `out`, or set replace = True."
            )
        work = out.with_name(f"{out.name}-training")
        return FineTuneFolders(data=data, calibration=home / "calibration", out=out, work=work)


_TASKS = r"^(sentiment|topics|entities)(,(sentiment|topics|entities))*$"


class _OfEngines(NotebookParams):
    """What both notebooks on engines take."""

    model: str = Field("reviews", min_length=1)
    """Name of a folder under engines/, or a path to a model folder, from the checkout."""
    tasks: str = Field("sentiment,topics,entities", pattern=_TASKS)
    """What the engines are judged on."""
    workspace: str = ""
    """Folder with a workspace.toml whose [policy] says metric and budget; empty: the defaults."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """``tasks`` as names."""
        return tuple(self.tasks.split(","))

    def load(self) -> tuple[Path, Policies]:
        """The model folder and the policy. Raises ParameterError when there is no such folder, WorkspaceError."""
        home = settings().home
        places = (home / "engines" / self.model, home / Path(self.model).expanduser())
        folder = next((place for place in places if (place / "model.toml").is_file()), None)
        if folder is None:
            raise ParameterError(
                f"There is no model {self.model!r} under {home / 'engines'}. Name another with `model`, or get the "
                "bundled one back with: git checkout -- engines"
            )
        return folder, resolve_workspace(self.workspace).policy if self.workspace else Policies()


class BuildEngines(_OfEngines):
    """Parameters of 02_build_engines."""

    notebook: ClassVar[str] = "02_build_engines"

    precisions: str = Field("fp32,fp16,int8", pattern=r"^(fp32|fp16|int8|mixed)(,(fp32|fp16|int8|mixed))*$")
    """Precisions to build; mixed repeats what a search found."""
    runtime: str = Field("", pattern=r"^(onnxruntime|tensorrt|tensorrt-rtx|)$")
    """What runs the engines; empty: tensorrt where it has a GPU, else onnxruntime."""
    target: str = ""
    """GPU to build for, such as sm_89 (tensorrt-rtx); empty: the one here."""
    method: str = Field("percentile-99.99", pattern=r"^(entropy|percentile-99\.9|percentile-99\.99|minmax)$")
    """How INT8 ranges are found."""

    @property
    def precision_names(self) -> tuple[str, ...]:
        """``precisions`` as names."""
        return tuple(self.precisions.split(","))


class ComparePrecisions(_OfEngines):
    """Parameters of compare_precisions."""

    notebook: ClassVar[str] = "compare_precisions"

    engines: str = ""
    """Ids of the engines to compare, or beginnings of them, with commas; empty: all."""
    search: str = Field("", pattern=r"^(sentiment|topics|entities|)$")
    """Task to search mixed precision for; empty: no search."""
    budget: float = Field(1.0, gt=0, le=100)
    """Points that mixed precision may lose in the search."""
    output: str = ""
    """Folder for compare.html, compare.md and compare.json; empty: reports/engines/<model>."""

    @property
    def engine_names(self) -> tuple[str, ...] | None:
        """``engines`` as ids; None for all."""
        return tuple(name.strip() for name in self.engines.split(",") if name.strip()) or None


NOTEBOOKS: Mapping[str, type[NotebookParams]] = {
    model.notebook: model
    for model in (ExtractPages, BuildEngines, ScoreTexts, WeeklyReport, FineTune, ComparePrecisions)
}
"""Notebook name (no suffix) to its parameter model."""
