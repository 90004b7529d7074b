"""More texts to learn from, made of training reviews: their clauses, and praise joined with blame.

Labelled sets hold whole reviews, each with one verdict. What users paste is often one clause, or a short text that
praises one thing and blames another, and no set has such texts with a label. So reviews are cut into clauses, which
teachers label (see ``teachers``), and a clause of clear praise is joined with one of clear blame into a short mixed
text whose label is fixed: mostly negative where blame comes last, open where praise does, for what comes last weighs
more. Nothing here is made of dev or test texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workbench.engine.training.corpus import Example

__all__ = ["CLAUSE_SETS", "compose_clauses", "is_chinese", "read_clauses"]

CLAUSE_SETS: Final = ("zh_shopping", "en_amazon", "en_clothing", "zh_restaurants")
"""Sets whose training reviews are cut into clauses, beside the texts without labels."""

_CHINESE_CUT = re.compile(r"(?<=[。！？!?；;\n])|(?<=[，,~～ …])")
_ENGLISH_CUT = re.compile(r"(?<=[.!?])\s+")
_CHINESE_LENGTHS, _ENGLISH_LENGTHS = (4, 90), (12, 220)
# How many parts make one text, and how often.
_PARTS, _PART_SHARES = (1, 2, 3, 4), (0.35, 0.3, 0.2, 0.15)
_LONGEST_HALF: Final = 22
_SURE: Final = 0.9
_BLAME_LAST: Final = (0.55, 0.35, 0.10)
_PRAISE_LAST: Final = (0.30, 0.42, 0.28)
_THEN_BLAME: Final[tuple[str, ...]] = ("，就是", "，但是", "，不过", "，可惜", "。", "，", "；就是", "…")
_THEN_PRAISE: Final[tuple[str, ...]] = ("，不过", "，但是", "，好在", "。", "，")


def is_chinese(text: str) -> bool:
    """Whether more than a fifth of the beginning of ``text`` are Chinese characters."""
    beginning = text[:200]
    return sum("\u4e00" <= char <= "\u9fff" for char in beginning) > 0.2 * max(1, len(beginning))


def read_clauses(
    examples: Sequence[Example],
    unlabelled: Iterable[str],
    *,
    chinese: int = 110_000,
    english: int = 70_000,
    seed: int = 7,
) -> list[Example]:
    """One to four neighbouring clauses (Chinese) or sentences (English) of training reviews, without labels.

    At most ``chinese`` and ``english`` of them, drawn at random, each once, as examples of the source "segments".
    What is a held-out or test text as a whole is left out, and so is what is nearly a whole review.
    """
    random = np.random.default_rng(seed)
    seen = {example.text for example in examples if example.split != "train"}
    reviews = [e.text for e in examples if e.split == "train" and e.source in CLAUSE_SETS]
    found: dict[bool, list[str]] = {True: [], False: []}
    for review in (*reviews, *unlabelled):
        in_chinese = is_chinese(review)
        shortest, longest = _CHINESE_LENGTHS if in_chinese else _ENGLISH_LENGTHS
        for text in _pieces(review, in_chinese, random):
            if shortest <= len(text) <= min(longest, 0.9 * len(review)) and text not in seen:
                seen.add(text)
                found[in_chinese].append(text)
    chosen = []
    for texts, limit in ((found[True], chinese), (found[False], english)):
        order = random.permutation(len(texts))[:limit]
        chosen += [Example(texts[index], "segments", "train") for index in order]
    return chosen


def _pieces(review: str, in_chinese: bool, random: np.random.Generator) -> Iterator[str]:
    cut, joint = (_CHINESE_CUT, "") if in_chinese else (_ENGLISH_CUT, " ")
    parts = [part for part in cut.split(review) if part]
    at = 0
    while at < len(parts):
        count = int(random.choice(_PARTS, p=_PART_SHARES))
        yield joint.join(parts[at : at + count]).strip(" ，,。；;")
        at += count


def compose_clauses(
    clauses: Sequence[Example], praise: NDArray[np.floating], *, count: int = 9_000, seed: int = 7
) -> list[Example]:
    """``count`` short Chinese texts that praise and blame, as examples of the source "composed" with ``shares``.

    ``praise`` [clauses] is the probability that a clause is positive, NaN where nothing is known; only those above
    0.9 and below 0.1 are joined. None when there is no clear praise or no clear blame.
    """
    random = np.random.default_rng(seed)
    short = [len(clause.text) <= _LONGEST_HALF and is_chinese(clause.text) for clause in clauses]
    texts = [clause.text.strip("，,。！!.~ ") for clause in clauses]
    good = [text for text, fits, share in zip(texts, short, praise, strict=True) if fits and share > _SURE and text]
    bad = [
        text for text, fits, share in zip(texts, short, praise, strict=True) if fits and share < 1 - _SURE and text
    ]
    if not good or not bad:
        return []
    made: dict[str, Example] = {}
    for _ in range(count):
        first, last = str(random.choice(good)), str(random.choice(bad))
        shares, joints = _BLAME_LAST, _THEN_BLAME
        if random.random() >= 0.7:
            first, last, shares, joints = last, first, _PRAISE_LAST, _THEN_PRAISE
        text = f"{first}{random.choice(joints)}{last}"
        made.setdefault(text, Example(text, "composed", "train", shares=shares))
    return list(made.values())
