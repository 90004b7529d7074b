"""What an engine says of whole sets, as a small file: read where the engine runs, judged anywhere.

One .npz for an engine: ``about`` (JSON: what the engine is and where it ran), and for each set an array of codes

    sentiment   uint8 [N]: place in SENTIMENTS, 255 for no answer
    topics      int16 [N]: bit k for TOPICS[k], -1 for no answer
    entities    int32 [M, 4]: text, start, end, place in ENTITY_TYPES

with a fingerprint of the set's texts and labels, so that answers are never judged against other texts.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.evaluate.model_sets import LabelledSet, fingerprint
from tests.evaluate.models import columns_of
from workbench.engine.gate import ValidationSet, read_answers
from workbench.runtime import Session
from workbench.runtime.read import read_texts
from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TOPICS

__all__ = ["Answers", "decode", "encode", "read_engine", "read_set"]

_NONE = 255


@dataclass(frozen=True)
class Answers:
    """``about``: engine_id, model, what was converted and how (workbench.engine.gate.card), runtime_version, target,
    machine, date. ``sets``: the answers to each set, by its name; ``prints``: the sets' fingerprints."""

    about: Mapping[str, Any]
    sets: Mapping[str, Sequence[Any]]
    prints: Mapping[str, str]

    def write(self, file: Path, tasks: Mapping[str, str]) -> None:
        """``tasks``: the task of each set."""
        codes = {f"set:{name}": encode(tasks[name], answers) for name, answers in self.sets.items()}
        about = {
            "engine": dict(self.about),
            "sets": {n: {"task": tasks[n], "print": self.prints[n], "n": len(self.sets[n])} for n in self.sets},
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, about=np.array(json.dumps(about, ensure_ascii=False)), **codes)
        part.replace(file)

    @classmethod
    def read(cls, file: Path) -> Answers:
        """Raises ValueError when the file is none of these."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                sets = {
                    name: decode(item["task"], stored[f"set:{name}"], int(item["n"]))
                    for name, item in about["sets"].items()
                }
        except (KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{file} holds no answers of an engine: {error}") from None
        return cls(about["engine"], sets, {name: item["print"] for name, item in about["sets"].items()})


def encode(task: str, answers: Sequence[Any]) -> NDArray[Any]:
    """Answers in the gate's form as codes; entities of other types than ENTITY_TYPES are left out."""
    if task == "sentiment":
        return np.array([_NONE if a is None else SENTIMENTS.index(a) for a in answers], np.uint8)
    if task == "topics":
        return np.array(
            [-1 if a is None else sum(1 << TOPICS.index(label) for label in set(a)) for a in answers], np.int16
        )
    rows = [
        (text, start, end, ENTITY_TYPES.index(label))
        for text, found in enumerate(answers)
        for start, end, label in found or ()
        if label in ENTITY_TYPES
    ]
    return np.array(rows, np.int32).reshape(-1, 4)


def decode(task: str, codes: NDArray[Any], n: int) -> list[Any]:
    """The answers of ``n`` texts again. A text without a readable word has no entities rather than no answer."""
    if task == "sentiment":
        return [None if code == _NONE else SENTIMENTS[code] for code in codes.tolist()]
    if task == "topics":
        return [
            None if code < 0 else tuple(label for bit, label in enumerate(TOPICS) if code >> bit & 1)
            for code in codes.tolist()
        ]
    found: list[list[tuple[int, int, str]]] = [[] for _ in range(n)]
    for text, start, end, label in codes.tolist():
        found[text].append((start, end, ENTITY_TYPES[label]))
    return [tuple(spans) for spans in found]


def read_set(session: Session, labelled: LabelledSet, *, progress: bool = False) -> list[Any]:
    """One answer for each text, as the gate takes them. Of a set with one topic a text, the likeliest it has."""
    texts = [text.text for text in labelled.texts]
    if labelled.single:
        reading = read_texts(session, texts, ("topics",), progress=progress)
        shares = columns_of(reading, labelled.labels)
        return [None if np.isnan(row).any() else (labelled.labels[int(row.argmax())],) for row in shares]
    gold = tuple(text.label for text in labelled.texts)
    own = ValidationSet(labelled.task, tuple(texts), gold, labelled.sha256, Path(labelled.name))
    return read_answers(session, own, progress=progress)


def read_engine(
    session: Session, sets: Sequence[LabelledSet], about: Mapping[str, Any], *, progress: bool = False
) -> Answers:
    """The answers to every set of a task that the model gives."""
    own = [each for each in sets if each.task in session.spec.outputs]
    answers = {each.name: read_set(session, each, progress=progress) for each in own}
    return Answers(about, answers, {each.name: fingerprint(each) for each in own})
