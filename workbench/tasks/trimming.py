"""Spans of a text without what stands around a name: spaces, punctuation, brackets."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["trim_span", "trim_spans"]

_OPENING: Final = {")": "(", "）": "（", "]": "[", "】": "【", "》": "《", "」": "「", "』": "『"}
# Part of names: Wave+, C#, Yahoo!, Inc., 50%.
_KEPT_AT_END: Final = frozenset("+#*%°™®")


def trim_spans(
    texts: Sequence[str | None],
    text_of: NDArray[np.signedinteger[Any]],
    low: NDArray[np.int32],
    high: NDArray[np.int32],
) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.int32], list[str]]:
    """``trim_span`` for n spans from ``low`` [n] to ``high`` [n] of ``texts[text_of[n]]``, text by text.

    Gives the places of those that are left, where they start and end, and what they say. A span that begins before
    the last one of its text ended is left out.
    """
    own = [texts[place] or "" for place in text_of.tolist()]
    columns = own, low.tolist(), high.tolist()
    said = [text[start:end] for text, start, end in zip(*columns, strict=True)]
    # Nearly all begin and end with a letter or a digit, and no mark comes after.
    odd = [
        at
        for at, (name, text, end) in enumerate(zip(said, own, columns[2], strict=True))
        if not (name[:1].isalnum() and name[-1:].isalnum())
        or not ((after := text[end : end + 1]).isascii() or unicodedata.category(after)[0] != "M")
    ]
    for at in odd:
        start, end = low[at], high[at] = trim_span(own[at], columns[1][at], columns[2][at])
        said[at] = own[at][start:end]
    if odd or bool(((low[1:] < high[:-1]) & (text_of[1:] == text_of[:-1])).any()):
        kept, last_text, last_end = [], -1, 0
        # Offsets of odd text may share a character; a span never begins before the last one ended.
        for at, (place, start, end) in enumerate(zip(text_of.tolist(), low.tolist(), high.tolist(), strict=True)):
            if start < end and (place != last_text or start >= last_end):
                last_text, last_end = place, end
                kept.append(at)
        left = np.array(kept, np.intp)
        return left, low[left], high[left], [said[at] for at in kept]
    return np.arange(len(said)), low, high, said


def trim_span(text: str, start: int, end: int) -> tuple[int, int]:
    """The part of a span that is a name; nothing where it has neither letter nor digit."""
    # A composed character may be given by its first code point; its marks belong to it.
    while end < len(text) and unicodedata.category(text[end])[0] == "M":
        end += 1
    before = (-1, -1)
    while before != (start, end):
        before = (start, end)
        while start < end and not _stands_first(text[start], text[start:end]):
            start += 1
        while start < end and not _stands_last(text[end - 1], text[start:end]):
            end -= 1
        if start < end and _OPENING.get(text[end - 1]) == text[start]:
            start, end = start + 1, end - 1
    return (start, end) if any(map(str.isalnum, text[start:end])) else (start, start)


def _stands_first(char: str, span: str) -> bool:
    if char in _OPENING.values():
        return any(closing in span for closing, opening in _OPENING.items() if opening == char)
    return unicodedata.category(char)[0] not in "ZCPM"


def _stands_last(char: str, span: str) -> bool:
    if char in _OPENING:
        return _OPENING[char] in span
    return char in _KEPT_AT_END or unicodedata.category(char)[0] not in "ZCP"
