"""Sections 1, 2 and 4: the readout, what changed, and the wording of claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from workbench.insight.readout import Finding, Readout
from workbench.report.html import chip, clean, clip, day, one_line, plural, quoted, render, words
from workbench.report.marks import marked
from workbench.report.material import Material, View
from workbench.report.model import Section
from workbench.report.section_features import build_areas
from workbench.report.tables import Column, table
from workbench.report.wording import kind_word, value_word

__all__ = ["SEVERITIES", "build_changes", "build_claims", "build_readout_section", "change_rows", "finding_rows"]

SEVERITIES = ("high", "medium", "low", "note")

_CLAIM_KINDS = ("claim_added", "claim_removed", "claim_reworded", "plan_features")
_WEIGHTY = ("high", "medium")
_MOST_FACTS = 6  # of one finding; the table below has them all
_IN_TABLE = 200  # characters of a value in the table of all changes; claims stand in full in section 4


def change_rows(material: Material) -> list[dict[str, Any]]:
    """The week's changes, gravest first, then by company as in workspace.toml."""
    rows = [
        {**row, "company": material.company_name(row["company_id"])} for row in material.changes.iter_rows(named=True)
    ]
    rows.sort(
        key=lambda r: (
            material.company_rank(r["company_id"]),
            r["company_id"],
            SEVERITIES.index(r["severity"]) if r["severity"] in SEVERITIES else len(SEVERITIES),
            -(r["confidence"] or 0),
            r["kind"],
            r["subject"] or "",
            r["change_id"],
        )
    )
    return rows


def finding_rows(material: Material, readout: Readout) -> list[dict[str, Any]]:
    """The findings as JSON."""
    return [
        {
            "severity": finding.severity,
            "confidence": finding.confidence,
            "company_id": finding.company_id,
            "company": material.company_name(finding.company_id),
            "headline": finding.headline,
            "so_what": finding.so_what,
            "action": finding.action,
            "change_ids": list(finding.change_ids),
            "snapshot_ids": list(finding.snapshot_ids),
            "facts": [{"text": fact.text, "snapshot_ids": list(fact.snapshot_ids)} for fact in finding.facts],
        }
        for finding in readout.findings
    ]


def build_readout_section(material: Material, view: View, readout: Readout) -> Section:
    """Section 1: at most three findings; a quiet week says so."""
    title = "Readout"
    lead = "Gravest first. Each leads to the archived pages it was read from."
    if readout.quiet:
        lead = f"A quiet week. {readout.summary}"
    cards = [_card(material, view, finding, number) for number, finding in _numbered(readout)]
    body = render("readout", title=title, lead=lead, cards=cards)
    data = {"quiet": readout.quiet, "summary": readout.summary, "findings": finding_rows(material, readout)}
    return Section("readout", 1, title, "ready", data, body)


def build_changes(material: Material, view: View, readout: Readout) -> Section:
    """Section 2: for each finding what changed, so what, and what to do; then every change of the week."""
    title = "What changed, so what, what to do"
    rows = change_rows(material)
    by_id = {row["change_id"]: row for row in rows}
    cards = []
    for number, finding in _numbered(readout):
        told = [change_id for change_id in finding.change_ids if change_id in by_id]
        facts = [
            {"text": _sentence(by_id[change_id]), "evidence": _evidence(by_id[change_id], view)}
            for change_id in told[:_MOST_FACTS]
        ]
        facts += [
            {"text": quoted(fact.text), "evidence": view.evidence.listed(fact.snapshot_ids)}
            for fact in finding.facts[: _MOST_FACTS - len(facts)]
        ]
        # Of changes the table below has the rest, of reviews the table in section 5.
        more = len(told) + len(finding.facts) - len(facts)
        where = "the table below" if told else "section 5"
        cards.append({**_card(material, view, finding, number), "facts": facts, "more": more, "where": where})
    # Claims of little weight would bury the rest; section 4 has them.
    listed = [row for row in rows if row["kind"] not in _CLAIM_KINDS or row["severity"] in _WEIGHTY]
    shown = listed
    if len(listed) > view.max_rows:  # the gravest stay
        kept = {id(row) for row in view.cut(sorted(listed, key=lambda r: SEVERITIES.index(r["severity"])))}
        shown = [row for row in listed if id(row) in kept]
    body = render(
        "changes",
        title=title,
        summary=_summary(rows),
        cards=cards,
        table=_table(shown, view, len(listed)) if listed else "",
        small_claims=len(rows) - len(listed),
    )
    counts = Counter(row["severity"] for row in rows)
    data = {
        "by_severity": {severity: counts[severity] for severity in SEVERITIES},
        "changes": [{name: row[name] for name in (*material.changes.columns, "company")} for row in rows],
    }
    return Section("changes", 2, title, "ready", data, body)


def build_claims(material: Material, view: View, number: int) -> Section:
    """Section 4: claims and features added, removed and reworded, word by word."""
    title = "Claims and features"
    rows = [row for row in change_rows(material) if row["kind"] in _CLAIM_KINDS]
    counts = Counter(row["kind"] for row in rows)
    if rows:
        said = [f"{counts[kind]} × {kind_word(kind).lower()}" for kind in _CLAIM_KINDS if counts[kind]]
        summary = f"{words(said)}. Struck text is gone from the page, underlined text is new on it."
    else:
        summary = "No claim was added, removed or reworded on the watched pages this week."
    telling = [row for row in rows if row["severity"] != "note"]
    notes = Counter(row["company"] for row in rows if row["severity"] == "note")
    merged = _same_on_several_pages(telling)
    groups: dict[str, list[dict[str, Any]]] = {}
    for same in view.cut(merged):
        groups.setdefault(same[0]["company"], []).append(_claim(same, view))
    areas = build_areas(material, view)
    body = render(
        "claims",
        number=number,
        title=title,
        summary=summary,
        groups=groups,
        left_out=sum(len(same) for same in merged[view.max_rows :]),
        notes=words(f"{count} at {company}" for company, count in notes.items()),
        areas=areas.body,
        area_notes=areas.notes,
    )
    names = ("change_id", "company_id", "company", "source_id", "url", "kind", "before", "after", "severity")
    tail = ("confidence", "why", "observed_at", "snapshot_before", "snapshot_after")
    data = {"claims": [{n: row[n] for n in (*names, *tail)} for row in rows], "by_area": areas.rows}
    return Section("claims", number, title, "ready", data, body)


def _same_on_several_pages(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows that say the same of several pages, such as a new banner on all of a site, as one."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        about = row["subject"] if row["kind"] == "plan_features" else None
        found.setdefault((row["company_id"], row["kind"], about, row["before"], row["after"]), []).append(row)
    return list(found.values())


def _claim(same: list[dict[str, Any]], view: View) -> dict[str, Any]:
    row = same[0]
    return {
        "severity": row["severity"],
        "kind": kind_word(row["kind"]),
        "tier": quoted(row["subject"], 80) if row["kind"] == "plan_features" and row["subject"] else "",
        "sources": words(dict.fromkeys(other["source_id"] for other in same)),
        "seen": day(row["observed_at"]),
        "text": marked(row["before"], row["after"]),
        "evidence": Markup("; ").join(_evidence(other, view) for other in same),
    }


def _numbered(readout: Readout) -> Sequence[tuple[int, Finding]]:
    return list(enumerate(readout.findings, 1))


def _card(material: Material, view: View, finding: Finding, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "severity": finding.severity,
        "company": material.company_name(finding.company_id),
        "confidence": f"{finding.confidence:.2f}",
        "headline": quoted(finding.headline),
        "so_what": quoted(finding.so_what),
        "action": quoted(finding.action),
        "evidence": view.evidence.listed(finding.snapshot_ids),
    }


def _evidence(row: dict[str, Any], view: View) -> Markup:
    return view.evidence.cite(row["snapshot_before"], row["snapshot_after"])


def _sentence(row: dict[str, Any]) -> Markup:
    """One change as a line: what it is about, before, after."""
    move, kind = _move(row), kind_word(row["kind"])
    # A claim is its own subject.
    named = row["subject"] and not row["kind"].startswith("claim_")
    head = quoted(f"{row['subject']}, {kind.lower()}" if named else kind, 120)
    return Markup("{}: {}").format(head, move) if move else head


def _severity(row: dict[str, Any]) -> Markup:
    return Markup('<span title="{}">{}</span><span class="small nowrap">confidence {:.2f}</span>').format(
        clean(row["why"] or ""), chip("severity", row["severity"]), row["confidence"] or 0
    )


def _move(row: dict[str, Any]) -> Markup:
    """Before and after, as far as there are two."""
    before, after = value_word(row["kind"], row["before"]), value_word(row["kind"], row["after"])
    arrow = Markup(' <span class="to">→</span> ') if before and after else Markup("")
    return quoted(one_line(before), _IN_TABLE) + arrow + quoted(one_line(after), _IN_TABLE)


def _summary(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "Nothing changed on the pages that were seen this week."
    counts = Counter(row["severity"] for row in rows)
    said = words(f"{counts[severity]} {severity}" for severity in SEVERITIES if counts[severity])
    companies = len({row["company_id"] for row in rows})
    return f"{plural(len(rows), 'change')} at {plural(companies, 'company', 'companies')}: {said}."


def _table(rows: list[dict[str, Any]], view: View, total: int) -> Markup:
    columns = [
        Column("kind", "What"),
        Column("severity", "Severity"),
        Column("move", "Before and after"),
        Column("seen", "Seen"),
        Column("evidence", "Evidence"),
    ]
    made = []
    for row in rows:
        in_place = row["kind"] in _CLAIM_KINDS
        move = (
            marked(clip(one_line(row["before"] or ""), _IN_TABLE), clip(one_line(row["after"] or ""), _IN_TABLE))
            if in_place
            else _move(row)
        )
        about = (
            ""
            if row["kind"].startswith("claim_") or not row["subject"]  # its own subject
            else Markup('<span class="small">{}</span>').format(quoted(row["subject"], 80))
        )
        made.append(
            {
                "company": row["company"],
                "kind": Markup("{}{}").format(kind_word(row["kind"]), about),
                "severity": Markup(
                    '<span title="{}">{}</span><span class="small nowrap">confidence {:.2f}</span>'
                ).format(clean(row["why"] or ""), chip("severity", row["severity"]), row["confidence"] or 0),
                "move": move,
                "seen": Markup('<span class="nowrap">{}</span>').format(day(row["observed_at"]).rpartition(" ")[0]),
                "evidence": Markup('<span class="nowrap">{}</span>').format(_evidence(row, view)),
            }
        )
    return table("t-changes", "Changes of the week, gravest first.", columns, made, group="company", total=total)
