"""The texts whose ranges an INT8 engine is built with, and why some sets of texts are refused.

A set is one file a task, ``<task>/calibration.jsonl``, or one ``calibration.jsonl`` for all tasks; a line is an
object with ``text``, ``language`` and ``stratum`` (normal, boundary or abnormal). Labels are not needed and not read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workbench.errors import CalibrationError
from workbench.tasks.encode import reason_not_readable
from workbench.tasks.labels import TASKS

__all__ = ["LEAST", "STRATA", "CalibrationSet", "check_representative", "common_share", "read_calibration"]

STRATA: Final = ("normal", "boundary", "abnormal")

LEAST: Final = 128
"""Different texts without which ranges are left to chance."""

_LEAST_OF_EACH: Final = 8
"""Texts of each language in each stratum."""

_COMMON: Final = 0.2
"""Share of a language's running words (Chinese: characters) that its 50 commonest make up, at least. Natural texts:
the bundled sets 0.41 in English and 0.30 in Chinese, 20 texts of them 0.50 and 0.38. Words or characters drawn at
random: 0.12 of 60 texts, 0.05 of 300."""

_SAMPLE: Final = "workbench calibration sample -w DIR draws such a set from a lake"
_WORD: Final = re.compile(r"[^\W\d_]+")
_HAN: Final = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True)
class CalibrationSet:
    """Texts with their stratum and language, in file order; ``sha256`` of the texts as they are fed to the model."""

    texts: tuple[str, ...]
    strata: tuple[str, ...]
    languages: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str, str]]) -> CalibrationSet:
        """A set of (text, stratum, language) rows; a text that stands there twice counts once."""
        unique: dict[str, tuple[str, str, str]] = {}
        for row in rows:
            unique.setdefault(row[0], row)
        kept = list(unique.values())
        digest = hashlib.sha256()
        for text, _, _ in kept:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return cls(
            texts=tuple(text for text, _, _ in kept),
            strata=tuple(stratum for _, stratum, _ in kept),
            languages=tuple(language for _, _, language in kept),
            sha256=digest.hexdigest(),
        )


def read_calibration(folder: Path | str, tasks: Sequence[str] = TASKS) -> CalibrationSet:
    """The calibration texts of ``tasks`` under ``folder``: <task>/calibration.jsonl, or one calibration.jsonl.

    Raises CalibrationError when a file is missing or a line cannot be read. Whether the texts are fit is another
    question: see ``check_representative``.
    """
    root = Path(folder)
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise CalibrationError(f"No task is named {unknown[0]!r}. Tasks: {', '.join(TASKS)}")
    shared = root / "calibration.jsonl"
    paths = [root / task / "calibration.jsonl" for task in TASKS if task in tasks]
    if shared.is_file():
        paths = [shared]
    rows: list[tuple[str, str, str]] = []
    for path in paths:
        if not path.is_file():
            raise CalibrationError(
                f"{path} is missing. The bundled sets are in the project's folder calibration (git checkout -- "
                f"calibration); {_SAMPLE}."
            )
        rows += _rows(path)
    return CalibrationSet.of(rows)


def _rows(path: Path) -> list[tuple[str, str, str]]:
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CalibrationError(f"{path}, line {number} is no JSON: {error}. Mend or remove that line.") from None
        values = [row.get(key) for key in ("text", "stratum", "language")] if isinstance(row, dict) else [None]
        if not all(isinstance(value, str) and value for value in values):
            raise CalibrationError(
                f"{path}, line {number} needs text, stratum and language, each a text that is not empty. Mend or "
                "remove that line."
            )
        text, stratum, language = (str(value) for value in values)
        if stratum not in STRATA:
            raise CalibrationError(
                f"{path}, line {number}: no stratum is named {stratum!r}. Strata: {', '.join(STRATA)}"
            )
        rows.append((text, stratum, language))
    return rows


def common_share(texts: Sequence[str], language: str) -> float:
    """Share of all running words that the 50 commonest make up; of Chinese, Japanese and Korean: of characters."""
    if language in ("zh", "ja", "ko"):
        counts = Counter(char for text in texts for char in text if char.isalpha() and not char.isascii())
    else:
        counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))
    total = sum(counts.values())
    return sum(count for _, count in counts.most_common(50)) / total if total else 0.0


def check_representative(data: CalibrationSet, *, languages: Sequence[str] = ("en", "zh")) -> None:
    """Refuse a set from which no good ranges come; ``languages`` are those the engine is to read.

    Raises CalibrationError naming everything that is missing: fewer than 128 different texts, fewer than 8 of a
    language in a stratum, texts that nobody wrote (random words or characters have no common ones).
    """
    if not len(data):
        raise CalibrationError(f"The calibration set is empty. At least {LEAST} texts are needed; {_SAMPLE}.")
    problems = []
    if len(data) < LEAST:
        problems.append(f"{len(data)} different texts; at least {LEAST} are needed")
    counts = Counter(zip(data.languages, data.strata, strict=True))
    for language in languages:
        if not any(found == language for found in data.languages):
            problems.append(f"no text in {language}")
            continue
        for stratum in STRATA:
            if counts[language, stratum] < _LEAST_OF_EACH:
                problems += [
                    f"{counts[language, stratum]} texts of the stratum {stratum} in {language}; at least "
                    f"{_LEAST_OF_EACH} are needed"
                ]
        own = [
            text
            for text, stratum, found in zip(data.texts, data.strata, data.languages, strict=True)
            if found == language and stratum == "normal"
        ]
        share = common_share(own, language)
        if len(own) >= _LEAST_OF_EACH and share < _COMMON:
            problems.append(
                f"the normal texts in {language} look random: their 50 commonest words are {share:.0%} of all, in "
                "what people write they are 30% or more"
            )
    unreadable = sum(
        reason_not_readable(text) is not None
        for text, stratum in zip(data.texts, data.strata, strict=True)
        if stratum == "normal"
    )
    if unreadable > 0.1 * data.strata.count("normal"):
        problems.append(f"{unreadable} of the normal texts have no letters")
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise CalibrationError(
            f"The calibration set does not stand for what the engine will read:\n{listed}\nAdd such texts, or take "
            f"the bundled set (folder calibration); {_SAMPLE}."
        )
