"""The text of a part of a page in the pieces a reader sees: a piece ends where a block element begins or ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lxml.html import HtmlElement

from workbench.extract.view import HIDDEN_TAGS, View

__all__ = ["Segment", "segments_of"]

_INLINE = frozenset(
    re.findall(
        r"\w+",
        """a abbr acronym b bdi bdo big cite code data dfn em font i img input ins kbd label mark meter picture q ruby
        samp small span strong sub sup time tt u var wbr s del strike""",
    )
)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_MAX_SEGMENTS = 2000


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of text and the block it stands in; ``is_struck`` is crossed out, controls are links and buttons."""

    text: str
    node: HtmlElement
    is_heading: bool = False
    is_struck: bool = False
    is_control: bool = False
    is_item: bool = False


def segments_of(root: HtmlElement, view: View, *, limit: int = _MAX_SEGMENTS) -> list[Segment]:
    """The visible text under ``root``, in order, up to ``limit`` pieces. Crossed-out text is in pieces of its own."""
    found: list[Segment] = []
    parts: list[str] = []
    owner = root
    struck = control = 0

    def flush() -> None:
        text = " ".join("".join(parts).split())
        parts.clear()
        if text and len(found) < limit:
            chain = view.chain(owner)
            inside = chain[: chain.index(root) + 1] if root in chain else chain[:1]
            found.append(
                Segment(
                    text,
                    owner,
                    is_heading=any(node.tag in _HEADINGS for node in inside),
                    is_struck=struck > 0,
                    is_control=control > 0,
                    is_item=any(node.tag in ("li", "dd") for node in inside if node is not root),
                )
            )

    stack: list[tuple[HtmlElement, bool]] = [(root, False)]
    while stack and len(found) < limit:
        node, is_end = stack.pop()
        tag = node.tag
        if not isinstance(tag, str):
            continue
        if tag in HIDDEN_TAGS or (node is not root and not is_end and view.traits(node).is_hidden):
            if node is not root and node.tail:
                parts.append(node.tail)
            continue
        is_strike = view.traits(node).is_struck
        is_button = tag == "button" or (tag == "a" and node.get("href") is not None)
        is_block = tag not in _INLINE or is_strike
        if is_end:
            if is_block or is_button:
                flush()
                parent = node.getparent()
                owner = parent if node is not root and parent is not None else owner
            struck -= is_strike
            control -= is_button
            if node is not root and node.tail:
                parts.append(node.tail)
            continue
        if is_block or is_button:
            flush()
            owner = node
        struck += is_strike
        control += is_button
        if node.text:
            parts.append(node.text)
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node))
    flush()
    return found
