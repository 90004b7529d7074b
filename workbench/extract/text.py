"""The main text of a page, tables kept, in reading order, as plain text with light Markdown marks."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import trafilatura

from workbench.extract.blocks import Block
from workbench.extract.claims import find_claim_blocks
from workbench.extract.document import Document
from workbench.extract.keeping import keep_blocks

__all__ = ["MainText", "read_text", "text_from_blocks", "vote_on_text"]

# trafilatura takes seconds for each megabyte; on larger pages the blocks have to do without its vote.
_MAX_VOTE_CHARACTERS = 3_000_000
# A result shorter than this is no main text where trafilatura, which also looks into embedded JSON, found more.
_MIN_TEXT = 200
_MADE_OF_CLAIMS = frozenset(("pricing", "changelog", "landing", "ads"))
_FOLLOWS_CLOSELY = frozenset((("item", "item"), ("row", "row"), ("code", "code")))


@dataclass(frozen=True)
class MainText:
    """The main text, and the blocks it was made of (none where it came from trafilatura alone)."""

    text: str
    blocks: tuple[Block, ...]


def read_text(document: Document, *, kind: str | None = None) -> MainText:
    """Main text of a page: the blocks that are its content.

    trafilatura (recall mode, tables kept) votes on each block; where no block holds what it found, such as a post
    that is embedded as JSON only, its own text is taken. A page whose ``kind`` says that it is made of claims
    (pricing, changelog, landing, ads) keeps the blocks that make them, however few words they have.
    """
    blocks = document.blocks
    voted = vote_on_text(document)
    kept = keep_blocks(blocks, voted)
    if kind in _MADE_OF_CLAIMS:
        chosen = {id(block) for block in (*kept, *find_claim_blocks(document))}
        kept = [block for block in blocks if id(block) in chosen]
    text = text_from_blocks(kept)
    if len(text) < _MIN_TEXT and len(voted) > 2 * len(text):
        return MainText(voted.strip(), ())
    return MainText(text, tuple(kept))


def vote_on_text(document: Document) -> str:
    """Text that trafilatura takes for the page's content; empty where there is none or the page is too large."""
    if len(document.html) > _MAX_VOTE_CHARACTERS:
        document.warnings.append(
            f"text: {len(document.html)} characters are too many for trafilatura; read without it"
        )
        return ""
    # It says in the log what it thinks of a page, at levels meant for its own command line.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        found = trafilatura.extract(
            copy.deepcopy(document.tree), url=document.url, favor_recall=True, include_tables=True
        )
    except Exception as error:  # its parts fail on odd trees in ways of their own; blocks need no vote
        document.warnings.append(f"text: trafilatura failed ({type(error).__name__}: {error})"[:200])
        return ""
    return found or ""


def text_from_blocks(blocks: Sequence[Block]) -> str:
    """Blocks as text: ``#`` for headings, ``-`` for list items, ``|`` between table cells, ``>`` for quotes."""
    parts: list[str] = []
    before: str | None = None
    for block in blocks:
        if before is not None:
            parts.append("\n" if (before, block.kind) in _FOLLOWS_CLOSELY else "\n\n")
        parts.append(_mark(block))
        before = block.kind
    return "".join(parts)


def _mark(block: Block) -> str:
    if block.kind == "heading":
        return f"{'#' * (block.level or 1)} {block.text.replace(chr(10), ' ')}"
    if block.kind == "item":
        return f"- {block.text}"
    if block.kind == "quote":
        return "\n".join(f"> {line}" for line in block.text.split("\n"))
    return block.text
