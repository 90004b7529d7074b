"""How alike texts are: near-duplicates, template families, and texts taken from elsewhere.

A near-duplicate shares most of its character shingles with another text, once digits and names no longer count. A
template family is one frame with other words put in: the small words stay, the content changes. Candidates come from
MinHash (datasketch) and are then compared exactly, so that a report never rests on an estimate.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from scipy import sparse

__all__ = [
    "FAMILY",
    "NEAR",
    "TAKEN",
    "Pair",
    "find_families",
    "find_near_duplicates",
    "find_same_openings",
    "find_taken",
    "fold",
    "jaccard",
    "opening",
    "shingles",
    "skeleton",
]

NEAR = 0.4
"""From this Jaccard index of their shingles on, two texts are near-duplicates."""

FAMILY = 0.5
"""From this Jaccard index of their skeletons' trigrams on, two texts have the same frame."""

TAKEN = 0.6
"""From this share of its shingles on that occur in one other text, a text counts as taken from there."""

LEAST_TAKEN = 12
"""A text of fewer shingles is everybody's ("never again"), unless all of another text is the same."""

PERMUTATIONS = 128

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN = re.compile(r"[a-z][a-z'’.&-]*")
# Within a sentence a capital is a name: "Larkpaper", "DHP486", "iPad". The first word of a sentence may be any word.
_NAME = re.compile(r"(?<![.!?…\"“] )(?<!^)\b(?:[A-Z][\w’'-]*|\w*[a-z][A-Z]\w*|\w*[A-Za-z]+\d\w*)\b", re.MULTILINE)
_MASK = "○"


@dataclass(frozen=True)
class Pair:
    """Two texts by their keys, and how alike they are (0 to 1)."""

    one: str
    other: str
    likeness: float


def fold(text: str, *, names: Iterable[str] = ()) -> str:
    """``text`` in lower case without its digits, names, punctuation and repetitions of a character.

    Every run of digits becomes 0, every name ○. ``names``: surfaces to fold besides those that look like names. In
    Chinese text every Latin word is taken for a name. A text that is hardly more than digits and names (a table, two
    brands and an arrow) keeps them: nothing else tells it from others.
    """
    plain = unicodedata.normalize("NFKC", text)
    masked = plain
    for name in _longest_first(names):
        masked = masked.replace(name, _MASK)
    chinese = _is_chinese(plain)
    if chinese:
        masked = _LATIN.sub(_MASK, masked.casefold())
    elif not masked.isupper():
        masked = _NAME.sub(lambda found: found[0] if re.match(r"I\b", found[0]) else _MASK, masked)
    masked = re.sub(r"\d[\d.,]*", "0", masked)
    if 3 * _letters(masked) < sum(map(str.isalnum, plain)):
        masked = plain
    gap = "" if chinese else " "
    folded = re.sub(rf"[^\w{_MASK}]+", gap, re.sub(r"(?<=\w)['’](?=\w)", "", masked.casefold())).strip()
    return re.sub(r"(.)\1{2,}", r"\1", folded) or plain.strip()


def shingles(text: str, *, names: Iterable[str] = ()) -> frozenset[str]:
    """Character n-grams of the folded text: 3 for Chinese, 5 for English; a shorter text is its own only shingle."""
    folded = fold(text, names=names)
    return _grams(folded, 3 if _is_chinese(folded) else 5)


def jaccard(one: frozenset[Hashable], other: frozenset[Hashable]) -> float:
    """Shared members over all members, 0 to 1."""
    return len(one & other) / len(one | other)


def find_near_duplicates(texts: Mapping[str, str], *, names: Mapping[str, Iterable[str]] | None = None) -> list[Pair]:
    """Pairs of ``texts`` (by key) that are NEAR or nearer, most alike first. ``names`` by key, as in `fold`."""
    parts = {key: shingles(text, names=(names or {}).get(key, ())) for key, text in texts.items()}
    return _alike(parts, NEAR)


def _alike(parts: Mapping[str, frozenset[str]], least: float) -> list[Pair]:
    # Bands of 2 rows: a pair at 0.4 is missed with a chance of (1 - 0.4**2)**64, one in 70,000.
    index = MinHashLSH(num_perm=PERMUTATIONS, params=(PERMUTATIONS // 2, 2))
    encoded = ([member.encode() for member in sorted(part)] for part in parts.values())
    pairs = []
    sketches = MinHash.generator(encoded, num_perm=PERMUTATIONS, seed=1)
    for (key, part), sketch in zip(parts.items(), sketches, strict=True):
        for other in index.query(sketch):
            likeness = jaccard(part, parts[other])
            if likeness >= least:
                pairs.append(Pair(other, key, likeness))
        index.insert(key, sketch)
    return sorted(pairs, key=lambda p: (-p.likeness, p.one, p.other))


def _grams(tokens: str, size: int) -> frozenset[str]:
    if len(tokens) <= size:
        return frozenset({tokens})
    return frozenset(tokens[i : i + size] for i in range(len(tokens) - size + 1))


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _longest_first(names: Iterable[str]) -> list[str]:
    return sorted({unicodedata.normalize("NFKC", name) for name in names}, key=len, reverse=True)


def _is_chinese(text: str) -> bool:
    return len(_HAN.findall(text)) * 4 > max(_letters(text), 1)


# --- template families -------------------------------------------------------------------------------------------

# What carries a sentence's frame; everything else is content.
_WORDS = """
a about after again all already also always am an and another any anyone are aren't as at away back be because been
before being both but by can can't could couldn't did didn't do does doesn't doing don't down each either else even
ever every everyone everything few for from get gets getting got had hadn't has hasn't have haven't he her here him
his how i i'd i'll i'm i've if in instead into is isn't it it's its itself just last less many may me might mine
more most much must my myself neither never next no nobody none nor not nothing now of off on once one only or other
our ours out over own quite rather really same shall she should since so some somebody someone something still such
than that that's the their them then there there's these they they're they've this those though through till to too
under until up us very was wasn't we we'd we'll we're we've were weren't what when where whether which while who
whole whose why will with within without won't would wouldn't yet you you'd you'll you're you've your yours
"""
_SMALL_WORDS = frozenset(_WORDS.split())
_SMALL_CHARACTERS = frozenset(
    "的了是在不我也就都还没很和有把被给到从对跟与及而但可却又再才只能会要让使得着过个一这那哪什么怎吗呢吧啊呀嘛哦"
    "你他她它们自己谁因为所以如果虽然已经正将曾最更太比较非常真特别于以之其或者而且并上下里外前后中来去起出进说"
    "這還沒給對從與卻會讓過個麼嗎們誰因為雖經將較別裡後來說"
)

LEAST_FRAME = 5
"""So many small words make a frame; shorter ones are shared by chance ("It's _")."""


def skeleton(text: str, *, names: Iterable[str] = ()) -> tuple[str, ...]:
    """The frame of a text: its small words in order, "_" for every run of other words; punctuation does not count."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    for name in _longest_first(names):
        text = text.replace(name, _MASK)
    frame: list[str] = []
    for token in re.findall(rf"[a-z][a-z'-]*|\w|{_MASK}", text.casefold()):
        piece = token if token in _SMALL_WORDS or token in _SMALL_CHARACTERS else "_"
        if piece != "_" or frame[-1:] != ["_"]:
            frame.append(piece)
    return tuple(frame)


def find_families(
    texts: Mapping[str, str], *, names: Mapping[str, Iterable[str]] | None = None, most: int = 2
) -> list[tuple[str, ...]]:
    """Groups of more than ``most`` texts (keys) whose skeletons are chained by FAMILY or more.

    Texts with fewer than LEAST_FRAME small words have no frame and are left out.
    """
    parts = {}
    for key, text in texts.items():
        frame = skeleton(text, names=(names or {}).get(key, ()))
        if sum(piece != "_" for piece in frame) >= LEAST_FRAME:
            parts[key] = frozenset(" ".join(frame[i : i + 3]) for i in range(len(frame) - 2))
    family = {key: {key} for key in parts}
    for pair in _alike(parts, FAMILY):
        together = family[pair.one] | family[pair.other]
        for key in together:
            family[key] = together
    return sorted({tuple(sorted(keys)) for keys in family.values() if len(keys) > most})


def opening(text: str) -> str | None:
    """The first four words (English) or six characters (Chinese) of the folded text; None for a shorter one.

    Names, digits and markup do not count.
    """
    folded = fold(re.sub(r"<[^>]*>|&#?\w+;|https?:\S+", " ", text))
    folded = re.sub(rf"\b0\b|{_MASK}|^0+", "", folded).strip()
    if _is_chinese(folded):
        return folded[:6] if len(folded) > 6 else None
    words = folded.split()
    return " ".join(words[:4]) if len(words) > 4 else None


def find_same_openings(texts: Mapping[str, str], *, most: int = 2) -> list[tuple[str, ...]]:
    """Groups of more than ``most`` texts (keys) that begin alike."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, text in texts.items():
        start = opening(text)
        if start is not None:
            groups[start].append(key)
    return sorted(tuple(keys) for keys in groups.values() if len(keys) > most)


# --- taken from elsewhere ----------------------------------------------------------------------------------------

_HAN_GRAM, _OTHER_GRAM = 3, 6
_CHUNK = 1_500_000  # characters of the corpus at a time: fits caches and small machines
_ASKED = 3


def find_taken(texts: Mapping[str, str], corpus: Sequence[str]) -> list[tuple[str, int, float]]:
    """Texts that are near a text of ``corpus`` (Jaccard index NEAR or more) or for the most part (TAKEN) lie in one.

    Returns (key, index into ``corpus``, likeness), most alike first. Made for a corpus of tens of millions of
    characters: it is folded and hashed as arrays of code points. Case, spaces, digits and punctuation do not count; a
    shingle is 3 characters from a Han character on, else 6. Everybody's words are not taken from anywhere: a text of
    fewer than LEAST_TAKEN shingles counts only when it is near a whole text. Texts without a letter are left out.
    """
    keys = [key for key, text in texts.items() if _letters(text)]
    hashes, text = _hashed([texts[key] for key in keys])
    vocabulary = np.unique(hashes)
    ours = _incidence(np.searchsorted(vocabulary, hashes), text, (len(keys), len(vocabulary)))
    size = np.diff(ours.indptr)
    found: list[tuple[str, int, float]] = []
    for first, part in _chunks(corpus):
        known, text, all_of = _hashed_known(part, vocabulary)
        other = _incidence(known, text, (len(part), len(vocabulary)))
        row, column = _candidates(ours, other)
        shared = np.asarray(ours[row].multiply(other[column]).sum(axis=1)).ravel()
        near = shared / (size[row] + all_of[column] - shared)
        taken = np.where(size[row] >= LEAST_TAKEN, shared / size[row], 0.0)
        hit = (near >= NEAR) | (taken >= TAKEN)
        found += zip(
            (keys[r] for r in row[hit]), (column[hit] + first).tolist(), np.maximum(near, taken)[hit].tolist(),
            strict=True,
        )  # fmt: skip
    return sorted(found, key=lambda f: (-f[2], f[0], f[1]))


def _chunks(corpus: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    first = length = 0
    for at, text in enumerate(corpus):
        length += len(text)
        if length >= _CHUNK:
            yield first, corpus[first : at + 1]
            first, length = at + 1, 0
    if first < len(corpus):
        yield first, corpus[first:]


def _candidates(ours: sparse.csr_array, other: sparse.csr_array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of rows that may share half of the first one's shingles.

    Whoever holds m of n shingles holds at least k of any n - m + k of them: the rarest are asked for.
    """
    frequency = np.bincount(other.indices, minlength=other.shape[1])
    by_rarity = np.lexsort((frequency[ours.indices], np.repeat(np.arange(ours.shape[0]), np.diff(ours.indptr))))
    size = np.diff(ours.indptr)
    needed = np.ceil(min(NEAR, TAKEN) * size).astype(np.intp)
    asked = np.minimum(_ASKED, needed)
    rank = np.arange(len(by_rarity)) - np.repeat(ours.indptr[:-1], size)
    rare = ours.copy()
    rare.data[by_rarity] = rank < np.repeat(size - needed + asked, size)
    rare.eliminate_zeros()
    pairs = (rare @ other.T.tocsr()).tocoo()
    enough = pairs.data >= asked[pairs.row]
    return pairs.row[enough], pairs.col[enough]


def _incidence(columns: NDArray[np.intp], rows: NDArray[np.intp], shape: tuple[int, int]) -> sparse.csr_array:
    matrix = sparse.coo_array((np.ones(len(rows), np.int32), (rows, columns)), shape=shape).tocsr()
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


@cache
def _fold_table() -> NDArray[np.uint32]:
    """Code point to folded code point; 0 drops it."""
    table = np.zeros(0x110000, np.uint32)
    for code in (*range(0xA000), *range(0xF900, 0xFB00), *range(0xFF00, 0xFFF0)):
        folded = unicodedata.normalize("NFKC", chr(code)).casefold()
        if folded.isdigit():
            table[code] = ord("0")
        elif folded[:1].isalpha():
            table[code] = ord(folded[0])
    table[ord("\n")] = ord("\n")
    return table


def _hashed(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The hashes of all texts' shingles in one array, and the index of the text that each belongs to."""
    joined = "\n".join(text.replace("\n", " ") for text in texts) + "\n"
    codes = _fold_table()[np.frombuffer(joined.encode("utf-32-le", "replace"), np.uint32)]
    codes = codes[codes != 0]
    zero = codes == ord("0")
    codes = codes[~(zero & np.concatenate(([False], zero[:-1])))]  # a run of digits is one
    ends = codes == ord("\n")
    text = np.cumsum(ends) - ends
    left = np.flatnonzero(ends)[text] - np.arange(len(codes))
    size = np.where((codes >= 0x3400) & (codes < 0xA000), _HAN_GRAM, _OTHER_GRAM)
    first = np.concatenate(([True], ends[:-1]))
    size = np.where(first, np.minimum(size, left), size)  # a text shorter than a shingle is one
    start = np.flatnonzero((size > 0) & (size <= left))
    size = size[start]
    padded = np.concatenate((codes.astype(np.uint64), np.zeros(_OTHER_GRAM, np.uint64)))
    hashes = np.zeros(len(start), np.uint64)
    for offset in range(_OTHER_GRAM):
        step = (hashes ^ padded[start + offset]) * np.uint64(0x9E3779B97F4A7C15)
        hashes = np.where(offset < size, step ^ (step >> np.uint64(29)), hashes)
    return hashes, text[start]


def _hashed_known(
    texts: Sequence[str], vocabulary: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Columns of the shingles that are in ``vocabulary``, their texts, and how many shingles each text has in all."""
    hashes, text = _hashed(texts)
    all_of = np.bincount(text, minlength=len(texts))
    small = np.uint64((1 << 22) - 1)  # most are strangers; a table tells that sooner than a search
    table = np.zeros(1 << 22, bool)
    table[vocabulary & small] = True
    known = table[hashes & small]
    hashes, text = hashes[known], text[known]
    column = np.minimum(np.searchsorted(vocabulary, hashes), len(vocabulary) - 1)
    known = vocabulary[column] == hashes
    return column[known], text[known], all_of
