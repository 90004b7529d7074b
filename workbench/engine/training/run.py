"""What the notebook fine_tune needs besides the steps themselves: its texts, its device, and what it did in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import torch

from workbench.engine.training.batches import Recipe
from workbench.engine.training.calibrate import Calibration, TemperatureFit, ThresholdFit, spread
from workbench.engine.training.corpus import Example, read_examples, read_own, read_unlabelled, read_written
from workbench.engine.training.sets import data_set
from workbench.errors import ParameterError

__all__ = ["Corpus", "calibration_tables", "choose_device", "describe_run", "read_corpus"]


@dataclass(frozen=True)
class Corpus:
    """Labelled texts and texts for pre-training alone."""

    examples: tuple[Example, ...]
    unlabelled: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.examples) + len(self.unlabelled)

    def texts(self, split: str = "train") -> list[str]:
        """The texts of a split; those without labels are for training."""
        labelled = [example.text for example in self.examples if example.split == split]
        return labelled + (list(self.unlabelled) if split == "train" else [])

    def counts(self) -> pl.DataFrame:
        """One row a set: language, texts by split, what its labels are for, licence, use."""
        rows: dict[str, dict[str, Any]] = {}
        for example in self.examples:
            row = rows.setdefault(example.source, {"train": 0, "dev": 0, "test": 0, "labels": set()})
            row[example.split] += 1
            row["labels"] |= _labels(example)
        if self.unlabelled:
            rows["unlabelled"] = {"train": len(self.unlabelled), "dev": 0, "test": 0, "labels": set()}
        return pl.DataFrame(
            [
                {
                    "set": source,
                    "language": data_set(source).language,
                    **{split: row[split] for split in ("train", "dev", "test")},
                    "labels": ", ".join(sorted(row["labels"])) or "none",
                    "licence": data_set(source).licence,
                }
                for source, row in sorted(rows.items())
            ]
        )


def read_corpus(data: Path, calibration: Path, *, rows: int = 0, seed: int = 7) -> Corpus:
    """All texts of the data folder and the project's own, or at most ``rows`` of them (0: all).

    A slice is drawn evenly from every set, split and label, the same again for the same arguments.
    """
    examples = [*read_examples(data), *read_own(calibration), *read_written(calibration)]
    unlabelled = list(read_unlabelled(data))
    if rows:
        strata: list[tuple[Any, ...]] = [
            (example.source, example.split, example.sentiment, example.app_class, bool(example.entities))
            for example in examples
        ]
        chosen = spread([*strata, *[("unlabelled",)] * len(unlabelled)], rows, seed=seed)
        unlabelled = [unlabelled[index - len(examples)] for index in chosen if index >= len(examples)]
        examples = [examples[index] for index in chosen if index < len(examples)]
    return Corpus(tuple(examples), tuple(unlabelled))


def _labels(example: Example) -> set[str]:
    found = set()
    if example.sentiment is not None:
        found.add("sentiment")
    if example.topics is not None or example.app_class is not None:
        found.add("topics")
    if example.entity_types:
        found.add("entities")
    return found


def choose_device(name: str) -> torch.device:
    """``name``, or for "auto" a GPU if there is one. Raises ParameterError when the GPU is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParameterError(
            f"There is no device {name}: torch sees {torch.cuda.device_count()} GPUs. Set device to cpu or auto, or "
            "install a torch built for your GPU."
        )
    return device


def describe_run(
    device: torch.device, *, pretraining: Recipe, tuning: Recipe, texts: int, tokens: int, seconds: float, **more: Any
) -> dict[str, Any]:
    """The table ``training`` of a model card: date, device, version, numbers of both stages, and ``more`` besides."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "date": date.today().isoformat(),  # noqa: DTZ011 - the day where it was trained
        "device": name,
        "torch": torch.__version__,
        "texts": texts,
        "tokens": tokens,
        "seconds": round(seconds),
        **more,
        "pretraining": asdict(pretraining),
        "tuning": asdict(tuning),
    }


def calibration_tables(calibration: Calibration) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The fits as frames: temperatures by language, thresholds by topic."""
    return _frame(calibration.languages, TemperatureFit), _frame(calibration.topics, ThresholdFit)


def _frame(fits: Sequence[Any], kind: type) -> pl.DataFrame:
    return pl.DataFrame([asdict(fit) for fit in fits], schema=[field.name for field in fields(kind)])
