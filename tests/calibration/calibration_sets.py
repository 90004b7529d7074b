"""The calibration, validation and training texts, their counts, and the part of their cards that follows from them.

After a change of the sets, write that part anew:

python tests/calibration/calibration_sets.py
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [] if __name__ != "__main__" else [str(Path(__file__).resolve().parents[2])]

from workbench.tasks.labels import ENTITY_TYPES, SENTIMENTS, TASKS, TOPICS  # noqa: E402 - after the path of a script

__all__ = [
    "LABELS",
    "LANGUAGES",
    "REFRESH",
    "ROOT",
    "SETS",
    "STRATA",
    "TRAINING",
    "card_block",
    "labels_of",
    "names_of",
    "read_card",
    "read_rows",
    "read_training",
    "set_path",
    "training_path",
]

ROOT = Path(__file__).resolve().parents[2] / "calibration"
SETS = ("calibration", "validation")
LANGUAGES = ("en", "zh")
STRATA = ("normal", "boundary", "abnormal")
TRAINING = "training"
"""The folder of the texts to train on; each is labelled for all tasks."""
LABELS = {"sentiment": SENTIMENTS, "topics": TOPICS, "entities": ENTITY_TYPES}
REFRESH = "python tests/calibration/calibration_sets.py"

_BEGIN, _END = "<!-- counts: begin -->", "<!-- counts: end -->"


def set_path(task: str, kind: str) -> Path:
    """Where a task's ``calibration`` or ``validation`` set lies."""
    return ROOT / task / f"{kind}.jsonl"


def read_rows(task: str, kind: str) -> list[dict[str, Any]]:
    """The rows of a set, in file order."""
    return [json.loads(line) for line in set_path(task, kind).read_text(encoding="utf-8").splitlines()]


def training_path(language: str) -> Path:
    """Where the training texts of a language lie."""
    return ROOT / TRAINING / f"texts.{language}.jsonl"


def read_training(language: str) -> list[dict[str, Any]]:
    """The training texts of a language, in file order."""
    return [json.loads(line) for line in training_path(language).read_text(encoding="utf-8").splitlines()]


def labels_of(task: str, row: Mapping[str, Any]) -> list[str]:
    """A row's labels: one sentiment, its topics, or the type of each entity."""
    if task == "sentiment":
        return [row["label"]]
    return list(row["labels"]) if task == "topics" else [entity["label"] for entity in row["entities"]]


def names_of(row: Mapping[str, Any]) -> list[str]:
    """The surfaces of a row's names: entities other than products, which are mostly common nouns."""
    return [entity["text"] for entity in row.get("entities", ()) if entity["label"] != "product"]


def card_block(folder: str) -> str:
    """Counts by set, language, stratum and label, and the files' SHA-256, as Markdown; ``folder`` as in `ROOT`."""
    return "\n\n".join(_training_paragraphs() if folder == TRAINING else _paragraphs(folder))


def _paragraphs(task: str) -> Iterator[str]:
    for kind in SETS:
        rows = read_rows(task, kind)
        yield f"### {kind}.jsonl, {len(rows)} texts"
        yield _table(task, rows)
    yield from _hashes(set_path(task, kind) for kind in SETS)


def _training_paragraphs() -> Iterator[str]:
    rows = {language: read_training(language) for language in LANGUAGES}
    yield f"### {sum(map(len, rows.values()))} texts"
    heads = ["language", "texts", "in words or characters", "entities", "texts without"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for language, texts in rows.items():
        entities = [len(row["entities"]) for row in texts]
        counts = (len(texts), _middle_length(texts), sum(entities), entities.count(0))
        lines.append(f"| {language} | {' | '.join(map(str, counts))} |")
    yield "\n".join(lines)
    for task in TASKS:
        lines = [f"| {task} | {' | '.join(LABELS[task])} |", "|---|" + "---:|" * len(LABELS[task])]
        for language, texts in rows.items():
            counted = Counter(label for row in texts for label in _training_labels(task, row))
            lines.append(f"| {language} | {' | '.join(str(counted[label]) for label in LABELS[task])} |")
        yield "\n".join(lines)
    yield from _hashes(training_path(language) for language in LANGUAGES)


def _training_labels(task: str, row: Mapping[str, Any]) -> list[str]:
    if task == "entities":
        return labels_of(task, row)
    return [row["sentiment"]] if task == "sentiment" else list(row["topics"])


def _middle_length(rows: Iterable[Mapping[str, Any]]) -> str:
    """Shortest, median and longest text: English in words, Chinese in characters."""
    sizes = sorted(len(r["text"].split()) if r["language"] == "en" else len(r["text"]) for r in rows)
    return f"{sizes[0]} to {sizes[-1]}, half under {sizes[len(sizes) // 2] + 1}"


def _hashes(paths: Iterable[Path]) -> Iterator[str]:
    yield "### SHA-256"
    yield "\n".join(f"- `{path.name}` {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths)


def _table(task: str, rows: Iterable[Mapping[str, Any]]) -> str:
    texts: Counter[tuple[str, str]] = Counter()
    labels: Counter[tuple[str, str, str]] = Counter()
    none: Counter[tuple[str, str]] = Counter()
    for row in rows:
        cell = row["language"], row["stratum"]
        texts[cell] += 1
        found = labels_of(task, row)
        labels.update((*cell, label) for label in found)
        none[cell] += not found
    heads = ["language", "stratum", "texts", *LABELS[task], *(["without"] if task == "entities" else [])]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for language in LANGUAGES:
        for stratum in STRATA:
            counts = [texts[language, stratum], *(labels[language, stratum, label] for label in LABELS[task])]
            if task == "entities":
                counts.append(none[language, stratum])
            lines.append(f"| {language} | {stratum} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def read_card(folder: str) -> tuple[str, str, str]:
    """A folder's card: what stands before the counts, the counts, what stands after them."""
    before, _, rest = (ROOT / folder / "README.md").read_text(encoding="utf-8").partition(_BEGIN)
    block, _, after = rest.partition(_END)
    return before, block.strip(), after


def main() -> None:
    """Write the counts and hashes of every card anew."""
    for folder in (*TASKS, TRAINING):
        before, old, after = read_card(folder)
        new = card_block(folder)
        (ROOT / folder / "README.md").write_text(f"{before}{_BEGIN}\n\n{new}\n\n{_END}{after}", encoding="utf-8")
        print(f"calibration/{folder}/README.md: {'as it was' if old == new else 'written anew'}")


if __name__ == "__main__":
    main()
