"""Engines beside FP32, drawn: what accuracy they cost, how fast they are, and what a search found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.engine.compare import Comparison, EngineRow
from workbench.engine.gate import GateResult, Verdict
from workbench.engine.search import SearchResult
from workbench.report import figures
from workbench.report.html import plural, words

__all__ = ["accuracy_figure", "search_figure", "speed_figure"]

_VERDICTS: Final[tuple[Verdict, ...]] = ("pass", "inconclusive", "fail", "unmeasured")
# Colour is always paired with the marker and the word.
_COLOUR: Final = dict(zip(_VERDICTS, ("#007a5a", "#b07d00", "#c03030", "#566070"), strict=True))
_SAID: Final[Mapping[Verdict, tuple[str, str]]] = {
    "fail": ("costs too much", "cost too much"),
    "inconclusive": ("needs more texts", "need more texts"),
    "pass": ("passes", "pass"),
}
_MARKER: Final = dict(zip(_VERDICTS, ("o", "D", "s", "x"), strict=True))


def accuracy_figure(comparison: Comparison) -> Markup:
    """The difference to FP32 of every engine and task with its 95 % interval, beside the budget it must not cross."""
    rows = [
        (row, result) for task in comparison.tasks for row in comparison.engines if (result := row.gate.get(task))
    ]
    measured = [(row, result) for row, result in rows if result.verdict != "unmeasured"]
    if not measured:
        return Markup("<p>No engine beside FP32 could be measured here.</p>")
    names = [_name(row, result, comparison) for row, result in rows]
    said = "; ".join(f"{row.title}: {result.summary()}" for row, result in rows)

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        height = made.get_figheight() * 72
        left = min(max(figures.text_width(name) for name in names) + 16, width * 0.42)
        right, bottom, top = 150, 40, 8
        axes = made.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
        plot = width - left - right
        ends = [end for _, item in measured for end in (*item.interval, -item.budget)]
        low, high = min(*ends, 0), max(*ends, 0)
        axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_yticks([])
        axes.axvline(0, color=figures.MUTED, lw=1)
        axes.grid(axis="x", color=figures.GRID, lw=0.8)
        axes.set_axisbelow(True)
        for y, ((_, result), name) in enumerate(zip(rows, names, strict=True)):
            _difference(axes, y, result)
            measured_here = result.verdict != "unmeasured"
            text = f"{_signed(result.delta)}  {result.verdict}" if measured_here else "unmeasured"
            figures.label_row(axes, y, labels(name, 44), labels(text), width=plot)
        axes.set_xlabel(labels("points against FP32, 95 % interval; the upright stroke is the budget", 80), size=11)

    return figures.drawing("f-accuracy", _accuracy_title(measured), f"{said}.", draw, height=64 + 28 * len(rows))


def _difference(axes: Axes, y: float, result: GateResult) -> None:
    if result.verdict == "unmeasured":
        return
    colour = _COLOUR[result.verdict]
    axes.plot([-result.budget] * 2, [y - 0.34, y + 0.34], color=figures.INK, lw=2, solid_capstyle="butt")
    axes.plot(result.interval, [y, y], color=colour, lw=2.4, solid_capstyle="butt")
    axes.plot([result.delta], [y], ls="", marker=_MARKER[result.verdict], ms=7.5, mfc=colour, mec="white", mew=0.8)


def _accuracy_title(measured: Sequence[tuple[EngineRow, GateResult]]) -> str:
    parts = []
    verdicts: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")
    for verdict in verdicts:  # the worst first
        own = [(row, result) for row, result in measured if result.verdict == verdict]
        if own:
            who = sorted({f"{row.precision.upper()} on {result.task}" for row, result in own})
            one, many = _SAID[verdict]
            shown = words(who) if len(who) <= 3 else plural(len(who), "comparison")
            parts.append(f"{shown} {one if len(who) == 1 else many}")
    return "; ".join(parts)


def _name(row: EngineRow, result: GateResult, comparison: Comparison) -> str:
    return f"{row.title}" if len(comparison.tasks) == 1 else f"{result.task}, {row.title}"


def speed_figure(comparison: Comparison) -> Markup:
    """Milliseconds for one text (median, line to the 95th percentile), and texts a second at the best batch size."""
    rows = [row for row in comparison.rows if row.single and row.best]
    if len(rows) < 2:
        return Markup("<p>Speed was not measured.</p>")
    names = ["FP32 model" if row is comparison.reference else row.title for row in rows]
    said = "; ".join(
        f"{name}: one text {row.single.p50_ms:.2f} ms, 95th percentile {row.single.p95_ms:.2f} ms; "
        f"{row.best.texts_per_s:,.0f} texts a second at {row.best.batch}"
        for name, row in zip(names, rows, strict=True)
        if row.single and row.best
    )

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        height = made.get_figheight() * 72
        left = min(max(figures.text_width(name) for name in names) + 16, width * 0.36)
        gap, right, bottom, top = 96.0, 92.0, 40.0, 28.0
        plot = (width - left - gap - right) / 2
        first, second = (
            made.add_axes((x / width, bottom / height, plot / width, 1 - (bottom + top) / height))
            for x in (left, left + plot + gap)
        )
        slowest = max(row.single.p95_ms for row in rows if row.single)
        most = max(row.best.texts_per_s for row in rows if row.best)
        for axes, limit in ((first, slowest), (second, most)):
            axes.set_xlim(0, limit * 1.04)
            axes.set_ylim(len(rows) - 0.45, -0.55)
            axes.set_yticks([])
            axes.grid(axis="x", color=figures.GRID, lw=0.8)
            axes.set_axisbelow(True)
            axes.locator_params(axis="x", nbins=4)
        for y, (row, name) in enumerate(zip(rows, names, strict=True)):
            single, best = row.single, row.best
            if single is None or best is None:
                continue
            colour = figures.MUTED if row is comparison.reference else figures.COLOURS[0]
            first.plot([single.p50_ms, single.p95_ms], [y, y], color=colour, lw=2.4, solid_capstyle="butt")
            first.plot([single.p50_ms], [y], ls="", marker="o", ms=7.5, mfc=colour, mec="white", mew=0.8)
            figures.label_row(first, y, labels(name, 40), labels(f"{single.p50_ms:.2f}"), width=plot)
            second.barh([y], [best.texts_per_s], height=0.56, color=colour)
            second.text(
                1 + 8 / plot,
                y,
                labels(f"{best.texts_per_s:,.0f} at {best.batch}"),
                transform=second.get_yaxis_transform(),
                va="center",
                color=figures.INK,
            )
        first.set_title(labels("One text: ms, line to p95"), loc="left", size=12, color=figures.INK)
        second.set_title(labels("Texts a second, best batch"), loc="left", size=12, color=figures.INK)

    return figures.drawing("f-speed", _speed_title(comparison, rows), f"{said}.", draw, height=76 + 30 * len(rows))


def _speed_title(comparison: Comparison, rows: Sequence[EngineRow]) -> str:
    base = comparison.reference.best
    ours = [row for row in rows if row is not comparison.reference]
    fastest = max(ours, key=lambda row: row.best.texts_per_s if row.best else 0)
    if base is None or fastest.best is None:
        return "Speed"
    ratio = fastest.best.texts_per_s / base.texts_per_s
    said = f"{ratio:.2f} times the texts a second of the FP32 model on {comparison.host}"
    return (
        f"{fastest.title}: {said}" if ratio > 1 else f"Nothing is faster than the FP32 model; {fastest.title}: {said}"
    )


def search_figure(result: SearchResult) -> Markup:
    """Accuracy against speed, a point for each number of groups kept back; budget and choice are marked."""
    steps = result.steps
    said = "; ".join(
        f"{len(step.keep)} kept: {_signed(step.result.delta)} points, {step.cost:.2f} of FP16's time"
        for step in steps
    )
    chosen = result.chosen
    if chosen is None:
        title = f"No choice of groups holds {result.task} within {result.budget:g} points"
    else:
        kept = plural(len(chosen.keep), "group") if chosen.keep else "no group"
        whole = f"{kept} of {len(result.sensitivities)}"
        title = f"Keeping {whole} in FP16 holds {result.task} within {result.budget:g} points"
        title += "" if result.holds else ", but not in the engine that was built"

    def draw(made: Figure, labels: figures.Labels, width: int) -> None:
        height = made.get_figheight() * 72
        left, right, bottom, top = 56, 24, 44, 12
        axes = made.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
        axes.grid(color=figures.GRID, lw=0.8)
        axes.set_axisbelow(True)
        axes.axhline(-result.budget, color=figures.INK, lw=1.6)
        axes.axhline(0, color=figures.MUTED, lw=1)
        axes.plot([s.cost for s in steps], [s.result.delta for s in steps], color=figures.MUTED, lw=1.2)
        for step in steps:
            colour = _COLOUR[step.result.verdict]
            axes.plot([step.cost] * 2, step.result.interval, color=colour, lw=1.4, alpha=0.55)
            big = 11 if step is chosen else 6.5
            axes.plot(
                [step.cost],
                [step.result.delta],
                ls="",
                marker=_MARKER[step.result.verdict],
                ms=big,
                mfc=colour,
                mec="white",
                mew=0.8,
            )
            if step is chosen or step is steps[0] or step is steps[-1]:
                axes.annotate(
                    labels(f"{len(step.keep)} kept"), (step.cost, step.result.delta), xytext=(0, 12),
                    textcoords="offset points", ha="center", color=figures.INK, size=11,
                )  # fmt: skip
        axes.margins(0.08, 0.12)
        axes.set_xlabel(labels("estimated time, 1 = all products in FP16", 80), size=11)
        axes.set_ylabel(labels("points against FP32"), size=11)

    return figures.drawing("f-search", title, f"{said}.", draw, height=320)


def _signed(value: float) -> str:
    return f"{value + 0.0:+.2f}".replace("-", "−")
