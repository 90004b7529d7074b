"""Claims: headings and feature statements, in page order, as a competitor makes them.

Each block is judged by itself and by the markup around it, never by the rest of the page: a sentence that changes in
one place must not make a claim in another place come or go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.extract.blocks import Block, Hint
from workbench.extract.document import Document
from workbench.extract.keeping import count_words
from workbench.extract.page import Claim
from workbench.extract.written_dates import read_date

__all__ = ["find_claim_blocks", "read_claims"]

_NEVER = (
    Hint.NAVIGATION
    | Hint.FOOTER
    | Hint.FORM
    | Hint.BUTTON
    | Hint.DIALOG
    | Hint.CONSENT
    | Hint.SHARE
    | Hint.SIGN_UP
    | Hint.RELATED
    | Hint.COMMENT
    | Hint.REVIEW
    | Hint.ADVERT
    | Hint.FILTER
)
# Kinds whose text is not the company's own.
_NO_CLAIMS = frozenset(("reviews",))
_MAX_HEADING = 200
_MAX_STATEMENT = 320
_MAX_CELLS = 6
# A list item may be two words ("Cloud sync"); so short a paragraph is a label.
_MIN_WORDS = {"item": 1.7, "row": 2.0, "paragraph": 3.0}
_AMOUNT = re.compile(
    r"(?:[A-Z]{0,3}\s?[$€£¥￥₹]|\b(?:USD|EUR|GBP|CNY|RMB)\b)\s?[\d.,]+|[\d.,]+\s?(?:[€元]|\b(?:USD|EUR|GBP|CNY|RMB)\b)"
)
# What a line with an amount must say besides, to be more than a price.
_WORDS_BESIDE_AMOUNT = 6.0
_COOKIE_TEXT = re.compile(r"\bcookies?\b|本网站使用|隐私政策|隱私權政策", re.IGNORECASE)
_LEGAL_TEXT = re.compile(r"^\s*(?:©|\(c\)\s|copyright\b)|\ball rights reserved\b|版权所有|版權所有", re.IGNORECASE)
# Counts and states that change from week to week and are read elsewhere: ratings, availability, product numbers.
_STATE = re.compile(
    r"^(?:in stock|out of stock|sold out|available now|only \d+ left|currently unavailable|auf lager|en stock)\b|"
    r"^(?:现货|現貨|有货|有貨|缺货|缺貨|无货|库存|庫存|到货|补货)|"
    r"^(?:sku|(?:item|article|model) (?:no|number)|product code|商品编号|商品編號|货号|貨號)\s*[.:：#]|"
    r"\b\d[\d.,]*k?\+?\s*(?:customer |verified )?(?:reviews?|ratings?|replies|comments|votes|views)\b|"
    r"\d+\s*(?:条|則|则|個|个)?(?:评价|評價|评论|評論|人评价)",
    re.IGNORECASE,
)
_MAX_STATE_WORDS = 16.0
_MAX_DATE_WORDS = 8.0
_LETTER = re.compile(r"[^\W\d_]")


def read_claims(document: Document, *, kind: str | None = None) -> tuple[Claim, ...]:
    """Claims of a page, in page order, each text once. Pages of reviews make none."""
    if kind in _NO_CLAIMS:
        return ()
    claims: list[Claim] = []
    seen: set[str] = set()
    for claim in _claims_from_blocks(find_claim_blocks(document)):
        folded = " ".join(claim.text.casefold().split())
        if folded not in seen:
            seen.add(folded)
            claims.append(claim)
    return tuple(claims)


def find_claim_blocks(document: Document) -> list[Block]:
    """The blocks that may make a claim: all but what the markup says is around the content."""
    return _keep_main_part([block for block in document.blocks if _may_claim(block)])


def _may_claim(block: Block) -> bool:
    hints = block.hints
    if hints & _NEVER or block.kind in ("code", "quote") or _is_in_review(block):
        return False
    # Text in the page's header (telephone, "free shipping") is the site's; a heading there is the page's.
    if hints & Hint.HEADER and not hints & Hint.MAIN and block.kind != "heading":
        return False
    return block.kind == "heading" or block.link_share < 0.8


def _is_in_review(block: Block) -> bool:
    for element in (block.element, *block.element.iterancestors()):
        if element.get("itemprop") in ("review", "reviews", "reviewBody"):
            return True
        if (element.get("itemtype") or "").rstrip("/").endswith("/Review"):
            return True
    return False


def _keep_main_part(blocks: list[Block]) -> list[Block]:
    """The blocks in <main>, where a page marks one and puts most of its text there."""
    main = [block for block in blocks if block.hints & Hint.MAIN]
    total = sum(len(block.text) for block in blocks)
    return main if sum(len(block.text) for block in main) > 0.6 * total else blocks


def _claims_from_blocks(blocks: list[Block]) -> Iterator[Claim]:
    term: str | None = None
    for block in blocks:
        text = " ".join(block.text.split())
        tag = block.element.tag
        if tag == "dt":
            term = text
            continue
        if tag == "dd" and term:
            text = f"{term}: {text}"
        term = None
        if block.kind == "heading":
            if len(text) <= _MAX_HEADING and _LETTER.search(text) and not _is_mostly_price(text):
                yield Claim(text=text, kind="heading", level=block.level)
        elif _is_statement(text, block):
            yield Claim(text=text, kind="statement")


def _is_statement(text: str, block: Block) -> bool:
    if len(text) > _MAX_STATEMENT or not _LETTER.search(text) or _COOKIE_TEXT.search(text):
        return False
    if _LEGAL_TEXT.search(text) or (_STATE.search(text) and count_words(text) <= _MAX_STATE_WORDS) or _is_date(text):
        return False
    if block.kind == "row" and not 1 <= text.count(" | ") < _MAX_CELLS:
        return False
    return count_words(text) >= _MIN_WORDS[block.kind] and not _is_mostly_price(text)


def _is_date(text: str) -> bool:
    """A date and hardly a word beside it: "19 November 2026", "发布时间：2026年11月16日"."""
    return len(text) <= 40 and count_words(text) <= _MAX_DATE_WORDS and read_date(text) is not None


def _is_mostly_price(text: str) -> bool:
    rest, amounts = _AMOUNT.subn(" ", text)
    return amounts > 0 and count_words(rest) < _WORDS_BESIDE_AMOUNT
