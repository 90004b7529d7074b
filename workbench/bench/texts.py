"""Any number of different texts with the lengths of real reviews: those of the calibration sets.

The sets have some 1,700 texts, and a GPU reads those in a fiftieth of a second; a text that stands twice in a file is
read once. So further texts are made of two: the beginning of one and the end of another that is about as long and in
the same language, cut between words (Chinese: between characters). What they say is of no account to how long they
take.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from workbench.errors import ParameterError
from workbench.settings import settings

__all__ = ["calibration_texts", "make_texts"]

_NEIGHBOURS: Final = 24
_SEED: Final = 20261122
_WORD: Final = re.compile(r"\S+\s*")
_HAN: Final = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


def calibration_texts(folder: Path | None = None) -> list[str]:
    """The different texts of all calibration sets that have a letter, in the files' order.

    Raises ParameterError when there are none.
    """
    home = folder or settings().home / "calibration"
    found: dict[str, None] = {}
    for path in sorted(home.glob("*/calibration.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                if text and any(map(str.isalpha, text)):
                    found[text] = None
    if not found:
        raise ParameterError(f"{home} has no calibration texts. Get them back with: git checkout -- calibration")
    return list(found)


def make_texts(count: int, *, source: Sequence[str] | None = None, seed: int = _SEED) -> list[str]:
    """``count`` different texts, lengths distributed as in ``source`` (default: ``calibration_texts()``).

    The same arguments give the same texts. Raises ParameterError when ``source`` is too small for so many.
    """
    own = list(source if source is not None else calibration_texts())
    chance = random.Random(seed)  # noqa: S311 - a reproducible draw
    parts = [_parts(text) for text in sorted(own, key=lambda text: (bool(_HAN.search(text)), len(text)))]
    chinese = [bool(_HAN.search("".join(text))) for text in parts]
    found = dict.fromkeys(chance.sample(own, min(count, len(own))))
    tries = 0
    while len(found) < count:
        tries += 1
        if tries > 20 * count + 1000:
            raise ParameterError(
                f"{len(own)} texts give {len(found)} different ones, not {count}. Ask for fewer, or give more texts."
            )
        first = chance.randrange(len(parts))
        second = min(max(first + chance.randint(-_NEIGHBOURS, _NEIGHBOURS), 0), len(parts) - 1)
        if chinese[first] != chinese[second] or not parts[first] or not parts[second]:
            continue
        share = chance.random()
        head = parts[first][: round(share * len(parts[first]))]
        tail = parts[second][round(share * len(parts[second])) :]
        text = "".join([*head, *tail]).strip()
        if any(map(str.isalpha, text)):
            found[text] = None
    mixed = list(found)
    chance.shuffle(mixed)
    return mixed


def _parts(text: str) -> list[str]:
    return list(text) if _HAN.search(text) else _WORD.findall(text)
