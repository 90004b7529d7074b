"""model.toml of a trained bundle: what the runtime reads, and the card: training sets, metrics, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.engine.export.toml_text import toml_key, toml_value
from workbench.engine.training.calibrate import Calibration
from workbench.engine.training.measure import Measured
from workbench.engine.training.sets import data_set
from workbench.errors import ModelError
from workbench.tasks.labels import ENTITY_TAGS, SENTIMENTS, TOPICS

if TYPE_CHECKING:
    from workbench.engine.training.batches import Arrays

__all__ = ["find_limits", "list_sets", "metrics_table", "model_toml", "toml_document"]

_KNOWN_LIMITS: Final = (
    "Reads English and Chinese. Other languages get answers too, and those mean nothing.",
    "Learned from reviews of goods, clothes, restaurants and apps; texts of other trades may be read worse.",
    "Irony, comparisons with another product and conditions (would be good if) may be taken at their word.",
    "Chinese topics were mostly learned from word lists, not from labels that somebody gave.",
)
_UNLABELLED_USE: Final = {
    "unlabelled": "pre-training, labelled by teachers",
    "segments": "labelled by teachers",
    "composed": "labelled by how they are made",
}
_POOR: Final = 0.6
_TASK_METRICS: Final = {
    "Sentiment": ("accuracy",),
    "Topics": ("accuracy_of_four", "macro_f1"),
    "Entities (F1)": ("f1_micro",),
}


def list_sets(
    arrays: Arrays,
    trained: NDArray[np.int64],
    hashes: Mapping[str, Sequence[str]] | None = None,
    *,
    taught: bool = False,
) -> list[dict[str, Any]]:
    """One table for each source in ``arrays``: name, files, licence, origin, rows used and what for, SHA-256.

    ``rows`` are those trained on; ``taught`` says that teachers labelled the unlabelled ones. Raises ModelError when
    nothing is known about a source, or when a set that is for evaluation only was trained on.
    """
    counts = np.bincount(arrays.source[trained], minlength=len(arrays.sources))
    measured = np.bincount(arrays.source[arrays.where(split="test")], minlength=len(arrays.sources))
    listed = []
    for number, source in enumerate(arrays.sources):
        item, rows = data_set(source), int(counts[number])
        if rows and item.evaluation_only:
            raise ModelError(
                f"{rows} texts of {source} were trained on, which is for evaluation only. Train without it: a bundle "
                "from these weights may not be given away."
            )
        learned = "pre-training, fine-tuning"
        if not item.labelled:
            learned = _UNLABELLED_USE[source] if taught else "pre-training"
        use = learned if rows else "evaluation only" if measured[number] else "none"
        listed.append(
            {
                "name": source,
                "licence": item.licence,
                "origin": item.origin,
                "rows": rows,
                "rows_measured": int(measured[number]),
                "use": use,
                "files": list(item.files),
                "sha256": list((hashes or {}).get(source, ())),
            }
        )
    return listed


def metrics_table(measured: Sequence[Measured], *, precision: str = "fp32") -> dict[str, Any]:
    """The table ``metrics`` of model.toml: one table a source, with value and n of each metric."""
    return {"precision": precision, **{item.source: item.as_table() for item in measured}}


def find_limits(measured: Sequence[Measured]) -> list[str]:
    """What the network is bad at: what is known from how it is trained, and what was measured below 0.6."""
    sentences = list(_KNOWN_LIMITS)
    for task, names in _TASK_METRICS.items():
        poor = sorted(
            (value, f"{item.source.replace('_', ' ')} {value:.2f}")
            for item in measured
            for name, value in item.values.items()
            if name in names and value < _POOR
        )
        if poor:
            named = ", ".join(text for _, text in poor)
            sentences.append(f"{task} measured below {_POOR:g}, so read many and check samples: {named}.")
    return sentences


def model_toml(
    *,
    name: str,
    version: str,
    max_tokens: int,
    pad_id: int,
    calibration: Calibration,
    card: Mapping[str, Any],
) -> str:
    """The text of model.toml. ``card`` holds further tables (training, metrics, …) and ``limits``, a list."""
    outputs: dict[str, Any] = {
        "sentiment": {
            "kind": "classes",
            "labels": list(SENTIMENTS),
            "temperature": calibration.temperature,
            "temperatures": dict(calibration.temperatures),
        },
        "topics": {"kind": "labels", "labels": list(TOPICS), "thresholds": list(calibration.thresholds)},
        "entities": {"kind": "tags", "labels": list(ENTITY_TAGS), "strict": True},
    }
    fits = {
        "languages": [_rounded(asdict(fit)) for fit in calibration.languages],
        "topics": [_rounded(asdict(fit)) for fit in calibration.topics],
    }
    document = {"name": name, "version": version, "max_tokens": max_tokens, "pad_id": pad_id, "outputs": outputs}
    if fits["languages"] or fits["topics"]:
        document["calibration"] = fits
    clashing = sorted(set(card) & set(document))
    if clashing:
        raise ModelError(f"The card's {clashing[0]} is written by the bundle itself. Leave it out of the card.")
    return toml_document({**document, **card})


def toml_document(document: Mapping[str, Any]) -> str:
    """``document`` as TOML: plain values first, then tables; from the third level on a table stands on one line."""
    return "\n".join(_lines(document, ())).strip() + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    later = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            if len(path) < 2:
                later[key] = value
            elif value:
                pairs = ", ".join(f"{toml_key(inner)} = {toml_value(item)}" for inner, item in value.items())
                yield f"{toml_key(key)} = {{ {pairs} }}"
        elif _is_tables(value):
            later[key] = value
        elif value is not None:  # TOML has no word for it: what is not said is left out
            yield f"{toml_key(key)} = {toml_value(value)}"
    for key, value in later.items():
        inner_path = (*path, toml_key(key))
        for item in value if _is_tables(value) else [value]:
            begin, end = ("[[", "]]") if _is_tables(value) else ("[", "]")
            body = list(_lines(item, inner_path))
            if body and not body[0]:  # nothing but tables inside: they name it themselves
                yield from body
            else:
                yield from ("", f"{begin}{'.'.join(inner_path)}{end}", *body)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _rounded(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in table.items()}
