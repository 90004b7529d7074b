"""How many stars a review gives: from what a screen reader says, from stars, widths, class names, or plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from lxml.html import HtmlElement

from workbench.extract.prices import plain_digits

__all__ = ["Rating", "find_rating", "rating_from_text"]

Rating = tuple[float, float]
"""The rating and the scale it is on: (4.0, 5.0)."""

_NUMBER = r"(\d{1,3}(?:[.,]\d{1,2})?)"
_OUT_OF = re.compile(
    rf"{_NUMBER}\s*(?:stars?\s*)?(?:/|out of|of|von|sur|de|su|van|av|af|z(?:e)?|из|з|中|／)\s*(?:max\.?\s*)?"
    r"(\d{1,3})(?:[.,]0)?(?!\d|[.,/]\d)(?!\s*(?:people|customers|users|found|personen|kunden|personnes|人))",
    re.IGNORECASE,
)
_OUT_OF_CHINESE = re.compile(r"(?:满分)?\s*5\s*(?:颗星|星|つ星)?\s*(?:中|のうち)の?\s*" + _NUMBER)
_STARS = re.compile(
    rf"{_NUMBER}\s*(?:[-\s]?stars?|sterne?n?|étoiles?|estrellas?|stelle|estrelas?|sterren|stjärnor|gwiazd\w*|"
    rf"звезд\w*|星|颗星|顆星|つ星|점)",
    re.IGNORECASE,
)
_RATED = re.compile(
    rf"(?:rated|rating|score|bewertung|note|评分|評分|得分|評価)\W{{0,3}}{_NUMBER}(?!\d)", re.IGNORECASE
)
_GLYPHS = re.compile(r"[★⭐🌟☆✩✭⯪]+")
_STAR_NAME = re.compile(r"star|rating|rate|score|评分|stelle|étoile|bewertung|valoraci", re.IGNORECASE)
_CLASS_NUMBER = re.compile(
    r"(?:stars?|rating|rate|score|rated)[-_]?(?:is[-_])?(\d{1,3})(?:[-_](5|half|\d))?(?![\w])", re.IGNORECASE
)
_WIDTH = re.compile(r"width\s*:\s*(\d{1,3}(?:\.\d+)?)\s*%", re.IGNORECASE)
_FULL = re.compile(r"full|filled|active|(?<![a-z])on(?![a-z])|selected|checked|solid|gold|yellow", re.IGNORECASE)
_EMPTY = re.compile(
    r"empty|inactive|(?<![a-z])off(?![a-z])|outline|(?<![a-z])o(?![a-z])|gr[ae]y|unfilled|blank|disabled|half",
    re.IGNORECASE,
)
_SCALES = ("bestRating", "worstRating", "ratingCount", "reviewCount")
_ATTRIBUTES = (
    "aria-label",
    "title",
    "alt",
    "data-rating",
    "data-score",
    "data-rate",
    "data-star",
    "data-stars",
    "content",
    "value",
)


def rating_from_text(text: str | None) -> Rating | None:
    """From words: "4 out of 5", "4/5", "4 stars", "5星", "★★★★☆"."""
    return _rating_in(text[:200]) if text else None


@lru_cache(maxsize=4096)
def _rating_in(text: str) -> Rating | None:
    text = plain_digits(text)
    match = _OUT_OF_CHINESE.search(text)
    if match:
        return _checked(match[1], 5)
    match = _OUT_OF.search(text)
    if match:
        return _checked(match[1], float(match[2]))
    glyphs = _GLYPHS.search(text)
    if glyphs:
        full = sum(mark in "★⭐🌟" for mark in glyphs.group(0))
        # Five empty stars are a form that nobody has filled in yet.
        if full:
            # One star before a number is an ornament: "★ 4.2".
            number = re.search(_NUMBER, text[glyphs.end() :]) if len(glyphs.group(0)) == 1 else None
            return _checked(number[1], 5) if number else (float(full), float(max(5, len(glyphs.group(0)))))
    match = _STARS.search(text) or _RATED.search(text)
    return _checked(match[1], 5) if match else None


def find_rating(block: HtmlElement) -> Rating | None:
    """The rating in a review's block: from labels first, then stars as text, as widths, as class names, as icons."""
    nodes = [node for node in block.iter() if isinstance(node.tag, str) and node.get("itemprop") not in _SCALES][:400]
    for read in (_from_labels, _from_texts, _from_widths, _from_classes, _from_icons):
        for rating in read(nodes):
            return rating
    return None


def _checked(value: str, scale: float) -> Rating | None:
    number = float(value.replace(",", "."))
    if number <= scale and scale in (3, 4, 5, 6, 7, 10, 20, 100):
        return number, float(scale)
    if scale == 5 and number <= 10:
        return number, 10.0
    return None


def _from_labels(nodes: list[HtmlElement]) -> Iterator[Rating]:
    for node in nodes:
        for name in _ATTRIBUTES:
            value = node.get(name)
            if not value or len(value) > 80:
                continue
            if name.startswith("data-") or name in ("content", "value"):
                is_named = name.startswith("data-") or _STAR_NAME.search(
                    f"{node.get('class')} {node.get('itemprop')}"
                )
                if (
                    is_named
                    and re.fullmatch(r"\s*\d{1,2}(?:[.,]\d+)?\s*", value)
                    and (found := _checked(value.strip(), 5))
                ):
                    yield found
            elif found := rating_from_text(value):
                yield found


def _from_texts(nodes: list[HtmlElement]) -> Iterator[Rating]:
    for node in nodes:
        for text in (node.text, node.tail if node is not nodes[0] else None):
            stripped = text.strip() if text else ""
            named = bool(_STAR_NAME.search(node.get("class") or "")) if text is node.text else False
            if not 0 < len(stripped) <= (60 if named else 24):
                continue
            found = rating_from_text(stripped)
            if found is None and named and re.fullmatch(_NUMBER, stripped):
                found = _checked(stripped, 5)
            if found is not None:
                yield found


def _from_widths(nodes: list[HtmlElement]) -> Iterator[Rating]:
    for node in nodes:
        match = _WIDTH.search(node.get("style") or "")
        parent = node.getparent()
        names = f"{node.get('class')} {parent.get('class') if parent is not None else ''}"
        if match and _STAR_NAME.search(names) and float(match[1]) <= 100:
            yield round(float(match[1]) / 20, 1), 5.0


def _from_classes(nodes: list[HtmlElement]) -> Iterator[Rating]:
    for node in nodes:
        match = _CLASS_NUMBER.search(node.get("class") or "")
        if not match:
            continue
        number = float(match[1])
        if match[2]:
            number += 0.5
        # Classes count in stars (star-4), in tenths (stars45) or in hundredths (rating-80).
        value = number if number <= 5 else number / 10 if number <= 50 else number / 20
        if (number <= 100 and number == int(number)) or match[2]:
            yield round(value, 1), 5.0


def _from_icons(nodes: list[HtmlElement]) -> Iterator[Rating]:
    """Five icons in a row, of which some are named full."""
    for node in nodes:
        icons = [
            child
            for child in node
            if isinstance(child.tag, str) and re.search("star", child.get("class") or "", re.IGNORECASE)
        ]
        if len(icons) != 5:
            continue
        names = [" ".join((icon.get("class") or "").split()) for icon in icons]
        empty = sum(bool(_EMPTY.search(name)) for name in names)
        full = sum(bool(_FULL.search(name)) for name in names)
        if empty or full:
            yield float(5 - empty if empty else full), 5.0
        elif len(set(names)) <= 2:
            yield float(names.count(names[0])), 5.0
