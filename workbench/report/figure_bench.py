"""Peers of a bench, drawn: tokens and texts a second of each, a panel for each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.report import figures

__all__ = ["BenchPanel", "BenchRow", "bench_svg"]

_ROW, _HEAD, _FOOT = 26.0, 50.0, 34.0


@dataclass(frozen=True)
class BenchRow:
    """A peer: tokens a second through its network, texts a second to their labels; None where it has none."""

    name: str
    ours: bool
    tokens_per_s: float | None
    texts_per_s: float | None


@dataclass(frozen=True)
class BenchPanel:
    """The peers of one model."""

    title: str
    rows: tuple[BenchRow, ...]


def bench_svg(title: str, panels: Sequence[BenchPanel], *, width: int = 860) -> str:
    """An SVG file of its own, with its alternative text. ``title`` states the finding."""
    said = "; ".join(
        f"{panel.title}, {row.name}: {_said(row.tokens_per_s, 'tokens')}, {_said(row.texts_per_s, 'texts')} a second"
        for panel in panels
        for row in panel.rows
    )
    heights = [_HEAD + _FOOT + _ROW * len(panel.rows) for panel in panels]

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        whole, top = sum(heights), 0.0
        left = min(max(figures.text_width(row.name) for panel in panels for row in panel.rows) + 16, width * 0.34)
        gap, right = 84.0, 84.0
        plot = (width - left - gap - right) / 2
        for panel, height in zip(panels, heights, strict=True):
            bottom = (whole - top - height + _FOOT) / whole
            size = _ROW * len(panel.rows) / whole
            for place, (said, field) in enumerate(
                (("tokens a second, network", "tokens_per_s"), ("texts a second, to labels", "texts_per_s"))
            ):
                axes = made.add_axes(((left + place * (plot + gap)) / width, bottom, plot / width, size))
                values = [getattr(row, field) for row in panel.rows]
                _bars(axes, values, [row.ours for row in panel.rows], labels, plot=plot)
                head = f"{panel.title}: {said}" if place == 0 else said
                axes.set_title(labels(head, 60), loc="left", size=12, color=figures.INK)
                if place == 0:
                    for y, row in enumerate(panel.rows):
                        axes.text(
                            -10 / plot, y, labels(row.name, 44), transform=axes.get_yaxis_transform(), ha="right",
                            va="center", color=figures.INK,
                        )  # fmt: skip
            top += height

    drawn = str(figures.drawing("f-bench", title, f"{said}.", draw, width=width, height=sum(heights)))
    # By itself a file has no style sheet that would choose a font.
    svg = drawn[drawn.index("<svg") : drawn.rindex("</svg>") + len("</svg>")]
    return svg.replace("<svg ", '<svg font-family="system-ui, sans-serif" font-size="12" ', 1) + "\n"


def _bars(
    axes: Axes, values: Sequence[float | None], ours: Sequence[bool], labels: figures.Labels, *, plot: float
) -> None:
    axes.set_xlim(0, max([value for value in values if value is not None], default=1) * 1.02)
    axes.set_ylim(len(values) - 0.45, -0.55)
    axes.set_yticks([])
    axes.set_xticks([])
    for y, (value, own) in enumerate(zip(values, ours, strict=True)):
        if value is not None:
            axes.barh([y], [value], height=0.6, color=figures.COLOURS[0] if own else figures.MUTED)
        text = "–" if value is None else _short(value)
        axes.text(1 + 8 / plot, y, labels(text), transform=axes.get_yaxis_transform(), va="center", color=figures.INK)


def _short(value: float) -> str:
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value:,.0f}"


def _said(value: float | None, what: str) -> str:
    return f"no {what}" if value is None else f"{value:,.0f} {what}"
