"""Examples to arrays of token ids: all that training needs, in one compressed file of a few megabytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workbench.engine.training.corpus import UNKNOWN, Example, Span
from workbench.tasks.labels import ENTITY_TAGS, SENTIMENTS, TOPICS

__all__ = ["FOLDS", "IGNORED", "encode_entities", "folds_of", "prepare"]

FOLDS: Final = 5
"""Parts of the labelled training texts of which teachers leave out one at a time."""

IGNORED = -100
"""Entity tag of a token that takes no part in the loss."""


def encode_entities(offsets: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[int]:
    """BIO tag of each token, by its code-point offsets; special tokens (empty offsets) are IGNORED."""
    tags = []
    previous: Span | None = None
    for start, end in offsets:
        if start == end:
            tags.append(IGNORED)
            previous = None
            continue
        span = next((s for s in spans if start < s.end and end > s.start), None)
        if span is None:
            tags.append(0)
        else:
            prefix = "I" if span is previous else "B"
            tags.append(ENTITY_TAGS.index(f"{prefix}-{span.label}"))
        previous = span
    return tags


def folds_of(examples: Sequence[Example]) -> NDArray[np.int8]:
    """Fold of each text, by the hash of its group or of its words; -1 without labels and outside the train parts.

    The same words are in the same fold, whatever their set, and a text keeps its fold when others come or go.
    """
    folds = np.full(len(examples), -1, np.int8)
    for index, example in enumerate(examples):
        labelled = (
            example.sentiment is not None
            or example.topics is not None
            or example.app_class is not None
            or example.entity_types
        )
        if labelled and example.split == "train":
            digest = hashlib.sha256((example.group or example.text).encode()).digest()
            folds[index] = int.from_bytes(digest[:4], "big") % FOLDS
    return folds


def prepare(
    examples: Sequence[Example],
    unlabelled: Sequence[str],
    tokenizer: Tokenizer,
    out: Path,
    *,
    made: Sequence[Example] = (),
    longest: int = 512,
) -> None:
    """Write ``out`` (.npz): flat token ids with boundaries, and one column for each kind of label.

    The rows are ``examples``, ``unlabelled`` and ``made`` (see ``clauses``), in this order. Texts are cut after
    ``longest`` tokens. Arrays: ids uint16 [tokens], ends int64 [texts]; sentiment int8, two_class
    bool, topics int8 [texts, 8], app_class int8, entity_types uint8 bit mask, tags int8 [tokens], fold
    int8, shares float32 [texts, 3] (NaN for none), source and split as indices into the JSON array ``names``.
    """
    tokenizer.enable_truncation(longest)
    examples = [*examples, *(Example(text, "unlabelled", "train") for text in unlabelled), *made]
    texts = [example.text for example in examples]
    encodings = tokenizer.encode_batch(texts)
    types = {name: bit for bit, name in enumerate(("product", "brand", "company", "model"))}
    sources = sorted({example.source for example in examples} | {"unlabelled"})
    splits = ["train", "dev", "test"]
    tags: list[NDArray[np.int8]] = []
    for example, encoding in zip(examples, encodings, strict=True):
        if example.entity_types:
            row = encode_entities(encoding.offsets, example.entities)
        else:
            row = [IGNORED] * len(encoding.ids)
        tags.append(np.asarray(row, dtype=np.int8))
    none = (UNKNOWN,) * len(TOPICS)
    no_shares = (np.nan,) * len(SENTIMENTS)
    np.savez_compressed(
        out,
        ids=np.concatenate([np.asarray(e.ids, dtype=np.uint16) for e in encodings]),
        ends=np.cumsum([len(e.ids) for e in encodings]),
        tags=np.concatenate(tags),
        sentiment=np.asarray([-1 if e.sentiment is None else e.sentiment for e in examples], np.int8),
        two_class=np.asarray([e.two_class for e in examples], bool),
        topics=np.asarray([e.topics or none for e in examples], np.int8),
        app_class=np.asarray([-1 if e.app_class is None else e.app_class for e in examples], np.int8),
        entity_types=np.asarray([sum(1 << types[t] for t in e.entity_types) for e in examples], np.uint8),
        fold=folds_of(examples),
        shares=np.asarray([e.shares or no_shares for e in examples], np.float32),
        source=np.asarray([sources.index(e.source) for e in examples], np.int16),
        split=np.asarray([splits.index(e.split) for e in examples], np.int8),
        names=np.frombuffer(json.dumps({"sources": sources, "splits": splits}).encode(), np.uint8),
    )
