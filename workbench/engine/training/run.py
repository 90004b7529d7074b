"""All stages of training in one call, and what the notebook fine_tune needs besides: texts, device, what was done.

    read_corpus -> add_clauses -> train_vocabulary -> prepare -> teach -> pretrain -> fine_tune -> bundle_model

With ``teachers`` = 0 there are no clauses, no linear models and no teachers; the network learns from labels alone.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.engine.training.batches import Arrays, Recipe
from workbench.engine.training.bundle import Bundle, bundle_model
from workbench.engine.training.calibrate import Calibration, TemperatureFit, ThresholdFit, held_out_rows, spread
from workbench.engine.training.clauses import compose_clauses, read_clauses
from workbench.engine.training.corpus import Example, read_examples, read_own, read_unlabelled, read_written
from workbench.engine.training.encoder import Encoder, EncoderConfig
from workbench.engine.training.linear import fit_linear
from workbench.engine.training.loops import fine_tune, pretrain
from workbench.engine.training.prepare import prepare
from workbench.engine.training.sets import data_set
from workbench.engine.training.teachers import LESSON_WEIGHTS, SHARES, blend, lessons, teach
from workbench.engine.training.vocabulary import train_vocabulary
from workbench.errors import ParameterError
from workbench.params import FineTune

__all__ = [
    "Corpus",
    "add_clauses",
    "calibration_tables",
    "choose_device",
    "describe_run",
    "learn_tasks",
    "read_corpus",
    "read_rows",
    "recipes",
    "teach_texts",
    "train_model",
]

log = logging.getLogger(__name__)

_WHOLE: Final = 190_000
"""Texts of the whole corpus, about: a slice gets its share of the clauses."""


@dataclass(frozen=True)
class Corpus:
    """Labelled texts, texts without labels, and those ``made`` of both for teachers to label.

    ``linear``: what linear models say of all of them, by model, [texts, classes] in this order.
    """

    examples: tuple[Example, ...]
    unlabelled: tuple[str, ...]
    made: tuple[Example, ...] = ()
    linear: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.examples) + len(self.unlabelled) + len(self.made)

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
        for source, count in Counter(example.source for example in self.made).items():
            rows[source] = {"train": count, "dev": 0, "test": 0, "labels": set()}
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


def add_clauses(corpus: Corpus, *, seed: int = 7) -> Corpus:
    """``corpus`` with clauses of its training texts, what linear models say of everything, and composed texts.

    In proportion to the texts: of all of them come 180,000 clauses and 9,000 composed texts. Raises ModelError when
    scikit-learn is not installed.
    """
    whole = min(1.0, len(corpus) / _WHOLE)
    clauses = read_clauses(
        corpus.examples,
        corpus.unlabelled,
        chinese=round(110_000 * whole),
        english=round(70_000 * whole),
        seed=seed,
    )
    unlabelled = [Example(text, "unlabelled", "train") for text in corpus.unlabelled]
    linear = fit_linear([*corpus.examples, *unlabelled, *clauses])
    composed: list[Example] = []
    if clauses and "zh" in linear:
        praise = linear["zh"][-len(clauses) :, -1]
        composed = compose_clauses(clauses, praise, count=round(9_000 * whole), seed=seed)
    # Nothing is asked about composed texts: what they are to teach is known.
    padded = {
        name: np.concatenate([said, np.full((len(composed), said.shape[1]), np.nan, np.float32)])
        for name, said in linear.items()
    }
    return replace(corpus, made=(*clauses, *composed), linear=padded)


def train_model(params: FineTune, *, progress: bool = False) -> Bundle:
    """Every stage from the data folder to the model folder, with the parameters of the notebook fine_tune.

    What the folder can be made from again (arrays, tokenizer, weights) stays beside it. Raises what the stages raise.
    """
    folders, device = params.load(), choose_device(params.device)
    started = time.perf_counter()
    corpus = read_corpus(folders.data, folders.calibration, rows=params.rows, seed=params.seed)
    if params.teachers:
        corpus = add_clauses(corpus, seed=params.seed)
    folders.work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_vocabulary(corpus.texts("train"), size=params.vocabulary)
    tokenizer.save(str(folders.work / "tokenizer.json"))
    prepare(corpus.examples, corpus.unlabelled, tokenizer, folders.work / "arrays.npz", made=corpus.made)
    arrays = Arrays(folders.work / "arrays.npz")
    log.info("%d texts, %d tokens, %s", len(corpus), len(arrays.ids), device)
    held_out = held_out_rows(arrays, own_share=params.own_share, seed=params.seed)
    learned = np.setdiff1d(arrays.where(split="train"), held_out)
    words, tasks = recipes(params)
    config = EncoderConfig(params.vocabulary, width=params.width, layers=params.layers, inner=4 * params.width)
    taught = teach_texts(
        corpus, arrays, learned, config, count=params.teachers, words=words, tasks=tasks, device=device
    )
    torch.manual_seed(params.seed)
    model = Encoder(config).to(device)
    pretrain(model, arrays, read_rows(arrays, learned), words)
    learn_tasks(model, arrays, learned, tasks, taught)
    torch.save(model.state_dict(), folders.work / "weights.pt")
    training = describe_run(
        device,
        pretraining=words,
        tuning=tasks,
        texts=len(learned),
        tokens=int(arrays.lengths[learned].sum()),
        seconds=time.perf_counter() - started,
        teachers=params.teachers,
    )
    return bundle_model(
        folders.out,
        model,
        tokenizer,
        arrays,
        name=params.name,
        version=params.version,
        trained=learned,
        held_out=held_out,
        training=training,
        data=folders.data,
        calibration_texts=folders.calibration,
        seed=params.seed,
        replace=params.replace,
        progress=progress,
    )


def recipes(params: FineTune) -> tuple[Recipe, Recipe]:
    """The numbers of both stages: guessing masked words, learning the tasks."""
    words = Recipe(params.pretrain_steps, params.batch_tokens, learning_rate=1.5e-3, longest=256, seed=params.seed)
    tasks = Recipe(params.tune_steps, params.batch_tokens, learning_rate=4e-4, longest=512, seed=params.seed)
    return words, tasks


def read_rows(arrays: Arrays, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``rows`` to guess masked words in: not those made of others, whose words they hold again."""
    made = [number for number, name in enumerate(arrays.sources) if name in ("segments", "composed")]
    return rows[~np.isin(arrays.source[rows], made)]


def teach_texts(
    corpus: Corpus,
    arrays: Arrays,
    rows: NDArray[np.int64],
    config: EncoderConfig,
    *,
    count: int,
    words: Recipe,
    tasks: Recipe,
    device: torch.device,
    log_every: int = 200,
) -> dict[str, Tensor] | None:
    """What ``count`` teachers and the linear models of ``corpus`` say of ``rows``, for `learn_tasks`; None for 0."""
    if not count:
        return None
    taught = teach(arrays, rows, config, count=count, words=words, tasks=tasks, device=device, log_every=log_every)
    return lessons(blend(taught, arrays, corpus.linear), arrays, device)


def learn_tasks(
    model: Encoder,
    arrays: Arrays,
    rows: NDArray[np.int64],
    recipe: Recipe,
    taught: dict[str, Tensor] | None,
    *,
    log_every: int = 200,
) -> list[dict[str, float]]:
    """Fine-tune ``model`` on the labels of ``rows`` and on what teachers said of them. Returns the logged losses.

    Texts without labels are left out where nobody has taught, and a word list's topics where somebody has.
    """
    shares = dict(SHARES) if taught else {**SHARES, "unlabelled": 0.0}
    weights = dict(LESSON_WEIGHTS) if taught else {}
    return fine_tune(
        model,
        arrays,
        rows,
        recipe,
        weights=weights,
        shares=shares,
        teacher=taught,
        weak_topics=taught is None,
        log_every=log_every,
    )


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
