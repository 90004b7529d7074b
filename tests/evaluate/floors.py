"""The gate: scores that may not fall, in ``floors.json``, with the hash of the data they were measured on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("floors.json")
SAMPLE = 5
"""The gate in the tests takes every fifth page."""
SLACK = 0.005
"""How much a score may lie under its floor: libraries differ a little between Python versions."""

# Not scores: a lower number of exceptions is better, and milliseconds belong to a machine.
_NO_FLOOR = ("exceptions", "ms_per_page")


@dataclass(frozen=True)
class Floor:
    """Scores, and the file they were measured on."""

    data: Path
    scores: Mapping[str, float]


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_falls(name: str, measured: Floor, *, file: Path = FILE) -> list[str]:
    """One line for each score under its floor; a message when the data is not the one the floors are for."""
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if name not in known:
        command = "models" if name.startswith("models") else "extraction"
        return [
            f"{name}: there are no floors yet. Run python -m tests.evaluate {command} --data FOLDER --update-floors"
        ]
    if known[name]["sha256"] != sha256(measured.data):
        return [f"{name}: floors are for other data than {measured.data}"]
    return [
        f"{name}: {score} is {measured.scores.get(score, 0.0):.4f}, floor {floor:.4f}"
        for score, floor in known[name]["scores"].items()
        if measured.scores.get(score, 0.0) < floor - SLACK
    ]


def update(measured: Mapping[str, Floor], *, allow_lower: bool = False, file: Path = FILE) -> list[str]:
    """Make the scores the new floors. Writes nothing and returns what would fall, unless ``allow_lower``."""
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    lowered: list[str] = []
    for name, floor in measured.items():
        scores = {key: round(value, 4) for key, value in sorted(floor.scores.items()) if key not in _NO_FLOOR}
        before = known.get(name, {}).get("scores", {})
        lowered += [
            f"{name}: {key} {value} to {scores.get(key)}"
            for key, value in before.items()
            if scores.get(key, 0.0) < value
        ]
        known[name] = {"sha256": sha256(floor.data), "scores": scores}
    if lowered and not allow_lower:
        return lowered
    file.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", "utf-8")
    return []
