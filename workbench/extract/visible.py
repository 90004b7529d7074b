"""What a reader of the page sees: which of the amounts on it is the main product's price, and where it stands."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import urlsplit

from lxml.html import HtmlElement

from workbench.extract.currencies import Market
from workbench.extract.document import Document
from workbench.extract.prices import PriceText, find_prices, parse_price, plain_digits
from workbench.extract.view import HIDDEN_TAGS, View, short_text

__all__ = ["VisiblePrice", "choose_price"]

_MAX_CANDIDATES = 400
_MAX_TEXT = 120
_MAX_CLIMB = 5
_LEAST_SCORE = 0.6

_HAS_DIGIT = re.compile(r"\d")
_PART = re.compile(r"[^\w%]{0,3}\d[\d.,'’\s]*[^\w%]{0,3}\w{0,3}\.?")
_BEFORE_OLD = re.compile(
    r"(?:\bwas|\bold price|list price|\brrp|msrp|\buvp|statt|reg(?:ular)?\.?(?: price)?|before|instead of|au lieu de|"
    r"prix conseillé|ancien prix|original(?: price)?|retail|compare at|prezzo consigliato|anzich[eé]|invece di|antes|"
    r"pvpr?|ordinarie|før|vorher|bisher|原价|原價|市场价|市場價|划线价|定價|定价|建議售價|参考价|前は|定価|정가|"
    r"старая цена|było|"
    r"bežná cena|původní cena|namesto|precio anterior|de:)\W{0,4}$",
    re.IGNORECASE,
)
_BEFORE_OTHER = re.compile(
    r"(?:\bfrom|starting at|\bab|\bvon|vanaf|från|dès|à partir de|a partire da|desde|from just|od|over|"
    r"orders?(?: over| above)?|save|saving|"
    r"you save|sie sparen|économisez|risparmi|ahorra|ušetríte|\bor|only pay|deposit|shipping|delivery|versand\w*|"
    r"postage|livraison|spedizione|envío|dostava|doprava|运费|運費|立减|省|满|滿|定金|订金|month|monthly|per|"
    r"up to|bis zu|"
    r"jusqu'à|fino a|hasta|plus|\+|spend|off|-|minimum|install?ments? of|raten?|x|×|\*)\W{0,3}$",
    re.IGNORECASE,
)
_AFTER_OTHER = re.compile(
    r"^\W{0,3}(?:off\b|/\s?(?:mo|month|monat|mes|mois|kg|100|l\b|m²|m\b|ml|g\b|kus|stück|st\.)|per (?:month|week|"
    r"kg|100|litre|unit)|"
    r"a month|p/m|pro monat|monatlich|par mois|al mese|al mes|mensuel|shipping|delivery|postage|versand|discount|"
    r"rabatt|"
    r"saved|cashback|de remise|di sconto|credit|gift|voucher|or more|and (?:up|over)|每月|/月|运费|x\s?\d|deposit)",
    re.IGNORECASE,
)


@dataclass(eq=False)
class VisiblePrice:
    """An amount on the page. ``score`` says how much it looks like what the main product costs now."""

    node: HtmlElement
    price: PriceText
    text: str
    position: int
    is_old: bool = False
    is_struck: bool = False
    is_elsewhere: bool = False
    signed: bool = True
    is_named: bool = False
    """Whether the element is called a price."""
    score: float = 0.0


def choose_price(
    document: Document, view: View, market: Market, *, buy_button: HtmlElement | None = None
) -> tuple[VisiblePrice | None, Decimal | None, list[VisiblePrice]]:
    """The main product's price, its crossed-out price where there is one, and every amount that was looked at."""
    found = list(_find_amounts(view, market))
    if not found:
        return None, None, []
    signatures = Counter(_signature(candidate.node) for candidate in found)
    for candidate in found:
        _score(document, view, candidate, signatures, buy_button)
    _pair_old_and_new(view, found)
    best = max(found, key=lambda candidate: (candidate.score, -candidate.position))
    if best.is_old:
        # A struck price alone is no price: something else must be what a buyer pays.
        others = [candidate for candidate in found if not candidate.is_old and candidate.score > 0]
        best = max(others, key=lambda candidate: (candidate.score, -candidate.position)) if others else best
    if best.score < _LEAST_SCORE or best.is_old:
        return None, None, found
    return best, _list_price(view, best, found), found


def _find_amounts(view: View, market: Market) -> Iterator[VisiblePrice]:
    seen: set[HtmlElement] = set()
    count = 0
    for position, owner, raw in view.lines:
        if not _HAS_DIGIT.search(raw):
            continue
        if count >= _MAX_CANDIDATES:
            return
        node, text, signed = owner, " ".join(raw.split()), True
        prices = list(find_prices(text, market)) if len(text) <= _MAX_TEXT else []
        if len(prices) == 1 and text[-1:].isdigit():
            prices, text = _with_cents(owner, prices[0], text, market)
        # A number that is a part of a price stands alone: "12", ".99"; with words around it, it is something else.
        own_digits = "".join(re.findall(r"\d+", plain_digits(text))) if _PART.fullmatch(text) else ""
        for _ in range(_MAX_CLIMB):
            if prices or not own_digits:
                break
            parent_text = short_text(node, 40)
            if parent_text is None:
                break
            text = parent_text
            # Of the amounts in the text around it, only one that this number is a part of.
            prices = [price for price in find_prices(text, market) if own_digits in _digits_of(text, price)]
            parent = node.getparent()
            if prices or parent is None or parent.tag in ("body", "html"):
                break
            node = parent
        if not prices and len(raw) <= 20:
            node = owner
            prices, text = _unsigned(view, owner, market)
            signed = False
        if not prices or node in seen or any(ancestor.tag in HIDDEN_TAGS for ancestor in view.chain(node)):
            continue
        seen.add(node)
        for price in prices[:3]:
            count += 1
            yield VisiblePrice(node, price, text, position, signed=signed)


def _with_cents(owner: HtmlElement, price: PriceText, text: str, market: Market) -> tuple[list[PriceText], str]:
    """The price with the cents that stand in an element of their own, as in ``£12<sup>.99</sup>``."""
    whole = short_text(owner)
    for longer in find_prices(whole, market) if whole else ():
        if longer.start == price.start and int(longer.amount) == int(price.amount):
            return [longer], whole or text
    return [price], text


def _digits_of(text: str, price: PriceText) -> str:
    return "".join(re.findall(r"\d+", plain_digits(text[price.start : price.end])))


def _unsigned(view: View, owner: HtmlElement, market: Market) -> tuple[list[PriceText], str]:
    """A bare number, where the element or the one around it is named a price."""
    for node in view.chain(owner)[:2]:
        traits = view.traits(node)
        if traits.is_price and not traits.is_other_amount:
            text = short_text(node, 30)
            price = parse_price(text, market) if text else None
            if price is not None and re.fullmatch(r"[\d.,' ]+[-–—]?", plain_digits(text or "").strip()):
                return [price], text or ""
    return [], ""


def _signature(node: HtmlElement) -> tuple[str, str]:
    return str(node.tag), node.get("class") or node.get("id") or ""


def _score(
    document: Document,
    view: View,
    candidate: VisiblePrice,
    signatures: Counter[tuple[str, str]],
    buy_button: HtmlElement | None,
) -> None:
    """Add up the evidence. The weights are small whole steps, set on half of the labelled pages."""
    score = 1.0 if candidate.signed else 0.3
    chain = view.chain(candidate.node)
    named_price = named_current = other_amount = hidden = False
    for steps, node in enumerate(chain):
        traits = view.traits(node)
        if steps <= 3:
            if traits.is_struck:
                candidate.is_old = candidate.is_struck = True
            if traits.is_price and not traits.is_other_amount:
                named_price = True
                named_current = named_current or traits.is_current
            if traits.is_old and (steps <= 1 or traits.is_price):
                candidate.is_old = True
            if traits.is_other_amount and steps <= 2:
                other_amount = True
        hidden = hidden or (traits.is_hidden and steps <= 6)
        # A wrapper around heading and price together is the product itself, whatever it is called.
        if traits.is_elsewhere and (view.heading is None or node not in view.heading_chain):
            candidate.is_elsewhere = True
        if node.tag == "a" and _leads_elsewhere(document, node.get("href")):
            candidate.is_elsewhere = True
    before, after = candidate.text[: candidate.price.start], candidate.text[candidate.price.end :]
    if not before.strip():
        before = _text_before(candidate.node)
    if _BEFORE_OLD.search(before.strip()):
        candidate.is_old = candidate.is_struck = True
    if _BEFORE_OTHER.search(before.strip()) or _AFTER_OTHER.search(after or _text_after(candidate.node)):
        score -= 1.2
    candidate.is_named = named_price
    score += 1.5 if named_price else 0.0
    score += 0.5 if named_current and not candidate.is_old else 0.0
    score -= 2.0 if other_amount else 0.0
    score -= 1.5 if hidden else 0.0
    score -= 3.0 if candidate.is_elsewhere else 0.0
    score -= 2.0 if candidate.is_old else 0.0
    score -= 0.4 * math.log2(signatures[_signature(candidate.node)])
    score -= min(1.0, len(candidate.text) / 120)
    if candidate.price.amount == 0:
        score -= 2.5
    if candidate.node.get("itemprop") in ("price", "lowPrice"):
        score += 1.5
    if view.heading is not None and view.heading_position is not None:
        distance = candidate.position - view.heading_position
        score -= 0.04 * min(distance, 40) if distance >= 0 else 0.8 + 0.04 * min(-distance, 30)
        steps = view.steps_to(candidate.node, view.heading)
        score += 1.2 if steps <= 4 else 0.8 if steps <= 7 else 0.0
    if buy_button is not None:
        steps = view.steps_to(candidate.node, buy_button)
        score += 1.2 if steps <= 4 else 0.8 if steps <= 7 else 0.0
    candidate.score = score


def _pair_old_and_new(view: View, found: list[VisiblePrice]) -> None:
    """A crossed-out price and the one that replaces it stand together: each makes the other more likely."""
    olds = [candidate for candidate in found if candidate.is_old]
    for candidate in olds:
        near = [
            other
            for other in found
            if not other.is_old
            and abs(other.position - candidate.position) <= 4
            and 0 < other.price.amount < candidate.price.amount
            and view.steps_to(other.node, candidate.node) <= 3
        ]
        for other in near:
            other.score += 1.0
        if not near and not candidate.is_struck:
            # It is only named like an old price: there is no new one, so this is the price.
            candidate.is_old = False
            candidate.score += 1.5


def _leads_elsewhere(document: Document, href: str | None) -> bool:
    if not href or href.startswith(("#", "javascript:", "tel:", "mailto:", "?")):
        return False
    target = document.absolute_url(href)
    try:
        own, other = urlsplit(document.url or ""), urlsplit(target or href)
    except ValueError:
        return False
    return other.path.rstrip("/") != own.path.rstrip("/") and "cart" not in other.path


def _text_before(node: HtmlElement) -> str:
    """What stands right before an element, looking a few steps up: "List price:" in the cell before, for one."""
    for current in (node, *list(node.iterancestors())[:2]):
        previous = current.getprevious()
        text = (
            previous.tail if previous is not None else (p.text if (p := current.getparent()) is not None else "")
        ) or ""
        if text.strip():
            return text
        if previous is not None and isinstance(previous.tag, str) and previous.tag not in HIDDEN_TAGS:
            return short_text(previous, 60) or ""
    return ""


def _text_after(node: HtmlElement) -> str:
    for current in (node, *list(node.iterancestors())[:1]):
        if current.tail and current.tail.strip():
            return current.tail
        following = current.getnext()
        if following is not None and isinstance(following.tag, str) and following.tag not in HIDDEN_TAGS:
            return short_text(following, 40) or ""
    return ""


def _list_price(view: View, best: VisiblePrice, found: list[VisiblePrice]) -> Decimal | None:
    """The crossed-out price that belongs to the chosen one: higher, same currency, close by."""
    close = [
        candidate
        for candidate in found
        if candidate.is_old
        and candidate.price.amount > best.price.amount
        and candidate.price.currency in (best.price.currency, None)
        and view.steps_to(best.node, candidate.node) <= 4
        and candidate.price.amount < 20 * best.price.amount
    ]
    if not close:
        return None
    return min(close, key=lambda candidate: abs(candidate.position - best.position)).price.amount
