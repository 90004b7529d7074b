"""Verdicts into manifests, where the scorer and `workbench engines list` find them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.engine.gate.result import GateResult
from workbench.engine.gate.validation import is_another_set, project_sha256
from workbench.runtime.manifest import read_manifest, write_manifest

__all__ = ["store_gate"]

logger = logging.getLogger(__name__)


def store_gate(folder: Path, gate: Mapping[str, GateResult]) -> None:
    """Write the verdicts of ``gate`` into the manifest in ``folder``; those of other tasks stay.

    A fail on the project's own validation set stays, too, until that set is read again: no other one takes it back.
    """
    manifest = read_manifest(folder)  # again: it may have another task's verdict by now
    merged = dict(manifest.gate)
    for task, result in gate.items():
        old = manifest.gate.get(task, {})
        if _failed_here(task, old) and (not result.data_sha256 or is_another_set(task, result.data_sha256)):
            logger.warning(
                "%s failed %s on the project's own validation set, and that verdict stays. Judge it there again: "
                "workbench engines compare --task %s",
                manifest.engine_id,
                task,
                task,
            )
            continue
        merged[task] = _with_old_speed(result, old)
    if merged != manifest.gate:
        write_manifest(folder, replace(manifest, gate=merged))


def _failed_here(task: str, old: Mapping[str, Any]) -> bool:
    return old.get("verdict") == "fail" and old.get("data_sha256", "") == project_sha256(task)


def _with_old_speed(result: GateResult, old: Mapping[str, Any]) -> dict[str, Any]:
    """``result`` for a manifest; where it was not timed, with the speed that was measured on this machine before."""
    new = result.to_dict()
    if result.measured_on and result.texts_per_s is None and old.get("measured_on") == result.measured_on:
        new |= {key: old.get(key) for key in ("texts_per_s", "reference_texts_per_s")}
    return new
