"""Every error the workbench raises on purpose.

    WorkbenchError
    ├── WorkspaceError      workspace.toml is missing or wrong (carries one message per problem)
    ├── ParameterError      a notebook's or a command's parameter is wrong
    ├── CollectError        collecting cannot start (one page that fails is a status, not an error)
    ├── ArchiveError        a snapshot is missing or its record does not match its digest
    ├── ExtractError        input that is not a page at all, such as a missing file
    ├── ModelError          a model folder is incomplete or wrong, or a backend cannot run it
    ├── CalibrationError    calibration data is missing or does not stand for what the model reads
    ├── EngineError         an engine cannot be built, or cannot be used as it is
    ├── BusyError           requests come faster than they are answered
    │   └── DeadlineError   a request was not answered before its deadline
    ├── LakeError           a table does not match its declared schema
    ├── ReportError         a report cannot be written
    └── FlowError           a run did not finish
        ├── NotebookError   a cell failed (carries notebook, cell index, source, traceback)
        └── RunLockedError  another run of the same week is under way

A message says what happened, where, and ends with what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "ArchiveError",
    "BusyError",
    "CalibrationError",
    "CollectError",
    "DeadlineError",
    "EngineError",
    "ExtractError",
    "FlowError",
    "LakeError",
    "ModelError",
    "NotebookError",
    "ParameterError",
    "ReportError",
    "RunLockedError",
    "WorkbenchError",
    "WorkspaceError",
]


class WorkbenchError(Exception):
    """Base of all errors the workbench raises on purpose."""


class WorkspaceError(WorkbenchError):
    """workspace.toml is missing or wrong.

    ``problems`` holds one line for each problem, in file order.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class ParameterError(WorkbenchError):
    """A parameter of a notebook or a command is wrong."""


class CollectError(WorkbenchError):
    """Collecting cannot start."""


class ArchiveError(WorkbenchError):
    """A snapshot is missing, or its record does not match its digest."""


class ExtractError(WorkbenchError):
    """The input is not a page at all, such as a file that is not there."""


class LakeError(WorkbenchError):
    """A table in the lake does not match its declared schema."""


class ModelError(WorkbenchError):
    """A model folder is incomplete or wrong, or a backend cannot run it."""


class CalibrationError(WorkbenchError):
    """Calibration data is missing, random, too little, or does not stand for what the model reads."""


class EngineError(WorkbenchError):
    """An engine cannot be built, or cannot be used as it is: damaged, changed, or built for another machine."""


class BusyError(WorkbenchError):
    """Requests come faster than they are answered: there is no room for another."""


class DeadlineError(BusyError):
    """A request was not answered before its deadline."""


class ReportError(WorkbenchError):
    """A report cannot be written."""


class FlowError(WorkbenchError):
    """A run did not finish."""


class NotebookError(FlowError):
    """A cell of a notebook failed."""

    def __init__(self, message: str, *, notebook: Path, cell_index: int, source: str, traceback: str) -> None:
        super().__init__(message)
        self.notebook = notebook
        self.cell_index = cell_index
        self.source = source
        self.traceback = traceback


class RunLockedError(FlowError):
    """Another run of the same workspace and week is under way."""
