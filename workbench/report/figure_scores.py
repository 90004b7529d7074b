"""What the models said about a week's reviews, drawn for the notebook that scored them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup
from matplotlib.figure import Figure

from workbench.report import figures
from workbench.report.html import plural
from workbench.report.wording import language_word
from workbench.scoring.week import WeekScores
from workbench.tasks.labels import SENTIMENTS
from workbench.workspace import Workspace

__all__ = ["sentiment_figure"]

# Bars also carry their counts, so that nothing depends on telling the colours apart.
_COLOURS: Final = dict(zip(SENTIMENTS, ("#e08a4f", "#c9d1d9", "#6aaed6"), strict=True))
_MOST_BARS: Final = 24


def sentiment_figure(result: WeekScores, workspace: Workspace) -> Markup:
    """Shares of negative, neutral and positive reviews of the week, one bar a company and language.

    A sentence instead when no review of the week was scored.
    """
    names = {company.id: company.name for company in workspace.companies}
    order = list(names)
    rows = sorted(
        result.sentiments().to_dicts(), key=lambda row: (order.index(row["company_id"]), row["language"] or "~")
    )[:_MOST_BARS]
    if not rows:
        return Markup("<p>No review of this week was scored.</p>")
    labels_of = [f"{names[row['company_id']]}, {_language(row)}" for row in rows]
    said = "; ".join(
        f"{label}: " + ", ".join(f"{row[sentiment]} {sentiment}" for sentiment in SENTIMENTS)
        for label, row in zip(labels_of, rows, strict=True)
    )
    title = _title(rows, names)

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        height = made.get_figheight() * 72
        left = min(max(figures.text_width(text) for text in labels_of) + 16, width * 0.4)
        right, bottom, top = 60, 40, 26
        axes = made.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
        axes.set_xlim(0, 100)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_yticks([])
        along = axes.get_yaxis_transform()
        plot = width - left - right
        for y, (row, text) in enumerate(zip(rows, labels_of, strict=True)):
            start = 0.0
            for sentiment in SENTIMENTS:
                share = row[sentiment] / row["reviews"] * 100
                axes.barh([y], [share], left=[start], height=0.66, color=_COLOURS[sentiment])
                if share * plot / 100 > 7 * len(str(row[sentiment])) + 6:
                    axes.text(
                        start + share / 2, y, labels(str(row[sentiment])), ha="center", va="center", color=figures.INK
                    )
                start += share
            axes.text(-10 / plot, y, labels(text, 40), transform=along, ha="right", va="center", color=figures.INK)
            axes.text(
                1 + 8 / plot, y, labels(f"n {row['reviews']:,}"), transform=along, va="center", color=figures.MUTED
            )
        axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100"])
        axes.set_xlabel(labels("% of the week\u2019s reviews; the numbers in the bars are reviews", 80), size=11)
        place = left
        for sentiment in SENTIMENTS:
            at = place / width
            made.text(at, 1 - 14 / height, "\u25a0", color=_COLOURS[sentiment], size=14, va="center")
            made.text(at + 14 / width, 1 - 14 / height, labels(sentiment), color=figures.INK, size=11, va="center")
            place += 24 + figures.text_width(sentiment, 11)

    return figures.drawing("f-week-sentiment", title, f"{said}.", draw, height=76 + 30 * len(rows))


def _language(row: Mapping[str, Any]) -> str:
    return language_word(row["language"]) if row["language"] else "language not known"


def _title(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    totals: dict[str, tuple[int, int]] = {}
    for row in rows:
        negative, reviews = totals.get(row["company_id"], (0, 0))
        totals[row["company_id"]] = (negative + row["negative"], reviews + row["reviews"])
    worst = max(totals, key=lambda company: (totals[company][0] / totals[company][1], totals[company][1]))
    negative, reviews = totals[worst]
    if not negative:
        return (
            f"No review of this week was read as negative, of {plural(sum(n for _, n in totals.values()), 'review')}"
        )
    return f"{names[worst]} has the largest share of negative reviews: {negative:,} of {reviews:,}"
