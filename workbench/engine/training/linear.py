"""Linear models of words and characters: TF-IDF with logistic regression, as a second opinion to teach by.

On reviews they are nearly as good as a small network and err elsewhere, so that a network taught by both learns more
than from either. Needs scikit-learn (the extra ``train``).

A model is fitted once for each fold without that fold's texts. What it says of a text it could have seen comes from
the fit that did not; of any other text, from the mean of all fits.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.engine.training.clauses import is_chinese
from workbench.engine.training.corpus import Example
from workbench.engine.training.prepare import folds_of
from workbench.errors import ModelError

__all__ = ["LINEAR_MODELS", "LinearModel", "fit_linear"]

log = logging.getLogger(__name__)

_FEW: Final = 2_000
"""Texts below which a rare word is not left out."""


@dataclass(frozen=True)
class LinearModel:
    """One model: the set it learns from, its label, its features, and which texts it is asked about."""

    source: str
    label: Callable[[Example], int | None]
    features: tuple[Mapping[str, Any], ...]
    strength: float
    asked: Callable[[Example], bool]


_WORD: Final = r"(?u)\b\w[\w']*\b|[!?:;)(]+"


def _words(longest: int, least: int = 3) -> Mapping[str, Any]:
    return {"ngram_range": (1, longest), "min_df": least, "token_pattern": _WORD}


LINEAR_MODELS: Final[Mapping[str, LinearModel]] = {
    "zh": LinearModel(
        "zh_shopping",
        lambda example: example.sentiment,
        ({"analyzer": "char", "ngram_range": (1, 3), "min_df": 4},),
        6.0,
        lambda example: is_chinese(example.text),
    ),
    "amazon": LinearModel(
        "en_amazon",
        lambda example: example.sentiment,
        (_words(3),),
        10.0,
        lambda example: not is_chinese(example.text) and example.source != "en_clothing",
    ),
    "clothing": LinearModel(
        "en_clothing",
        lambda example: example.sentiment,
        (_words(2),),
        4.0,
        lambda example: example.source == "en_clothing",
    ),
    "app": LinearModel(
        "app_reviews",
        lambda example: example.app_class,
        (_words(2, 2), {"analyzer": "char_wb", "ngram_range": (2, 5), "min_df": 3}),
        3.0,
        lambda example: (
            example.source == "app_reviews" or (example.source == "unlabelled" and not is_chinese(example.text))
        ),
    ),
}
"""The models by name. "zh" and "amazon" tell negative from positive, "clothing" the three sentiments, "app" the four
classes of app reviews, in the order of TOPICS."""


def fit_linear(
    rows: Sequence[Example], models: Mapping[str, LinearModel] = LINEAR_MODELS
) -> dict[str, NDArray[np.float32]]:
    """Fit ``models`` to the training texts of their sets; give [rows, classes] probabilities by name.

    NaN where a model is not asked, and for dev and test texts. A model whose set has too few texts (some class is
    missing in some fold) is left out. Raises ModelError when scikit-learn is not installed.
    """
    folds, said = folds_of(rows), {}
    for name, model in models.items():
        labels = np.array([-1 if (label := model.label(row)) is None else label for row in rows])
        own = np.array([row.source == model.source for row in rows])
        learned = np.flatnonzero(own & (folds >= 0) & (labels >= 0))
        asked = np.flatnonzero([row.split == "train" and model.asked(row) for row in rows])
        classes = set(labels[learned].tolist())
        parts = sorted(set(folds[learned].tolist()))
        fits = len(classes) > 1 and len(parts) > 1
        if not fits or any(set(labels[learned][folds[learned] != part].tolist()) != classes for part in parts):
            log.info("linear %s: too few texts of %s, left out", name, model.source)
            continue
        said[name] = _out_of_fold(model, rows, labels, folds, learned, np.setdiff1d(asked, learned))
        best = np.array(sorted(classes))[said[name][learned].argmax(axis=1)]
        log.info("linear %s: %d texts, right out of fold %.3f", name, len(learned), (best == labels[learned]).mean())
    return said


def _out_of_fold(
    model: LinearModel,
    rows: Sequence[Example],
    labels: NDArray[np.int64],
    folds: NDArray[np.int8],
    learned: NDArray[np.int64],
    others: NDArray[np.int64],
) -> NDArray[np.float32]:
    learn = _import_sklearn()
    few = len(learned) < _FEW
    vectorizers = [
        learn.vectorizer(sublinear_tf=True, dtype=np.float32, **{**kind, **({"min_df": 1} if few else {})})
        for kind in model.features
    ]
    known = learn.stack([v.fit_transform([rows[index].text for index in learned]) for v in vectorizers]).tocsr()
    texts = [rows[index].text for index in others]
    asked = learn.stack([v.transform(texts) for v in vectorizers]).tocsr() if texts else None
    count = len(set(labels[learned].tolist()))
    said = np.full((len(rows), count), np.nan, np.float32)
    of_others = np.zeros((len(others), count), np.float32)
    parts = sorted(set(folds[learned].tolist()))
    for part in parts:
        inside = folds[learned] == part
        solver = "liblinear" if count == 2 else "lbfgs"
        classifier = learn.regression(C=model.strength, max_iter=200, solver=solver, random_state=0)
        with warnings.catch_warnings():
            # A fit that is stopped after 200 steps is as good for teaching as one that went on.
            warnings.simplefilter("ignore", learn.unfinished)
            classifier.fit(known[~inside], labels[learned][~inside])
        said[learned[inside]] = classifier.predict_proba(known[inside])
        if asked is not None:
            of_others += classifier.predict_proba(asked) / len(parts)
    said[others] = of_others
    return said


@dataclass(frozen=True)
class _Sklearn:
    vectorizer: Any
    regression: Any
    stack: Any
    unfinished: Any


def _import_sklearn() -> _Sklearn:
    try:
        from scipy.sparse import hstack
        from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ModelError(
            "Training with teachers needs scikit-learn, which is not installed. Install the extra in the workbench's "
            "checkout with: pip install -c constraints.txt -e '.[export,train]', or train with teachers = 0."
        ) from None
    return _Sklearn(TfidfVectorizer, LogisticRegression, hstack, ConvergenceWarning)
