"""From an executed notebook to one HTML file: nbconvert with the project's own template.

What is shown is decided by cell tags. ``report-header`` is the report's head, ``report`` goes below it; every other
cell, all code, and all printed lines stay in the notebook. A markdown cell or an image that an analyst adds is shown
when its cell is tagged ``report``.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import nbformat
from lxml import html as lxml_html
from nbconvert.exporters import TemplateExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from workbench.errors import ReportError
from workbench.files import write_bytes
from workbench.report.html import TEMPLATES, style_sheet

__all__ = ["CSP", "MAX_BYTES", "render_report"]

logger = logging.getLogger(__name__)

MAX_BYTES = 2_000_000
"""Largest report.html."""

CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""No script, no font, no frame, nothing from anywhere: the page's own styles and pictures only."""

_STYLE = re.compile(r'\A<style data-report="">.*?</style>\s*', re.DOTALL)


def render_report(executed_notebook: Path, html: Path) -> Path:
    """Write the report that ``executed_notebook`` shows to ``html``; gives that path back.

    Raises ReportError when the notebook is missing, is not one, did not finish, or shows no report.
    """
    notebook = _read(executed_notebook)
    shown = [cell for cell in notebook.cells if _tags(cell) & {"report", "report-header"}]
    heads = [output for cell in shown if "report-header" in _tags(cell) for output in _html_outputs(cell)]
    if not heads:
        raise ReportError(
            f"{executed_notebook} shows no report: no cell tagged report-header has an output. "
            "Run it again with: workbench weekly -w DIR --week WEEK"
        )
    # Not HTMLExporter: it parses its own output once more and writes it anew, with names of SVG attributes folded.
    exporter: Any = TemplateExporter(  # type: ignore[no-untyped-call]
        template_name="weekly",
        template_file="index.html.j2",
        extra_template_basedirs=[str(TEMPLATES)],
        file_extension=".html",
    )
    exporter.register_filter("fragment", lambda text: _STYLE.sub("", text))
    exporter.register_filter("note", _markdown)
    resources = {"report": {"title": _title(heads[0]), "csp": CSP, "css": style_sheet()}}
    text, _ = exporter.from_notebook_node(notebook, resources=resources)
    data = text.encode("utf-8")
    if len(data) > MAX_BYTES:
        logger.warning(
            "%s is %.1f MB, more than the 2 MB a report may have; take images out of the cells tagged report",
            html,
            len(data) / 1e6,
        )
    write_bytes(html, data)
    return html


def _read(path: Path) -> Any:
    try:
        notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise ReportError(f"No notebook at {path}. Run: workbench weekly -w DIR --week WEEK") from None
    except Exception as error:  # nbformat raises whatever its JSON reader and its schema do
        raise ReportError(f"{path} is not a notebook ({error}). Run: workbench weekly -w DIR --week WEEK") from error
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                raise ReportError(
                    f"Cell {index} of {path} failed ({output.ename}: {output.evalue}); a report is made of finished "
                    "runs only. Mend the cause and run it again with: workbench weekly -w DIR --week WEEK"
                )
    return notebook


def _tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def _html_outputs(cell: Any) -> list[str]:
    return [output.data["text/html"] for output in cell.get("outputs", ()) if "text/html" in output.get("data", {})]


def _title(fragment: str) -> str:
    heading = lxml_html.fragment_fromstring(fragment, create_parent="div").find(".//h1")
    return " ".join(heading.text_content().split()) if heading is not None else "Weekly report"


def _markdown(source: str) -> str:
    """An analyst's note. Markup inside it is shown as text; headings start below those of the sections."""
    lowered = re.sub(r"^(#{1,4})(?=\s)", r"##\1", source, flags=re.MULTILINE)
    renderer = IPythonRenderer(escape=True, exclude_anchor_links=True)
    made: str = MarkdownWithMath(renderer=renderer).render(lowered)
    return made
