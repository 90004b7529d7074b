"""Which tokens begin a written word."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["word_starts"]

_UNSEEN, _APART, _JOINS = 0, 1, 2
# For each code point whether it is part of words; filled as characters are met, for a text has few different ones.
_SEEN: Final = np.zeros(0x110000, np.uint8)


def word_starts(texts: Sequence[str], offsets: NDArray[np.int32], starts: NDArray[np.int32]) -> NDArray[np.bool_]:
    """For each of n tokens at ``offsets`` [n, 2] whether it begins a word; text u has ``starts[u]`` to
    ``starts[u + 1]``.

    Pieces that touch, letter to letter or digit, are one word. Scripts without spaces have no words to keep together:
    there, each token is its own.
    """
    found = np.ones(len(offsets), bool)
    if len(offsets) < 2:
        return found
    touching = offsets[1:, 0] <= offsets[:-1, 1]
    firsts = starts[1:-1]
    touching[firsts[(firsts > 0) & (firsts < len(offsets))] - 1] = False  # a text's first token
    places = np.flatnonzero(touching) + 1
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(sizes)
    text_of = np.searchsorted(starts, places, side="right") - 1
    right = offsets[places, 0]
    inside = (right > 0) & (right < sizes[text_of])
    places, right, text_of = places[inside], right[inside], text_of[inside]
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    at = ends[text_of] - sizes[text_of] + right
    found[places] = ~(_part_of_words(points[at - 1]) & _part_of_words(points[at]))
    return found


def _part_of_words(points: NDArray[np.uint32]) -> NDArray[np.bool_]:
    seen = _SEEN[points]
    for point in set(points[seen == _UNSEEN].tolist()):
        _SEEN[point] = _JOINS if _joins(chr(point)) else _APART
    return np.asarray(_SEEN[points] == _JOINS)


def _joins(char: str) -> bool:
    # Han, kana, Thai, Lao, Burmese, Khmer: several words in a row without a space. Not Hangul, nor full-width Latin.
    return (char.isalnum() or unicodedata.category(char)[0] == "M") and not (
        "\u0e00" <= char <= "\u0eff"
        or "\u1000" <= char <= "\u109f"
        or "\u1780" <= char <= "\u17ff"
        or (char >= "\u2e80" and not ("\uac00" <= char <= "\ud7a3" or "\uff10" <= char <= "\uff5a"))
    )
