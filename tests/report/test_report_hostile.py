"""Pages that try to be more than text: nothing of them may come alive in the report."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from lxml import html
from report_world import ALL, BROKEN_OUT, WEEK, executed_notebook, hostile_world

from workbench.report import CSP, Report, build_report, render_report

FORBIDDEN = ("script", "img", "iframe", "object", "embed", "form", "base", "b", "math")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(hostile_world(tmp_path_factory.mktemp("hostile")).write(), WEEK)


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rendered")
    notebook = executed_notebook(report, folder / "executed.ipynb")
    return render_report(notebook, folder / "report.html").read_text(encoding="utf-8")


def check(root: html.HtmlElement) -> None:
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        assert element.tag not in FORBIDDEN, element.tag
        for name, value in element.attrib.items():
            assert not name.startswith("on"), (element.tag, name)
            if name in ("href", "src", "action", "xlink:href"):
                assert value.startswith(("#", "https://", "http://")), value


def test_nothing_comes_alive_in_any_section(report: Report) -> None:
    for part in (report.header, *report.sections):
        check(html.fragment_fromstring(str(part.body), create_parent="div"))


def test_nothing_comes_alive_in_the_page(page: str) -> None:
    root = html.document_fromstring(page)
    check(root)
    assert len(list(root.iter("style"))) == 1
    assert CSP.startswith("default-src 'none'")
    assert root.xpath("//meta[@http-equiv='Content-Security-Policy']/@content") == [CSP]
    assert not re.search(r"\b(?:src|href)=[\"']?(?:javascript|data):", page)


def test_attacks_are_shown_as_text(page: str) -> None:
    said = " ".join(html.document_fromstring(page).text_content().split())
    for text in ALL:
        assert " ".join(text.split()) in said


def test_templates_and_markdown_are_not_run(page: str) -> None:
    root = html.document_fromstring(page)
    said = root.text_content()
    assert "{{ 7 * 7 }}" in said
    assert "**bold** [x](javascript:alert(1))" in said
    assert not [a for a in root.iter("a") if a.text_content() == "x"]


def test_drawings_hold_attacks_as_text(report: Report) -> None:
    root = html.fragment_fromstring(str(report.prices.body))
    drawings = list(root.iter("svg"))
    assert drawings
    texts = [element.text or "" for svg in drawings for element in svg.iter("text")]
    assert any(BROKEN_OUT in text for text in texts)


def test_no_cell_of_the_csv_is_a_formula(report: Report, tmp_path: Path) -> None:
    frame = pl.read_csv(report.write(tmp_path)["csv"], infer_schema=False)
    assert frame.height > 30
    for column in frame.columns:
        for value in frame[column].drop_nulls().to_list():
            if not re.fullmatch(r"-?\d+(\.\d+)?", value):
                assert not value.lstrip().startswith(("=", "+", "-", "@")), (column, value)
    assert any(value.startswith("'=HYPERLINK") for value in frame["subject"].drop_nulls())


def test_json_keeps_texts_as_they_were(report: Report) -> None:
    changes = report.to_json()["sections"]["changes"]["changes"]
    assert {change["subject"] for change in changes} >= set(ALL)
