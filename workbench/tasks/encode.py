"""Texts to token ids: cleaning, tokenizing in parallel, and windows for texts longer than a model reads at once.

``TextEncoder.encode`` gives an object a text; ``TextEncoder.encode_columns`` gives everything that reading wants to
know of many texts as a few arrays, because at a hundred thousand texts a second an object a text is too much.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress, pairwise
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workbench.errors import ModelError
from workbench.tasks.language import detect_languages
from workbench.tasks.pieces import make_piece_table, run_places, run_starts
from workbench.tasks.spec import ModelSpec
from workbench.tasks.words import word_starts

__all__ = ["OVERLAP", "REASONS", "EncodedText", "EncodedTexts", "EncodedTokens", "TextEncoder", "reason_not_readable"]

OVERLAP: Final = 64
"""Tokens that two neighbouring windows of a long text share."""

_ONLY_EMOJI: Final = "only emoji"
_UNKNOWN_EMOJI: Final = "emoji the model does not know"
_UNKNOWN: Final = "no words or characters the model knows"

REASONS: Final = (
    "null",
    "empty",
    "only an address",
    "only spaces and control characters",
    "no letters",
    _UNKNOWN_EMOJI,
    _UNKNOWN,
    "only emoji: a sentiment, but no topic and no entity",
)
"""Why a text has no answer; with the last one it has a sentiment nonetheless."""

_REASON_CODES: Final[dict[str | None, int]] = {
    None: -1,
    **{reason: code for code, reason in enumerate(REASONS)},
    _ONLY_EMOJI: len(REASONS) - 1,
}

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# The blocks that pictures live in; the joiners and selectors around them are format characters.
_EMOJI: Final = re.compile(
    "[\u203c\u2049\u2139\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\U0001f000-\U0001faff]"
)
_ADDRESS_STARTS: Final = frozenset("hHwW")
_ADDRESSES: Final = re.compile(r"\s*(?:https?://|www\.)[!-~]+(?:\s+(?:https?://|www\.)[!-~]+)*\s*", re.IGNORECASE)
_SENTENCE_ENDS: Final = ".!?…。！？；;"
_PAUSES: Final = ",，、：:）)」』】"
_BLANKS: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
# What a character does to a text, by code point; the last place is for all those beyond.
_OTHER, _PAUSE, _SENTENCE_END, _BLANK, _NEW_LINE = range(5)
_DOES: Final = np.zeros(0x10000, np.uint8)
for _chars, _what in ((_PAUSES, _PAUSE), (_SENTENCE_ENDS, _SENTENCE_END), (_BLANKS, _BLANK), ("\n", _NEW_LINE)):
    _DOES[[ord(_char) for _char in _chars]] = _what


def reason_not_readable(text: str | None) -> str | None:
    """Why nothing can be said about ``text``, in plain words; None where it has letters.

    A text of emoji alone gets "only emoji": a model whose vocabulary knows them can still tell its sentiment.
    """
    if text is None:
        return "null"
    if not text:
        return "empty"
    # The usual case first: most texts begin with a letter, and an address with "h" or "w".
    if text[0] not in _ADDRESS_STARTS and text[0].isalpha():
        return None
    if any(map(str.isalpha, text)):
        return "only an address" if _ADDRESSES.fullmatch(text) else None
    if all(char.isspace() or unicodedata.category(char)[0] == "C" for char in text):
        return "only spaces and control characters"
    return _ONLY_EMOJI if _EMOJI.search(text) and not any(map(str.isalnum, text)) else "no letters"


@dataclass(frozen=True)
class EncodedText:
    """The tokens of one text, without those that mark its beginning and end.

    ``ids`` int32 [n]; ``windows`` are the ranges of tokens that are read together, in order, one for most texts;
    ``offsets`` int32 [n, 2] are code points in the text, end exclusive, there when they were asked for.
    """

    ids: NDArray[np.int32]
    windows: tuple[tuple[int, int], ...]
    offsets: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class EncodedTokens:
    """Where the n tokens of many texts stand, marks and the overlaps of windows left out.

    ``places`` int32 [n]: which of the T tokens that go to the model each is; ``offsets`` int32 [n, 2]: its code
    points in its text, end exclusive; ``starts`` int32 [U + 1]: text u has the tokens ``starts[u]`` to
    ``starts[u + 1]``; ``words`` bool [n]: whether it begins a written word.
    """

    places: NDArray[np.int32]
    offsets: NDArray[np.int32]
    starts: NDArray[np.int32]
    words: NDArray[np.bool_]


@dataclass(frozen=True)
class EncodedTexts:
    """N texts as columns, and what of them goes to the model: U texts, each once, in W windows with T tokens.

    ``rows`` int32 [N]: which of the U texts a text is, -1 where it does not go to the model. ``reasons`` int8 [N]:
    why not, a place in REASONS, or -1; a text of emoji goes there, and has its reason too. ``languages`` int8 [N]: a
    place in LANGUAGES, or -1. ``first`` int32 [U]: a text's first place among the N.

    ``input_ids`` int32 [T]: tokens with the marks that the model wants, window by window. ``cu_seqlens`` int32
    [W + 1]: where each window starts. ``first_window`` int32 [U + 1]: text u has the windows ``first_window[u]`` to
    ``first_window[u + 1]``. ``tokens`` is there when offsets were asked for.
    """

    rows: NDArray[np.int32]
    reasons: NDArray[np.int8]
    languages: NDArray[np.int8]
    first: NDArray[np.int32]
    input_ids: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]
    first_window: NDArray[np.int32]
    tokens: EncodedTokens | None = None

    def __len__(self) -> int:
        return len(self.rows)


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
        data = json.loads(self._tokenizer.to_str())
        self.unknown_id = _unknown_id(data, self._tokenizer)
        self._pieces = make_piece_table(self._tokenizer, data)
        self._capacity = spec.max_tokens - len(self.prefix) - len(self.suffix)

    def knows(self, encoded: EncodedText) -> bool:
        """Whether at least one token of the text is in the vocabulary."""
        return bool(len(encoded.ids)) and bool(np.any(encoded.ids != self.unknown_id))

    def encode(self, texts: Sequence[str], *, offsets: bool) -> list[EncodedText]:
        """Tokenize ``texts`` on all cores. With ``offsets``, each result says where its tokens stand."""
        clean, found = self._tokenize(texts, offsets=offsets)
        located = found.located() if offsets else None
        windows, first_window = self._windows(clean, found, located)
        first_windows, pairs = first_window.tolist(), windows.tolist()
        result = []
        for at, (start, end) in enumerate(pairwise(found.starts.tolist())):
            own = pairs[first_windows[at] : first_windows[at + 1]]
            result.append(
                EncodedText(
                    found.ids[start:end],
                    tuple((low - start, high - start) for low, high in own),
                    None if located is None else located[0][start:end],
                )
            )
        return result

    def encode_columns(self, texts: Sequence[str | None], *, offsets: bool) -> EncodedTexts:
        """Everything that reading wants to know of ``texts``, as columns. The same words are tokenized once."""
        unique = dict.fromkeys(texts)
        codes = [_REASON_CODES[reason_not_readable(text)] for text in unique]
        reasons = np.array(codes, np.int8)
        languages = np.full(len(unique), -1, np.int8)
        rows = np.full(len(unique), -1, np.int32)
        read = (reasons < 0) | (reasons == _REASON_CODES[_ONLY_EMOJI])
        chosen = np.flatnonzero(read)
        candidates = [text for text in compress(unique, read.tolist()) if text]
        clean, found = self._tokenize(candidates, offsets=offsets)
        known = _any_in_runs(found.ids != self.unknown_id, found.starts)
        if not known.all():
            strange = chosen[~known]
            reasons[strange] = np.where(reasons[strange] < 0, _REASON_CODES[_UNKNOWN], _REASON_CODES[_UNKNOWN_EMOJI])
            found, chosen = found.kept(known), chosen[known]
            clean, candidates = list(compress(clean, known.tolist())), list(compress(candidates, known.tolist()))
        rows[chosen] = np.arange(len(chosen))
        languages[chosen] = detect_languages(candidates)
        first = chosen
        if len(unique) < len(texts):
            index = {text: at for at, text in enumerate(unique)}
            back = np.fromiter(map(index.__getitem__, texts), np.intp, len(texts))
            rows, reasons, languages = rows[back], reasons[back], languages[back]
            first = np.unique(back, return_index=True)[1][chosen]
        located = found.located() if offsets else None
        windows, first_window = self._windows(clean, found, located)
        input_ids, cu_seqlens = self._dress(found.ids, windows)
        tokens = None
        if located is not None:
            places, starts = self._own_places(windows, cu_seqlens, first_window), found.starts
            tokens = EncodedTokens(places, located[0], starts, word_starts(clean, located[0], starts))
        return EncodedTexts(
            rows, reasons, languages, first.astype(np.int32), input_ids, cu_seqlens, first_window, tokens
        )

    def _tokenize(self, texts: Sequence[str], *, offsets: bool) -> tuple[list[str], _Tokens]:
        """The texts without surrogates, and their tokens."""
        clean = list(texts)
        if _SURROGATE.search("".join(clean)):
            clean = [_SURROGATE.sub("\ufffd", text) for text in clean]
        if self._pieces is not None:
            return clean, self._pieces.tokenize(clean)
        # Tokenizing is faster when it need not say where tokens stand.
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        items = encode(clean, add_special_tokens=False) if clean else []
        return clean, _LibraryTokens.from_items(self._tokenizer, clean, items, located=offsets)

    def _windows(
        self,
        texts: Sequence[str],
        found: _Tokens,
        located: tuple[NDArray[np.int32], NDArray[np.bool_]] | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ranges [W, 2] of tokens that are read together, and the first range of each text [U + 1]."""
        starts = found.starts
        windows = np.empty((len(texts), 2), np.int32)
        windows[:, 0], windows[:, 1] = starts[:-1], starts[1:]
        sizes = starts[1:] - starts[:-1]
        is_long = sizes > self._capacity
        if not is_long.any():
            return windows, np.arange(len(sizes) + 1, dtype=np.int32)
        own_starts = starts
        if located is None:  # the few long texts have to be
            some = found.kept(is_long)
            located = some.located()
            own_starts = np.zeros(len(sizes), np.int32)
            own_starts[is_long] = some.starts[:-1]
        offsets, joined = located
        counts = np.ones(len(sizes), np.int32)
        parts, before = [], 0
        for at in np.flatnonzero(is_long).tolist():
            place = slice(own_starts[at], own_starts[at] + sizes[at])
            own = _split(_boundary_ranks(texts[at], offsets[place], joined[place]), self._capacity)
            counts[at] = len(own)
            parts += [windows[before:at], np.array(own, np.int32) + starts[at]]
            before = at + 1
        return np.concatenate([*parts, windows[before:]]), run_starts(counts)

    def _dress(
        self, ids: NDArray[np.int32], windows: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The tokens of all windows end to end, each with its marks, and where each window starts."""
        marks, sizes = len(self.prefix) + len(self.suffix), windows[:, 1] - windows[:, 0]
        cu_seqlens = run_starts(sizes + marks)
        dressed = np.empty(cu_seqlens[-1], np.int32)
        own = np.ones(len(dressed), bool)
        for place, token in enumerate(self.prefix):
            at = cu_seqlens[:-1] + place
            dressed[at], own[at] = token, False
        for place, token in enumerate(reversed(self.suffix), 1):
            at = cu_seqlens[1:] - place
            dressed[at], own[at] = token, False
        dressed[own] = (
            ids if len(ids) + marks * len(windows) == len(dressed) else ids[run_places(windows[:, 0], sizes)]
        )
        return dressed, cu_seqlens

    def _own_places(
        self, windows: NDArray[np.int32], cu_seqlens: NDArray[np.int32], first_window: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """For each token of the texts, the one of the dressed tokens that speaks for it: in the window that it stands
        deepest in.

        Neighbouring windows share tokens; each gives one half of them, so that no entity is found twice and one that
        crosses the cut is found whole.
        """
        low, high = windows[:, 0].copy(), windows[:, 1].copy()
        inner = np.ones(len(windows), bool)
        inner[first_window[:-1]] = False  # a text's first window has none before it
        cut = np.flatnonzero(inner)
        low[cut] = high[cut - 1] = (windows[cut - 1, 1] + windows[cut, 0]) // 2
        return run_places(cu_seqlens[:-1] + len(self.prefix) + low - windows[:, 0], high - low)


class _Tokens(Protocol):
    """The tokens of U texts, end to end: see PieceTokens, which says them too."""

    @property
    def ids(self) -> NDArray[np.int32]: ...
    @property
    def starts(self) -> NDArray[np.int32]: ...
    def kept(self, texts: NDArray[np.bool_]) -> _Tokens: ...
    def located(self) -> tuple[NDArray[np.int32], NDArray[np.bool_]]: ...


@dataclass(frozen=True)
class _LibraryTokens:
    """The tokens of texts as the library gives them, for tokenizers that do not take texts piece by piece."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    _tokenizer: Tokenizer
    _texts: list[str]
    _items: list[Any]
    _located: bool  # whether the items know where their tokens stand

    @classmethod
    def from_items(cls, tokenizer: Tokenizer, texts: list[str], items: list[Any], *, located: bool) -> _LibraryTokens:
        lists = [item.ids for item in items]
        starts = run_starts(np.fromiter(map(len, lists), np.int32, len(lists)))
        ids = np.fromiter(chain.from_iterable(lists), np.int32, int(starts[-1]))
        return cls(ids, starts, tokenizer, texts, items, located)

    def kept(self, texts: NDArray[np.bool_]) -> _LibraryTokens:
        chosen, sizes = texts.tolist(), self.starts[1:] - self.starts[:-1]
        return _LibraryTokens(
            self.ids[texts.repeat(sizes)],
            run_starts(sizes[texts]),
            self._tokenizer,
            list(compress(self._texts, chosen)),
            list(compress(self._items, chosen)),
            self._located,
        )

    def located(self) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        items = self._items
        if not self._located and items:
            items = self._tokenizer.encode_batch(self._texts, add_special_tokens=False)
        pairs = chain.from_iterable(chain.from_iterable(item.offsets for item in items))
        offsets = np.fromiter(pairs, np.int32, 2 * len(self.ids)).reshape(-1, 2)
        words = chain.from_iterable(item.word_ids for item in items)
        word = np.fromiter((-1 if each is None else each for each in words), np.int32, len(self.ids))
        joined = np.zeros(len(word), bool)
        joined[1:] = (word[1:] == word[:-1]) & (word[1:] >= 0)
        joined[self.starts[:-1][self.starts[:-1] < self.starts[1:]]] = False  # what comes first in its text
        return offsets, joined


def _any_in_runs(flags: NDArray[np.bool_], starts: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether some flag of each run is set; run u has those from ``starts[u]`` to ``starts[u + 1]``."""
    counts = run_starts(flags)[starts]
    return np.asarray(counts[1:] > counts[:-1])


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


def _boundary_ranks(text: str, places: NDArray[np.int32], joined: NDArray[np.bool_]) -> NDArray[np.int8]:
    """How good it is to cut before each token: 0 inside a word, 1 between words, 2 at a pause, 3 after a sentence.

    ``places`` [n, 2] is where the tokens stand in ``text``; ``joined`` [n]: which go on with the word before them.
    """
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    does = _DOES.take(points, mode="clip")
    solid = np.maximum.accumulate(np.where(does < _BLANK, np.arange(len(does)), -1))  # the last no blank up to here
    lines = run_starts(does == _NEW_LINE)  # new lines before here
    # Between two tokens, the last character of the first one included.
    low, high = places[:-1, 1] - 1, np.minimum(places[1:, 0], len(points))
    low = np.maximum(np.where(low < 0, low + len(points), low), 0)
    some = low < high
    low, end = np.where(some, low, 0), np.where(some, high, 1) - 1
    last = np.where(solid[end] >= low, does[solid[end]], _OTHER)
    ranks = np.ones(len(places), np.int8)
    ranks[1:][joined[1:]] = 0
    ranks[1:][some & ((last == _PAUSE) | (does[end] >= _BLANK))] = 2
    ranks[1:][some & ((last == _SENTENCE_END) | (lines[end + 1] > lines[low]))] = 3
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
