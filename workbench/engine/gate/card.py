"""Verdicts that come with a model: what its card, model.toml, says of engines built from it, on more texts than a
checkout carries.

    [[engines]]
    precision = "int8"
    runtime = "onnxruntime"
    ...
    [engines.sets]
    zh_takeaway = { task = "sentiment", metric = "accuracy", n = 11987, delta = -0.09, interval = [-0.21, 0.02], ... }

They were measured on another machine with the very same graph: a network converted in the same way, with the same
ranges, and read by the same tokenizer and thresholds. So they say what the conversion costs, not what this machine
makes of it; for that an engine is judged here, too, on the project's validation sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from workbench.engine.gate.statistics import verdict
from workbench.runtime.manifest import Manifest

__all__ = ["DECIDING", "Evidence", "conversion", "find_evidence"]

DECIDING: Final = 3000
"""Texts that a set must have for its verdict to count where a smaller one decides nothing."""

_SAME: Final = ("model_sha256", "reading_sha256", "graph_sha256", "precision", "runtime", "layout")
"""The keys of a card's engine that must be those of an engine for its verdicts to hold for it."""


@dataclass(frozen=True)
class Evidence:
    """One set of a card. ``delta`` and ``interval`` in points, engine minus FP32."""

    name: str
    task: str
    metric: str
    n: int
    delta: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.delta:+.2f} [{low:+.2f}, {high:+.2f}] on {self.n:,} texts, {self.name}"


def conversion(manifest: Manifest) -> dict[str, Any]:
    """What an engine was converted from and how, as a card states it."""
    calibration = manifest.calibration or {}
    return {
        "precision": manifest.precision,
        "runtime": manifest.runtime,
        "layout": manifest.layout,
        "recipe": list(manifest.recipe),
        "method": str(calibration.get("method", "")),
        "calibration_sha256": str(calibration.get("data_sha256", "")),
        "model_sha256": manifest.model_sha256,
        "reading_sha256": manifest.reading_sha256,
        "graph_sha256": manifest.graph_sha256,
    }


def find_evidence(
    card: Mapping[str, Any], manifest: Manifest, task: str, *, metric: str, budget: float
) -> Evidence | None:
    """The largest set of ``card`` on which engines like this one pass for ``task`` at ``budget`` points.

    None where no set of ``DECIDING`` texts or more was judged by ``metric``, or one of them is no pass. What is not
    in the card's form counts as not there.
    """
    found = [item for item in _evidence(card, manifest) if item.task == task and item.metric == metric]
    large = [item for item in found if item.n >= DECIDING]
    if not large or any(verdict(item.delta, item.interval, budget) != "pass" for item in large):
        return None
    return max(large, key=lambda item: item.n)


def _evidence(card: Mapping[str, Any], manifest: Manifest) -> Iterator[Evidence]:
    wanted = {key: value for key, value in conversion(manifest).items() if key in _SAME}
    engines = card.get("engines")
    for engine in engines if isinstance(engines, list) else ():
        sets = engine.get("sets") if isinstance(engine, Mapping) else None
        if not isinstance(sets, Mapping) or any(engine.get(key) != value for key, value in wanted.items()):
            continue
        for name, item in sets.items():
            if (read := _read(str(name), item)) is not None:
                yield read


def _read(name: str, item: Any) -> Evidence | None:
    try:
        low, high = item["interval"]
        return Evidence(
            name=name,
            task=str(item["task"]),
            metric=str(item["metric"]),
            n=int(item["n"]),
            delta=float(item["delta"]),
            interval=(float(low), float(high)),
        )
    except (KeyError, TypeError, ValueError):
        return None
