"""Share of voice, as bars with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from workbench.report import figures
from workbench.report.html import words
from workbench.report.material import Material

__all__ = ["voice_figure", "voice_title"]

_MOST_BARS = 12
_OWN, _OTHER = "#6aaed6", "#bccbd9"  # light enough for the line of the interval


def voice_title(rows: Sequence[Mapping[str, Any]], material: Material) -> str:
    """What the figure shows, as a sentence. ``rows`` have the columns of SHARE_OF_VOICE."""
    first = max(rows, key=lambda row: row["mentions_week"])
    equals = [row for row in rows if row["mentions_week"] == first["mentions_week"]]
    total = sum(row["mentions_week"] for row in rows)
    share = f"{first['mentions_week']:,} of {total:,} collected mentions ({first['share_week'] * 100:.0f} %)"
    if len(equals) > 1:
        return f"{words(material.company_name(row['company_id']) for row in equals)} are named most, in {share} each"
    title = f"{material.company_name(first['company_id'])} is named most, in {share}"
    if first["delta"] is None:
        return title
    sure = first["delta_low"] > 0 or first["delta_high"] < 0
    return f"{title}; before {first['share_baseline'] * 100:.0f} %" + ("" if sure else ", which chance can explain")


def voice_figure(name: str, rows: Sequence[Mapping[str, Any]], material: Material) -> Markup:
    """One bar a company, most mentions first, with the interval and a line where the four weeks before stood."""
    shown = sorted(rows, key=lambda row: (-row["mentions_week"], material.company_rank(row["company_id"])))[
        :_MOST_BARS
    ]
    own = material.workspace.company.id

    def said(row: Mapping[str, Any]) -> str:
        before = "" if row["share_baseline"] is None else f", before {row['share_baseline'] * 100:.0f}"
        return f"{material.company_name(row['company_id'])} {row['share_week'] * 100:.0f}{before}"

    description = f"Share of collected mentions this week in percent: {words(said(row) for row in shown)}."
    high = max(row["high"] for row in shown) * 100

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        height = made.get_figheight() * 72
        names = [material.company_name(row["company_id"])[:30] for row in shown]
        left = min(max(figures.text_width(text) for text in names) + 16, width * 0.4)
        right, bottom = 58, 42
        axes = made.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + 6) / height))
        axes.set_xlim(0, max(high * 1.03, 1))
        axes.set_ylim(len(shown) - 0.45, -0.55)
        axes.grid(axis="x", color=figures.GRID, lw=0.8)
        axes.set_axisbelow(True)
        axes.set_yticks([])
        for y, (row, text) in enumerate(zip(shown, names, strict=True)):
            share = row["share_week"] * 100
            axes.barh([y], [share], height=0.56, color=_OWN if row["company_id"] == own else _OTHER)
            axes.plot([row["low"] * 100, row["high"] * 100], [y, y], color=figures.INK, lw=1.3)
            if row["share_baseline"] is not None:
                at = row["share_baseline"] * 100
                axes.plot([at, at], [y - 0.4, y + 0.4], color=figures.COLOURS[1], lw=2.4)
            figures.label_row(axes, y, labels(text, 30), labels(f"{share:.0f} %"), width=width - left - right)
        step = 10 if high <= 60 else 20
        ticks = list(range(0, int(high) + 1, step))
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
        axes.set_xlabel(
            labels("% of mentions · thin line: 95 % interval · upright: four weeks before", 80)
            if width > 500
            else labels("% · thin: 95 % interval · upright: before", 60),
            size=11,
        )

    size = 56 + 34 * len(shown)
    return figures.figure(name, voice_title(rows, material), description, draw, heights=(size, size))
