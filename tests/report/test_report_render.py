"""From an executed notebook to one HTML file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lxml import html
from report_world import WEEK, executed_notebook

from workbench.errors import ReportError
from workbench.report import MAX_BYTES, Report, build_report, render_report
from workbench.workspace import Workspace


@pytest.fixture(scope="module")
def report(plain: Workspace) -> Report:
    return build_report(plain, WEEK)


@pytest.fixture
def notebook(report: Report, tmp_path: Path) -> Path:
    return executed_notebook(report, tmp_path / "executed.ipynb")


def edit(path: Path, *cells: Any) -> Path:
    made = nbformat.read(path, as_version=4)
    made.cells.extend(cells)
    nbformat.write(made, path)
    return path


def render(path: Path) -> html.HtmlElement:
    return html.document_fromstring(render_report(path, path.with_name("report.html")).read_text(encoding="utf-8"))


def test_the_page_is_whole_and_stands_alone(notebook: Path) -> None:
    root = render(notebook)
    page = notebook.with_name("report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert root.get("lang") == "en"
    assert root.findtext(".//title") == "Rival and Moshu 墨舒: week 47 of 2026"
    assert len(root.xpath("//h1")) == 1
    assert [section.get("id") for section in root.xpath("//main//section")][:3] == ["readout", "changes", "prices"]
    assert not root.xpath("//script|//link|//iframe|//img|//*[@onload or @onerror or @onclick]")
    assert not root.xpath("//*[@src]")
    assert page.count("<style") == 1
    assert len(page.encode()) < MAX_BYTES


def test_a_keyboard_reaches_the_findings_first(notebook: Path) -> None:
    root = render(notebook)
    first = root.find(".//a")
    assert first is not None
    assert first.get("href") == "#main"
    assert root.xpath("//main[@id='main']")
    assert root.xpath("//nav//a/@href") == [f"#{s.get('id')}" for s in root.xpath("//main//section")]


def test_the_same_notebook_gives_the_same_bytes(notebook: Path, tmp_path: Path) -> None:
    first = render_report(notebook, tmp_path / "a.html").read_bytes()
    assert render_report(notebook, tmp_path / "b.html").read_bytes() == first


def test_code_printed_lines_and_untagged_cells_stay_in_the_notebook(notebook: Path) -> None:
    stream = nbformat.v4.new_output("stream", name="stdout", text="printed")
    table = nbformat.v4.new_output("display_data", data={"text/html": "<p>untagged</p>"})
    edit(
        notebook,
        nbformat.v4.new_code_cell("secret_code = 1", id="x", outputs=[stream, table]),
        nbformat.v4.new_code_cell("more_code = 2", id="y", metadata={"tags": ["report"]}, outputs=[stream]),
        nbformat.v4.new_markdown_cell("untagged words", id="z"),
    )
    said = render(notebook).text_content()
    for absent in ("secret_code", "more_code", "printed", "untagged"):
        assert absent not in said


def test_an_analysts_note_and_picture_are_shown(notebook: Path) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    picture = nbformat.v4.new_output("display_data", data={"image/png": pixel, "text/plain": "<Figure>"})
    edit(
        notebook,
        nbformat.v4.new_markdown_cell(
            "# Our view\n\nHold the **price**. <script>alert(1)</script>", id="n", metadata={"tags": ["report"]}
        ),
        nbformat.v4.new_code_cell(
            "plot()", id="p", metadata={"tags": ["report"], "alt": "Sales fell."}, outputs=[picture]
        ),
    )
    root = render(notebook)
    assert [h.text_content() for h in root.xpath("//*[@class='note']//h3")] == ["Our view"]
    assert root.xpath("//*[@class='note']//strong")[0].text == "price"
    assert not root.xpath("//script")
    assert root.xpath("//img/@alt") == ["Sales fell."]
    assert root.xpath("//img/@src")[0].startswith("data:image/png;base64,")


def test_a_page_that_grew_too_large_is_said_to_be(notebook: Path, caplog: pytest.LogCaptureFixture) -> None:
    huge = nbformat.v4.new_output("display_data", data={"text/html": "<p>" + "x" * MAX_BYTES + "</p>"})
    edit(notebook, nbformat.v4.new_code_cell("x", id="h", metadata={"tags": ["report"]}, outputs=[huge]))
    with caplog.at_level(logging.WARNING, "workbench.report"):
        render(notebook)
    assert "more than the 2 MB" in caplog.text


def test_only_a_finished_notebook_becomes_a_report(notebook: Path, tmp_path: Path) -> None:
    failed = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    edit(notebook, nbformat.v4.new_code_cell("x", id="e", outputs=[failed]))
    with pytest.raises(ReportError, match="ValueError: no"):
        render_report(notebook, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="No notebook"):
        render_report(tmp_path / "none.ipynb", tmp_path / "r.html")
    (tmp_path / "bad.ipynb").write_text("not json")
    with pytest.raises(ReportError, match="is not a notebook"):
        render_report(tmp_path / "bad.ipynb", tmp_path / "r.html")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "empty.ipynb")
    with pytest.raises(ReportError, match="shows no report"):
        render_report(tmp_path / "empty.ipynb", tmp_path / "r.html")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_colour_can_be_read_on_its_ground() -> None:
    """WCAG 2.2 AA: at least 4.5 to 1, for rules that set a colour with or without their own background."""
    import re

    from workbench.report.html import style_sheet

    checked = 0
    for rule in re.findall(r"\{([^{}]*)\}", style_sheet()):
        ink = re.search(r"(?:^|[;\s])color:\s*(#[0-9a-f]{6}|#fff)\b", rule)
        ground = re.search(r"background:\s*(#[0-9a-f]{6}|#fff)\s*[;}]?", rule)
        if ink:
            colours = [c if len(c) == 7 else "#ffffff" for c in (ink[1], ground[1] if ground else "#ffffff")]
            light, dark = sorted(map(luminance, colours), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, rule
            checked += 1
    assert checked > 15
