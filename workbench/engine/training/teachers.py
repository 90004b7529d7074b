"""Teachers: larger networks whose probabilities a small one learns from beside the labels (distillation).

A teacher that has learned a text's label by heart has nothing to teach about it. So each is fitted once for each
fold without that fold's texts (cross-fitting): what it says of a labelled text comes from the fit that never saw its
label, of any other text from the mean of all fits. Several teachers' probabilities are averaged and then blended with
those of the linear models (see ``linear``). numpy and torch only: runs on a GPU host that has the arrays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.engine.training.batches import Arrays, Recipe
from workbench.engine.training.encoder import Encoder, EncoderConfig
from workbench.engine.training.loops import fine_tune, predict, pretrain
from workbench.engine.training.sets import DATA_SETS
from workbench.errors import ParameterError
from workbench.tasks.labels import ENTITY_TAGS, SENTIMENTS, TOPICS

__all__ = ["BLEND", "LESSON_WEIGHTS", "SHARES", "Taught", "blend", "cross_fit", "lessons", "teach", "teacher_config"]

log = logging.getLogger(__name__)

BLEND: Final[Mapping[str, float]] = {"zh": 0.4, "amazon": 0.6, "clothing": 0.15, "app": 0.5}
"""What part of a lesson is the linear model's; chosen on held-out texts."""

LESSON_WEIGHTS: Final[Mapping[str, float]] = {
    "sentiment": 0.4,
    "soft_sentiment": 1.0,
    "topics": 0.5,
    "soft_topics": 1.0,
    "app": 0.4,
    "soft_app": 1.0,
    "entities": 2.0,
    "soft_entities": 2.0,
}
"""Weights of the losses where labels and lessons teach together."""

SHARES: Final[Mapping[str, float]] = {
    "zh_ecommerce": 4.0,
    "zh_hphc": 2.0,
    "en_wnut17": 2.0,
    "en_broad_twitter": 1.5,
    "app_reviews": 1.5,
    "zh_restaurants": 2.0,
    "en_amazon": 1.3,
    "segments": 0.5,
    **{name: 4.0 for name, item in DATA_SETS.items() if item.own},
}
"""How often an epoch takes the texts of a source; 1 where none is named. Small sets teach what large ones lack."""

_MADE: Final = ("segments", "composed")
_NEGATIVE_POSITIVE: Final = np.array([SENTIMENTS.index("negative"), SENTIMENTS.index("positive")])
# The names in these texts are all they are labelled for; they are news, posts and titles, not reviews.
_NO_REVIEWS: Final = ("en_broad_twitter", "en_wikigold", "en_wnut17", "zh_cluener", "zh_ecommerce", "zh_hphc")


@dataclass
class Taught:
    """What teachers say, as probabilities.

    By text: sentiment [N, 3], topics [N, 8], app [N, 4] (the classes of app reviews). By token of the flat arrays:
    entities [tokens, 9], half precision, 0 where ``entity_rows`` [N] is False. ``known`` [N]: texts that something is
    said of.
    """

    sentiment: NDArray[np.float32]
    topics: NDArray[np.float32]
    app: NDArray[np.float32]
    entities: NDArray[np.float16]
    entity_rows: NDArray[np.bool_]
    known: NDArray[np.bool_]

    @classmethod
    def nothing(cls, arrays: Arrays) -> Taught:
        """What a teacher begins with."""
        count = len(arrays.ends)
        source = np.array(arrays.sources)[arrays.source]
        # Names in clauses are names in their reviews; one lesson is enough, and tokens cost memory.
        entity_rows = (arrays.entity_types > 0) | np.isin(source, ["unlabelled", "app_reviews"])
        return cls(
            np.zeros((count, len(SENTIMENTS)), np.float32),
            np.zeros((count, len(TOPICS)), np.float32),
            np.zeros((count, len(_app_topics(arrays))), np.float32),
            np.zeros((len(arrays.ids), len(ENTITY_TAGS)), np.float16),
            entity_rows,
            np.zeros(count, bool),
        )

    def add(self, model: Encoder, arrays: Arrays, rows: NDArray[np.int64], weight: NDArray[np.float32]) -> None:
        """Add what ``model`` says of ``rows``, each times its ``weight`` [N]."""
        said = predict(model, arrays, rows, tags=False)
        own = weight[rows, None]
        self.sentiment[rows] += own * _softmax(said["sentiment"])
        self.topics[rows] += own / (1 + np.exp(-said["topics"]))
        self.app[rows] += own * _softmax(said["topics"][:, _app_topics(arrays)])
        self.known[rows] = True
        named = rows[self.entity_rows[rows]]
        for begin in range(0, len(named), 20_000):
            some = named[begin : begin + 20_000]
            for row, logits in zip(some, predict(model, arrays, some)["entities"], strict=True):
                at = slice(arrays.starts[row], arrays.starts[row] + len(logits))
                self.entities[at] += (weight[row] * _softmax(logits)).astype(np.float16)

    def merge(self, other: Taught, weight: float) -> None:
        """Add ``weight`` times what another teacher says."""
        for name in ("sentiment", "topics", "app", "entities"):
            own = getattr(self, name)
            own += (weight * getattr(other, name)).astype(own.dtype)
        self.known |= other.known


def _app_topics(arrays: Arrays) -> NDArray[np.int64]:
    return np.unique(arrays.app_class[arrays.app_class >= 0]).astype(np.int64)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    if not logits.shape[-1]:
        return logits
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def teacher_config(config: EncoderConfig, number: int) -> EncoderConfig:
    """The network of teacher ``number`` for a student of ``config``: a wide one, then a deep one, by turns.

    For a student of 6 layers of 256 they have 8 layers of 512 and 12 of 384. Layer norms stand before the sublayers.
    """
    if number % 2 == 0:
        layers, width = config.layers + 2, 2 * config.width
    else:
        layers, width = 2 * config.layers, -(-3 * config.width // 128) * 64
    return replace(config, layers=layers, width=width, inner=4 * width, pre_norm=True)


def cross_fit(
    model: Encoder,
    arrays: Arrays,
    chosen: NDArray[np.int64],
    recipe: Recipe,
    *,
    log_every: int = 200,
) -> Taught:
    """What ``model`` (pre-trained) says of ``chosen`` after learning the labels of the other folds.

    Raises ParameterError when the arrays have labels in fewer than two folds.
    """
    labelled, free = chosen[arrays.fold[chosen] >= 0], chosen[arrays.fold[chosen] < 0]
    folds = np.unique(arrays.fold[labelled]).tolist()
    if len(folds) < 2:
        raise ParameterError(
            f"Teachers need labelled texts in at least two folds; there are {len(folds)}. Prepare more texts (rows), "
            "or train with teachers = 0."
        )
    base = {name: value.detach().clone() for name, value in model.state_dict().items()}
    taught = Taught.nothing(arrays)
    weight = np.ones(len(arrays.ends), np.float32)
    weight[free] = 1 / len(folds)
    for fold in folds:
        model.load_state_dict(base)
        others = labelled[arrays.fold[labelled] != fold]
        own = replace(recipe, seed=recipe.seed + 100 + fold)
        weights = {"entities": LESSON_WEIGHTS["entities"]}
        fine_tune(model, arrays, others, own, weights=weights, shares=dict(SHARES), log_every=log_every)
        taught.add(model, arrays, np.concatenate([labelled[arrays.fold[labelled] == fold], free]), weight)
        log.info("fold %d of %d is taught", folds.index(fold) + 1, len(folds))
    return taught


def teach(
    arrays: Arrays,
    chosen: NDArray[np.int64],
    config: EncoderConfig,
    *,
    count: int,
    words: Recipe,
    tasks: Recipe,
    device: torch.device,
    log_every: int = 200,
) -> Taught:
    """The mean of ``count`` teachers of a student of ``config``: each guesses masked words, then is cross-fitted.

    ``words`` and ``tasks`` are the student's recipes; a teacher learns more slowly, and of each fold a third as long.
    """
    source = np.array(arrays.sources)[arrays.source[chosen]]
    read = chosen[~np.isin(source, _MADE)]
    taught = Taught.nothing(arrays)
    for number in range(count):
        torch.manual_seed(words.seed + number)
        model = Encoder(teacher_config(config, number)).to(device)
        log.info("teacher %d of %d: %.1f million weights", number + 1, count, _millions(model))
        own_words = replace(words, seed=words.seed + 1 + number, learning_rate=words.learning_rate * 2 / 3)
        pretrain(model, arrays, read, own_words, log_every=log_every)
        own_tasks = replace(
            tasks, seed=tasks.seed + number, learning_rate=tasks.learning_rate * 3 / 4, steps=max(1, tasks.steps // 3)
        )
        taught.merge(cross_fit(model, arrays, chosen, own_tasks, log_every=log_every), 1 / count)
        del model
    return taught


def _millions(model: Encoder) -> float:
    return float(sum(parameter.numel() for parameter in model.parameters())) / 1e6


def blend(
    taught: Taught, arrays: Arrays, linear: Mapping[str, NDArray[np.float32]], shares: Mapping[str, float] = BLEND
) -> Taught:
    """``taught`` with the linear models' probabilities mixed in by ``shares``, and composed texts' fixed shares.

    A model of two classes says how what is not neutral falls into negative and positive; neutral stays the teacher's.
    """
    sentiment, app = taught.sentiment.copy(), taught.app.copy()
    for name, said in linear.items():
        rows = np.flatnonzero(np.isfinite(said[:, 0]) & taught.known)
        share, own = shares[name], said[rows]
        if name == "app":
            app[rows] = (1 - share) * app[rows] + share * own
        elif own.shape[1] == len(SENTIMENTS):
            sentiment[rows] = (1 - share) * sentiment[rows] + share * own
        else:
            polar = sentiment[np.ix_(rows, _NEGATIVE_POSITIVE)]
            total = polar.sum(axis=1, keepdims=True)
            mixed = (1 - share) * polar / np.maximum(total, 1e-6) + share * own
            sentiment[np.ix_(rows, _NEGATIVE_POSITIVE)] = mixed * total
    fixed = np.isfinite(arrays.shares[:, 0]) & taught.known
    sentiment[fixed] = arrays.shares[fixed]
    return replace(taught, sentiment=sentiment, app=app)


def lessons(taught: Taught, arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """``taught`` as `fine_tune` takes it: with which texts teach which task."""
    source = np.array(arrays.sources)[arrays.source]
    review = taught.known & ~np.isin(source, _NO_REVIEWS)
    about_apps = taught.known & np.isin(source, ["app_reviews"])
    columns = {
        "sentiment": taught.sentiment,
        "topics": taught.topics,
        "app": taught.app,
        "app_topics": _app_topics(arrays),
        "entities": taught.entities,
        "starts": arrays.starts,
        "sentiment_rows": review,
        "topics_rows": review & (source != "composed"),
        "app_rows": about_apps,
        "entity_rows": taught.known & taught.entity_rows,
    }
    return {name: torch.from_numpy(column).to(device) for name, column in columns.items()}
