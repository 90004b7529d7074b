"""What a report is: a header, ten sections, and three ways to write them down.

JSON (``report.json``), schema ``workbench.weekly-report/1``. A key is never taken away or given another meaning
without a new number; keys may be added.

    schema        "workbench.weekly-report/1"
    workspace     id of the workspace
    week          "2026-W47"
    from, to      first moment of the week, first moment after it
    as_of         last time a page was asked for inside or before the week, or null
    company       {"id", "name"}; competitors: a list of them
    findings      the readout's findings, at most three (also under sections.readout)
    sections      object by section id: readout, changes, prices, claims, sentiment, voice, creatives, alerts,
                  coverage, method. Each has number, title, status ("ready" or "not-yet") and its own keys
        readout       quiet, summary, findings: severity, confidence, company_id, company, headline (fact), so_what
                      and action (inference), change_ids, snapshot_ids, facts (statements on reviews, which are no
                      rows of changes: text, snapshot_ids)
        changes       by_severity, changes: the columns of the lake's ``changes`` table and company
        prices        base_currency; prices, index, plans and stock_transitions: the columns of
                      ``workbench.insight`` PRICE_HISTORY, PRICE_INDEX, PLAN_MATRIX and STOCK_TRANSITIONS;
                      index_by_week: week, company_id, category, index
        claims        claims: the changes of claims and plan features; by_area: new statements with the topics a model
                      filed them under: company_id, company, source_id, text, topics, observed_at, snapshot_id
        sentiment     min_reviews, companies: company_id, company, reviews, new_this_week, rated, mean_rating_of_5,
                      languages, newest, snapshot_ids. Once reviews were read by a model also, for the week and the
                      four weeks before it (baseline): in companies reviews_, languages_ and stars_ of both;
                      min_topic_reviews; shifts: the columns of ``workbench.insight.sentiment`` SHIFTS; comparisons
                      (how many q was corrected for), false_discoveries (the q below which a difference is a shift);
                      engines: task, engine_id, model, backend, precision, scored_, missing_ and other_engines;
                      agreement_with_stars: rated, agree, share; verbatims: company_id, topic, review_id, text,
                      language, day, sentiment, p (the model's certainty), rating, rating_scale, snapshot_id
        voice         texts_week, texts_baseline, mentions_week, mentions_baseline; shares: the columns of
                      ``workbench.insight.share`` SHARE_OF_VOICE and company; also_mentioned: those of ALSO_MENTIONED
        creatives     images: move (new, retired), company_id, company, source_id, image_url, alt, width, height,
                      snapshot_before, snapshot_after
        alerts        sent, suppressed (both empty so far)
        coverage      pages, seen, not_seen, by_status, sources: the columns of COVERAGE and company
        method        parameters, versions, models: task, engine_id, model, backend, precision, texts (rows of the
                      lake's scores that this report used); cards, one a model whose folder is there: model,
                      metrics: set, language, split, metric, value, n, low, high (of a 95 % interval), precision;
                      training_sets: name, licence, origin, rows; limits; gate: how the engine of a task differs from
                      FP32, where it was judged (workbench.engine.gate.GateResult: delta, interval, flips, n, verdict
                      …, in points); snapshots: count and joint sha256
    evidence      every snapshot that the report cites: label, snapshot_id, short_id, company, source_id, title, url,
                  fetched_at, payload_sha256, warc, command

Times are ISO 8601 in UTC, money is a string of digits in the currency beside it, a share is between 0 and 1, what is
unknown is null. Texts from pages are as they were on the page.

CSV (``report.csv``) has one line a change, the columns of the lake's ``changes`` table, with the company's name and
the evidence labels. Beside it stand ``sentiment.csv`` (one line a company, topic and measure, the columns of SHIFTS)
and ``voice.csv`` (one line a company, the columns of SHARE_OF_VOICE). All are UTF-8 with a byte order mark, so that
spreadsheets read Chinese right; a text that a spreadsheet would take for a formula has an apostrophe before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import polars as pl
from markupsafe import Markup

from workbench.errors import ReportError
from workbench.files import write_bytes, write_text
from workbench.insight.readout import Finding
from workbench.report.html import style_sheet

__all__ = ["SCHEMA", "Header", "Report", "Section", "jsonable", "read_findings", "safe_cells"]

SCHEMA = "workbench.weekly-report/1"


def jsonable(value: Any) -> Any:
    """``value`` in JSON's own types. Raises TypeError for anything a report does not hold."""
    if isinstance(value, Markup):
        raise TypeError("HTML does not belong into report.json; give the text it was made from")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot go into report.json")


def safe_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with an apostrophe before every text that a spreadsheet would run as a formula.

    Spreadsheets skip leading blanks, so those do not hide a sign.
    """
    text = pl.col(pl.String)
    # Signs full-width keyboards type are run too.
    risky = text.str.contains(r"^[\s\u00a0\u3000\u200b\ufeff]*[=+\-@＝＋－＠]|^[\t\r\n]")
    return frame.with_columns(pl.when(risky).then(pl.lit("'") + text).otherwise(text).name.keep())


def _fragment(body: Markup) -> str:
    return f'<style data-report="">{style_sheet()}</style>\n<div class="wb">{body}</div>'


@dataclass(frozen=True)
class Header:
    """The report's head: whose week it is, the figures at a glance, the table of contents."""

    title: str
    body: Markup

    def _repr_html_(self) -> str:
        return _fragment(self.body)


@dataclass(frozen=True)
class Section:
    """One numbered section: what it says (``data``) and how it is shown (``body``)."""

    id: str
    number: int
    title: str
    status: Literal["ready", "not-yet"]
    data: Mapping[str, Any]
    body: Markup

    def _repr_html_(self) -> str:
        return _fragment(self.body)

    def to_json(self) -> dict[str, Any]:
        """Number, title, status, and the section's own keys."""
        own: dict[str, Any] = jsonable(self.data)
        return {"number": self.number, "title": self.title, "status": self.status, **own}


@dataclass(frozen=True)
class Report:
    """A week's report. Made by ``build_report``; the same lake gives the same bytes."""

    meta: Mapping[str, Any]
    header: Header
    sections: tuple[Section, ...]
    findings: tuple[Finding, ...]
    summary: str
    evidence: tuple[Mapping[str, Any], ...]
    changes_table: pl.DataFrame
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Further tables by name, each written as a CSV file of its own."""

    def section(self, section_id: str) -> Section:
        """The section with that id. Raises KeyError."""
        for section in self.sections:
            if section.id == section_id:
                return section
        raise KeyError(section_id)

    # One name for each, so that a notebook cell reads `report.prices`.
    readout = property(lambda self: self.section("readout"))
    changes = property(lambda self: self.section("changes"))
    prices = property(lambda self: self.section("prices"))
    claims = property(lambda self: self.section("claims"))
    sentiment = property(lambda self: self.section("sentiment"))
    voice = property(lambda self: self.section("voice"))
    creatives = property(lambda self: self.section("creatives"))
    alerts = property(lambda self: self.section("alerts"))
    coverage = property(lambda self: self.section("coverage"))
    method = property(lambda self: self.section("method"))

    @property
    def body(self) -> Markup:
        """Header and sections, one after the other."""
        return Markup("\n").join([self.header.body, *(section.body for section in self.sections)])

    def _repr_html_(self) -> str:
        return _fragment(self.body)

    def to_json(self) -> dict[str, Any]:
        """The whole report in JSON's types; see this module's docstring for the structure."""
        meta: dict[str, Any] = jsonable(self.meta)
        sections = {section.id: section.to_json() for section in self.sections}
        return {
            "schema": SCHEMA,
            **meta,
            "summary": self.summary,
            "findings": sections["readout"]["findings"],
            "sections": sections,
            "evidence": jsonable(self.evidence),
        }

    def to_csv_rows(self) -> pl.DataFrame:
        """One row a change, texts made safe for spreadsheets."""
        return safe_cells(self.changes_table)

    def write(self, folder: Path | str) -> dict[str, Path]:
        """Write report.json, report.csv and a CSV file for each of ``tables``; gives their paths by name.

        report.html is made from the executed notebook: see ``render_report``.
        """
        target = Path(folder)
        paths = {"json": target / "report.json", "csv": target / "report.csv"}
        write_text(paths["json"], json.dumps(self.to_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        for name in self.tables:
            paths[name] = target / f"{name}.csv"
        for name, frame in {"csv": self.changes_table, **self.tables}.items():
            write_bytes(paths[name], safe_cells(frame).write_csv(None, include_bom=True).encode("utf-8"))
        return paths


def read_findings(path: Path) -> list[str]:
    """The findings of a ``report.json``, one line each, for a terminal; a quiet week is one line that says so.

    Raises ReportError when the file is missing or is not a report.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        lines = [
            f"{finding['severity'].upper()} {finding['company']}: {finding['headline']}"
            for finding in report["findings"]
        ]
        return lines or [str(report["summary"])]
    except FileNotFoundError:
        raise ReportError(f"No report at {path}. Make it with: workbench weekly -w DIR --week WEEK") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path} is not a report ({error}). Make it anew with: workbench weekly -w DIR") from error
