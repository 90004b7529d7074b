"""What section 10 says of engines in other precisions than FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxml import html
from report_world import WEEK
from scored_reviews import scored_world

from workbench.engine.gate import Flips, GateResult
from workbench.report import build_report
from workbench.report.engine_verdicts import find_verdicts, verdict_notes
from workbench.runtime.manifest import Manifest, engine_id_of, write_manifest
from workbench.tasks.labels import TASKS
from workbench.workspace import ModelChoice, Models

RESULT = GateResult(
    task="sentiment",
    metric="accuracy",
    n=456,
    reference=64.5,
    candidate=64.7,
    delta=0.22,
    interval=(-0.62, 1.23),
    bootstrap=(0.0, 0.66),
    flips=Flips(3, 0.66),
    lost=0,
    gained=1,
    mcnemar_p=1.0,
    budget=1.0,
    verdict="pass",
)


def put_engine(folder: Path, gate: dict[str, GateResult]) -> str:
    """An engine's manifest in the model folder; its id."""
    deciding: dict[str, Any] = {
        "model_sha256": "a" * 64,
        "reading_sha256": "b" * 64,
        "graph_sha256": "c" * 64,
        "precision": "int8",
        "recipe": (),
        "layout": "padded",
        "profiles": (),
        "calibration": None,
        "options": {},
        "version_compatible": False,
        "runtime": "onnxruntime",
        "runtime_version": "1.32.0",
        "gpu": None,
        "compute_capability": None,
    }
    manifest = Manifest(
        engine_id=engine_id_of(**deciding),
        model=folder.name,
        model_version="1",
        plan="model.onnx",
        plan_sha256="d" * 64,
        plan_bytes=1,
        built_at="2026-11-23T00:00:00+00:00",
        build_s=1.0,
        verified="executed",
        gate={task: result.to_dict() for task, result in gate.items()},
        **deciding,
    )
    path = folder / "plans" / manifest.engine_id
    path.mkdir(parents=True)
    write_manifest(path, manifest)
    return manifest.engine_id


def test_the_method_says_how_an_engine_differs_from_fp32(tmp_path: Path) -> None:
    world = scored_world(tmp_path / "workspace")
    engine_id = put_engine(tmp_path / "model", {"sentiment": RESULT})
    for row in world.rows["scores"]:
        row.update(engine_id=engine_id, precision="int8")
    choice = ModelChoice(path=str(tmp_path / "model"))
    models = Models(**dict.fromkeys(TASKS, choice))
    section = build_report(world.write().model_copy(update={"models": models}), WEEK).method
    text = " ".join(html.fromstring(str(section.body)).text_content().split())
    assert (
        f"The int8 engine {engine_id} for sentiment against FP32: +0.22 points of accuracy (95 % interval -0.62 to "
        "+1.23) on 456 texts, of which 3 (0.7 %) would be read otherwise in FP32; verdict pass at a budget of 1."
    ) in text
    assert f"The int8 engine {engine_id} for topics is not here any more, or was not judged" in text
    assert list(section.data["gate"]) == ["sentiment"]
    assert section.to_json()["gate"]["sentiment"]["n"] == 456


def test_fp32_needs_no_note(tmp_path: Path) -> None:
    section = build_report(scored_world(tmp_path / "workspace").write(), WEEK).method
    assert "against FP32" not in str(section.body)
    assert section.data["gate"] == {}


def test_what_was_not_measured_or_is_damaged_is_not_known(tmp_path: Path) -> None:
    unmeasured = GateResult.unmeasured("topics", "macro_f1", budget=1.0, reason="no GPU")
    engine_id = put_engine(tmp_path, {"topics": unmeasured})
    used = [{"task": "topics", "precision": "int8", "engine_id": engine_id}]
    found = find_verdicts([tmp_path / "none", tmp_path], used)
    assert found["topics"].verdict == "unmeasured"
    (note,) = verdict_notes(used, found)
    assert "cannot be shown" in note
    (tmp_path / "plans" / engine_id / "manifest.json").write_text("{")
    assert find_verdicts([tmp_path], used) == {}
