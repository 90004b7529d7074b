"""The calibration and validation sets, their counts, and the part of their cards that follows from the files.

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
    "card_block",
    "labels_of",
    "names_of",
    "read_card",
    "read_rows",
    "set_path",
]

ROOT = Path(__file__).resolve().parents[2] / "calibration"
SETS = ("calibration", "validation")
LANGUAGES = ("en", "zh")
STRATA = ("normal", "boundary", "abnormal")
LABELS = {"sentiment": SENTIMENTS, "topics": TOPICS, "entities": ENTITY_TYPES}
REFRESH = "python tests/calibration/calibration_sets.py"

_BEGIN, _END = "<!-- counts: begin -->", "<!-- counts: end -->"


def set_path(task: str, kind: str) -> Path:
    """Where a task's ``calibration`` or ``validation`` set lies."""
    return ROOT / task / f"{kind}.jsonl"


def read_rows(task: str, kind: str) -> list[dict[str, Any]]:
    """The rows of a set, in file order."""
    return [json.loads(line) for line in set_path(task, kind).read_text(encoding="utf-8").splitlines()]


def labels_of(task: str, row: Mapping[str, Any]) -> list[str]:
    """A row's labels: one sentiment, its topics, or the type of each entity."""
    if task == "sentiment":
        return [row["label"]]
    return list(row["labels"]) if task == "topics" else [entity["label"] for entity in row["entities"]]


def names_of(row: Mapping[str, Any]) -> list[str]:
    """The surfaces of a row's names: entities other than products, which are mostly common nouns."""
    return [entity["text"] for entity in row.get("entities", ()) if entity["label"] != "product"]


def card_block(task: str) -> str:
    """Counts by set, language, stratum and label, and the files' SHA-256, as Markdown."""
    return "\n\n".join(_paragraphs(task))


def _paragraphs(task: str) -> Iterator[str]:
    for kind in SETS:
        rows = read_rows(task, kind)
        yield f"### {kind}.jsonl, {len(rows)} texts"
        yield _table(task, rows)
    yield "### SHA-256"
    yield "\n".join(
        f"- `{kind}.jsonl` {hashlib.sha256(set_path(task, kind).read_bytes()).hexdigest()}" for kind in SETS
    )


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


def read_card(task: str) -> tuple[str, str, str]:
    """A task's card: what stands before the counts, the counts, what stands after them."""
    before, _, rest = (ROOT / task / "README.md").read_text(encoding="utf-8").partition(_BEGIN)
    block, _, after = rest.partition(_END)
    return before, block.strip(), after


def main() -> None:
    """Write the counts and hashes of every card anew."""
    for task in TASKS:
        before, old, after = read_card(task)
        new = card_block(task)
        (ROOT / task / "README.md").write_text(f"{before}{_BEGIN}\n\n{new}\n\n{_END}{after}", encoding="utf-8")
        print(f"calibration/{task}/README.md: {'as it was' if old == new else 'written anew'}")


if __name__ == "__main__":
    main()
