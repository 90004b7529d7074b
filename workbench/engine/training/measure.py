"""How good predictions are, by source and split. numpy only; nothing here needs a GPU or torch.

`score` takes logits from anywhere; `evaluate` asks a function for them, such as one made by `reader`, which runs a
model folder as its users will.

What counts, by kind of set:

- sentiment, two classes: the larger of p_negative and p_positive; neutral is passed over, for such a set has none;
- sentiment with stars (en_clothing): the same without the 3★ rows, and three-way accuracy over all rows;
- app reviews: the most probable of the four topics its classes stand for;
- topics: F1 of each topic over the rows that say something about it, and their mean (macro F1), with the topics a
  user of the bundle would get (thresholds, at least one topic, "other" by itself);
- entities: F1 over whole spans (same tokens, same type), by type, over the types the set annotates. What the network
  says of a type the set does not annotate counts neither for nor against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.engine.training.sets import data_set
from workbench.progress import tqdm
from workbench.runtime.batching import bucket_length, pad_batch, plan_batches
from workbench.runtime.session import Session
from workbench.tasks.labels import ENTITY_TAGS, ENTITY_TYPES, SENTIMENTS, TASKS, TOPICS

if TYPE_CHECKING:
    from workbench.engine.training.batches import Arrays

__all__ = ["Measured", "Read", "chosen_topics", "evaluate", "reader", "score", "spans"]

Read = Callable[[NDArray[np.int64]], Mapping[str, Any]]
"""Text indices to logits: sentiment [N, 3], topics [N, 8], entities as a list of [tokens, 9]."""

_NEGATIVE, _NEUTRAL, _POSITIVE = (SENTIMENTS.index(label) for label in ("negative", "neutral", "positive"))
_OTHER: Final = TOPICS.index("other")


@dataclass(frozen=True)
class Measured:
    """One source: ``values`` by name, between 0 and 1; ``counts`` says how many texts (or spans) each rests on."""

    source: str
    language: str
    split: str
    values: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def as_rows(self) -> list[dict[str, Any]]:
        """One dict for each value: source, language, split, metric, value, n."""
        return [
            {
                "source": self.source,
                "language": self.language,
                "split": self.split,
                "metric": name,
                "value": value,
                "n": self.counts[name],
            }
            for name, value in self.values.items()
        ]

    def as_table(self) -> dict[str, Any]:
        """As a table of model.toml: language, split, and {value, n} by metric."""
        values = {name: {"value": round(value, 4), "n": self.counts[name]} for name, value in self.values.items()}
        return {"language": self.language, "split": self.split, **values}


def spans(tags: Iterable[int]) -> set[tuple[int, int, str]]:
    """(first token, token after the last, type) of each entity in ``tags``, indices into ENTITY_TAGS.

    An I that continues nothing begins an entity; a negative tag is none.
    """
    found = set()
    kind, begun = "", 0
    for index, tag in enumerate([*tags, 0]):
        name = ENTITY_TAGS[tag] if tag >= 0 else "O"
        if kind and name != f"I-{kind}":
            found.add((begun, index, kind))
            kind = ""
        if name != "O" and not kind:
            kind, begun = name[2:], index
    return found


def chosen_topics(logits: NDArray[np.float32], thresholds: Sequence[float] | None = None) -> NDArray[np.bool_]:
    """What a user gets, [N, 8]: topics above their threshold, at least one, "other" only by itself."""
    limits = np.asarray(thresholds if thresholds is not None else [0.5] * len(TOPICS))
    # Compared as logits, which spares an overflow; a threshold of 0 or 1 is minus or plus infinity.
    with np.errstate(divide="ignore"):
        chosen = np.asarray(logits >= np.log(limits) - np.log1p(-limits))
    none = ~chosen.any(axis=1)
    chosen[none, logits[none].argmax(axis=1)] = True
    chosen[:, _OTHER] &= chosen.sum(axis=1) == 1
    return chosen


def reader(session: Session, arrays: Arrays, *, progress: bool = False, token_budget: int = 256) -> Read:
    """A function that reads texts of ``arrays`` with an opened model folder, a text at most as long as it takes."""
    longest = session.spec.max_tokens

    def read(rows: NDArray[np.int64]) -> Mapping[str, Any]:
        lengths = np.minimum(arrays.lengths[rows], longest).tolist()
        found = {
            "sentiment": np.zeros((len(rows), len(SENTIMENTS)), np.float32),
            "topics": np.zeros((len(rows), len(TOPICS)), np.float32),
        }
        entities: list[Any] = [None] * len(rows)

        def run(places: NDArray[np.intp]) -> int:
            texts = [
                arrays.ids[begin : begin + lengths[at]].astype(np.int32)
                for at, begin in zip(places, arrays.starts[rows[places]], strict=True)
            ]
            length = bucket_length(max(map(len, texts)), longest)
            ids, bias = pad_batch(texts, length, pad_id=session.spec.pad_id)
            values = session.run(ids, bias, TASKS)
            for name, into in found.items():
                into[places] = values[name]
            for at, tags in zip(places, values["entities"], strict=True):
                entities[at] = tags[: lengths[at]].copy()
            return len(places)

        batches = plan_batches(lengths, max_tokens=longest, token_budget=token_budget)
        with (
            ThreadPoolExecutor(session.slots) as pool,
            tqdm(total=len(rows), unit="text", desc="Reading", disable=not progress, delay=2, mininterval=1) as bar,
        ):
            for count in pool.map(run, batches):
                bar.update(count)
        return {**found, "entities": entities}

    return read


def evaluate(
    read: Read,
    arrays: Arrays,
    *,
    split: str = "test",
    sources: Sequence[str] | None = None,
    thresholds: Sequence[float] | None = None,
    most: int | None = None,
    seed: int = 7,
) -> list[Measured]:
    """Measure every source (or the ``sources`` named) that has labels in ``split``, by the logits ``read`` gives.

    ``most`` texts of a source are drawn at random where it has more.
    """
    chosen: dict[str, NDArray[np.int64]] = {}
    for source in sources if sources is not None else arrays.sources:
        rows = arrays.where(split=split, source=source)
        if most is not None and len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
        if _has_labels(arrays, rows):
            chosen[source] = rows
    if not chosen:
        return []
    # Read in one go: batches then hold texts of one length, whatever their source.
    predictions = read(np.concatenate(list(chosen.values())))
    measured, first = [], 0
    for source, rows in chosen.items():
        own = {name: values[first : first + len(rows)] for name, values in predictions.items()}
        measured.append(score(own, arrays, rows, source=source, split=split, thresholds=thresholds))
        first += len(rows)
    return measured


def _has_labels(arrays: Arrays, rows: NDArray[np.int64]) -> bool:
    return bool(
        (arrays.sentiment[rows] >= 0).any()
        or (arrays.topics[rows] >= 0).any()
        or (arrays.app_class[rows] >= 0).any()
        or arrays.entity_types[rows].any()
    )


def score(
    predictions: Mapping[str, Any],
    arrays: Arrays,
    rows: NDArray[np.int64],
    *,
    source: str,
    split: str = "test",
    thresholds: Sequence[float] | None = None,
) -> Measured:
    """Measure ``predictions`` (logits, one entry for each of ``rows``) of one source against its labels."""
    item = data_set(source)
    values: dict[str, float] = {}
    counts: dict[str, int] = {}
    parts = [_sentiment(predictions, arrays, rows), _app_classes(predictions, arrays, rows)]
    if not item.weak_topics:
        parts.append(_topics(predictions, arrays, rows, thresholds))
    parts.append(_entities(predictions, arrays, rows))
    for part in parts:
        for name, (value, count) in part.items():
            values[name], counts[name] = float(value), int(count)
    return Measured(source, item.language, split, values, counts)


_Part = dict[str, tuple[float, int]]


def _f1_of(topic: str) -> str:
    return f"f1_{topic.replace(' ', '_')}"


def _share(right: NDArray[np.bool_]) -> tuple[float, int]:
    return float(right.mean()), len(right)


def _sentiment(predictions: Mapping[str, Any], arrays: Arrays, rows: NDArray[np.int64]) -> _Part:
    labels = arrays.sentiment[rows]
    known = labels >= 0
    if not known.any():
        return {}
    labels, logits = labels[known], predictions["sentiment"][known]
    between = np.where(logits[:, _POSITIVE] > logits[:, _NEGATIVE], _POSITIVE, _NEGATIVE)
    if arrays.two_class[rows][known].all():
        return {"accuracy": _share(between == labels)}
    part = {"accuracy": _share(logits.argmax(axis=1) == labels)}
    clear = labels != _NEUTRAL
    if clear.any() and not clear.all():
        part["accuracy_without_neutral"] = _share(between[clear] == labels[clear])
    return part


def _app_classes(predictions: Mapping[str, Any], arrays: Arrays, rows: NDArray[np.int64]) -> _Part:
    labels = arrays.app_class[rows]
    known = labels >= 0
    if not known.any():
        return {}
    among = np.unique(arrays.app_class[arrays.app_class >= 0])
    said = among[predictions["topics"][known][:, among].argmax(axis=1)]
    part = {"accuracy_of_four": _share(said == labels[known])}
    for topic in among:
        both = int(((said == topic) & (labels[known] == topic)).sum())
        of = int((said == topic).sum() + (labels[known] == topic).sum())
        part[_f1_of(TOPICS[topic])] = (2 * both / max(1, of), int((labels[known] == topic).sum()))
    return part


def _topics(
    predictions: Mapping[str, Any], arrays: Arrays, rows: NDArray[np.int64], thresholds: Sequence[float] | None
) -> _Part:
    labels = arrays.topics[rows]
    if not (labels >= 0).any():
        return {}
    said = chosen_topics(predictions["topics"], thresholds)
    each: _Part = {}
    for index, topic in enumerate(TOPICS):
        known = labels[:, index] >= 0
        gold, got = labels[known, index] == 1, said[known, index]
        # A topic that no text of the set has cannot be found; saying it wrongly shows in the others' numbers.
        if gold.any():
            each[_f1_of(topic)] = (2 * float((gold & got).sum()) / float(gold.sum() + got.sum()), int(gold.sum()))
    if not each:
        return {}
    texts = int((labels >= 0).any(axis=1).sum())
    return {"macro_f1": (float(np.mean([value for value, _ in each.values()])), texts), **each}


def _entities(predictions: Mapping[str, Any], arrays: Arrays, rows: NDArray[np.int64]) -> _Part:
    masks = arrays.entity_types[rows]
    types = [kind for bit, kind in enumerate(ENTITY_TYPES) if int(np.bitwise_or.reduce(masks)) >> bit & 1]
    if not types:
        return {}
    # By type: spans found, spans said, spans there.
    sums = {kind: np.zeros(3, np.int64) for kind in types}
    for place, row in enumerate(rows):
        if not masks[place]:
            continue
        own = {kind for bit, kind in enumerate(ENTITY_TYPES) if int(masks[place]) >> bit & 1}
        logits = predictions["entities"][place]
        tags = arrays.tags[arrays.starts[row] : arrays.starts[row] + len(logits)]
        gold = spans(tags)
        # The marks of beginning and end are no part of the text.
        said = {span for span in spans(np.where(tags >= 0, logits.argmax(axis=1), 0)) if span[2] in own}
        for kind in own:
            there, got = ({s for s in found if s[2] == kind} for found in (gold, said))
            sums[kind] += (len(there & got), len(got), len(there))
    part = {f"f1_{kind}": _f1(sums[kind]) for kind in types}
    pair = ("product", "brand")
    if set(pair) <= set(types):
        part["f1_product_brand"] = _f1(sums["product"] + sums["brand"])
    part["f1_micro"] = _f1(np.sum(list(sums.values()), axis=0))
    return part


def _f1(sums: NDArray[np.int64]) -> tuple[float, int]:
    found, said, there = (int(value) for value in sums)
    return 2 * found / max(1, said + there), there
