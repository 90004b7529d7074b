"""The weekly report: built from the lake, shown in a notebook, rendered to one HTML file."""

from workbench.report.build import build_report
from workbench.report.model import SCHEMA, Header, Report, Section, read_findings
from workbench.report.render import CSP, MAX_BYTES, render_report

__all__ = [
    "CSP",
    "MAX_BYTES",
    "SCHEMA",
    "Header",
    "Report",
    "Section",
    "build_report",
    "read_findings",
    "render_report",
]
