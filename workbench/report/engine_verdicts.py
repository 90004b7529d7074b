"""What the gate says of the engines that a report's scores come from: how they differ from FP32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.engine.gate.result import GateResult
from workbench.errors import EngineError, ParameterError
from workbench.report.html import plural
from workbench.runtime.manifest import MANIFEST, read_manifest

__all__ = ["find_verdicts", "verdict_notes"]


def find_verdicts(folders: Iterable[Path], used: Sequence[Mapping[str, Any]]) -> dict[str, GateResult]:
    """The gate's result by task, of ``used`` (task and engine_id) whose engine still lies in one of the model
    ``folders`` and was judged there."""
    found: dict[str, GateResult] = {}
    for folder in folders:
        for row in used:
            engine = folder / "plans" / str(row["engine_id"])
            if row["task"] in found or not (engine / MANIFEST).is_file():
                continue
            try:
                found[row["task"]] = GateResult.from_dict(read_manifest(engine).gate[row["task"]])
            except (EngineError, ParameterError, KeyError):
                continue  # damaged, or not judged: then nothing is known of it
    return found


def verdict_notes(used: Sequence[Mapping[str, Any]], verdicts: Mapping[str, GateResult]) -> list[str]:
    """A sentence for each task that another precision than FP32 read."""
    notes = []
    for row in used:
        if row["precision"] in (None, "fp32"):
            continue
        name = f"The {row['precision']} engine {row['engine_id']} for {row['task']}"
        result = verdicts.get(row["task"])
        if result is None or result.verdict == "unmeasured":
            notes.append(f"{name} is not here any more, or was not judged: how it differs from FP32 cannot be shown.")
            continue
        low, high = result.interval
        notes.append(
            f"{name} against FP32: {result.delta:+.2f} points of {result.metric.replace('_', ' ')} (95 % interval "
            f"{low:+.2f} to {high:+.2f}) on {plural(result.n, 'text')}, of which {result.flips.n:,} "
            f"({result.flips.rate:.1f} %) would be read otherwise in FP32; verdict {result.verdict} at a budget of "
            f"{result.budget:g}."
        )
    return notes
