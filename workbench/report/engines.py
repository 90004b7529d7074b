"""A comparison of engines as tables, and as one HTML page, one Markdown file and one JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
from markupsafe import Markup, escape

from workbench.engine.compare import Comparison, said_of_set
from workbench.engine.gate import GateResult
from workbench.engine.search import SearchResult
from workbench.files import write_text
from workbench.report.figure_engines import accuracy_figure, search_figure, speed_figure
from workbench.report.frames import frame_table
from workbench.report.html import clean, style_sheet
from workbench.runtime.manifest import Manifest
from workbench.scoring.choosing import Choice

__all__ = [
    "accuracy_frame",
    "build_frame",
    "choice_frame",
    "comparison_html",
    "comparison_markdown",
    "markdown_table",
    "sensitivity_frame",
    "slice_frame",
    "speed_frame",
    "step_frame",
    "write_comparison",
    "write_search",
]

_METHOD: Final = (
    "All values are in points (hundredths); FP32 is the model folder itself in onnxruntime. The interval is at 95 %: "
    "Tango’s score interval for accuracy, for F1 the paired bootstrap (10,000 resamples, whole texts), where fewer "
    "than ten answers differ no narrower than the number of texts allows. p: McNemar’s exact test on texts wholly "
    "right. Pass: the interval’s lower end lies above minus the budget. Fail: the difference is larger than the "
    "budget and the engine is worse beyond doubt. Inconclusive: neither; “would decide” is the number of texts "
    "like these that decides four times in five."
)
_SPEED: Final = (
    "One run at a time, all outputs, the same batches in turn, without tokenizing. Best batch: the size with the "
    "most texts a second."
)
_SENSITIVITY: Final = (
    "Each group alone in INT8, everything else as it is; the mean KL divergence of the task\u2019s probabilities "
    "from FP32 on calibration texts."
)


def accuracy_frame(comparison: Comparison) -> pl.DataFrame:
    """One row for each task and engine: values, difference, interval, flips, McNemar's p, verdict."""
    rows: list[dict[str, Any]] = []
    for task in comparison.tasks:
        for row in comparison.engines:
            result = row.gate.get(task)
            if result is not None:
                rows.append(
                    {
                        "task": task,
                        "engine": row.title,
                        "verdict": f"{result.verdict}{said_of_set(result)}",
                        **_accuracy(result),
                        "id": row.name,
                    }
                )
    return pl.DataFrame(rows, infer_schema_length=None)


def _accuracy(result: GateResult) -> dict[str, Any]:
    measured = result.verdict != "unmeasured"
    values: dict[str, Any] = {
        "FP32": result.reference,
        "value": result.candidate,
        "difference": result.delta,
        "interval": f"{result.interval[0]:+.2f} to {result.interval[1]:+.2f}",
        "flips": f"{result.flips.n:,} ({result.flips.rate:.1f} %)",
        "texts": result.n,
        "would decide": result.needed,
        "p": f"{result.mcnemar_p:.3f}" if result.mcnemar_p >= 0.0005 else "<0.001",
    }
    shown = values if measured else dict.fromkeys(values)
    return {**shown, "budget": result.budget, "metric": result.metric}


def build_frame(manifests: Sequence[Manifest]) -> pl.DataFrame:
    """One row for each engine that was built: what, for where, how large, how long it took, how it was checked."""
    rows = [
        {
            "precision": item.precision,
            "runtime": f"{item.runtime} {item.runtime_version}",
            "target": item.target,
            "MB": item.plan_bytes / 1e6,
            "build s": item.build_s,
            "caches used": item.cached,
            "checked": item.verified,
            "kept from INT8": ", ".join(item.recipe) or None,
            "id": item.engine_id,
        }
        for item in manifests
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def choice_frame(choices: Sequence[Choice]) -> pl.DataFrame:
    """One row for each task: which engine scoring takes, and why."""
    rows = [
        {
            "task": choice.task,
            "read by": choice.manifest.precision if choice.manifest is not None else "fp32 model",
            "why": choice.why,
        }
        for choice in choices
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def speed_frame(comparison: Comparison) -> pl.DataFrame:
    """One row for each engine, FP32 first: size, time for one text, best batch, texts a second."""
    rows = []
    for row in comparison.rows:
        single, best = row.single, row.best
        rows.append(
            {
                "engine": "FP32 model" if row is comparison.reference else row.title,
                "MB": row.plan_bytes / 1e6,
                "one text, p50 ms": single.p50_ms if single else None,
                "p95 ms": single.p95_ms if single else None,
                "best batch": best.batch if best else None,
                "batch p50 ms": best.p50_ms if best else None,
                "batch p95 ms": best.p95_ms if best else None,
                "texts/s": round(best.texts_per_s) if best else None,
                "times FP32": row.times,
                "build s": row.build_s,
                "stale": "; ".join(row.stale) or None,
                "id": row.name,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def slice_frame(comparison: Comparison, task: str) -> pl.DataFrame:
    """One row for each part of a task's texts: how often it is there, FP32, and what each engine loses or gains."""
    rows: dict[str, dict[str, Any]] = {}
    for row in comparison.engines:
        result = row.gate.get(task)
        for name, part in (result.slices if result else {}).items():
            kind, _, value = name.partition("=")
            shown = rows.setdefault(name, {"part": kind, "is": value, "n": part.n, "FP32": part.reference})
            shown[f"{row.title} ({row.name[:6]})"] = part.delta
    return pl.DataFrame(list(rows.values()), infer_schema_length=None)


def step_frame(result: SearchResult) -> pl.DataFrame:
    """One row for each engine a search tried: groups kept back, difference, verdict, estimated time."""
    rows = [
        {
            "kept": len(step.keep),
            "group returned": step.keep[-1] if step.keep else None,
            "difference": step.result.delta,
            "interval": f"{step.result.interval[0]:+.2f} to {step.result.interval[1]:+.2f}",
            "flips": f"{step.result.flips.n:,} ({step.result.flips.rate:.1f} %)",
            "verdict": step.result.verdict,
            "estimated time": step.cost,
            "chosen": step is result.chosen,
        }
        for step in result.steps
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def sensitivity_frame(result: SearchResult) -> pl.DataFrame:
    """One row for each group, the most sensitive first: KL divergence (in thousandths of a nat), part of the work."""
    rows = [
        {"group": item.group, "divergence, millinats": item.divergence * 1000, "% of the work": item.work * 100}
        for item in result.sensitivities
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def write_search(result: SearchResult, folder: Path) -> Path:
    """Write search-<task>.html into ``folder``; returns its path."""
    html = folder / f"search-{result.task}.html"
    body = Markup("\n").join(
        [
            Markup("<h1>Mixed precision for {} of {}</h1>").format(result.task, result.model),
            *(Markup("<p>{}</p>").format(line) for line in result.summary().splitlines()),
            search_figure(result),
            Markup("<h2>Engines tried</h2>"),
            _table(step_frame(result)),
            Markup("<h2>Sensitivity</h2><p class='muted'>{}</p>").format(_SENSITIVITY),
            _table(sensitivity_frame(result)),
        ]
    )
    write_text(html, _page(f"Mixed precision for {result.task} of {result.model}", body))
    return html


def comparison_html(comparison: Comparison) -> str:
    """One page that opens anywhere: figures and tables."""
    parts = [
        Markup("<h2>Accuracy</h2>"),
        accuracy_figure(comparison),
        _table(accuracy_frame(comparison)),
        Markup("<p class='muted'>{}</p>").format(_METHOD),
        Markup("<h2>Speed and size</h2>"),
        speed_figure(comparison),
        _table(speed_frame(comparison)),
        Markup("<p class='muted'>{}</p>").format(_SPEED),
    ]
    for task in comparison.tasks:
        if any(task in row.gate for row in comparison.engines):
            parts += [Markup("<h2>{}, by part</h2>").format(task.capitalize()), _table(slice_frame(comparison, task))]
    sets = ", ".join(f"{task} {len(item):,} texts ({item.sha256[:12]})" for task, item in comparison.sets.items())
    head = Markup("<h1>Engines of {}</h1><p class='muted'>{}, {} UTC. Validation sets: {}.</p>").format(
        comparison.model, comparison.host, comparison.made_at[:16].replace("T", " "), sets
    )
    return _page(f"Engines of {comparison.model}", head + Markup("\n").join(parts))


def _page(title: str, body: Markup) -> str:
    return _PAGE.format(title=escape(title), style=style_sheet(), body=body)


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
body {{ margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.25rem 4rem; background: #fff; }}
.wb h2 {{ margin-top: 2.4rem; }}
.wb .scroll {{ overflow-x: auto; margin-top: 1rem; }}
.wb .scroll table {{ border-collapse: collapse; font-size: .88rem; }}
.wb .scroll :is(th, td) {{ padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #dfe3e8; }}
.wb .muted {{ margin-top: .8rem; font-size: .9rem; }}
.wb figure {{ margin-top: 1rem; }}
.wb figcaption {{ font-weight: 600; margin-bottom: .4rem; }}
</style>
</head>
<body class="wb">
<main>
{body}
</main>
</body>
</html>
"""


def _table(frame: pl.DataFrame) -> Markup:
    return Markup('<div class="scroll" tabindex="0" role="region" aria-label="table">{}</div>').format(
        frame_table(frame, empty="There are no engines beside FP32. Build some: workbench engines build")
    )


def comparison_markdown(comparison: Comparison) -> str:
    """The same tables for a pull request or a model card."""
    parts = [
        f"# Engines of {comparison.model}",
        f"{comparison.host}, {comparison.made_at[:16].replace('T', ' ')} UTC",
        "## Accuracy",
        markdown_table(accuracy_frame(comparison)),
        _METHOD,
        "## Speed and size",
        markdown_table(speed_frame(comparison)),
        _SPEED,
    ]
    for task in comparison.tasks:
        parts += [f"## {task.capitalize()}, by part", markdown_table(slice_frame(comparison, task))]
    return "\n\n".join(parts) + "\n"


def markdown_table(frame: pl.DataFrame) -> str:
    """A frame as a Markdown table, numbers to the right."""
    if frame.is_empty():
        return "There is none."
    align = ["---:" if kind.is_numeric() else "---" for kind in frame.schema.values()]
    lines = [_line(frame.columns), f"|{'|'.join(align)}|", *(_line(row) for row in frame.iter_rows())]
    return "\n".join(lines)


def _line(values: Sequence[Any]) -> str:
    return f"| {' | '.join(_cell(value) for value in values)} |"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return clean(str(value)).replace("|", "\\|")


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write compare.html, compare.md and compare.json into ``folder``; returns the HTML's path."""
    html = folder / "compare.html"
    write_text(html, comparison_html(comparison))
    write_text(folder / "compare.md", comparison_markdown(comparison))
    write_text(folder / "compare.json", comparison.to_json())
    return html
