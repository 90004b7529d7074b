"""One week's report from the lake and the archive's list of attempts. No clock, no network, nothing random."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from workbench.errors import ReportError
from workbench.ingest.evidence import import_entries
from workbench.insight.coverage import coverage
from workbench.insight.price_index import price_index
from workbench.insight.prices import price_history
from workbench.insight.readout import Readout, build_readout
from workbench.insight.scored import join_reviews, prefer_engines
from workbench.insight.sentiment import sentiment_shifts
from workbench.insight.share import share_of_voice
from workbench.insight.stars import agreement_with_stars
from workbench.report.evidence import Evidence, Snapshot
from workbench.report.html import day, plural, render, words
from workbench.report.material import Material, View
from workbench.report.model import Header, Report, Section
from workbench.report.section_changes import build_changes, build_claims, build_readout_section, change_rows
from workbench.report.section_coverage import build_coverage
from workbench.report.section_later import build_alerts, build_creatives
from workbench.report.section_method import build_method
from workbench.report.section_prices import build_prices
from workbench.report.section_sentiment import build_sentiment
from workbench.report.section_voice import build_voice, voice_table
from workbench.report.shift_tables import sentiment_table
from workbench.store.archive import Archive
from workbench.store.lake import Lake
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = ["build_report"]

logger = logging.getLogger(__name__)

# The HTML of all sections; the rest of the 2 MB is for the page around them and an analyst's own notes and pictures.
_BUDGET = 1_500_000
_ROW_LIMITS = (400, 150, 60, 25, 10)
_MOST_NAMES = 4  # in the title


def build_report(workspace: Workspace, week: Week) -> Report:
    """The report on ``week``.

    Reads the lake and the archive's list of attempts, nothing else; the same lake gives the same bytes. When the
    tables would make the HTML too large they are cut, and say so; the JSON is always whole.

    Raises ReportError when nothing was read into the lake for that week.
    """
    material = _read(workspace, week)
    readout = build_readout(
        material.changes,
        workspace,
        week,
        sources=material.sources,
        index=material.index,
        # A reading that the reviewers' own stars contradict makes no finding.
        sentiment=None if material.agreement.doubtful else material.shifts,
    )
    snapshots = _snapshots(material)
    for limit in _ROW_LIMITS:
        report = _build(material, readout, snapshots, limit)
        size = len(report.body.encode("utf-8"))
        if size <= _BUDGET:
            break
        logger.info("The report has %.1f MB with %d rows a table; building it with fewer", size / 1e6, limit)
    return report


def _read(workspace: Workspace, week: Week) -> Material:
    lake = Lake(workspace.lake_dir)
    companies = [company.id for company in workspace.companies]
    attempts = Archive(workspace.archive_dir).entries(end=week.end)
    sources = lake.read("sources").filter(pl.col("week") == str(week))
    pages = _until(lake, "pages", week)
    if sources.is_empty() and pages.filter(pl.col("fetched_at") >= week.start).is_empty():
        raise ReportError(
            f"Nothing was read into the lake of {workspace.name} for {week}. "
            f"Read the archive first: workbench weekly -w {workspace.root} --week {week}"
        )
    offers, plans = _until(lake, "offers", week), _until(lake, "plans", week)
    reviews, claims = _until(lake, "reviews", week), _until(lake, "claims", week)
    history = price_history(offers, plans, workspace=workspace, week=week)
    scores = prefer_engines(lake.read("scores"), lake.read("engines").filter(pl.col("week") == str(week)))
    scored = join_reviews(reviews.filter(pl.col("company_id").is_in(companies)), scores, week)
    return Material(
        workspace=workspace,
        week=week,
        sources=sources,
        pages=pages,
        offers=offers,
        plans=plans,
        history=history,
        index=price_index(history, workspace),
        claims=claims,
        reviews=reviews,
        creatives=_until(lake, "creatives", week),
        changes=lake.read("changes").filter(pl.col("week") == str(week)),
        entries=attempts,
        scores=scores,
        scored=scored,
        shifts=sentiment_shifts(scored, workspace),
        agreement=agreement_with_stars(scored.rows),
        voice=share_of_voice(scored, claims.filter(pl.col("company_id").is_in(companies)), workspace, week),
    )


def _until(lake: Lake, name: str, week: Week) -> pl.DataFrame:
    return lake.read(name).filter(pl.col("fetched_at") < week.end)


def _snapshots(material: Material) -> list[Snapshot]:
    seen = (*material.entries, *import_entries(material.workspace))
    files = {entry.snapshot_id: entry for entry in seen if entry.snapshot_id}
    found = []
    for row in material.pages.iter_rows(named=True):
        entry = files.get(row["snapshot_id"])
        found.append(
            Snapshot(
                snapshot_id=row["snapshot_id"],
                company=material.company_name(row["company_id"]),
                source_id=row["source_id"],
                url=row["url"],
                title=row["title"],
                fetched_at=row["fetched_at"],
                payload_sha256=row["payload_sha256"],
                warc=entry.warc if entry else None,
            )
        )
    return found


def _build(material: Material, readout: Readout, snapshots: Sequence[Snapshot], limit: int) -> Report:
    evidence = Evidence(snapshots)
    view = View(evidence, limit)
    # In reading order, so that E1 is the first thing cited.
    numbered: list[Callable[[Material, View, int], Section]] = [
        build_prices,
        build_claims,
        build_sentiment,
        build_voice,
        build_creatives,
        build_alerts,
        build_coverage,
        build_method,
    ]
    sections = [build_readout_section(material, view, readout), build_changes(material, view, readout)]
    sections += [build(material, view, number) for number, build in enumerate(numbered, 3)]
    workspace, week = material.workspace, material.week
    meta: dict[str, Any] = {
        "workspace": workspace.name,
        "week": str(week),
        "from": week.start,
        "to": week.end,
        "as_of": material.as_of,
        "company": {"id": workspace.company.id, "name": workspace.company.name},
        "competitors": [{"id": company.id, "name": company.name} for company in workspace.competitors],
    }
    return Report(
        meta=meta,
        header=_header(material, readout, sections),
        sections=tuple(sections),
        findings=readout.findings,
        summary=readout.summary,
        evidence=tuple(evidence.rows()),
        changes_table=_changes_table(material, evidence),
        tables={"sentiment": sentiment_table(material), "voice": voice_table(material)},
    )


def _header(material: Material, readout: Readout, sections: Sequence[Section]) -> Header:
    workspace, week = material.workspace, material.week
    names = [company.name for company in workspace.competitors]
    who = words(names) if len(names) <= _MOST_NAMES else f"{len(names)} competitors"
    title = f"{who}: week {week.number} of {week.year}"
    severities = Counter(material.changes["severity"].to_list())
    watched = coverage(material.sources, workspace, week)
    new_reviews = material.reviews.filter(pl.col("fetched_at") >= week.start).height
    figures = [
        {"label": "findings", "value": str(len(readout.findings)), "rest": ""},
        {
            "label": "changes worth a look",
            "value": str(severities["high"] + severities["medium"]),
            "rest": f"of {material.changes.height}",
        },
        {"label": "pages seen", "value": str(watched.seen), "rest": f"of {watched.rows.height}"},
        {"label": plural(new_reviews, "new review").partition(" ")[2], "value": f"{new_reviews:,}", "rest": ""},
    ]
    body = render(
        "header",
        company=workspace.company.name,
        week=_range(week),
        title=title,
        summary=readout.summary,
        figures=figures,
        sections=sections,
    )
    return Header(f"{title} ({week})", body)


def _range(week: Week) -> str:
    first, last = day(week.start), day(week.end - timedelta(days=1))
    return f"{first} to {last}"


def _changes_table(material: Material, evidence: Evidence) -> pl.DataFrame:
    labels = {row["snapshot_id"]: row["label"] for row in evidence.rows()}
    unlabelled: dict[str, Any] = {"default": None, "return_dtype": pl.String}
    rows = change_rows(material)
    order = pl.DataFrame({"change_id": [row["change_id"] for row in rows]}, schema={"change_id": pl.String})
    return order.join(material.changes, on="change_id", how="left", maintain_order="left").with_columns(
        pl.col("company_id").map_elements(material.company_name, return_dtype=pl.String).alias("company"),
        pl.col("snapshot_before")
        .replace_strict(labels, default=None, return_dtype=pl.String)
        .alias("evidence_before"),
        pl.col("snapshot_after").replace_strict(labels, **unlabelled).alias("evidence_after"),
    )
