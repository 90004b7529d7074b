"""Texts with the truth, to judge engines by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from workbench.errors import ParameterError
from workbench.settings import settings
from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TASKS, TOPICS

__all__ = ["ValidationSet", "is_another_set", "project_sha256", "read_validation"]

_LEAST_HALF: Final = 150
"""Texts without which half a set decides nothing: unseen, 2.5 points would be left open."""

_KEYS: Final = {"sentiment": "label", "topics": "labels", "entities": "entities"}
_SLICES: Final = ("language", "stratum")


@dataclass(frozen=True)
class ValidationSet:
    """Texts and what is true of them, one entry each: a sentiment, topics, or (start, end, type) triples.

    ``slices``: language and stratum of each text, where the file states them for all. ``sha256`` is that of the file.
    """

    task: str
    texts: tuple[str, ...]
    gold: tuple[Any, ...]
    sha256: str
    path: Path
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are there at least once."""
        if self.task == "sentiment":
            there = set(self.gold)
        elif self.task == "topics":
            there = {label for item in self.gold for label in item}
        else:
            there = {label for item in self.gold for _, _, label in item}
        return tuple(label for label in _LABELS[self.task] if label in there)

    def halves(self) -> tuple[ValidationSet, ValidationSet] | None:
        """Two halves, told by a hash of each text, so that a text stays in its half when others are added.

        None where a half would be too small, or have fewer sentiments than the whole: it would be read otherwise.
        """
        first = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 0 for text in self.texts]
        one, two = self._part(first), self._part([not kept for kept in first])
        if min(len(one), len(two)) < _LEAST_HALF:
            return None
        if self.task == "sentiment" and not one.labels == two.labels == self.labels:
            return None
        return one, two

    def _part(self, kept: Sequence[bool]) -> ValidationSet:
        def pick(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(value for value, keep in zip(values, kept, strict=True) if keep)

        texts = pick(self.texts)
        digest = hashlib.sha256(json.dumps([self.sha256, *texts]).encode()).hexdigest()
        slices = {name: pick(values) for name, values in self.slices.items()}
        return replace(self, texts=texts, gold=pick(self.gold), sha256=digest, slices=slices)


_LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "sentiment": SENTIMENTS,
    "topics": TOPICS,
    "entities": ENTITY_TYPES,
}


def read_validation(task: str, path: Path | str | None = None) -> ValidationSet:
    """Read the validation set of ``task``: calibration/<task>/validation.jsonl, or another file of the same form.

    One JSON object a line with "text" and "label", "labels" or "entities"; "language" and "stratum" may be missing.
    Raises ParameterError when the file is missing, or with the line that is wrong.
    """
    if task not in TASKS:
        raise ParameterError(f"No task is named {task!r}. Tasks: {', '.join(TASKS)}")
    file = Path(path) if path is not None else _project_file(task)
    if not file.is_file():
        raise ParameterError(
            f"There is no validation set {file}. Name a file of JSON lines, or get the project's own back with: "
            "git checkout -- calibration"
        )
    data = file.read_bytes()
    rows, gold = [], []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append({**row, "text": _text(row["text"])})
            gold.append(_truth(task, row))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ParameterError(f"{file}, line {number}: {said}. Mend that line and try again.") from None
    if not rows:
        raise ParameterError(f"{file} holds no text. Name a file of JSON lines with text and {_KEYS[task]}.")
    slices = {name: tuple(str(row[name]) for row in rows) for name in _SLICES if all(row.get(name) for row in rows)}
    return ValidationSet(
        task=task,
        texts=tuple(row["text"] for row in rows),
        gold=tuple(gold),
        sha256=hashlib.sha256(data).hexdigest(),
        path=file,
        slices=slices,
    )


def _project_file(task: str) -> Path:
    return settings().home / "calibration" / task / "validation.jsonl"


def project_sha256(task: str) -> str | None:
    """Of the project's own validation set as it is now; None where there is none."""
    try:
        return hashlib.sha256(_project_file(task).read_bytes()).hexdigest()
    except OSError:
        return None


def is_another_set(task: str, data_sha256: str) -> bool:
    """Whether a verdict rests on other texts than the project's, where both are known."""
    return bool(data_sha256) and project_sha256(task) not in (None, data_sha256)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"text is {value!r}, not a text")
    return value


def _truth(task: str, row: Mapping[str, Any]) -> Any:
    value = row[_KEYS[task]]
    if task == "sentiment":
        return _one_of(value, SENTIMENTS)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{_KEYS[task]} is {value!r}, not a list")
    if task == "topics":
        return tuple(_one_of(item, TOPICS) for item in value)
    return tuple((int(item["start"]), int(item["end"]), _one_of(item["label"], ENTITY_TYPES)) for item in value)


def _one_of(value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return str(value)
