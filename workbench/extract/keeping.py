"""Which blocks of a page are its content: a logistic score for each block, and the set that should give the best F1.

What a block looks like (length, links, kind, hints of the markup), what stands around it, and whether trafilatura
kept it, give the chance that it is content. The weights (:mod:`workbench.extract.keeping_weights`) are fitted on one
half of WCXB's development pages by ``python -m tests.evaluate fit-text``; the other half is what is reported.

Blocks are then taken in order of that chance for as long as the expected F1 of the whole grows: a page full of sure
content does not take doubtful blocks with it, a page of doubtful ones is not left empty.
Source of the rule: Ye, Chai, Lee and Chieu, "Optimizing F-measures: a tale of two approaches", ICML 2012.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from lxml.html import HtmlElement

from workbench.extract.blocks import Block, Hint
from workbench.extract.keeping_weights import WEIGHTS

__all__ = ["FEATURES", "block_features", "choose_blocks", "count_words", "keep_blocks", "split_words"]

# One East Asian character is a word here, and counts as less than one where length matters.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+"
)
_EAST_ASIAN_WORD = 0.6
_SENTENCE_END = re.compile(r"[.!?…:;。！？；：][\"”’)」』]?$")
_PRICE = re.compile(r"[$€£¥￥₹]\s?\d|\d\s?(?:[€£元]|USD|EUR|CNY)")
# At most this many words of a block are compared with what trafilatura kept.
_COMPARED_WORDS = 400
# A list with more of the page's words than this is the page's layout.
_LAYOUT_SHARE = 0.5

FEATURES: tuple[str, ...] = (
    "constant",
    "words",
    "link_share",
    "short_link",
    "heading",
    "title",
    "item",
    "row",
    "code",
    "quote",
    "sentence",
    "price",
    "words_around",
    "links_around",
    "words_next",
    "heading_before_text",
    "position",
    "before_title",
    "page_links",
    "voted",
    "voted_beside",
    "voted_around",
    "voted_share",
    "voted_on_a_voted_page",
    "before_voted",
    "after_voted",
    *(f"in_{hint.name}".lower() for hint in Hint if hint),
)
"""Names of the features, in order."""


def split_words(text: str) -> list[str]:
    """Lower-case words; each East Asian character is one."""
    return _WORD.findall(text.lower())


def count_words(text: str) -> float:
    """Words of a text, East Asian characters counted as 0.6 words each."""
    return _weigh_words(split_words(text))


def keep_blocks(blocks: Sequence[Block], voted: str) -> list[Block]:
    """The blocks that are content. ``voted`` is the text that trafilatura found on the page."""
    if not blocks:
        return []
    weights = [WEIGHTS[name] for name in FEATURES]
    scores = [sum(w * x for w, x in zip(weights, row, strict=True)) for row in block_features(blocks, voted)]
    lengths = [max(1.0, count_words(block.text)) for block in blocks]
    scores = _even_out_lists(blocks, scores, lengths)
    chances = [1 / (1 + math.exp(-max(-30.0, min(30.0, score)))) for score in scores]
    kept = choose_blocks(chances, lengths)
    return [block for block, keep in zip(blocks, kept, strict=True) if keep]


def choose_blocks(chances: Sequence[float], lengths: Sequence[float]) -> list[bool]:
    """The set with the highest expected F1: those with the highest chances, up to where F1 falls."""
    expected = sum(chance * length for chance, length in zip(chances, lengths, strict=True))
    order = sorted(range(len(chances)), key=lambda index: (-chances[index], index))
    best, best_count, right, taken = -1.0, 0, 0.0, 0.0
    for count, index in enumerate(order, start=1):
        right += chances[index] * lengths[index]
        taken += lengths[index]
        score = 2 * right / (expected + taken)
        if score > best:
            best, best_count = score, count
    kept = [False] * len(chances)
    for index in order[:best_count]:
        kept[index] = True
    return kept


def block_features(blocks: Sequence[Block], voted: str) -> list[list[float]]:
    """One row of numbers a block, in the order of :data:`FEATURES`."""
    tokens = [split_words(block.text) for block in blocks]
    votes = _compare_with_vote(tokens, split_words(voted))
    words = [math.log1p(_weigh_words(token)) for token in tokens]
    links = [block.link_share for block in blocks]
    characters = [len(block.text) for block in blocks]
    total = sum(characters)
    page_links = sum(share * length for share, length in zip(links, characters, strict=True)) / total
    voted_share = sum(vote * length for vote, length in zip(votes, characters, strict=True)) / total
    words_around, links_around = _mean_around(words, 3), _mean_around(links, 3)
    voted_beside, voted_around = _mean_around(votes, 1), _mean_around(votes, 3)
    in_vote = [index for index, vote in enumerate(votes) if vote > 0.5]
    first, last = (in_vote[0], in_vote[-1]) if in_vote else (len(blocks), -1)
    title = next((index for index, block in enumerate(blocks) if block.level == 1), -1)
    hints = [int(hint) for hint in Hint if hint]
    rows = []
    passed = 0
    for index, block in enumerate(blocks):
        heading = float(block.kind == "heading")
        words_next = words[index + 1] if index + 1 < len(words) else 0.0
        row = [
            1.0,
            words[index],
            links[index],
            links[index] * (words[index] < 1.7),
            heading,
            float(block.level == 1),
            float(block.kind == "item"),
            float(block.kind == "row"),
            float(block.kind == "code"),
            float(block.kind == "quote"),
            float(bool(_SENTENCE_END.search(block.text))),
            float(bool(_PRICE.search(block.text))),
            words_around[index],
            links_around[index],
            words_next,
            heading * words_next,
            (passed + characters[index] / 2) / total,
            float(index < title),
            page_links,
            votes[index],
            voted_beside[index],
            voted_around[index],
            voted_share,
            voted_share * votes[index],
            float(index < first),
            float(index > last),
        ]
        given = int(block.hints)
        row += [1.0 if given & hint else 0.0 for hint in hints]
        rows.append(row)
        passed += characters[index]
    return rows


def _even_out_lists(blocks: Sequence[Block], scores: list[float], lengths: Sequence[float]) -> list[float]:
    """One score for all items of a list: half a list is no content that anyone wrote."""
    lists: dict[HtmlElement, list[int]] = {}
    for index, block in enumerate(blocks):
        if block.kind == "item":
            around = next(block.element.iterancestors("ul", "ol", "dl"), None)
            if around is not None:
                lists.setdefault(around, []).append(index)
    total = sum(lengths)
    for items in lists.values():
        share = sum(lengths[index] for index in items)
        if share < _LAYOUT_SHARE * total:
            mean = sum(scores[index] * lengths[index] for index in items) / share
            for index in items:
                scores[index] = mean
    return scores


def _weigh_words(tokens: Iterable[str]) -> float:
    return sum(_EAST_ASIAN_WORD if "\u3040" <= token[0] <= "\ud7a3" else 1.0 for token in tokens)


def _compare_with_vote(tokens: Sequence[Sequence[str]], voted: Sequence[str]) -> list[float]:
    """For each block, the share of its word triples that stand in trafilatura's text: 0 to 1."""
    known: set[tuple[str, ...]] = set()
    for size in (1, 2, 3):
        known.update(zip(*(voted[start:] for start in range(size)), strict=False))
    shares = []
    for block in tokens:
        words = block[:_COMPARED_WORDS]
        size = min(3, len(words))
        if not size:
            shares.append(0.0)
            continue
        runs = list(zip(*(words[start:] for start in range(size)), strict=False))
        shares.append(sum(run in known for run in runs) / len(runs))
    return shares


def _mean_around(values: Sequence[float], reach: int) -> list[float]:
    """Mean over ``reach`` neighbours on both sides, the value itself left out, nothing counted as 0."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    count = len(values)
    return [
        (sums[min(count, index + reach + 1)] - sums[max(0, index - reach)] - values[index]) / (2 * reach)
        for index in range(count)
    ]
