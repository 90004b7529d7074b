"""Labelled texts to measure models on: test parts of the data folder, the project's validation sets, any own file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from workbench.engine.training.corpus import APP_CLASSES, Example, read_examples, weak_topics
from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TOPICS

__all__ = [
    "CALIBRATION",
    "GATE_ONLY",
    "PUBLIC",
    "LabelledSet",
    "LabelledText",
    "PublicSet",
    "fingerprint",
    "gate_sets",
    "own_sets",
    "pack",
    "public_sets",
    "read_file",
    "take",
    "unpack",
]

CALIBRATION = Path(__file__).resolve().parents[2] / "calibration"


@dataclass(frozen=True)
class LabelledText:
    """A text with its label: a sentiment, a tuple of topics, or a tuple of (start, end, label).

    ``language`` and ``stratum`` are known for the project's own texts only.
    """

    text: str
    label: Any
    language: str = ""
    stratum: str = ""


@dataclass(frozen=True)
class LabelledSet:
    """One set to measure on.

    ``labels``: those the set annotates; answers outside are no answer for topics, and do not count for entities.
    ``single``: topics of which each text has exactly one. ``headline``: entity types of the set's F1.
    ``bar``: the least that its headline figure must be.
    """

    name: str
    task: str
    about: str
    texts: tuple[LabelledText, ...]
    labels: tuple[str, ...]
    sha256: str
    bar: float | None = None
    single: bool = False
    headline: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublicSet:
    """Where a public set comes from: ``source`` and split "test" of the corpus.

    ``by_words``: topics are what a word list finds in its short texts, whatever the set itself is labelled for.
    """

    name: str
    task: str
    about: str
    source: str
    file: str
    labels: tuple[str, ...]
    bar: float | None = None
    headline: tuple[str, ...] = ()
    by_words: bool = False


_TWO = ("negative", "positive")
PUBLIC = (
    PublicSet("zh_shopping", "sentiment", "test", "zh_shopping", "sentiment_zh_shopping", _TWO, 0.94),
    PublicSet("zh_takeaway", "sentiment", "all", "zh_takeaway", "sentiment_zh_takeaway", _TWO, 0.87),
    PublicSet("en_amazon", "sentiment", "test", "en_amazon", "sentiment_en_amazon", _TWO, 0.91),
    PublicSet("en_clothing_no_3_stars", "sentiment", "test", "en_clothing", "sentiment_en_clothing", _TWO, 0.90),
    PublicSet("en_clothing", "sentiment", "test, three classes", "en_clothing", "sentiment_en_clothing", SENTIMENTS),
    PublicSet("en_sentences", "sentiment", "all", "en_sentences", "sentiment_en_sentences", _TWO),
    PublicSet(
        "app_reviews", "topics", "test, grouped", "app_reviews", "topics_app_reviews",
        tuple(APP_CLASSES.values()), 0.76,
    ),
    PublicSet(
        "zh_ecommerce", "entities", "dev", "zh_ecommerce", "entities_zh_ecommerce_dev",
        ("product", "brand", "model"), 0.70, ("product", "brand"),
    ),
    PublicSet(
        "zh_hphc", "entities", "dev", "zh_hphc", "entities_zh_ecommerce_hphc_dev",
        ("product", "brand"), None, ("product", "brand"),
    ),
    PublicSet(
        "en_wnut17", "entities", "dev", "en_wnut17", "entities_en_wnut17_dev",
        ("company", "product"), None, ("company", "product"),
    ),
    PublicSet(
        "en_broad_twitter", "entities", "section f", "en_broad_twitter", "entities_en_broad_twitter",
        ("company",), None, ("company",),
    ),
)  # fmt: skip


GATE_ONLY = (
    PublicSet(
        "en_mams", "topics", "test", "en_mams", "aspects_en_mams_test", ("price", "quality", "service", "other"),
    ),
    PublicSet(
        "zh_shopping_words", "topics", "test, by words", "zh_shopping", "sentiment_zh_shopping",
        TOPICS[:-1], by_words=True,
    ),
    PublicSet(
        "zh_takeaway_words", "topics", "all, by words", "zh_takeaway", "sentiment_zh_takeaway",
        TOPICS[:-1], by_words=True,
    ),
)  # fmt: skip
"""Sets on which engines are compared, but which say little of how good a model is. "By words": short texts with a
word that can hardly mean anything but a topic (see workbench.engine.training.corpus). Such labels are poor, but as
poor for every engine, and there are thousands of them."""

_SHORT = 60
"""Characters of a text in which a word list misses little; corpus.weak_topics calls the other topics absent there."""


def gate_sets(data: Path) -> list[LabelledSet]:
    """What engines are compared on: the test parts under ``data``/text, ``GATE_ONLY`` among them, and the own sets.

    The two-class form of a set that has three classes is left out. Raises FileNotFoundError when a set is missing.
    """
    public = tuple(item for item in PUBLIC if item.name != "en_clothing_no_3_stars")
    return [*_read_public(data, (*public, *GATE_ONLY)), *own_sets()]


def public_sets(data: Path) -> list[LabelledSet]:
    """The test parts under ``data``/text. Raises FileNotFoundError when a set is missing."""
    return _read_public(data, PUBLIC)


def _read_public(data: Path, chosen: Sequence[PublicSet]) -> list[LabelledSet]:
    wanted = {public.source for public in chosen}
    by_source: dict[str, list[Example]] = {}
    for example in read_examples(data):
        if example.split == "test" and example.source in wanted:
            by_source.setdefault(example.source, []).append(example)
    found = []
    for public in chosen:
        file = data / "text" / f"{public.file}.parquet"
        texts = tuple(
            text for example in by_source[public.source] if (text := _labelled(example, public)) is not None
        )
        found.append(
            LabelledSet(
                name=public.name,
                task=public.task,
                about=public.about,
                texts=texts,
                labels=public.labels,
                sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
                bar=public.bar,
                single=public.source == "app_reviews",
                headline=public.headline,
            )
        )
    return found


def _labelled(example: Example, public: PublicSet) -> LabelledText | None:
    """The example as ``public`` has it; None for a class that it leaves out."""
    label: Any
    if public.task == "sentiment":
        label = SENTIMENTS[example.sentiment] if example.sentiment is not None else None
        if label not in public.labels:
            return None
    elif public.task == "topics" and example.app_class is not None:
        label = (TOPICS[example.app_class],)
    elif public.task == "topics":
        known = _by_words(example.text) if public.by_words else example.topics
        if known is None:
            return None
        label = tuple(topic for topic, there in zip(TOPICS, known, strict=True) if there == 1)
    else:
        label = tuple((span.start, span.end, span.label) for span in example.entities)
    return LabelledText(example.text, label)


def _by_words(text: str) -> tuple[int, ...] | None:
    return weak_topics(text) if len(text) <= _SHORT else None


def own_sets(calibration: Path = CALIBRATION) -> list[LabelledSet]:
    """The project's validation sets, one for each task that has one, in one file or in parts."""
    found = []
    for task, labels in (("sentiment", SENTIMENTS), ("topics", TOPICS), ("entities", ENTITY_TYPES)):
        files = sorted((calibration / task).glob("validation*.jsonl"))
        if files:
            content = [file.read_bytes() for file in files]
            rows = [json.loads(line) for part in content for line in part.decode("utf-8").splitlines()]
            found.append(
                LabelledSet(
                    name=f"own_{task}",
                    task=task,
                    about="validation",
                    texts=tuple(_own_text(row, task) for row in rows),
                    labels=tuple(labels),
                    sha256=hashlib.sha256(b"".join(content)).hexdigest(),
                    headline=tuple(ENTITY_TYPES) if task == "entities" else (),
                )
            )
    return found


def _own_text(row: Mapping[str, Any], task: str) -> LabelledText:
    column = {"sentiment": "label", "topics": "labels", "entities": "entities"}[task]
    return LabelledText(row["text"], _label(row[column], task), row["language"], row["stratum"])


def read_file(file: Path, task: str, *, text_column: str = "text", label_column: str | None = None) -> LabelledSet:
    """A labelled file of one's own: CSV, JSON lines or Parquet with a column of texts and one of labels.

    Labels: a sentiment; topics as a list or with commas between; entities as a list of {start, end, label} (JSON in a
    CSV). Without ``label_column``: "label", "labels" or "entities", whichever there is. A set of sentiments without
    neutral is measured as one of two classes. Raises ValueError naming what is wrong.
    """
    readers: Mapping[str, Any] = {".csv": pl.read_csv, ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}
    if file.suffix not in readers:
        raise ValueError(f"{file} is none of {', '.join(readers)}")
    frame: pl.DataFrame = readers[file.suffix](file)
    column = label_column or next(
        (name for name in ("label", "labels", "entities") if name in frame.columns), "label"
    )
    if missing := [name for name in (text_column, column) if name not in frame.columns]:
        raise ValueError(f"{file} has no column {missing[0]!r}; it has {', '.join(frame.columns)}")
    texts = tuple(
        LabelledText(
            row[text_column] or "", _label(row[column], task), row.get("language") or "", row.get("stratum") or ""
        )
        for row in frame.iter_rows(named=True)
    )
    if not texts:
        raise ValueError(f"{file} has no rows")
    labels = {"sentiment": SENTIMENTS, "topics": TOPICS, "entities": ENTITY_TYPES}[task]
    used = _used_labels(texts, task)
    if strange := sorted(used - set(labels)):
        raise ValueError(f"{file} has the label {strange[0]!r}; {task} knows {', '.join(labels)}")
    if task == "sentiment" and "neutral" not in used:
        labels = _TWO
    return LabelledSet(
        name=file.stem,
        task=task,
        about=file.name,
        texts=texts,
        labels=tuple(labels),
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        headline=tuple(label for label in labels if label in used) if task == "entities" else (),
    )


def _label(value: Any, task: str) -> Any:
    if task == "sentiment":
        return value
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else [part.strip() for part in value.split(",")]
    if task == "topics":
        return tuple(label for label in value or () if label)
    return tuple((int(each["start"]), int(each["end"]), each["label"]) for each in value or ())


def _used_labels(texts: Iterable[LabelledText], task: str) -> set[Any]:
    if task == "sentiment":
        return {text.label for text in texts}
    if task == "topics":
        return {label for text in texts for label in text.label}
    return {span[2] for text in texts for span in text.label}


def fingerprint(labelled: LabelledSet) -> str:
    """16 hex digits of a set's name, texts and labels: answers belong to exactly these."""
    rows = [[text.text, text.label] for text in labelled.texts]
    content = json.dumps([labelled.name, labelled.task, labelled.single, rows], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def pack(sets: Sequence[LabelledSet], file: Path) -> None:
    """Sets as one Parquet file, to be read where the data folder is not."""
    rows = [
        {
            "about": json.dumps(
                [each.name, each.task, each.about, each.labels, each.sha256, each.single, each.headline],
                ensure_ascii=False,
            ),
            "text": text.text,
            "label": json.dumps(text.label, ensure_ascii=False),
            "language": text.language,
            "stratum": text.stratum,
        }
        for each in sets
        for text in each.texts
    ]
    pl.DataFrame(rows).write_parquet(file, compression="zstd", compression_level=19)


def unpack(file: Path) -> list[LabelledSet]:
    """What ``pack`` wrote; bars are left out. Raises ValueError when the file is something else."""
    try:
        frame = pl.read_parquet(file)
        groups = frame.group_by("about", maintain_order=True)
        return [_unpacked(json.loads(about), rows) for (about,), rows in groups]
    except (pl.exceptions.PolarsError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is no file of packed sets: {error}") from None


def _unpacked(about: Sequence[Any], rows: pl.DataFrame) -> LabelledSet:
    name, task, part, labels, sha256, single, headline = about
    texts = tuple(
        LabelledText(row["text"], _tuples(json.loads(row["label"])), row["language"], row["stratum"])
        for row in rows.iter_rows(named=True)
    )
    return LabelledSet(name, task, part, texts, tuple(labels), sha256, single=bool(single), headline=tuple(headline))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def take(labelled: LabelledSet, sample: int | None) -> LabelledSet:
    """``sample`` texts of a set, always the same ones whatever the order of the file: those of the smallest hash."""
    if sample is None or len(labelled.texts) <= sample:
        return labelled

    def by_hash(text: LabelledText) -> bytes:
        return hashlib.sha256(text.text.encode("utf-8", "replace")).digest()

    chosen: Sequence[LabelledText] = sorted(labelled.texts, key=by_hash)[:sample]
    return replace(labelled, texts=tuple(chosen))
