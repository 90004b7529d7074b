"""Examples to arrays of token ids: all that training needs, in one compressed file of a few megabytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workbench.engine.training.corpus import UNKNOWN, Example, Span
from workbench.tasks.labels import ENTITY_TAGS, TOPICS

__all__ = ["IGNORED", "encode_entities", "prepare"]

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


def prepare(
    examples: Sequence[Example], unlabelled: Sequence[str], tokenizer: Tokenizer, out: Path, *, longest: int = 512
) -> None:
    """Write ``out`` (.npz): flat token ids with boundaries, and one column for each kind of label.

    Texts are cut after ``longest`` tokens. Arrays: ids uint16 [tokens], ends int64 [texts]; sentiment int8, two_class
    bool, topics int8 [texts, 8], app_class int8, entity_types uint8 bit mask, tags int8 [tokens], source and split as
    indices into the JSON array ``names``.
    """
    tokenizer.enable_truncation(longest)
    texts = [example.text for example in examples] + list(unlabelled)
    encodings = tokenizer.encode_batch(texts)
    types = {name: bit for bit, name in enumerate(("product", "brand", "company", "model"))}
    sources = [*sorted({example.source for example in examples}), "unlabelled"]
    splits = ["train", "dev", "test"]
    tags: list[NDArray[np.int8]] = []
    for index, encoding in enumerate(encodings):
        if index < len(examples) and examples[index].entity_types:
            row = encode_entities(encoding.offsets, examples[index].entities)
        else:
            row = [IGNORED] * len(encoding.ids)
        tags.append(np.asarray(row, dtype=np.int8))
    none = (UNKNOWN,) * len(TOPICS)
    count = len(unlabelled)
    np.savez_compressed(
        out,
        ids=np.concatenate([np.asarray(e.ids, dtype=np.uint16) for e in encodings]),
        ends=np.cumsum([len(e.ids) for e in encodings]),
        tags=np.concatenate(tags),
        sentiment=np.asarray([-1 if e.sentiment is None else e.sentiment for e in examples] + [-1] * count, np.int8),
        two_class=np.asarray([e.two_class for e in examples] + [False] * count),
        topics=np.asarray([e.topics or none for e in examples] + [none] * count, np.int8),
        app_class=np.asarray([-1 if e.app_class is None else e.app_class for e in examples] + [-1] * count, np.int8),
        entity_types=np.asarray(
            [sum(1 << types[t] for t in e.entity_types) for e in examples] + [0] * count, np.uint8
        ),
        source=np.asarray([sources.index(e.source) for e in examples] + [len(sources) - 1] * count, np.int16),
        split=np.asarray([splits.index(e.split) for e in examples] + [0] * count, np.int8),
        names=np.frombuffer(json.dumps({"sources": sources, "splits": splits}).encode(), np.uint8),
    )


def sha256_of_sets(data: Path) -> dict[str, str]:
    """SHA-256 of every file under ``data``/text, for the model card."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((data / "text").glob("*.parquet"))}
