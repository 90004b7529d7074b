"""The price index over the weeks, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from workbench.report import figures
from workbench.report.html import words
from workbench.report.material import Material

__all__ = ["index_figure", "index_title", "spread"]

_SMALLEST_MOVE = 1.0  # index points; less is rounding


def index_title(category: str | None, lines: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    """What the figure shows, as a sentence. ``lines`` holds each company's weeks and index values."""
    about = f" ({category})" if category else ""
    moves = {name: points[-1][1] - points[-2][1] for name, points in lines.items() if len(points) > 1}
    moved = {name: move for name, move in moves.items() if abs(move) >= _SMALLEST_MOVE}
    if moved:
        name = max(moved, key=lambda n: abs(moved[n]))
        verb = "rose" if moved[name] > 0 else "fell"
        before, after = lines[name][-2][1], lines[name][-1][1]
        return f"{name} {verb} from {before:.0f} % to {after:.0f} % of our price this week{about}"
    cheapest = min(lines, key=lambda n: lines[n][-1][1])
    return (
        f"No competitor moved against our price; the cheapest is {cheapest} at {lines[cheapest][-1][1]:.0f} %{about}"
    )


def index_figure(name: str, category: str | None, rows: Sequence[Mapping[str, Any]], material: Material) -> Markup:
    """A step line a competitor, named at its end; our own price is the line at 100.

    ``rows`` have company_id, week and index, oldest first.
    """
    weeks = list(dict.fromkeys(row["week"] for row in rows))
    place = {week: number for number, week in enumerate(weeks)}
    lines: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        lines.setdefault(material.company_name(row["company_id"]), []).append((row["week"], row["index"]))
    own = material.workspace.company.name
    values = [value for points in lines.values() for _, value in points]
    low, high = min([100, *values]), max([100, *values])
    margin = max((high - low) * 0.16, 4)
    said = words(f"{company} {points[-1][1]:.0f}" for company, points in lines.items())
    description = f"Price index by week, {weeks[0]} to {weeks[-1]}, with {own} at 100. At the end: {said}."

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        height = made.get_figheight() * 72
        ends = [f"{company} {points[-1][1]:.0f}" for company, points in lines.items()] + [f"{own} 100"]
        longest = 22 if width < 500 else 36
        right = min(max(figures.text_width(text[:longest]) for text in ends) + 32, width * 0.5)
        left = 34
        axes = made.add_axes((left / width, 30 / height, 1 - (left + right) / width, 1 - 42 / height))
        axes.set_xlim(-0.25, max(len(weeks) - 1, 1) + 0.15)
        axes.set_ylim(low - margin, high + margin)
        axes.grid(axis="y", color=figures.GRID, lw=0.8)
        axes.axhline(100, color=figures.INK, lw=1.4, ls=(0, (4, 3)))
        at = [(100.0, figures.INK, "", f"{own} 100")]
        for number, (company, points) in enumerate(lines.items()):
            colour = figures.COLOURS[number % len(figures.COLOURS)]
            marker = figures.MARKERS[number % len(figures.MARKERS)]
            xs, ys = [place[week] for week, _ in points], [value for _, value in points]
            axes.step(xs, ys, where="post", color=colour, lw=2)
            axes.plot(xs, ys, ls="", marker=marker, ms=7, mfc=colour, mec="white", mew=0.8)
            at.append((ys[-1], colour, marker, f"{company} {ys[-1]:.0f}"))
        per_point = (height - 42) / (high - low + 2 * margin)
        places = spread([value for value, *_ in at], 17 / per_point)
        for (_, colour, marker, text), y in zip(at, places, strict=True):
            x = 1 + 14 / (width - left - right)
            if marker:
                axes.plot(
                    [x],
                    [y],
                    transform=axes.get_yaxis_transform(),
                    ls="",
                    marker=marker,
                    ms=7,
                    mfc=colour,
                    mec="white",
                    mew=0.8,
                    clip_on=False,
                )
            axes.text(
                x + 9 / (width - left - right),
                y,
                labels(text, longest),
                transform=axes.get_yaxis_transform(),
                va="center",
                color=figures.INK,
            )
        step = max(1, -(-len(weeks) // (4 if width < 500 else 8)))
        shown = range((len(weeks) - 1) % step, len(weeks), step)
        axes.set_xticks(list(shown), [weeks[n].partition("-")[2] for n in shown])

    return figures.figure(name, index_title(category, lines), description, draw, heights=(300, 270))


def spread(values: Sequence[float], gap: float) -> list[float]:
    """``values`` moved apart as little as is needed for neighbours to be ``gap`` apart, order kept."""
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    clusters: list[list[int]] = []
    centres: list[float] = []
    for i in order:
        clusters.append([i])
        centres.append(values[i])
        # Neighbouring clusters that overlap become one around their common middle.
        while len(clusters) > 1 and centres[-1] - centres[-2] < gap * (len(clusters[-1]) + len(clusters[-2])) / 2:
            last, last_centre = clusters.pop(), centres.pop()
            many = len(last) + len(clusters[-1])
            centres[-1] = (centres[-1] * len(clusters[-1]) + last_centre * len(last)) / many
            clusters[-1] += last
    placed = [0.0] * len(values)
    for cluster, centre in zip(clusters, centres, strict=True):
        for offset, i in enumerate(cluster):
            placed[i] = centre + (offset - (len(cluster) - 1) / 2) * gap
    return placed
