"""Texts to token ids: cleaning, tokenizing in parallel, and windows for texts longer than a model reads at once."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workbench.errors import ModelError
from workbench.tasks.spec import ModelSpec

__all__ = ["OVERLAP", "EncodedText", "TextEncoder", "reason_not_readable"]

OVERLAP: Final = 64
"""Tokens that two neighbouring windows of a long text share."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# The blocks that pictures live in; the joiners and selectors around them are format characters.
_EMOJI: Final = re.compile(
    "[\u203c\u2049\u2139\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\U0001f000-\U0001faff]"
)
_ADDRESSES: Final = re.compile(r"\s*(?:https?://|www\.)[!-~]+(?:\s+(?:https?://|www\.)[!-~]+)*\s*", re.IGNORECASE)
_SENTENCE_ENDS: Final = frozenset(".!?…。！？；;\n")
_PAUSES: Final = frozenset(",，、：:）)」』】")


def reason_not_readable(text: str | None) -> str | None:
    """Why nothing can be said about ``text``, in plain words; None where it has letters.

    A text of emoji alone gets "only emoji": a model whose vocabulary knows them can still tell its sentiment.
    """
    if text is None:
        return "null"
    if not text:
        return "empty"
    # The usual case first: most texts have a letter among their first characters.
    if any(map(str.isalpha, text)):
        return "only an address" if _ADDRESSES.fullmatch(text) else None
    if all(char.isspace() or unicodedata.category(char)[0] == "C" for char in text):
        return "only spaces and control characters"
    return "only emoji" if _EMOJI.search(text) and not any(map(str.isalnum, text)) else "no letters"


@dataclass(frozen=True)
class EncodedText:
    """The tokens of one text, without those that mark its beginning and end.

    ``ids`` int32 [n]; ``windows`` are the ranges of tokens that are read together, in order, one for most texts;
    ``offsets`` int32 [n, 2] are code points in the text, end exclusive, there when they were asked for.
    """

    ids: NDArray[np.int32]
    windows: tuple[tuple[int, int], ...]
    offsets: NDArray[np.int32] | None = None


class TextEncoder:
    """The tokenizer of a model folder. Raises ModelError when tokenizer.json cannot be read."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        try:
            self._tokenizer = Tokenizer.from_file(str(spec.tokenizer))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(
                f"{spec.tokenizer} cannot be read as a tokenizer: {error}. Get the folder back or export the model "
                "again."
            ) from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # "[MASK]" in a review is six characters somebody wrote, not an instruction to the model.
        self._tokenizer.encode_special_tokens = True
        self.vocabulary_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        dressed = self._tokenizer.encode("a", add_special_tokens=True).ids
        at = _find(bare, dressed)
        self.prefix: tuple[int, ...] = tuple(dressed[:at])
        self.suffix: tuple[int, ...] = tuple(dressed[at + len(bare) :])
        self.unknown_id = _unknown_id(json.loads(self._tokenizer.to_str()), self._tokenizer)
        self._capacity = spec.max_tokens - len(self.prefix) - len(self.suffix)

    def knows(self, encoded: EncodedText) -> bool:
        """Whether at least one token of the text is in the vocabulary."""
        return bool(len(encoded.ids)) and bool(np.any(encoded.ids != self.unknown_id))

    def encode(self, texts: Sequence[str], *, offsets: bool) -> list[EncodedText]:
        """Tokenize ``texts`` on all cores. With ``offsets``, each result says where its tokens stand."""
        clean = [_SURROGATE.sub("\ufffd", text) for text in texts]
        if offsets:
            found = self._tokenizer.encode_batch(clean, add_special_tokens=False)
            return [self._located(text, item) for text, item in zip(clean, found, strict=True)]
        # Without offsets tokenizing takes half the time; the few long texts are done again with them.
        quick = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        result = []
        for text, item in zip(clean, quick, strict=True):
            ids = np.array(item.ids, np.int32)
            if len(ids) > self._capacity:
                again = self._located(text, self._tokenizer.encode(text, add_special_tokens=False))
                result.append(EncodedText(again.ids, again.windows))
            else:
                result.append(EncodedText(ids, ((0, len(ids)),)))
        return result

    def _located(self, text: str, item: Any) -> EncodedText:
        ids = np.array(item.ids, np.int32)
        places = np.array(item.offsets, np.int32).reshape(-1, 2)
        if len(ids) <= self._capacity:
            windows: tuple[tuple[int, int], ...] = ((0, len(ids)),)
        else:
            words = np.array([-1 if word is None else word for word in item.word_ids], np.int32)
            windows = tuple(_split(_boundary_ranks(text, places, words), self._capacity))
        return EncodedText(ids, windows, places)


def _find(needle: list[int], haystack: list[int]) -> int:
    for at in range(len(haystack) - len(needle) + 1):
        if haystack[at : at + len(needle)] == needle:
            return at
    return 0


def _unknown_id(data: dict[str, Any], tokenizer: Tokenizer) -> int:
    """The id of the token that stands for what is not in the vocabulary; -1 where a tokenizer needs none."""
    model = data["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    token = model.get("unk_token")
    found = tokenizer.token_to_id(token) if token else None
    return -1 if found is None else int(found)


def _boundary_ranks(text: str, places: NDArray[np.int32], words: NDArray[np.int32]) -> NDArray[np.int8]:
    """How good it is to cut before each token: 0 inside a word, 1 between words, 2 at a pause, 3 after a sentence."""
    ranks = np.ones(len(places), np.int8)
    for index in range(1, len(places)):
        between = text[int(places[index - 1, 1]) - 1 : int(places[index, 0])]
        last = between.rstrip()[-1:]
        if last in _SENTENCE_ENDS or "\n" in between:
            ranks[index] = 3
        elif last in _PAUSES or between[-1:].isspace():
            ranks[index] = 2
        elif words[index] == words[index - 1] and words[index] >= 0:
            ranks[index] = 0
    return ranks


def _split(ranks: NDArray[np.int8], capacity: int) -> list[tuple[int, int]]:
    """Ranges of at most ``capacity`` tokens that cover all and overlap by about OVERLAP."""
    total, overlap = len(ranks), min(OVERLAP, capacity // 4)
    windows = []
    start = 0
    while total - start > capacity:
        end = _best(ranks, start + capacity - capacity // 4, start + capacity)
        windows.append((start, end))
        # Between half the overlap and all of it back: earliest place of the best rank.
        low, high = end - overlap, end - overlap // 2
        start = low + int(np.argmax(ranks[low : high + 1]))
    windows.append((start, total))
    return windows


def _best(ranks: NDArray[np.int8], low: int, high: int) -> int:
    """The last place of the best rank from ``low`` to ``high``, both included."""
    return high - int(np.argmax(ranks[low : high + 1][::-1]))
