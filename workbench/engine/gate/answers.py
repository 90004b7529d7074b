"""What an engine says about a validation set, in the form ``judge`` takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.engine.gate.validation import ValidationSet
from workbench.runtime.read import read_texts
from workbench.runtime.session import Session
from workbench.tasks.labels import SENTIMENTS

__all__ = ["read_answers"]


def read_answers(session: Session, texts: ValidationSet, *, progress: bool = False) -> list[Any]:
    """One answer for each text, None where there is none: as a user of the engine would get it, with one exception.

    Where a sentiment set has no neutral texts (two-class reviews), the larger of the labels it has is taken: such a
    set says nothing about neutral. Raises ModelError when the engine does not give the task.
    """
    reading = read_texts(session, texts.texts, (texts.task,), progress=progress)
    if texts.task == "topics":
        return list(reading.topics)
    if texts.task == "entities":
        return [
            None if found is None else tuple((entity.start, entity.end, entity.label) for entity in found)
            for found in reading.entities
        ]
    if len(texts.labels) == len(SENTIMENTS):
        return list(reading.sentiment)
    columns = [SENTIMENTS.index(label) for label in texts.labels]
    best = np.nan_to_num(reading.p_sentiment[:, columns], nan=-1.0).argmax(axis=1)
    return [
        None if answer is None else texts.labels[place] for answer, place in zip(reading.sentiment, best, strict=True)
    ]
