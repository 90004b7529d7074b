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
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workbench.errors import ModelError
from workbench.tasks.language import LANGUAGES, detect_language
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

_REASON_CODES: Final = {**{reason: code for code, reason in enumerate(REASONS)}, _ONLY_EMOJI: len(REASONS) - 1}
_LANGUAGE_CODES: Final[dict[str | None, int]] = {None: -1, **{code: at for at, code in enumerate(LANGUAGES)}}

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

    def encode_columns(self, texts: Sequence[str | None], *, offsets: bool) -> EncodedTexts:
        """Everything that reading wants to know of ``texts``, as columns. The same words are tokenized once."""
        unique = dict.fromkeys(texts)
        candidates, at_unique, codes = [], [], []
        for place, text in enumerate(unique):
            reason = reason_not_readable(text)
            code = -1 if reason is None else _REASON_CODES[reason]
            codes.append(code)
            if text and (code < 0 or reason == _ONLY_EMOJI):
                candidates.append(text)
                at_unique.append(place)
        reasons = np.array(codes, np.int8)
        languages = np.full(len(unique), -1, np.int8)
        rows = np.full(len(unique), -1, np.int32)
        chosen = np.array(at_unique, np.intp)
        ids, sizes, found, clean = self._tokenize(candidates, offsets=offsets)
        known = _any_in_runs(ids != self.unknown_id, sizes)
        strange = chosen[~known]
        reasons[strange] = np.where(reasons[strange] < 0, _REASON_CODES[_UNKNOWN], _REASON_CODES[_UNKNOWN_EMOJI])
        if not known.all():
            ids, sizes = ids[np.repeat(known, sizes)], sizes[known]
            keep = np.flatnonzero(known).tolist()
            found, clean = [found[at] for at in keep], [clean[at] for at in keep]
            candidates, chosen = [candidates[at] for at in keep], chosen[keep]
        rows[chosen] = np.arange(len(chosen))
        languages[chosen] = [_LANGUAGE_CODES[detect_language(text)] for text in candidates]
        first = chosen
        if len(unique) < len(texts):
            index = {text: at for at, text in enumerate(unique)}
            back = np.fromiter(map(index.__getitem__, texts), np.intp, len(texts))
            rows, reasons, languages = rows[back], reasons[back], languages[back]
            first = np.unique(back, return_index=True)[1][chosen]
        windows, first_window = self._windows(clean, found, sizes, located=offsets)
        input_ids, cu_seqlens = self._dress(ids, windows)
        tokens = None
        if offsets:
            places, starts = self._own_places(windows, cu_seqlens, first_window), _starts(sizes)
            spans = _offsets_of(found, len(ids))
            tokens = EncodedTokens(places, spans, starts, word_starts(clean, spans, starts))
        return EncodedTexts(
            rows, reasons, languages, first.astype(np.int32), input_ids, cu_seqlens, first_window, tokens
        )

    def _tokenize(
        self, texts: Sequence[str], *, offsets: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], list[Any], list[str]]:
        """The ids of all texts end to end, how many each has, the library's own results, and the cleaned texts."""
        clean = list(texts)
        if _SURROGATE.search("".join(clean)):
            clean = [_SURROGATE.sub("\ufffd", text) for text in clean]
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        found = encode(clean, add_special_tokens=False) if clean else []
        lists = [item.ids for item in found]
        sizes = np.fromiter(map(len, lists), np.int32, len(lists))
        ids = np.fromiter(chain.from_iterable(lists), np.int32, int(sizes.sum()))
        return ids, sizes, found, clean

    def _windows(
        self, texts: Sequence[str], found: Sequence[Any], sizes: NDArray[np.int32], *, located: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ranges [W, 2] of tokens that are read together, and the first range of each text [U + 1]."""
        starts = _starts(sizes)
        windows = np.stack([starts[:-1], starts[1:]], axis=1)
        long = np.flatnonzero(sizes > self._capacity)
        counts = np.ones(len(sizes), np.int32)
        if len(long):
            parts, before = [], 0
            for at in long.tolist():
                # Tokenizing is faster when it need not say where tokens stand: the few long texts are done again.
                item = found[at] if located else self._tokenizer.encode(texts[at], add_special_tokens=False)
                own = np.array(self._located(texts[at], item).windows, np.int32) + starts[at]
                counts[at] = len(own)
                parts += [windows[before:at], own]
                before = at + 1
            windows = np.concatenate([*parts, windows[before:]])
        return windows, _starts(counts)

    def _dress(
        self, ids: NDArray[np.int32], windows: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The tokens of all windows end to end, each with its marks, and where each window starts."""
        marks, sizes = len(self.prefix) + len(self.suffix), windows[:, 1] - windows[:, 0]
        cu_seqlens = _starts(sizes + marks)
        dressed = np.empty(cu_seqlens[-1], np.int32)
        own = np.ones(len(dressed), bool)
        for place, token in enumerate(self.prefix):
            at = cu_seqlens[:-1] + place
            dressed[at], own[at] = token, False
        for place, token in enumerate(reversed(self.suffix), 1):
            at = cu_seqlens[1:] - place
            dressed[at], own[at] = token, False
        dressed[own] = ids if len(ids) == own.sum() else ids[_ranges(windows[:, 0], sizes)]
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
        return _ranges(cu_seqlens[:-1] + len(self.prefix) + low - windows[:, 0], high - low)

    def _located(self, text: str, item: Any) -> EncodedText:
        ids = np.array(item.ids, np.int32)
        places = np.array(item.offsets, np.int32).reshape(-1, 2)
        if len(ids) <= self._capacity:
            windows: tuple[tuple[int, int], ...] = ((0, len(ids)),)
        else:
            words = np.array([-1 if word is None else word for word in item.word_ids], np.int32)
            windows = tuple(_split(_boundary_ranks(text, places, words), self._capacity))
        return EncodedText(ids, windows, places)


def _starts(sizes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where runs of ``sizes`` [N] start when they stand end to end, and where the last one ends: [N + 1]."""
    starts = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=starts[1:])
    return starts


def _ranges(firsts: NDArray[np.int32], sizes: NDArray[np.int32]) -> NDArray[np.int32]:
    """The numbers of many ranges, end to end: from each of ``firsts`` on, as many as ``sizes`` says."""
    starts = _starts(sizes)
    return np.arange(starts[-1], dtype=np.int32) + np.repeat(firsts - starts[:-1], sizes)


def _any_in_runs(flags: NDArray[np.bool_], sizes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether some flag of each run is set."""
    counts = np.concatenate([[0], np.cumsum(flags)])
    starts = _starts(sizes)
    return np.asarray(counts[starts[1:]] > counts[starts[:-1]])


def _offsets_of(found: Sequence[Any], count: int) -> NDArray[np.int32]:
    """The offsets [n, 2] of all tokens, end to end."""
    pairs = chain.from_iterable(chain.from_iterable(item.offsets for item in found))
    return np.fromiter(pairs, np.int32, 2 * count).reshape(-1, 2)


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
