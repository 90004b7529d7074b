"""model.toml of an exported checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.engine.export.labels import LabelPlan
from workbench.engine.export.toml_text import toml_key, toml_value

__all__ = ["card_text"]


def card_text(
    plan: LabelPlan, *, name: str, version: str, max_tokens: int, pad_id: int, source: Mapping[str, Any]
) -> str:
    """The text of model.toml: what the runtime reads, then where the checkpoint came from (table ``source``)."""
    output: dict[str, Any] = {"kind": plan.kind, "labels": plan.labels}
    if plan.kind == "classes":
        output["temperature"] = 1.0
    if plan.kind == "labels":
        output["thresholds"] = [0.5] * len(plan.labels)
    lines = [
        *_pairs({"name": name, "version": version, "max_tokens": max_tokens, "pad_id": pad_id}),
        "",
        f"[outputs.{plan.task}]",
        *_pairs(output),
        "",
        "[source]",
        *_pairs(source),
        "",
        "# The checkpoint's own labels and what they mean here.",
        "[source.labels]",
        *_pairs(dict(zip(plan.raw, plan.labels, strict=True))),
    ]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{toml_key(key)} = {toml_value(value)}" for key, value in table.items()]
