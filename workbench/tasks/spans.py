"""Tag logits to entities: the spans of texts that name something.

All texts are read together, as arrays; see ``find_spans``. Nearly all words name nothing, which is plain from their
logits, and nothing more is computed of them. Objects are made only for those who ask for objects.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.tasks.spec import OutputSpec
from workbench.tasks.words import word_starts

__all__ = ["Entity", "Spans", "find_all_entities", "find_entities", "find_spans"]

FloatArray = NDArray[np.float32]
Shares = NDArray[np.floating[Any]]
Places = NDArray[np.intp]
Numbers = NDArray[np.signedinteger[Any]]

_SURELY: Final = 1e-3  # far more than what rounding can do to a difference of logits
_LEAST: Final = 1e-9  # so that every probability has a logarithm
_OPENING: Final = {")": "(", "）": "（", "]": "[", "】": "【", "》": "《", "」": "「", "』": "『"}
# Part of names: Wave+, C#, Yahoo!, Inc., 50%.
_KEPT_AT_END: Final = frozenset("+#*%°™®")


@dataclass(frozen=True)
class Entity:
    """A name in a text: code points ``start`` to ``end`` (exclusive) of the text as it was given."""

    start: int
    end: int
    label: str
    text: str
    score: float
    """Mean probability of the label over the entity's tokens."""


@dataclass(frozen=True)
class Spans:
    """The entities of N texts as columns, text by text and in the order of the text; n in all.

    ``counts`` int32 [N]: how many a text has, -1 where nothing can be said of it. ``starts``, ``ends`` int32 [n]:
    code points, end exclusive. ``labels`` int32 [n]: places in ``types``. ``texts``: what the n say. ``scores``
    float64 [n]: see Entity.
    """

    types: tuple[str, ...]
    counts: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    labels: NDArray[np.int32]
    texts: list[str]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, rows: NDArray[np.int32], said: NDArray[np.bool_]) -> Spans:
        """Those of the texts ``rows`` [M], a text as often as it stands there; nothing is said of it where ``said``
        [M] is False, whatever its row is."""
        if said.all() and len(rows) == len(self) and bool((rows == np.arange(len(rows))).all()):
            return self
        rows, counts = rows[said], np.full(len(rows), -1, np.int32)
        own = counts[said] = self.counts[rows]
        at = _ranges((np.cumsum(self.counts) - self.counts)[rows], own)
        texts = [self.texts[place] for place in at.tolist()]
        return Spans(self.types, counts, self.starts[at], self.ends[at], self.labels[at], texts, self.scores[at])

    def objects(self) -> list[list[Entity] | None]:
        """The entities of each text, None where nothing can be said."""
        labels = [self.types[place] for place in self.labels.tolist()]
        found = list(map(Entity, self.starts.tolist(), self.ends.tolist(), labels, self.texts, self.scores.tolist()))
        result: list[list[Entity] | None] = []
        start = 0
        for count in self.counts.tolist():
            result.append(found[start : start + count] if count >= 0 else None)
            start += max(count, 0)
        return result


def find_entities(
    text: str,
    logits: FloatArray,
    spec: OutputSpec,
    *,
    offsets: NDArray[np.int32],
) -> list[Entity]:
    """The entities of ``text`` from tag logits [n, K] of its n tokens at ``offsets`` [n, 2]; none overlap.

    The pieces of one written word are read as one. An I tag begins an entity where none of its type is open, except
    in a ``strict`` output: there the likeliest tags without such a thing are taken. Spaces and punctuation around a
    span are not part of it.
    """
    starts = np.array([0, len(offsets)], np.int32)
    words = word_starts([text], offsets, starts)
    return find_all_entities([text], logits, spec, offsets=offsets, starts=starts, words=words)[0]


def find_all_entities(
    texts: Sequence[str],
    logits: FloatArray,
    spec: OutputSpec,
    *,
    offsets: NDArray[np.int32],
    starts: NDArray[np.int32],
    words: NDArray[np.bool_],
) -> list[list[Entity]]:
    """``find_spans`` as objects, for logits [n, K] of just the n tokens."""
    places = np.arange(len(offsets), dtype=np.int32)
    spans = find_spans(texts, logits, spec, places=places, offsets=offsets, starts=starts, words=words)
    return [found or [] for found in spans.objects()]


def find_spans(
    texts: Sequence[str | None],
    logits: FloatArray,
    spec: OutputSpec,
    *,
    places: NDArray[np.int32],
    offsets: NDArray[np.int32],
    starts: NDArray[np.int32],
    words: NDArray[np.bool_],
    first: NDArray[np.int32] | None = None,
) -> Spans:
    """``find_entities`` for U texts, whose n tokens stand end to end: text u has those from ``starts[u]`` to
    ``starts[u + 1]``.

    ``logits`` [T, K]; ``places`` [n]: which of the T belong to the tokens, ``offsets`` [n, 2], and ``words`` [n]:
    whether a token begins a written word; see EncodedTokens. Text u is ``texts[first[u]]``, by default ``texts[u]``.
    """
    tags, count = _tags(spec.labels), len(starts) - 1
    nothing = np.empty(0, np.int32)
    none = Spans(tags.types, np.zeros(count, np.int32), nothing, nothing, nothing, [], np.empty(0, np.float64))
    unsure = np.flatnonzero(_may_name(logits, tags)[places])
    if not len(unsure):
        return none
    heads = np.flatnonzero(words)
    tokens = _Tokens(logits, places, starts, heads, np.append(heads[1:], len(words)), tags)
    at = np.searchsorted(heads, unsure, side="right") - 1
    at, kinds, goes_on = _read_words(tokens, at[np.diff(at, prepend=-1) > 0], strict=spec.strict)
    begins = np.flatnonzero(~goes_on)
    if not len(begins):
        return none
    firsts, kinds = heads[at[begins]], kinds[begins]
    sizes = tokens.ends[at[np.append(begins[1:], len(at)) - 1]] - firsts
    own, runs = _ranges(firsts, sizes), np.cumsum(sizes) - sizes
    # Each token's probability of its span's type, B and I together.
    by_kind = _sum(_softmax(logits[places[own]], tags), tags.both)
    scores = np.add.reduceat(by_kind[np.repeat(kinds, sizes), np.arange(len(own))], runs) / sizes
    low, high = np.minimum.reduceat(offsets[own, 0], runs), np.maximum.reduceat(offsets[own, 1], runs)
    text_of = np.searchsorted(starts, firsts, side="right") - 1
    kept, spans, said = _trim_all(texts, text_of if first is None else first[text_of], low, high)
    if len(kept) < len(firsts):
        text_of, kinds, scores = text_of[kept], kinds[kept], scores[kept]
    counts = np.bincount(text_of, minlength=count).astype(np.int32)
    bounds = np.array(spans, np.int32).reshape(-1, 2)
    return Spans(
        tags.types, counts, bounds[:, 0], bounds[:, 1], kinds.astype(np.int32), said, scores.astype(np.float64)
    )


@dataclass(frozen=True)
class _Tags:
    """Which logits mean what. ``outside`` [s, 1]; ``both``, ``begin`` and ``inside`` [s, types]: the columns that
    carry a type, ``width`` where it has fewer than another."""

    types: tuple[str, ...]
    width: int
    padded: bool
    names: tuple[int, ...]
    outside: Places
    both: Places
    begin: Places
    inside: Places


@lru_cache(maxsize=64)
def _tags(labels: tuple[str, ...]) -> _Tags:
    types = tuple(dict.fromkeys(tag[2:] for tag in labels if tag != "O"))

    def columns(*wanted: Sequence[str]) -> Places:
        lists = [[c for tag in tags for c, label in enumerate(labels) if label == tag] for tags in wanted]
        most = max(map(len, lists), default=0)
        rows = [[*own, *[len(labels)] * (most - len(own))] for own in lists]
        return np.array(rows, np.intp).reshape(len(rows), most).T

    outside, both = columns(["O"]), columns(*([f"B-{kind}", f"I-{kind}"] for kind in types))
    begin, inside = columns(*([f"B-{kind}"] for kind in types)), columns(*([f"I-{kind}"] for kind in types))
    padded = any((part == len(labels)).any() or not len(part) for part in (outside, both, begin, inside))
    names = tuple(column for column, tag in enumerate(labels) if tag != "O")
    return _Tags(types, len(labels), padded, names, outside, both, begin, inside)


@dataclass(frozen=True)
class _Tokens:
    """The n tokens of all texts; word w has those from ``heads[w]`` to ``ends[w]``. See ``find_spans``."""

    logits: FloatArray
    places: NDArray[np.int32]
    starts: NDArray[np.int32]
    heads: Places
    ends: Places
    tags: _Tags

    def text_of(self, at: Places) -> Places:
        """The texts of words ``at``."""
        return np.searchsorted(self.starts, self.heads[at], side="right") - 1


def _may_name(logits: FloatArray, tags: _Tags) -> NDArray[np.bool_]:
    """Whether each of T tokens could be more likely of some type than outside; False is certain."""
    if not tags.names:
        return np.zeros(len(logits), bool)
    if not len(tags.outside):
        return np.ones(len(logits), bool)
    # Column by column: over so few columns, the maximum of each row takes seven times as long.
    most = logits[:, tags.names[0]].copy()
    for column in tags.names[1:]:
        np.maximum(most, logits[:, column], out=most)
    # A type is at most as likely as all its tags were, each as likely as the likeliest tag of all.
    return np.asarray(~(logits[:, tags.outside[0, 0]] - most > np.log(len(tags.both)) + _SURELY))


def _read_words(tokens: _Tokens, at: Places, *, strict: bool) -> tuple[Places, Places, NDArray[np.bool_]]:
    """The words that are part of entities, the place of each one's type, and whether it goes on with the entity of
    the word before it. ``at``: the words that may name something."""
    outside, kinds, first, after = _word_shares(tokens, at)
    # Outside against each type, whichever of B and I carries it; a word's first token says whether it begins.
    best = kinds.argmax(axis=0)
    every = np.arange(len(at))
    named = np.flatnonzero(kinds[best, every] > outside)
    at, best = at[named], best[named]
    begin = first[best, named] > after[best, named]
    text_of = tokens.text_of(at)
    follows = _follows(at, text_of, best)
    if strict:
        wrong = text_of[~(follows | begin)]
        if len(wrong):
            wrong = wrong[np.diff(wrong, prepend=-1) > 0]
            at_strict, best_strict, begin_strict = _read_strictly(tokens, wrong)
            right = ~np.isin(text_of, wrong)
            at = np.concatenate([at[right], at_strict])
            order = np.argsort(at)
            at = at[order]
            best = np.concatenate([best[right], best_strict])[order]
            begin = np.concatenate([begin[right], begin_strict])[order]
            follows = _follows(at, tokens.text_of(at), best)
    return at, best, follows & ~begin


def _read_strictly(tokens: _Tokens, texts: Places) -> tuple[Places, Places, NDArray[np.bool_]]:
    """The words of ``texts`` that are part of entities, their types, and whether they begin one, where no entity
    begins with an I tag: the likeliest such reading (Viterbi).

    The likeliest path passes through outside wherever a word is so surely outside that another reading of it would
    cost more than to begin an entity at the next word, if one is open there. What lies between such words is read by
    itself: a few words at a time.
    """
    low = np.searchsorted(tokens.heads, tokens.starts[texts])
    lengths = np.searchsorted(tokens.heads, tokens.starts[texts + 1]) - low
    at = _ranges(low, lengths)
    lasts = np.cumsum(lengths) - 1
    outside, kinds, first, after = _word_shares(tokens, at)
    number = len(kinds)
    share = first / np.maximum(first + after, _LEAST)
    # States: outside, types times B, types times I.
    states = np.concatenate([outside[None], kinds * share, kinds * (1 - share)])
    scores = np.log(np.maximum(states, _LEAST, out=states), out=states)
    # What it costs the next word if it must begin its entity: its I tag becomes a B tag.
    cost = np.zeros(len(at))
    cost[:-1] = (scores[number + 1 :, 1:] - scores[1 : number + 1, 1:]).max(axis=0)
    cost[lasts] = 0
    surely = scores[0] - scores[1:].max(axis=0) > np.maximum(cost, 0) + _SURELY
    inner = np.flatnonzero(~surely)
    fresh = np.zeros(len(at), bool)
    fresh[lasts - lengths + 1] = True
    begins = np.flatnonzero((np.diff(inner, prepend=-2) > 1) | fresh[inner])
    states_of = _best_paths(scores[:, inner], begins, np.diff(begins, append=len(inner)), number)
    named = np.flatnonzero(states_of)
    state = states_of[named]
    begin = state <= number
    return at[inner[named]], np.where(begin, state, state - number) - 1, begin


def _best_paths(scores: Shares, begins: Places, lengths: Places, number: int) -> Places:
    """The likeliest states of words [n] in runs of ``lengths`` [B] that start at ``begins`` [B].

    ``scores`` [1 + 2 T, n] are logarithms of the states' probabilities. An I state follows the B or the I state of
    its own type; T is ``number``. All runs take a step together.
    """
    # The longest come first, so that those that have a word at some place are the first few.
    order = np.argsort(-lengths, kind="stable")
    begins = begins[order]
    going = np.searchsorted(-lengths[order], -np.arange(1, int(lengths.max(initial=0)) + 1), side="right").tolist()
    best = scores[:, begins]
    best[number + 1 :] = -np.inf
    steps = []
    for place, runs in enumerate(going[1:], 1):
        before = best[:, :runs]
        from_begin = before[1 : number + 1] >= before[number + 1 :]
        steps.append((before.argmax(axis=0), from_begin))
        reached = np.empty_like(before)
        reached[: number + 1] = before.max(axis=0)
        np.maximum(before[1 : number + 1], before[number + 1 :], out=reached[number + 1 :])
        best[:, :runs] = reached + scores[:, begins[:runs] + place]
    state = best.argmax(axis=0)
    path = np.empty(scores.shape[1], np.intp)
    for place in range(len(steps), 0, -1):
        runs = going[place]
        path[begins[:runs] + place] = own = state[:runs]
        anywhere, from_begin = steps[place - 1]
        kind = np.maximum(own - number - 1, 0)
        back = np.where(from_begin[kind, np.arange(runs)], own - number, own)
        state[:runs] = np.where(own <= number, anywhere, back)
    path[begins] = state
    return path


def _follows(at: Places, text_of: Places, kinds: Places) -> NDArray[np.bool_]:
    """Whether the word before each stands right before it, in the same text, and is of the same type."""
    found = np.zeros(len(at), bool)
    found[1:] = (at[1:] - at[:-1] == 1) & (text_of[1:] == text_of[:-1]) & (kinds[1:] == kinds[:-1])
    return found


def _word_shares(
    tokens: _Tokens, at: Places
) -> tuple[NDArray[np.float64], NDArray[np.float64], FloatArray, FloatArray]:
    """For the m words ``at``: the probability of outside [m] and of each type [T, m], the mean over a word's tokens;
    and those of B and of I for each type in its first token [T, m]."""
    firsts, tags = tokens.heads[at], tokens.tags
    sizes = tokens.ends[at] - firsts
    shares = _softmax(tokens.logits[tokens.places[_ranges(firsts, sizes)]], tags)
    mean, of_first = shares.astype(np.float64), shares
    if shares.shape[1] > len(at):
        groups = np.cumsum(sizes) - sizes
        mean, of_first = np.add.reduceat(shares, groups, axis=1) / sizes, shares[:, groups]
    outside = _sum(mean, tags.outside)[0]
    return outside, _sum(mean, tags.both), _sum(of_first, tags.begin), _sum(of_first, tags.inside)


def _softmax(logits: FloatArray, tags: _Tags) -> FloatArray:
    """Probabilities [K, n] of ``logits`` [n, K], with a row of zeros at the end where columns are padded."""
    powers = np.zeros((tags.width + tags.padded, len(logits)), np.float32)
    own = powers[: tags.width]
    own[:] = logits.T
    own -= own.max(axis=0)
    np.exp(own, out=own)
    total = own[0].copy()
    for row in own[1:]:  # one after the other: sum() adds in another order where n is 1
        total += row
    own /= total
    return powers


def _sum(shares: Shares, rows: Places) -> Any:
    """The sums of ``shares`` [K, n] over each column of ``rows`` [s, T]: [T, n]."""
    total = shares[rows[0]]
    for more in rows[1:]:
        total += shares[more]
    return total


def _ranges(firsts: Numbers, sizes: Numbers) -> Places:
    """The numbers of many ranges, end to end."""
    ends = np.cumsum(sizes)
    if not len(ends):
        return np.empty(0, np.intp)
    if ends[-1] == len(ends) and (sizes == 1).all():
        return np.asarray(firsts, np.intp)
    return np.asarray(np.arange(ends[-1]) + np.repeat(firsts - (ends - sizes), sizes), np.intp)


def _trim_all(
    texts: Sequence[str | None],
    text_of: Numbers,
    low: NDArray[np.int32],
    high: NDArray[np.int32],
) -> tuple[list[int], list[tuple[int, int]], list[str]]:
    """Spans of texts without what only surrounds a name: which are left, from where to where, and what they say."""
    kept, spans, said = [], [], []
    last_text, last_end = -1, 0
    for at, (place, start, end) in enumerate(zip(text_of.tolist(), low.tolist(), high.tolist(), strict=True)):
        text = texts[place] or ""
        # Nearly all begin and end with a letter or a digit, and no mark comes after.
        if (
            start >= end
            or not (text[start].isalnum() and text[end - 1].isalnum())
            or not (text[end : end + 1].isascii() or unicodedata.category(text[end])[0] != "M")
        ):
            start, end = _trim(text, start, end)
        # Offsets of odd text may share a character; a span never begins before the last one ended.
        if start < end and (place != last_text or start >= last_end):
            last_text, last_end = place, end
            kept.append(at)
            spans.append((start, end))
            said.append(text[start:end])
    return kept, spans, said


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
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
