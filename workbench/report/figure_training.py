"""How training went, drawn for the notebook that trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.report import figures
from workbench.report.figure_index import spread

__all__ = ["loss_figure"]

_NAMES: Final = {
    "sentiment": "sentiment",
    "topics": "topics",
    "app": "app reviews",
    "entities": "entities",
    "soft_sentiment": "sentiment, teacher",
    "soft_topics": "topics, teacher",
    "soft_entities": "entities, teacher",
}
_HEIGHT: Final = 300


def loss_figure(
    masked: Sequence[float], tasks: Sequence[Mapping[str, float]], *, every: tuple[int, int] = (1, 1)
) -> Markup:
    """The losses of both stages side by side: guessing masked words, then each task.

    ``masked`` and ``tasks`` are what `pretrain` and `fine_tune` return, one entry each ``every`` steps (of the first
    and of the second stage). Where no text of a batch had a task's labels there is no loss, or one of 0; the line
    goes past it.
    """
    lines = {
        _NAMES.get(name, name): [(step * every[1], row[name]) for step, row in enumerate(tasks) if row.get(name)]
        for name in dict.fromkeys(name for row in tasks for name in row)
    }
    words = [(step * every[0], value) for step, value in enumerate(masked)]
    said = "; ".join(
        f"{name}: {points[0][1]:.2f} at step {points[0][0]:,}, {points[-1][1]:.2f} at step {points[-1][0]:,}"
        for name, points in {"masked words": words, **lines}.items()
        if points
    )

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        ends = max((figures.text_width(name) for name in lines), default=0) + 52
        left, gap, bottom, top = 40.0, 76.0, 42.0, 28.0
        plot = (width - left - gap - ends - 36) / 2
        tall = _HEIGHT - bottom - top
        boxes = [(left, plot), (left + plot + gap, plot)]
        first, second = (
            made.add_axes((x / width, bottom / _HEIGHT, wide / width, tall / _HEIGHT)) for x, wide in boxes
        )
        _lines(first, {"masked words": words}, labels, plot=plot, tall=tall, named=False)
        _lines(second, lines, labels, plot=plot, tall=tall, named=True)
        for axes, title in ((first, "1. Guessing masked words"), (second, "2. Learning the tasks")):
            axes.set_title(labels(title), loc="left", size=12, color=figures.INK)
            axes.set_xlabel(labels("steps"), size=11)
        first.set_ylabel(labels("loss"), size=11)

    return figures.drawing("f-training", _title(words, lines), f"{said}.", draw, height=_HEIGHT)


def _title(words: Sequence[tuple[int, float]], lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    parts = []
    if len(words) > 1:
        # A loss of x means as unsure as among e^x equally likely pieces.
        before, after = math.exp(words[0][1]), math.exp(words[-1][1])
        parts.append(f"A hidden word is one of {before:,.0f} before training, of {after:,.0f} after it")
    falls = {name: points[-1][1] / points[0][1] for name, points in lines.items() if len(points) > 1 and points[0][1]}
    if falls:
        best = min(falls, key=lambda name: falls[name])
        change = f"falls by {1 - falls[best]:.0%}" if falls[best] < 1 else "does not fall"
        parts.append(f"of the tasks\u2019 losses that of {best} {change}, the most")
    return "; ".join(parts) or "Too few steps to see the losses move"


def _lines(
    axes: Axes,
    lines: Mapping[str, Sequence[tuple[int, float]]],
    labels: figures.Labels,
    *,
    plot: float,
    tall: float,
    named: bool,
) -> None:
    drawn = {name: points for name, points in lines.items() if points}
    values = [value for points in drawn.values() for _, value in points]
    highest = max(values, default=1.0) * 1.06 or 1.0
    axes.set_ylim(0, highest)
    axes.grid(axis="y", color=figures.GRID, lw=0.8)
    ends = []
    for number, (name, points) in enumerate(drawn.items()):
        colour = figures.COLOURS[number % len(figures.COLOURS)]
        marker = figures.MARKERS[number % len(figures.MARKERS)]
        axes.plot(*zip(*points, strict=True), color=colour, lw=1.8)
        axes.plot(*points[-1], ls="", marker=marker, ms=6, mfc=colour, mec="white", mew=0.8, clip_on=False)
        ends.append(
            (points[-1][1], colour, marker, f"{name} {points[-1][1]:.2f}" if named else f"{points[-1][1]:.2f}")
        )
    along = axes.get_yaxis_transform()
    for (_, colour, marker, text), y in zip(
        ends, spread([value for value, *_ in ends], 16 * highest / tall), strict=True
    ):
        if named:
            axes.plot(
                [1 + 12 / plot],
                [y],
                transform=along,
                ls="",
                marker=marker,
                ms=6,
                mfc=colour,
                mec="white",
                clip_on=False,
            )
        axes.text(1 + (20 if named else 8) / plot, y, labels(text), transform=along, va="center", color=figures.INK)
