"""Tag logits to entities: the spans of texts that name something.

All texts are read together, as arrays; see ``find_spans``. Nearly all words name nothing, which is plain from their
logits, and nothing more is computed of them. Objects are made only for those who ask for objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.tasks.spec import OutputSpec
from workbench.tasks.trimming import trim_spans
from workbench.tasks.words import word_starts

__all__ = ["Entity", "Spans", "find_all_entities", "find_entities", "find_spans"]

FloatArray = NDArray[np.float32]
Shares = NDArray[np.floating[Any]]
Places = NDArray[np.intp]
Numbers = NDArray[np.signedinteger[Any]]

_SURELY: Final = 1e-3  # far more than what rounding can do to a difference of logits
_LEAST: Final = 1e-9  # so that every probability has a logarithm
_HALF_OF_LEAST: Final = 20.0  # a little less than what a half is above _LEAST, in logarithms
_MANY: Final = 512  # words, from which on it pays to look which ones need be read


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
        columns = self.starts.tolist(), self.ends.tolist(), labels, self.texts, self.scores.tolist()
        found = []
        for start, end, label, text, score in zip(*columns, strict=True):
            # A frozen class sets its fields one by one through object.__setattr__: that took twice as long.
            entity = object.__new__(Entity)
            entity.__dict__.update(start=start, end=end, label=label, text=text, score=score)
            found.append(entity)
        result: list[list[Entity] | None] = []
        at = 0
        for count in self.counts.tolist():
            result.append(found[at : at + count] if count >= 0 else None)
            at += max(count, 0)
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
    lead = _lead(logits, tags)
    unsure = (~(lead > tags.enough))[places].nonzero()[0]
    heads = words.nonzero()[0]
    ends = np.full(len(heads), len(words))
    ends[:-1] = heads[1:]
    tokens = _Tokens(logits, places, starts, heads, ends, lead, tags)
    at, kinds, text_of, goes_on = _read_words(tokens, _distinct(heads.searchsorted(unsure, "right") - 1), spec.strict)
    begins = (~goes_on).nonzero()[0]
    if not len(begins):
        nothing = np.empty(0, np.int32)
        return Spans(tags.types, np.zeros(count, np.int32), nothing, nothing, nothing, [], np.empty(0, np.float64))
    firsts, kinds, text_of = heads[at[begins]], kinds[begins], text_of[begins]
    sizes = ends[at[np.concatenate([begins[1:], [len(at)]]) - 1]] - firsts
    own, runs = _ranges(firsts, sizes), sizes.cumsum() - sizes
    # Each token's probability of its span's type, B and I together.
    by_kind = _sum(_softmax(logits[places[own]], tags), tags.both)
    scores = np.add.reduceat(by_kind[kinds.repeat(sizes), np.arange(len(own))], runs) / sizes
    low, high = np.minimum.reduceat(offsets[own, 0], runs), np.maximum.reduceat(offsets[own, 1], runs)
    kept, low, high, said = trim_spans(texts, text_of if first is None else first[text_of], low, high)
    if len(kept) < len(firsts):
        text_of, kinds, scores = text_of[kept], kinds[kept], scores[kept]
    counts = np.bincount(text_of, minlength=count).astype(np.int32)
    return Spans(tags.types, counts, low, high, kinds.astype(np.int32), said, scores)


@dataclass(frozen=True)
class _Tags:
    """Which logits mean what. ``outside`` [s, 1], ``both``, ``begin`` and ``inside`` [s, types]: the columns that
    carry a type, ``width`` where it has fewer than another. ``enough``: a token whose logit of outside is by so much
    above all others is certainly outside. ``allowed``: see ``_best_paths``; states are outside, types times B, and
    types times I."""

    types: tuple[str, ...]
    width: int
    padded: bool
    enough: float
    names: tuple[int, ...]
    allowed: NDArray[np.float64]
    outside: Places
    both: Places
    begin: Places
    inside: Places


@lru_cache(maxsize=64)
def _tags(labels: tuple[str, ...]) -> _Tags:
    types = tuple(dict.fromkeys(tag[2:] for tag in labels if tag != "O"))

    def columns(*wanted: Sequence[str]) -> Places:
        lists = [[c for tag in tags for c, label in enumerate(labels) if label == tag] for tags in wanted]
        most = max([1, *map(len, lists)])
        rows = [[*own, *[len(labels)] * (most - len(own))] for own in lists]
        return np.array(rows, np.intp).reshape(len(rows), most).T

    outside, both = columns(["O"]), columns(*([f"B-{kind}", f"I-{kind}"] for kind in types))
    begin, inside = columns(*([f"B-{kind}"] for kind in types)), columns(*([f"I-{kind}"] for kind in types))
    padded = any((part == len(labels)).any() for part in (outside, both, begin, inside))
    # A type is as likely as all its tags together, each of which is at most as likely as the likeliest of all.
    enough = float(np.log(len(both)) + _SURELY)
    names = tuple(column for column, tag in enumerate(labels) if tag != "O")
    number = len(types)
    allowed = np.zeros((2 * number + 1, 2 * number + 1, 1))
    allowed[:, number + 1 :] = -np.inf
    for kind in range(1, number + 1):
        allowed[[kind, kind + number], kind + number] = 0  # to I, from the B or the I of its type
    return _Tags(types, len(labels), padded, enough, names, allowed, outside, both, begin, inside)


@dataclass(frozen=True)
class _Tokens:
    """The n tokens of all texts, see ``find_spans``; word w has those from ``heads[w]`` to ``ends[w]``, and ``lead``
    [T] is by how much the logit of outside is above all others."""

    logits: FloatArray
    places: NDArray[np.int32]
    starts: NDArray[np.int32]
    heads: Places
    ends: Places
    lead: FloatArray
    tags: _Tags

    def text_of(self, at: Places) -> Places:
        """The texts of words ``at``."""
        return self.starts.searchsorted(self.heads[at], "right") - 1


def _lead(logits: FloatArray, tags: _Tags) -> FloatArray:
    outside = int(tags.outside[0, 0])
    if not tags.names or outside == tags.width:
        return np.full(len(logits), np.inf if not tags.names else -np.inf, np.float32)
    # Column by column: over so few columns, the maximum of each row takes seven times as long.
    most = logits[:, tags.names[0]].copy()
    for column in tags.names[1:]:
        np.maximum(most, logits[:, column], out=most)
    return np.subtract(logits[:, outside], most, out=most)


def _read_words(tokens: _Tokens, at: Places, strict: bool) -> tuple[Places, Places, Places, NDArray[np.bool_]]:
    """The words that are part of entities, the place of each one's type, its text, and whether it goes on with the
    entity of the word before it. ``at``: the words that may name something."""
    if not len(at):
        return at, at, at, np.empty(0, bool)
    outside, kinds, first, after = _word_shares(tokens, at)
    # Outside against each type, whichever of B and I carries it; a word's first token says whether it begins.
    best = kinds.argmax(axis=0)
    named = (kinds[best, np.arange(len(at))] > outside).nonzero()[0]
    at, best = at[named], best[named]
    begin = first[best, named] > after[best, named]
    text_of = tokens.text_of(at)
    follows = _joined(at, text_of)
    follows[1:] &= best[1:] == best[:-1]
    wrong = text_of[~(follows | begin)] if strict else at[:0]
    if len(wrong):
        again = np.zeros(len(tokens.starts) - 1, bool)
        again[wrong] = True
        right = (~again[text_of]).nonzero()[0]
        strictly = _read_strictly(tokens, again.nonzero()[0])
        order = np.concatenate([at[right], strictly[0]]).argsort(kind="stable")
        at, best, text_of, begin = (
            np.concatenate([own[right], new])[order]
            for own, new in zip((at, best, text_of, begin), strictly, strict=True)
        )
        follows = _joined(at, text_of)
        follows[1:] &= best[1:] == best[:-1]
    return at, best, text_of, follows & ~begin


def _read_strictly(tokens: _Tokens, texts: Places) -> tuple[Places, Places, Places, NDArray[np.bool_]]:
    """The words of ``texts`` that are part of entities, their types, their texts, and whether they begin one, where
    no entity begins with an I tag: the likeliest such reading (Viterbi).

    The likeliest path passes through outside wherever a word is so surely outside that another reading of it would
    cost more than to begin an entity at the next word, if one is open there. What lies between such words is read by
    itself: a few words at a time.
    """
    low = tokens.heads.searchsorted(tokens.starts[texts])
    lengths = tokens.heads.searchsorted(tokens.starts[texts + 1]) - low
    at, text_of = _ranges(low, lengths), texts.repeat(lengths)
    if len(at) > _MANY and not tokens.tags.padded and len(tokens.tags.both) == 2:
        near = _near_names(tokens, at, text_of)
        at, text_of = at[near], text_of[near]
    joined = _joined(at, text_of)
    outside, kinds, first, after = _word_shares(tokens, at)
    number = len(kinds)
    share = first / np.maximum(first + after, _LEAST)
    # States: outside, types times B, types times I.
    scores = np.concatenate([outside[None], kinds * share, kinds * (1 - share)])
    np.log(np.maximum(scores, _LEAST, out=scores), out=scores)
    # What it costs the next word to begin its entity: its I tag becomes a B tag.
    cost = np.zeros(len(at))
    cost[:-1] = (scores[number + 1 :, 1:] - scores[1 : number + 1, 1:]).max(axis=0)
    cost[:-1] *= joined[1:]
    surely = scores[0] - scores[1:].max(axis=0) > np.maximum(cost, 0) + _SURELY
    joined[1:] &= ~surely[:-1]
    inner = (~surely).nonzero()[0]
    begins = (~joined[inner]).nonzero()[0]
    lengths = np.concatenate([begins[1:], [len(inner)]]) - begins
    state = _best_paths(scores[:, inner], begins, lengths, tokens.tags.allowed)
    named = state.nonzero()[0]
    state, inner = state[named], inner[named]
    begin = state <= number
    return at[inner], np.where(begin, state, state - number) - 1, text_of[inner], begin


def _near_names(tokens: _Tokens, at: Places, text_of: Places) -> NDArray[np.bool_]:
    """Which of the words ``at`` may be part of an entity when the likeliest path is taken, from bounds that are quick
    to compute; the others are certainly outside. Each type has one B and one I tag."""
    heads, tags = tokens.heads[at], tokens.tags
    sizes = tokens.ends[at] - heads
    lead = np.minimum.reduceat(tokens.lead[tokens.places[_ranges(heads, sizes)]], sizes.cumsum() - sizes)
    # How much more a word would rather go on with an entity than begin one. That of several tokens is hard to bound.
    logits = tokens.logits[tokens.places[heads]]
    urge = np.where(sizes > 1, np.inf, 0).astype(np.float32)
    for begin, inside in zip(tags.begin[0], tags.inside[0], strict=True):
        np.maximum(urge, logits[:, inside] - logits[:, begin], out=urge)
    # Outside has half of the probability, and no other state less than _LEAST.
    surely = np.minimum(lead[:-1] - tags.enough, _HALF_OF_LEAST) > urge[1:] + _SURELY
    near = ~(lead > tags.enough)
    near[:-1] |= _joined(at, text_of)[1:] & ~surely
    return near


def _best_paths(scores: Shares, begins: Places, lengths: Places, allowed: Shares) -> Places:
    """The likeliest states of words [n] in runs of ``lengths`` [B] that start at ``begins`` [B].

    ``scores`` [S, n] are logarithms of the states' probabilities, ``allowed`` [S, S, 1] of steps from one state to
    another. All runs take a step together; of equals, the first state is taken.
    """
    number = len(scores) // 2
    # The longest come first, so that those that have a word at some place are the first few.
    order = (-lengths).argsort(kind="stable")
    begins, most = begins[order], int(lengths.max(initial=0))
    going = (-lengths[order]).searchsorted(-np.arange(1, most + 1), "right").tolist()
    best = scores[:, begins]
    best[number + 1 :] = -np.inf
    steps = []
    for place, runs in enumerate(going[1:], 1):
        ways = best[:, None, :runs] + allowed
        steps.append(ways.argmax(axis=0))
        best[:, :runs] = ways.max(axis=0) + scores[:, begins[:runs] + place]
    state = best.argmax(axis=0)
    path = np.empty(scores.shape[1], np.intp)
    for place in range(len(steps), 0, -1):
        runs = going[place]
        path[begins[:runs] + place] = state[:runs]
        state[:runs] = steps[place - 1][state[:runs], np.arange(runs)]
    path[begins] = state
    return path


def _joined(at: Places, text_of: Places) -> NDArray[np.bool_]:
    """Whether the word before each stands right before it, in the same text."""
    found = np.zeros(len(at), bool)
    found[1:] = (at[1:] - at[:-1] == 1) & (text_of[1:] == text_of[:-1])
    return found


def _distinct(numbers: Places) -> Places:
    """Sorted ``numbers``, each once."""
    new = np.ones(len(numbers), bool)
    new[1:] = numbers[1:] != numbers[:-1]
    return numbers[new]


def _word_shares(
    tokens: _Tokens, at: Places
) -> tuple[NDArray[np.float64], NDArray[np.float64], FloatArray, FloatArray]:
    """For the m words ``at``: the probability of outside [m] and of each type [T, m], the mean over a word's tokens;
    and those of B and of I for each type in its first token [T, m]."""
    firsts, tags = tokens.heads[at], tokens.tags
    sizes = tokens.ends[at] - firsts
    shares = _softmax(tokens.logits[tokens.places[_ranges(firsts, sizes)]], tags)
    of_first, mean = shares, shares.astype(np.float64)
    if shares.shape[1] > len(at):
        runs = sizes.cumsum() - sizes
        of_first, mean = shares[:, runs], mean[:, runs]
        several = (sizes > 1).nonzero()[0]
        sizes = sizes[several]
        own = shares[:, _ranges(runs[several], sizes)]
        mean[:, several] = np.add.reduceat(own, sizes.cumsum() - sizes, axis=1) / sizes
    outside = _sum(mean, tags.outside)[0]
    return outside, _sum(mean, tags.both), _sum(of_first, tags.begin), _sum(of_first, tags.inside)


def _softmax(logits: FloatArray, tags: _Tags) -> FloatArray:
    """Probabilities [K, n] of ``logits`` [n, K], with a row of zeros at the end where columns are padded."""
    powers = np.empty((tags.width + tags.padded, len(logits)), np.float32)
    powers[tags.width :] = 0
    own = powers[: tags.width]
    own[:] = logits.T
    own -= own.max(axis=0)
    np.exp(own, out=own)
    # Row by row, as sum() does only where there are several columns: the same for one token as for many.
    own /= own.sum(axis=0) if len(logits) > 1 else np.add.accumulate(own)[-1]
    return powers


def _sum(shares: Shares, rows: Places) -> Any:
    """The sums of ``shares`` [K, n] over each column of ``rows`` [s, T]: [T, n]."""
    total = shares[rows[0]]
    for more in rows[1:]:
        total += shares[more]
    return total


def _ranges(firsts: Numbers, sizes: Numbers) -> Places:
    """The numbers of many ranges, end to end."""
    ends = sizes.cumsum()
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + (firsts - (ends - sizes)).repeat(sizes), np.intp)
