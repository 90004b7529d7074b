"""How reviews shifted, as dots with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from workbench.insight.sentiment import ALL, telling_shifts, topic_name
from workbench.report import figures
from workbench.report.html import words
from workbench.report.material import Material

__all__ = ["points", "shift_figure", "shift_rows", "shift_title"]

_MOST_TOPICS = 3  # of one company
_MOST_ROWS = 16
_WORSE, _BETTER = figures.COLOURS[1], figures.COLOURS[0]


def points(value: float) -> str:
    """A difference of shares in points, with a true minus sign."""
    rounded = round(value * 100) + 0
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def shift_rows(shifts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the figure shows: each company's reviews as a whole, and its topics with the largest shifts.

    A topic is shown by its complaints where they shifted, else by the mood of the reviews on it.
    """
    tested = [row for row in shifts if row["delta"] is not None]
    chosen: list[Mapping[str, Any]] = []
    for company_id in dict.fromkeys(row["company_id"] for row in tested):
        own = [row for row in tested if row["company_id"] == company_id]
        chosen += [row for row in own if row["topic"] == ALL]
        topics = [row for row in telling_shifts(own) if row["topic"] != ALL]
        chosen += sorted(topics, key=lambda row: (-abs(row["delta"]), row["topic"]))[:_MOST_TOPICS]
    if len(chosen) > _MOST_ROWS:
        kept = sorted(chosen, key=lambda row: (row["verdict"] != "shift", -abs(row["delta"])))[:_MOST_ROWS]
        chosen = [row for row in chosen if any(row is other for other in kept)]
    return chosen


def shift_title(rows: Sequence[Mapping[str, Any]], material: Material) -> str:
    """What the figure shows, as a sentence."""
    moved = [row for row in rows if row["verdict"] == "shift"]
    if not moved:
        return "No company's reviews moved by more than chance explains"
    whole = [row for row in moved if row["topic"] == ALL] or moved
    said = []
    for row in sorted(whole, key=lambda row: -abs(row["delta"]))[:2]:
        verb = "rose" if row["delta"] > 0 else "fell"
        of = "" if row["topic"] == ALL else f" on “{topic_name(material.workspace, row['topic'])}”"
        said.append(
            f"{material.company_name(row['company_id'])}: negative reviews{of} {verb} from "
            f"{row['share_baseline'] * 100:.0f} % to {row['share_week'] * 100:.0f} %"
        )
    return "; ".join(said)


def _label(row: Mapping[str, Any], material: Material) -> str:
    company = material.company_name(row["company_id"])
    if row["topic"] == ALL:
        return f"{company}, all reviews"
    what = "complaints" if row["measure"] == "complaints" else "reviews on"
    return f"{company}, {what}: {topic_name(material.workspace, row['topic'])}"


def shift_figure(name: str, rows: Sequence[Mapping[str, Any]], material: Material) -> Markup:
    """One row a company or topic: the difference in points and its interval. ``rows`` come from ``shift_rows``."""
    said = words(
        f"{_label(row, material)} {points(row['delta'])} (from {points(row['low'])} to {points(row['high'])}"
        f"{', a shift' if row['verdict'] == 'shift' else ''})"
        for row in rows
    )
    description = (
        "Share of negative reviews, this week minus the four weeks before, in percentage points, with 95 percent "
        f"intervals: {said}."
    )
    low = min([0.0, *(row["low"] for row in rows)]) * 100
    high = max([0.0, *(row["high"] for row in rows)]) * 100
    margin = max((high - low) * 0.06, 3)

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        height = made.get_figheight() * 72
        narrow = width < 500
        # On a narrow screen a label stands above its row.
        texts = [_label(row, material)[:52] for row in rows]
        left = 12 if narrow else min(max(figures.text_width(text) for text in texts) + 18, width * 0.46)
        right, bottom = 52, 44
        axes = made.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + 8) / height))
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(len(rows) - 0.4, -0.75 if narrow else -0.6)
        axes.grid(axis="x", color=figures.GRID, lw=0.8)
        axes.axvline(0, color=figures.INK, lw=1.2)
        axes.set_yticks([])
        for y, (row, text) in enumerate(zip(rows, texts, strict=True)):
            shift = row["verdict"] == "shift"
            colour = figures.MUTED if not shift else _WORSE if row["delta"] > 0 else _BETTER
            axes.plot([row["low"] * 100, row["high"] * 100], [y, y], color=colour, lw=2.2 if shift else 1.4)
            axes.plot(
                [row["delta"] * 100],
                [y],
                ls="",
                marker="o" if not shift else "^" if row["delta"] > 0 else "v",
                ms=8 if shift else 7,
                mfc=colour if shift else "white",
                mec=colour,
                mew=1.4,
            )
            if narrow:
                axes.text(
                    0, y - 0.42, labels(text, 52), transform=axes.get_yaxis_transform(), va="center", size=11,
                    color=figures.INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
                )  # fmt: skip
            beside = None if narrow else labels(text, 52)
            figures.label_row(axes, y, beside, labels(points(row["delta"])), width=width - left - right)
        ticks = [t for t in range(-100, 101, 20) if low - margin <= t <= high + margin]
        axes.set_xticks(ticks, [points(t / 100) for t in ticks])
        axes.set_xlabel(labels("← fewer negative · points · more negative →"), size=11)

    count = len(rows)
    return figures.figure(
        name, shift_title(rows, material), description, draw, heights=(62 + 30 * count, 62 + 44 * count)
    )
