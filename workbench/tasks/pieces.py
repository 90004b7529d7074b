"""Texts to tokens by way of their pieces: words, Han characters and punctuation marks that were tokenized before.

Reviews are made of the same few thousand words and characters over and over. A tokenizer of BERT's kind cuts a text
at white space, around Han characters and at ASCII punctuation before it does anything else, so the tokens of a text
are those of its pieces: each is tokenized by the library once and looked up from then on. What is looked up is
exactly what the library says of the whole text, positions included; tokenizers that do not cut there are not served.

Why that is exact. Nothing that is normalized reaches across a cut: no composition of Unicode begins or ends at a
space, a Han character or the marks in ``MARKS`` (which is why "<", "=" and ">" are not among them: U+0338 strikes
them through), all of these are starters, which combining marks do not move across, and what a normalizer removes was
inside a piece. White space other than the four characters of ``SPACES`` is removed by some normalizers and made a
space by others; it stays inside a piece too.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

__all__ = ["HAN", "MARKS", "SPACES", "PieceTable", "PieceTokens", "make_piece_table", "run_places", "run_starts"]

SPACES: Final = " \t\n\r"
"""The characters that every tokenizer served here takes for white space: they belong to no piece."""

MARKS: Final = "!\"#$%&'()*+,-./:;?@[\\]^_`{|}~"
"""Punctuation that is a piece by itself."""

HAN: Final = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF))
"""Code points, last included, that are pieces by themselves where the tokenizer puts spaces around them."""

_RUN, _SINGLE, _SPACE = 0, 1, 2
_TOP: Final = HAN[-1][1] + 1  # no single piece is beyond
_NEW_LINE: Final = 10

# A hundred thousand reviews have some fifteen thousand pieces. What is longer than a word is seldom seen again.
_LIMIT: Final = 100_000
_LONGEST: Final = 40
# So many characters are cut one by one sooner than all at once.
_FEW: Final = 400

_NORMALIZERS: Final = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"})
_SPLITTERS: Final = frozenset({"BertPreTokenizer", "Digits", "Punctuation"})
# These leave tokens as they are when no special tokens are asked for; others trim the positions.
_DRESSERS: Final = frozenset({"BertProcessing", "TemplateProcessing"})


def run_starts(sizes: NDArray[Any]) -> NDArray[np.int32]:
    """Where runs of ``sizes`` [N] start when they stand end to end, and where the last one ends: [N + 1]."""
    starts = np.zeros(len(sizes) + 1, np.int32)
    sizes.cumsum(out=starts[1:])
    return starts


def run_places(firsts: NDArray[np.int32], sizes: NDArray[np.int32]) -> NDArray[np.int32]:
    """The numbers of many ranges, end to end: from each of ``firsts`` on, as many as ``sizes`` says."""
    starts = run_starts(sizes)
    places = np.arange(starts[-1], dtype=np.int32)
    places += (firsts - starts[:-1]).repeat(sizes)
    return places


@dataclass(frozen=True)
class _Rows:
    """What is known of R pieces with F tokens in all.

    ``tokens`` int32 [F, 4]: a token's id, where it starts and ends in its piece, and 1 where it goes on with the word
    of the token before; ``firsts`` and ``counts`` int32 [R]: a piece's first token, and how many it has.
    """

    tokens: NDArray[np.int32]
    firsts: NDArray[np.int32]
    counts: NDArray[np.int32]


@dataclass(frozen=True)
class PieceTokens:
    """The tokens of U texts, end to end. ``ids`` int32 [T]; ``starts`` int32 [U + 1]: text u has the tokens
    ``starts[u]`` to ``starts[u + 1]``.

    The texts have P pieces: ``_pieces`` [U] says how many each has, ``_places`` [P] where they start in their text,
    ``_counts`` [P] how many tokens they have, ``_at`` [T] where each token stands in ``_known`` and ``_strange``.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    _pieces: NDArray[np.int32]
    _places: NDArray[np.int32]
    _counts: NDArray[np.int32]
    _at: NDArray[np.int32]
    _known: NDArray[np.int32]
    _strange: NDArray[np.int32]

    def kept(self, texts: NDArray[np.bool_]) -> PieceTokens:
        """Those of some texts: ``texts`` [U] says which."""
        sizes = self.starts[1:] - self.starts[:-1]
        tokens, pieces = texts.repeat(sizes), texts.repeat(self._pieces)
        return PieceTokens(
            self.ids[tokens],
            run_starts(sizes[texts]),
            self._pieces[texts],
            self._places[pieces],
            self._counts[pieces],
            self._at[tokens],
            self._known,
            self._strange,
        )

    def located(self) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Where each token stands in its text [T, 2], in code points, end exclusive; and whether it goes on with the
        word of the token before [T]."""
        tokens = _take(self._known, self._strange, self._at)
        offsets = tokens[:, 1:3] + self._places.repeat(self._counts)[:, None]
        return offsets, tokens[:, 3] > 0


class _Table:
    """Pieces that were tokenized, at most about a limit of them; then another table is begun.

    Threads read it while one adds to it: rows are written where nobody reads yet, then told. Who looks up a piece
    first and takes ``known`` afterwards finds the piece's row there.
    """

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.singles = np.full(_TOP, -1, np.int32)  # those of pieces of one character, by code point
        self.known = _Rows(np.zeros((0, 4), np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32))
        self.size = 0
        self._used = 0

    def add(self, pieces: Sequence[str], found: _Rows) -> None:
        """Keep ``pieces``, of which ``found`` says the tokens. One thread at a time."""
        size, used = self.size + len(pieces), self._used + len(found.tokens)
        tokens = _room(self.known.tokens, self._used, used)
        firsts, counts = _room(self.known.firsts, self.size, size), _room(self.known.counts, self.size, size)
        tokens[self._used : used] = found.tokens
        firsts[self.size : size] = found.firsts + self._used
        counts[self.size : size] = found.counts
        self.known = _Rows(tokens, firsts, counts)
        rows = range(self.size, size)
        for row, piece in zip(rows, pieces, strict=True):
            if len(piece) == 1 and (point := ord(piece)) < _TOP:
                self.singles[point] = row
        self.rows.update(zip(pieces, rows, strict=True))
        self.size, self._used = size, used


class PieceTable:
    """Tokenizes texts piece by piece; for several threads at once. Made by ``make_piece_table``.

    ``limit``: how many pieces are remembered before it starts afresh.
    """

    def __init__(self, tokenizer: Tokenizer, *, han: bool, limit: int = _LIMIT) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._kinds = np.full(_TOP + 1, _RUN, np.uint8)  # the last one is for all code points beyond
        self._kinds[[ord(mark) for mark in MARKS]] = _SINGLE
        self._kinds[[ord(space) for space in SPACES]] = _SPACE
        if han:
            for first, last in HAN:
                self._kinds[first : last + 1] = _SINGLE
        single = re.escape(MARKS) + "".join(f"{chr(first)}-{chr(last)}" for first, last in (HAN if han else ()))
        self._cut = re.compile(f"[{single}]|[{SPACES}]+|[^{single}{SPACES}]+").findall
        self._lock = threading.Lock()
        self._table = _Table()

    def __len__(self) -> int:
        """How many pieces are remembered now."""
        return self._table.size

    def tokenize(self, texts: Sequence[str]) -> PieceTokens:
        """What the library would say of ``texts``, which have no surrogates."""
        if sum(map(len, texts)) <= _FEW:
            found = self._tokenize_few(texts)
            if found is not None:
                return found
        joined = "\n".join([*texts, ""])  # every text ends in a space
        points = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
        kinds = self._kinds.take(points, mode="clip")
        run = kinds == _RUN
        starts, after = run.copy(), ~run
        starts[1:] &= after[:-1]
        starts |= kinds == _SINGLE
        begins = starts.nonzero()[0]
        single = kinds[begins] == _SINGLE
        # The runs, each with one new line behind it: what stands between them is left out.
        after[1:] &= run[:-1]
        after[:1] = False
        runs = np.where(run, points, np.uint32(_NEW_LINE))[run | after].tobytes().decode("utf-32-le").split("\n")
        del runs[-1]
        alone = points[begins[single]]

        table = self._table
        rows = np.empty(len(begins), np.int32)
        rows[single] = table.singles[alone]
        rows[~single] = np.fromiter(map(table.rows.get, runs, repeat(-1)), np.int32, len(runs))
        missing = rows < 0
        strange = _NOTHING
        if missing.any():
            strange = self._learn(table, rows, missing, single, alone, runs)
        known = table.known  # after the lookups: see _Table

        if len(strange.firsts):
            rows = np.where(rows < 0, len(known.firsts) - 1 - rows, rows)
        text_starts = run_starts(np.fromiter(map(len, texts), np.int32, len(texts)) + 1)
        first_pieces = begins.searchsorted(text_starts).astype(np.int32)
        places = begins.astype(np.int32) - text_starts[:-1].repeat(first_pieces[1:] - first_pieces[:-1])
        return _gather(known, strange, rows, places, first_pieces)

    def _tokenize_few(self, texts: Sequence[str]) -> PieceTokens | None:
        """``tokenize`` with less to do before it begins; None where a piece is not known yet."""
        table = self._table
        row_of, cut = table.rows.get, self._cut
        rows, places, first_pieces = [], [], [0]
        for text in texts:
            place = 0
            for piece in cut(text):
                row = row_of(piece)
                if row is not None:
                    rows.append(row)
                    places.append(place)
                elif piece[0] not in SPACES:
                    return None
                place += len(piece)
            first_pieces.append(len(rows))
        return _gather(
            table.known, _NOTHING, *(np.array(numbers, np.int32) for numbers in (rows, places, first_pieces))
        )

    def _learn(
        self,
        table: _Table,
        rows: NDArray[np.int32],
        missing: NDArray[np.bool_],
        single: NDArray[np.bool_],
        alone: NDArray[np.uint32],
        runs: Sequence[str],
    ) -> _Rows:
        """Tokenize the ``missing`` pieces and write their ``rows``: in the table, and -1, -2 ... for those that are
        too long to keep, which are returned."""
        lone, wanted = missing & single, missing & ~single
        characters = {point: chr(point) for point in np.unique(alone[missing[single]]).tolist()}
        words = [runs[at] for at in np.flatnonzero(missing[~single]).tolist()]
        short = [word for word in dict.fromkeys(words) if len(word) <= _LONGEST]
        long = [word for word in dict.fromkeys(words) if len(word) > _LONGEST]
        pieces = [*characters.values(), *short]
        found = _tokens_of(self._tokenizer, pieces)
        strange = _tokens_of(self._tokenizer, long)
        with self._lock:
            # Another thread may have added the same meanwhile; that they stand there twice does no harm.
            table.add(pieces, found)
            if table.size > self._limit and table is self._table:
                self._table = _Table()
        row_of = {word: -1 - at for at, word in enumerate(long)}
        rows[lone] = table.singles[alone[missing[single]]]
        rows[wanted] = [table.rows[word] if len(word) <= _LONGEST else row_of[word] for word in words]
        return strange


def make_piece_table(tokenizer: Tokenizer, data: dict[str, Any]) -> PieceTable | None:
    """A table for ``tokenizer``, whose tokenizer.json is ``data``; None where it does not read piece by piece."""
    normalizers, splitters = _steps(data, "normalizer", "normalizers"), _steps(data, "pre_tokenizer", "pretokenizers")
    dresser = data.get("post_processor")
    if (
        data["model"].get("type") != "WordPiece"
        or not all(step["type"] in _NORMALIZERS for step in normalizers)
        or not splitters
        or splitters[0]["type"] != "BertPreTokenizer"
        or not all(step["type"] in _SPLITTERS for step in splitters)
        or (dresser is not None and dresser["type"] not in _DRESSERS)
        or data.get("truncation") is not None
        or data.get("padding") is not None
        # Special tokens are text like any other with encode_special_tokens; other added ones are found in texts.
        or not tokenizer.encode_special_tokens
        or not all(token["special"] and not token["normalized"] for token in data.get("added_tokens") or ())
    ):
        return None
    return PieceTable(tokenizer, han=any(step.get("handle_chinese_chars") for step in normalizers))


def _steps(data: dict[str, Any], key: str, inner: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or a pre-tokenizer, which may be a sequence of sequences."""
    step = data.get(key)
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    return [each for part in step[inner] for each in _steps({key: part}, key, inner)]


def _tokens_of(tokenizer: Tokenizer, pieces: Sequence[str]) -> _Rows:
    if not pieces:
        return _NOTHING
    found = tokenizer.encode_batch(pieces, add_special_tokens=False)
    ids = [item.ids for item in found]
    counts = np.fromiter(map(len, ids), np.int32, len(ids))
    tokens = np.empty((int(counts.sum()), 4), np.int32)
    tokens[:, 0] = _flat(ids, len(tokens))
    places = chain.from_iterable(chain.from_iterable(item.offsets for item in found))
    tokens[:, 1:3] = np.fromiter(places, np.int32, 2 * len(tokens)).reshape(-1, 2)
    words = _flat((item.word_ids for item in found), len(tokens))
    firsts = run_starts(counts)[:-1]
    tokens[1:, 3] = words[1:] == words[:-1]
    tokens[firsts[counts > 0], 3] = 0
    return _Rows(tokens, firsts, counts)


def _gather(
    known: _Rows,
    strange: _Rows,
    rows: NDArray[np.int32],
    places: NDArray[np.int32],
    first_pieces: NDArray[np.int32],
) -> PieceTokens:
    """The tokens of texts that have the pieces ``rows`` [P], at ``places`` [P] of their text; text u has those from
    ``first_pieces[u]`` to ``first_pieces[u + 1]``. The rows of ``strange`` come after those of ``known``."""
    counts = _take(known.counts, strange.counts, rows)
    at = run_places(_take(known.firsts, strange.firsts + len(known.tokens), rows), counts)
    ids = _take(known.tokens[:, 0], strange.tokens[:, 0], at)
    pieces = first_pieces[1:] - first_pieces[:-1]
    starts = run_starts(counts)[first_pieces]
    return PieceTokens(ids, starts, pieces, places, counts, at, known.tokens, strange.tokens)


def _flat(lists: Iterable[Iterable[Any]], count: int) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(lists), np.int32, count)


def _room(values: NDArray[np.int32], used: int, wanted: int) -> NDArray[np.int32]:
    """``values``, or a longer array that begins with the ``used`` ones, where ``wanted`` do not fit."""
    if wanted <= len(values):
        return values
    longer = np.zeros((max(wanted, 2 * len(values), 1024), *values.shape[1:]), np.int32)
    longer[:used] = values[:used]
    return longer


def _take(values: NDArray[np.int32], more: NDArray[np.int32], at: NDArray[np.int32]) -> NDArray[np.int32]:
    """``at`` these places of the two arrays end to end, which are not copied for it."""
    if not len(more):
        return values.take(at, axis=0)
    if not len(values):
        return more.take(at, axis=0)
    found = values.take(at, axis=0, mode="clip")
    beyond = np.flatnonzero(at >= len(values))
    found[beyond] = more[at[beyond] - len(values)]
    return found


_NOTHING: Final = _Rows(np.zeros((0, 4), np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32))
