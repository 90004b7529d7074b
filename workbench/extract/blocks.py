"""The blocks of a page: headings, paragraphs, list items and table rows, in reading order, with hints of their role.

One walk over the shared tree. Nothing is judged here: a block carries what the markup around it says of itself
(elements, ARIA roles, words in ``class`` and ``id``) as hints, and its readers decide. Only what is never shown as
text (scripts, form fields, graphics) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag, auto
from functools import lru_cache
from typing import Literal

from lxml.html import HtmlElement

__all__ = ["Block", "BlockKind", "Hint", "find_hints", "read_blocks"]

BlockKind = Literal["heading", "paragraph", "item", "row", "code", "quote"]


class Hint(IntFlag):
    """What the markup around a block says about it."""

    NONE = 0
    MAIN = auto()
    """In <main>, role=main or <article>."""
    CONTENT = auto()
    """In something named content, post, entry, description, …"""
    HEADER = auto()
    FOOTER = auto()
    ASIDE = auto()
    NAVIGATION = auto()
    FORM = auto()
    BUTTON = auto()
    HIDDEN = auto()
    DIALOG = auto()
    CONSENT = auto()
    SHARE = auto()
    SIGN_UP = auto()
    RELATED = auto()
    COMMENT = auto()
    REVIEW = auto()
    BYLINE = auto()
    ADVERT = auto()
    FILTER = auto()
    PROMOTION = auto()
    CARD = auto()
    PANEL = auto()
    FIGURE = auto()


# One line a hint; whole words only ("navy" is a colour).
_HINT_WORDS: dict[Hint, str] = {
    Hint.CONTENT: "content entry post article story body description details prose markdown richtext rte "
    "wysiwyg message cooked bbwrapper answer question",
    Hint.HEADER: "header masthead topbar banner hero",
    Hint.FOOTER: "footer sitefooter colophon copyright bottom",
    Hint.ASIDE: "sidebar aside widget rail secondary",
    Hint.NAVIGATION: "nav navbar navigation menu menus submenu megamenu breadcrumb breadcrumbs crumbs "
    "pagination pager paginator toc skip skiplink sitemap tabs",
    Hint.FORM: "form search searchform field",
    Hint.BUTTON: "button btn cta buttons actions toolbar",
    Hint.DIALOG: "modal popup overlay lightbox offcanvas drawer toast dialog tooltip popover",
    Hint.CONSENT: "cookie cookies consent gdpr ccpa onetrust cookiebot",
    Hint.SHARE: "share sharing social socials sharebar addthis follow",
    Hint.SIGN_UP: "newsletter subscribe subscription signup signin login register mailchimp",
    Hint.RELATED: "related recommended recommendations recommendation upsell crosssell similar suggested "
    "trending popular recent recently readmore",
    Hint.COMMENT: "comments comment reply replies respond disqus",
    Hint.REVIEW: "reviews review testimonials testimonial rating ratings stars yotpo",
    Hint.BYLINE: "author byline bio tags taglist meta date user avatar profile signature",
    Hint.ADVERT: "ad ads advert adverts advertisement adsbygoogle sponsor sponsored",
    Hint.FILTER: "facet facets filters filter sorter sort refine swatch swatches variant",
    Hint.PROMOTION: "announcement promo promotion notice alert disclaimer shipping delivery cart",
    Hint.CARD: "card cards grid tile tiles teaser listing carousel slider swiper product products",
    Hint.PANEL: "accordion faq faqs tab panel collapse toggle",
}
# Plain integers inside: combining flags as such takes ten times as long.
_WORD_HINTS = {word: int(hint) for hint, words in _HINT_WORDS.items() for word in words.split()}
_TAG_HINTS: dict[str, int] = {
    "main": int(Hint.MAIN),
    "article": int(Hint.MAIN),
    "header": int(Hint.HEADER),
    "footer": int(Hint.FOOTER),
    "aside": int(Hint.ASIDE),
    "nav": int(Hint.NAVIGATION),
    "menu": int(Hint.NAVIGATION),
    "form": int(Hint.FORM),
    "label": int(Hint.FORM),
    "fieldset": int(Hint.FORM),
    "button": int(Hint.BUTTON),
    "dialog": int(Hint.DIALOG),
    "noscript": int(Hint.HIDDEN),
    "figure": int(Hint.FIGURE),
    "details": int(Hint.PANEL),
    "address": int(Hint.BYLINE),
}
_ROLE_HINTS: dict[str, int] = {
    "main": int(Hint.MAIN),
    "navigation": int(Hint.NAVIGATION),
    "menu": int(Hint.NAVIGATION),
    "menubar": int(Hint.NAVIGATION),
    "banner": int(Hint.HEADER),
    "contentinfo": int(Hint.FOOTER),
    "complementary": int(Hint.ASIDE),
    "search": int(Hint.FORM),
    "form": int(Hint.FORM),
    "dialog": int(Hint.DIALOG),
    "alertdialog": int(Hint.DIALOG),
    "tooltip": int(Hint.DIALOG),
    "alert": int(Hint.PROMOTION),
    "button": int(Hint.BUTTON),
    "toolbar": int(Hint.BUTTON),
    "tabpanel": int(Hint.PANEL),
}
# Not embed, source and track: libxml2 does not know that they are empty, and puts what follows inside them.
_NEVER_SHOWN = """
script style template svg math canvas head iframe object audio video select option input textarea datalist map area
meta link img progress meter frame title
"""
_BLOCK_ELEMENTS = """
address article aside blockquote body button caption center dd details dialog dir div dl dt fieldset figcaption figure
footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav noscript ol p pre search section summary
table tbody tfoot thead tr ul
"""
_NEVER = frozenset(_NEVER_SHOWN.split())
_BLOCKS = frozenset(_BLOCK_ELEMENTS.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_KINDS: dict[str, BlockKind] = {
    **dict.fromkeys(_HEADINGS, "heading"),
    **dict.fromkeys(("li", "dd", "dt"), "item"),
    **dict.fromkeys(("tr", "td", "th"), "row"),
    "pre": "code",
    "blockquote": "quote",
}
# Elements around the whole page: their classes describe the page, not a part of it.
_FRAME = frozenset(("html", "body", "main"))
# A part that holds the title and more of the text than this is the page itself, whatever its name says.
_LARGE_SHARE = 0.5
_CELL_MARK = "\x1f"
_WORDS = re.compile(r"[a-z]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_HIDDEN = int(Hint.HIDDEN)
_MAIN = int(Hint.MAIN)
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_HIDDEN_CLASSES = frozenset(
    ("hidden", "hide", "d-none", "is-hidden", "sr-only", "visually-hidden", "visuallyhidden", "screen-reader-text")
)
_SPACES = re.compile(r"[ \t\r\f\v\u00a0\u2000-\u200b\u3000]+")


@dataclass(frozen=True)
class Block:
    """A run of text between two block boundaries."""

    text: str
    kind: BlockKind
    level: int | None
    """1 to 6 for headings."""
    link_share: float
    """Part of the characters that stand inside links."""
    hints: Hint
    element: HtmlElement
    """The innermost block element around the text."""


_hint_from_int = lru_cache(maxsize=4096)(Hint)


@lru_cache(maxsize=16384)
def _hints_from_names(names: str) -> int:
    """Hints in the words of a class and an id."""
    hints = 0
    for token in names.split():
        lowered = token.lower()
        # "has-sidebar" or "no-modal" on a wrapper describe the layout; "md:hidden" is a matter of the screen's width.
        if ":" in token or lowered.startswith(("has-", "no-", "with-", "without-", "js-")):
            continue
        if lowered in _HIDDEN_CLASSES and ":" not in names:
            hints |= _HIDDEN
        for word in _WORDS.findall(_CAMEL.sub("-", token).lower()):
            hints |= _WORD_HINTS.get(word, 0)
    return hints


def find_hints(element: HtmlElement) -> int:
    """Hints an element gives by itself."""
    tag = str(element.tag)
    hints = _TAG_HINTS.get(tag, 0)
    attributes = element.attrib
    if not attributes:
        return hints
    role = attributes.get("role")
    if role:
        hints |= _ROLE_HINTS.get(role, 0)
    if tag in _FRAME:
        return hints
    style = attributes.get("style")
    if "hidden" in attributes or attributes.get("aria-hidden") == "true" or (style and _HIDDEN_STYLE.search(style)):
        hints |= _HIDDEN
    names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"
    return hints | _hints_from_names(names) if len(names) > 1 else hints


class _Part:
    """An open element of the walk."""

    __slots__ = (
        "characters",
        "children",
        "element",
        "hinted",
        "hints",
        "holds_title",
        "in_code",
        "in_link",
        "is_block",
        "parent",
    )

    def __init__(self, element: HtmlElement, parent: _Part | None) -> None:
        tag = element.tag
        self.element = element
        self.children = iter(element)
        self.parent = parent
        self.is_block = tag in _BLOCKS
        self.in_link: bool = tag == "a" or (parent is not None and parent.in_link)
        self.in_code: bool = tag == "pre" or (parent is not None and parent.in_code)
        self.hints = find_hints(element)
        self.characters = 0
        self.holds_title = False
        # The closest part, this one included, that gives a hint.
        self.hinted: _Part | None = self if self.hints else (None if parent is None else parent.hinted)


def read_blocks(tree: HtmlElement) -> list[Block]:
    """All blocks of a page, in reading order."""
    body = tree.find(".//body")
    root = tree if body is None else body
    runs = list(_walk(root))
    total = sum(len(text) for text, _, _ in runs)
    limit = _LARGE_SHARE * total
    _mark_title(runs)
    blocks = []
    for text, linked, part in runs:
        kind, level = _name_kind(part.element)
        hints = _hint_from_int(_collect_hints(part, limit))
        blocks.append(Block(text, kind, level, min(1.0, linked / len(text)), hints, part.element))
    return blocks


def _mark_title(runs: list[tuple[str, int, _Part]]) -> None:
    """Mark the parts around the page's first <h1>; all parts, where there is none."""
    title = next((part for _, _, part in runs if part.element.tag == "h1"), None)
    for part in [title] if title is not None else [part for _, _, part in runs]:
        around: _Part | None = part
        while around is not None and not around.holds_title:
            around.holds_title = True
            around = around.parent


def _collect_hints(part: _Part, limit: float) -> int:
    hints = 0
    hinted = part.hinted
    while hinted is not None:
        is_page = hinted.holds_title and hinted.characters > limit
        hints |= hinted.hints & _MAIN if is_page else hinted.hints
        hinted = None if hinted.parent is None else hinted.parent.hinted
    return hints


def _walk(root: HtmlElement) -> Iterator[tuple[str, int, _Part]]:
    """Runs of text: the text, how many of its characters are linked, and the part that it closes."""
    run = _Run()
    part: _Part | None = _Part(root, None)
    assert part is not None  # noqa: S101  (for the type checker)
    run.add(root.text, part)
    while part is not None:
        child = next(part.children, None)
        if child is None:
            if part.is_block or part.parent is None:
                yield from run.flush(part)
            parent = part.parent
            if parent is not None:
                parent.characters += part.characters
                run.add(part.element.tail, parent)
            part = parent
        elif child.tag in _NEVER or not isinstance(child.tag, str):
            run.add(child.tail, part)
        elif child.tag == "br":
            run.add_mark("\n")
            run.add(child.tail, part)
        else:
            opened = _Part(child, part)
            if opened.is_block:
                yield from run.flush(part)
            elif child.tag in ("td", "th"):
                run.add_mark(_CELL_MARK)
            run.add(child.text, opened)
            part = opened


class _Run:
    """Text since the last block boundary."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._linked = 0

    def add(self, text: str | None, part: _Part) -> None:
        if not text:
            return
        text = text if part.in_code else _SPACES.sub(" ", text.replace("\n", " "))
        self._parts.append(text)
        if part.in_link:
            self._linked += len(text.strip())

    def add_mark(self, mark: str) -> None:
        self._parts.append(mark)

    def flush(self, part: _Part) -> Iterator[tuple[str, int, _Part]]:
        if not self._parts:
            return
        text = "".join(self._parts)
        linked = self._linked
        self._parts, self._linked = [], 0
        if part.in_code:
            text = text.replace(_CELL_MARK, " ").strip("\n")
        else:
            cells = [cell.strip() for cell in text.split(_CELL_MARK)]
            text = " | ".join(cell for cell in cells if cell)
            text = "\n".join(line for line in (" ".join(row.split()) for row in text.split("\n")) if line)
        if text.strip():
            part.characters += len(text)
            yield text, linked, part


def _name_kind(element: HtmlElement) -> tuple[BlockKind, int | None]:
    """What a run of text is, from the closest element that says so."""
    node: HtmlElement | None = element
    for _ in range(4):
        if node is None or node.tag in ("article", "section", "main", "body", "table", "ul", "ol"):
            break
        kind = _KINDS.get(str(node.tag))
        if kind is not None:
            return kind, _HEADINGS.get(str(node.tag))
        node = node.getparent()
    return "paragraph", None
