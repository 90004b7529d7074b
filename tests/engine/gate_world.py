"""A home with a small model, its calibration texts, and validation sets on which FP32 is right nine times in ten."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.engine.small_encoder import make_small_model
from workbench.runtime import open_session
from workbench.runtime.read import read_texts
from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TASKS, TOPICS

ROOT = Path(__file__).resolve().parents[2]
TEXTS = 90


def make_gate_home(home: Path) -> Path:
    """engines/small and calibration/ in ``home``; the notebooks too."""
    model = make_small_model(home / "engines" / "small")
    for task in TASKS:
        folder = home / "calibration" / task
        folder.mkdir(parents=True)
        source = ROOT / "calibration" / task
        lines = (source / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
        (folder / "calibration.jsonl").write_text("\n".join(lines[::4]) + "\n", encoding="utf-8")
        rows = [json.loads(line) for line in (source / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
        _write_validation(model, task, rows[:: len(rows) // TEXTS][:TEXTS], folder / "validation.jsonl")
    (home / "notebooks").mkdir()
    for name in ("02_build_engines", "compare_precisions"):
        notebook = ROOT / "notebooks" / f"{name}.ipynb"
        (home / "notebooks" / notebook.name).write_bytes(notebook.read_bytes())
    return home


def _write_validation(model: Path, task: str, rows: list[dict], path: Path) -> None:
    """Labels are what FP32 says, but for one text in ten, which gets another."""
    chance = random.Random(4)  # noqa: S311 - the same labels every time
    with open_session(model, backend="onnxruntime") as session:
        reading = read_texts(session, [row["text"] for row in rows], (task,))
    for index, row in enumerate(rows):
        wrong = chance.random() < 0.1
        if task == "sentiment":
            said = reading.sentiment[index] or "neutral"
            row["label"] = SENTIMENTS[(SENTIMENTS.index(said) + 1) % 3] if wrong else said
        elif task == "topics":
            row["labels"] = [chance.choice(TOPICS)] if wrong else list(reading.topics[index] or ["other"])
        else:
            found = reading.entities[index] or []
            row["entities"] = [
                {
                    "start": entity.start,
                    "end": entity.end,
                    "label": chance.choice(ENTITY_TYPES) if wrong else entity.label,
                    "text": entity.text,
                }
                for entity in found
            ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
