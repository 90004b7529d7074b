"""Section 9: what was seen, what was not, and how old it is."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workbench.insight.coverage import Coverage, coverage
from workbench.report import figures
from workbench.report.html import chip, day, link, minute, plural, quoted, render, words
from workbench.report.material import Material, View
from workbench.report.model import Section
from workbench.report.tables import Column, table

__all__ = ["build_coverage"]

SEEN = ("fetched", "not-modified")
_MEANING = {
    "robots-denied": "robots.txt does not allow it",
    "blocked": "the site refused",
    "failed": "the request failed",
    "stale": "no answer for too long",
    "fetched": "seen before this week only",
    "not-modified": "seen before this week only",
}
_DRAWN = {
    "fetched": ("o", "#007a5a", "fetched"),
    "not-modified": ("|", "#007a5a", "not modified"),
    "robots-denied": ("_", "#a66300", "robots denied"),
    "blocked": ("s", "#b3213c", "blocked"),
    "failed": ("X", "#b3213c", "failed"),
}
_MOST_LANES = 40  # a figure with more is taller than a screen


def coverage_rows(seen: Coverage, material: Material) -> list[dict[str, Any]]:
    """One row a page of a source, with the company's name."""
    return [{**row, "company": material.company_name(row["company_id"])} for row in seen.rows.to_dicts()]


def build_coverage(material: Material, view: View, number: int) -> Section:
    """Every source with its status and age, and a strip of the last four weeks."""
    found = coverage(material.sources, material.workspace, material.week)
    rows = coverage_rows(found, material)
    unseen = [row for row in rows if not row["seen"]]
    title = "Coverage and freshness"
    summary = f"{found.seen} of {plural(len(rows), 'page')} were seen in {material.week}."
    if unseen:
        counts = Counter(row["status"] for row in unseen)
        said = words(f"{n} × {_MEANING.get(status, status)}" for status, n in sorted(counts.items()))
        summary += f" Not seen: {said}."
    shown = view.cut(sorted(rows, key=lambda r: r["seen"])) if len(rows) > view.max_rows else rows
    body = render(
        "coverage",
        number=number,
        title=title,
        summary=summary,
        gaps=[_gap(row) for row in view.cut(unseen)],
        figure=_strip(material, rows) if material.entries else "",
        table=_table(shown, view, len(rows)) if rows else "",
    )
    data = {"pages": len(rows), "seen": found.seen, "not_seen": list(found.not_seen), "by_status": dict(found.counts)}
    return Section("coverage", number, title, "ready", {**data, "sources": rows}, body)


def _gap(row: dict[str, Any]) -> Markup:
    when = f"newest snapshot {day(row['snapshot_at'])}" if row["snapshot_at"] else "there is no snapshot at all"
    return Markup("{} <strong>{}</strong> ({}): {}; {}.").format(
        chip("status", row["status"]),
        row["source_id"],
        row["company"],
        quoted((row["note"] or _MEANING.get(row["status"], "no reason was recorded")).rstrip("."), 160),
        when,
    )


def _table(rows: list[dict[str, Any]], view: View, total: int) -> Markup:
    columns = [
        Column("source", "Source"),
        Column("status", "Status"),
        Column("tried", "Last tried (UTC)"),
        Column("age", "Age, days", "right"),
        Column("newest", "Newest snapshot"),
    ]
    made = [
        {
            "company": row["company"],
            "source": Markup('{} <span class="small">{} · {}</span>').format(
                row["source_id"], row["kind"], link(row["url"], length=64)
            ),
            "status": Markup("{}{}").format(
                chip("status", row["status"]),
                Markup('<span class="small">HTTP {}</span>').format(row["http_status"])
                if row["http_status"] and row["http_status"] not in (200, 304)
                else "",
            ),
            "tried": Markup('<span class="nowrap">{}</span>').format(minute(row["attempted_at"]))
            if row["attempted_at"]
            else None,
            "age": None if row["age_days"] is None else f"{row['age_days']:.1f}",
            "newest": view.evidence.cite(row["snapshot_id"]) if row["snapshot_id"] else None,
        }
        for row in rows
    ]
    return table("t-coverage", "Every source, its status and its age.", columns, made, group="company", total=total)


def _strip(material: Material, rows: list[dict[str, Any]]) -> Markup:
    """One lane a source, one mark an attempt."""
    known = [row["source_id"] for row in rows]
    lanes = list(dict.fromkeys(known))[:_MOST_LANES]
    attempts = [e for e in material.entries if e.attempted_at >= material.shown_from and e.source_id in set(lanes)]
    good = sum(e.status in SEEN for e in attempts)
    failing = Counter(e.source_id for e in attempts if e.status not in SEEN)
    title = f"{good} of {len(attempts)} attempts in the last four weeks gave a page"
    title += f"; {plural(len(failing), 'source')} had gaps." if failing else "; no source had a gap."
    description = "Attempts by source and day. " + (
        "Gaps: " + "; ".join(f"{source}, {n} without a page" for source, n in sorted(failing.items())) + "."
        if failing
        else "Every attempt gave a page."
    )
    kinds = [status for status in _DRAWN if any(e.status == status for e in attempts)]

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        narrow = width < 500
        height = made.get_figheight() * 72
        left = 8 if narrow else min(230, 16 + max((figures.text_width(lane, 11) for lane in lanes), default=0))
        axes = made.add_axes((left / width, 26 / height, 1 - (left + 14) / width, 1 - 56 / height))
        axes.set_xlim(_number(material.shown_from), _number(material.week.end))
        axes.set_ylim(len(lanes) - 0.4, -0.7)
        axes.axvspan(_number(material.week.start), _number(material.week.end), color="#f1f4f7", lw=0)
        for place, lane in enumerate(lanes):
            axes.axhline(place, color=figures.GRID, lw=0.8, zorder=1)
            if narrow:
                axes.text(
                    0, place - 0.26, labels(lane, 44), transform=axes.get_yaxis_transform(), size=10, va="bottom"
                )
            for status in kinds:
                marker, colour, _ = _DRAWN[status]
                moments = [_number(e.attempted_at) for e in attempts if e.source_id == lane and e.status == status]
                axes.plot(
                    moments,
                    [place] * len(moments),
                    ls="",
                    marker=marker,
                    ms=7,
                    mew=2 if marker in "|_" else 0.8,
                    mec=colour,
                    mfc=colour,
                    zorder=3,
                )
        if not narrow:
            axes.set_yticks(range(len(lanes)), [labels(lane, 34) for lane in lanes], size=11)
        else:
            axes.set_yticks([])
        axes.tick_params(axis="y", labelcolor=figures.INK)
        days = [material.shown_from + timedelta(days=7 * n) for n in range(4)]
        axes.set_xticks(
            [_number(moment) for moment in days], [_short(moment) for moment in days], size=10.5, ha="left"
        )
        place_x = left
        for status in kinds:
            marker, colour, word = _DRAWN[status]
            x = (place_x + 5) / width
            made.add_artist(_mark(x, 1 - 13 / height, marker, colour, made))
            made.text((place_x + 14) / width, 1 - 13 / height, word, size=10.5, va="center", color=figures.INK)
            place_x += figures.text_width(word, 10.5) + 28

    lane_height = 21
    tall = 60 + lane_height * len(lanes)
    return figures.figure("f-coverage", title, description, draw, heights=(tall, 60 + 34 * len(lanes)))


def _mark(x: float, y: float, marker: str, colour: str, made: Figure) -> Line2D:
    return Line2D(
        [x],
        [y],
        ls="",
        marker=marker,
        ms=7,
        mew=2 if marker in "|_" else 0.8,
        mec=colour,
        mfc=colour,
        transform=made.transFigure,
    )


def _short(moment: datetime) -> str:
    return day(moment).rpartition(" ")[0]


def _number(moment: datetime) -> float:
    return float(date2num(moment))  # type: ignore[no-untyped-call]
