"""One walk over a page: its heading, its controls, its short texts, and what the names of its elements suggest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from lxml import etree
from lxml.html import HtmlElement

from workbench.extract.document import Document

__all__ = ["HIDDEN_TAGS", "Traits", "View", "describe", "short_text", "view_page"]

_MAX_TEXT = 120
_MAX_LINE = 480
_MAX_LEVELS = 100

HIDDEN_TAGS = frozenset({"script", "style", "noscript", "template", "option", "textarea", "svg", "head", "iframe"})
_CONTROL_TAGS = frozenset({"a", "button", "input"})
_HIDDEN_NAME = re.compile(
    r"(?:^|\s)(?:hidden|hide|d-none|ng-hide|(?!overflow|visually|backface)\w+-hidden)(?:\s|$)", re.IGNORECASE
)
_CONTROL_NAME = re.compile(r"btn|button|cart|basket|(?<![a-z])buy|checkout|purchase", re.IGNORECASE)
_HAS_DIGIT = re.compile(r"\d")
_BLOCK_TAGS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
_CENTS = re.compile(r"cent|decimal|fraction|sup|penn|small|minor|kopeck", re.IGNORECASE)
_NAME_ATTRIBUTES = frozenset(
    {"class", "id", "itemprop", "data-testid", "data-test", "data-qa", "data-role", "data-hook", "data-auto"}
)

_IS_PRICE = re.compile(
    r"price|pric(?:e|ing)|prix|preis|prezz|precio|pre[cç]o|\bcena|\bpris\b|hinta|prijs|fiyat|amount|价|價|цена|"
    r"kaina|\bár\b",
    re.IGNORECASE,
)
_IS_CURRENT = re.compile(
    r"sale|special|\bnow\b|[-_]now|now[-_]|current|final|selling|sell[-_]?price|our[-_]?price|deal|promo|reduced|"
    r"actual|"
    r"main|buy|discount(?:ed)?[-_]?price|your[-_]?price|offer[-_]?price|angebot|aktion|oferta|soldes",
    re.IGNORECASE,
)
_IS_OLD = re.compile(
    r"\bold|[-_]old|old[-_]|oldprice|\bwas\b|[-_]was|was[-_]|wasprice|list[-_]?price|price[-_]?list\b|regular|strike|"
    r"before|\brrp|msrp|\buvp\b|compare[-_]?at|compare|original|retail|crossed|previous|[-_]prev\b|through|standard|"
    r"catalog|barr[ée]|tachado|anterior|ancien|statt|durchgestrichen|full[-_]?price|market[-_]?price|"
    r"normal[-_]?price|vecchio",
    re.IGNORECASE,
)
_IS_OTHER_AMOUNT = re.compile(
    r"shipping|deliver|versand|livraison|saving|\bsaved?\b|[-_]save|save[-_]|you[-_]?save|install?ment|monthly|"
    r"per[-_]?month|"
    r"unit[-_]?price|price[-_]?per|per[-_]?unit|base[-_]?price|grundpreis|rating|review|stars?\b|cart|basket|filter|"
    r"coupon|voucher|warranty|points|deposit|financ|credit|loan|reward|cashback|\btax|ratenzahlung|leasing|klarna|"
    r"threshold|swatch|gift[-_]?card|insurance|trade[-_]?in|discount[-_]?(?:amount|percent|badge|label)|percent|"
    r"quantity|"
    r"\bqty|stock|badge|counter|tooltip|difference",
    re.IGNORECASE,
)
_IS_ELSEWHERE = re.compile(
    r"related|recommend|carousel|slider|(?<![a-z])slick|swiper|similar|(?<![a-z])also|upsell|up[-_]sell|"
    r"cross[-_]?sell|recent|"
    r"last[-_]?seen|viewed|sponsor|bundle|accessor|compar(?:e|ison)|sidebar|footer|"
    r"(?<![a-z])header(?![-_]?(?:price|info))|"
    r"(?<![a-z])nav|(?<![a-z])menu|(?<![a-z])widget|suggest|frequently|bought|other[-_]|teaser|"
    r"(?<![a-z])tiles?(?![a-z])|"
    r"banner|advert|popup|(?<![a-z])modal|toast|mini[-_]?cart|(?<![a-z])combo|alternativ|best[-_]?seller|trending|"
    r"history|"
    r"listing|products?[-_]?(?:list|grid|items?(?![a-z])|cards?(?![a-z]))|search[-_]?result|zubeh|empfehl|correlat|"
    r"relacionad|similair|kategori|wishlist|(?<![a-z])shelf|(?<![a-z])rail(?![a-z])|offers?[-_]?list|"
    r"sellers?(?![a-z])|"
    r"variants?(?![a-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Traits:
    """What the names and the style of an element say about the amounts in it."""

    is_price: bool = False
    is_current: bool = False
    is_old: bool = False
    is_struck: bool = False
    is_other_amount: bool = False
    is_elsewhere: bool = False
    is_hidden: bool = False


@lru_cache(maxsize=8192)
def _traits_of_name(name: str) -> Traits:
    """From class, id and the like; many elements share their names, and pages of one site share them too."""
    is_price = bool(_IS_PRICE.search(name))
    return Traits(
        is_price=is_price,
        is_current=is_price and bool(_IS_CURRENT.search(name)),
        is_old=bool(_IS_OLD.search(name)),
        is_other_amount=bool(_IS_OTHER_AMOUNT.search(name)),
        is_elsewhere=bool(_IS_ELSEWHERE.search(name)),
        is_hidden=bool(_HIDDEN_NAME.search(name)),
    )


def _traits_of(node: HtmlElement) -> Traits:
    traits = _traits_of_name(describe(node)[:_MAX_LINE])
    tag, style = node.tag, (node.get("style") or "").replace(" ", "")
    if tag in ("body", "html", "main") and traits.is_elsewhere:
        traits = replace(traits, is_elsewhere=False)
    if tag in ("nav", "footer", "aside", "header"):
        traits = replace(traits, is_elsewhere=True)
    if tag in ("del", "s", "strike") or "line-through" in style:
        traits = replace(traits, is_struck=True)
    if "display:none" in style or node.get("hidden") is not None:
        traits = replace(traits, is_hidden=True)
    return traits


@dataclass(eq=False)
class View:
    """The page's landmarks, in page order: the heading, the controls, the short texts."""

    heading: HtmlElement | None = None
    heading_position: int | None = None
    controls: list[tuple[int, HtmlElement]] = field(default_factory=list)
    lines: list[tuple[int, HtmlElement, str]] = field(default_factory=list)
    """Position, the element a text stands in, the text; texts of at most 480 characters."""
    chains: dict[HtmlElement, tuple[HtmlElement, ...]] = field(default_factory=dict)
    known_traits: dict[HtmlElement, Traits] = field(default_factory=dict)
    known_elsewhere: dict[HtmlElement, bool] = field(default_factory=dict)
    heading_chain: frozenset[HtmlElement] = frozenset()

    def chain(self, node: HtmlElement) -> tuple[HtmlElement, ...]:
        """The element and its ancestors, innermost first; of very deep trees the innermost levels."""
        known = self.chains.get(node)
        if known is None:
            ancestors = [node]
            parent = node.getparent()
            while parent is not None and len(ancestors) < _MAX_LEVELS:
                above = self.chains.get(parent)
                if above is not None:
                    ancestors.extend(above)
                    break
                ancestors.append(parent)
                parent = parent.getparent()
            known = self.chains[node] = tuple(ancestors[:_MAX_LEVELS])
        return known

    def traits(self, node: HtmlElement) -> Traits:
        """What the element's names suggest, remembered."""
        known = self.known_traits.get(node)
        if known is None:
            known = self.known_traits[node] = _traits_of(node)
        return known

    def is_elsewhere(self, node: HtmlElement) -> bool:
        """Whether the element is in a part of the page about something else: a menu, a list of other products."""
        known = self.known_elsewhere.get(node)
        if known is None:
            # A wrapper around the heading is the product itself, whatever it is called.
            known = self.known_elsewhere[node] = any(
                self.traits(above).is_elsewhere and above not in self.heading_chain for above in self.chain(node)
            )
        return known

    def steps_to(self, node: HtmlElement, other: HtmlElement) -> int:
        """How many steps up from ``node`` lead to an ancestor that holds ``other`` too."""
        above = set(self.chain(other))
        return next((steps for steps, ancestor in enumerate(self.chain(node)) if ancestor in above), 99)


def describe(node: HtmlElement) -> str:
    """The names an author gave an element: class, id and the like, as one string."""
    return " ".join([value for name, value in node.items() if name in _NAME_ATTRIBUTES and value])


def short_text(node: HtmlElement, limit: int = _MAX_TEXT) -> str | None:
    """An element's text on one line as a browser shows it; None where it is longer than ``limit``."""
    parts: list[str] = []
    size = 0

    def add(text: str | None, owner: HtmlElement | None) -> bool:
        nonlocal size
        if not text:
            return True
        stripped = text.strip()
        if (
            owner is not None
            and len(stripped) == 2
            and stripped.isdigit()
            and parts
            and parts[-1].rstrip()[-1:].isdigit()
            and (owner.tag == "sup" or _CENTS.search(owner.get("class") or ""))
        ):
            parts.append("." + stripped)
        elif text[0].isdigit() and parts and parts[-1][-1:].isdigit():
            # Two numbers that touch in the source stand apart on the screen, or they would be one element.
            parts.append(" " + text)
        else:
            parts.append(text)
        size += len(stripped)
        return size <= limit

    stack: list[tuple[HtmlElement, bool]] = [(node, False)]
    while stack:
        current, closing = stack.pop()
        if closing:
            if current.tag in _BLOCK_TAGS:
                parts.append(" ")
            if current is not node and not add(current.tail, None):
                return None
            continue
        if not isinstance(current.tag, str) or current.tag in HIDDEN_TAGS:
            if current is not node and not add(current.tail, None):
                return None
            continue
        if current.tag in _BLOCK_TAGS:
            parts.append(" ")
        stack.append((current, True))
        if not add(current.text, current):
            return None
        stack.extend((child, False) for child in reversed(current))
    return " ".join("".join(parts).split())


def view_page(document: Document, title: str | None = None) -> View:
    """Find the heading, the controls and the short texts in one walk. ``title`` helps to tell the heading."""
    view = View()
    headings: list[tuple[int, HtmlElement]] = []
    position = 0
    walk = etree.iterwalk(document.tree, events=("start", "end"))
    for event, element in walk:
        node = element
        tag = node.tag
        if event == "end":
            text, owner = node.tail, node.getparent()
        else:
            if tag in HIDDEN_TAGS:
                walk.skip_subtree()
                continue
            text, owner = node.text, node
            if tag == "h1":
                headings.append((position, node))
                position += 1
            elif (tag in _CONTROL_TAGS or node.get("role") == "button") and _is_control(node):
                view.controls.append((position, node))
                position += 1
        if text and owner is not None and len(text) <= _MAX_LINE and not text.isspace():
            view.lines.append((position, owner, text))
            if _HAS_DIGIT.search(text):
                position += 1
    shown = [(position, node) for position, node in headings if node.text_content().strip()]
    if shown:
        view.heading_position, view.heading = max(shown, key=lambda entry: (_likeness(entry[1], title), -entry[0]))
        view.heading_chain = frozenset(view.chain(view.heading))
    return view


def _is_control(node: HtmlElement) -> bool:
    if node.tag == "button" or node.get("role") == "button":
        return True
    if node.tag == "input":
        return (node.get("type") or "").lower() in ("submit", "button", "image")
    if node.tag != "a":
        return False
    is_script = (node.get("href") or "").startswith("javascript:") or node.get("onclick") is not None
    return is_script or bool(_CONTROL_NAME.search(f"{node.get('class')} {node.get('id')}"))


def _likeness(node: HtmlElement, title: str | None) -> float:
    words = set(re.findall(r"\w+", node.text_content().lower()))
    wanted = set(re.findall(r"\w+", (title or "").lower()))
    return round(len(words & wanted) / max(1, len(words | wanted)), 2)
