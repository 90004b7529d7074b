"""04_weekly_report, as committed and as executed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from papermill.inspection import inspect_notebook

from workbench.params import WeeklyReport
from workbench.report import render_report
from workbench.settings import settings
from workbench.workspace import Workspace

SECTIONS = (
    "readout", "changes", "prices", "claims", "sentiment", "voice", "creatives", "alerts", "coverage", "method",
)  # fmt: skip
NOTEBOOK = settings().notebooks / "04_weekly_report.ipynb"


@pytest.fixture(scope="module")
def source() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_committed_clean(source: Any) -> None:
    nbformat.validate(source)
    assert (source.nbformat, source.nbformat_minor) == (4, 5)
    assert source.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in source.cells}) == len(source.cells)
    for cell in source.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert not re.search(r"^\s*(def|class|!|%)", cell.source, re.MULTILINE)


def test_its_parameters_are_those_of_its_model() -> None:
    assert list(inspect_notebook(str(NOTEBOOK))) == list(WeeklyReport.model_fields)


def test_it_shows_every_section_once(source: Any) -> None:
    shown = [cell.source for cell in source.cells if "report" in cell.metadata.get("tags", [])]
    sections = [
        "readout",
        "changes",
        "prices",
        "claims",
        "sentiment",
        "voice",
        "creatives",
        "alerts",
        "coverage",
        "method",
    ]
    assert shown == [f"report.{section}" for section in sections]


def test_it_runs_and_becomes_a_report(plain: Workspace, tmp_path: Path) -> None:
    executed = tmp_path / "04.ipynb"
    papermill.execute_notebook(
        str(NOTEBOOK),
        str(executed),
        parameters={"workspace": str(plain.root), "week": "2026-W47", "output": str(tmp_path / "out")},
        kernel_name="python3",
        progress_bar=False,
        cwd=str(tmp_path),
    )
    page = render_report(executed, tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Rival" in page
    assert str(plain.root) not in page
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["week"] == "2026-W47"
    assert (tmp_path / "out" / "report.csv").is_file()
