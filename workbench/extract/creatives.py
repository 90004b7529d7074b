"""Creatives: the images a page advertises with, with their text and size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from lxml.html import HtmlElement

from workbench.extract.blocks import Hint, find_hints
from workbench.extract.document import Document
from workbench.extract.page import Creative

__all__ = ["MAX_CREATIVES", "read_creatives"]

MAX_CREATIVES = 50
"""A page keeps this many; the first ones are the largest part of any advert."""

_NEVER = (
    Hint.NAVIGATION
    | Hint.FOOTER
    | Hint.FORM
    | Hint.CONSENT
    | Hint.SHARE
    | Hint.SIGN_UP
    | Hint.COMMENT
    | Hint.REVIEW
    | Hint.BYLINE
    | Hint.RELATED
    | Hint.FILTER
)
# Smaller than this on a side is an icon. Tracking pixels are 1 by 1.
_MIN_SIDE = 64
_MAX_SIDE = 20_000
# Parts of a file name or class that say what an image is.
_NO_CREATIVE = re.compile(
    r"(?:^|[^a-z])(?:logo|logos|icon|icons|ico|favicon|sprite|sprites|avatar|avatars|pixel|spacer|blank|loader|loading|"
    r"spinner|placeholder|transparent|badge|badges|flag|flags|stars?|rating|payment|payments|visa|mastercard|paypal|"
    r"qr|qrcode|captcha|emoji|smiley|arrow|chevron|tracking|tracker|beacon|gravatar|1x1)(?:$|[^a-z])",
    re.IGNORECASE,
)
_TRACKERS = re.compile(
    r"(?:^|\.)(?:doubleclick\.net|google-analytics\.com|googletagmanager\.com|facebook\.com|bat\.bing\.com|"
    r"analytics\.[a-z.]+|scorecardresearch\.com|hm\.baidu\.com|cnzz\.com|px\.ads\.linkedin\.com|t\.co)$"
)
_LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy", "data-image", "data-url", "data-zoom-image")
_LAZY_SETS = ("data-srcset", "data-lazy-srcset")
_STYLE_IMAGE = re.compile(r"background(?:-image)?\s*:[^;]*?url\(\s*['\"]?([^'\")]+)", re.IGNORECASE)
_STYLE_SIDE = re.compile(r"(?:^|[;\s])(width|height)\s*:\s*(\d{1,5})(?:\.\d+)?px", re.IGNORECASE)
_SIDE = re.compile(r"\s*(\d{1,5})(?:\.\d+)?\s*(?:px)?\s*$")
_CANDIDATE = re.compile(r"\s*(\S*[^\s,])(?:\s+(\d{1,6}(?:\.\d{1,4})?)([wx]))?\s*(?:,|$)")


def read_creatives(document: Document) -> tuple[Creative, ...]:
    """Images of a page, ``og:image`` first, then in page order, each once.

    Left out: icons, logos, tracking pixels, images in navigation, footers and reviews, and images that are only given
    inline (``data:``), since they have no address to compare.
    """
    found: dict[str, Creative] = {}
    for creative in (*_shared_images(document), *_shown_images(document)):
        key = _identity(creative.image_url)
        known = found.get(key)
        if known is None:
            if len(found) < MAX_CREATIVES:
                found[key] = creative
        else:
            # The same picture again, often with what the first mention did not say.
            found[key] = known.model_copy(
                update={
                    "alt": known.alt or creative.alt,
                    "width": known.width or creative.width,
                    "height": known.height or creative.height,
                }
            )
    return tuple(found.values())


def _shared_images(document: Document) -> Iterator[Creative]:
    """What the page gives to be shown when it is shared."""
    url: str | None = None
    alt: str | None = None
    width: int | None = None
    height: int | None = None
    for meta in document.tree.iter("meta"):
        name = (meta.get("property") or meta.get("name") or "").lower()
        content = (meta.get("content") or "").strip()
        if name in ("og:image", "og:image:url", "og:image:secure_url", "twitter:image"):
            url = url or document.absolute_url(content)
        elif name in ("og:image:alt", "twitter:image:alt"):
            alt = alt or content or None
        elif name == "og:image:width":
            width = width or _side(content)
        elif name == "og:image:height":
            height = height or _side(content)
    if url and not _NO_CREATIVE.search(_file_name(url)):
        yield Creative(image_url=url, alt=alt, width=width, height=height)


def _shown_images(document: Document) -> Iterator[Creative]:
    wrappers = _find_wrappers(document.tree)
    for element in document.tree.iter():
        if element.tag == "img":
            creative = _from_image(document, element)
        elif element.get("style") and "url(" in (element.get("style") or ""):
            creative = _from_style(document, element)
        else:
            continue
        if creative is not None and not _is_out_of_place(element, wrappers):
            yield creative


def _from_image(document: Document, image: HtmlElement) -> Creative | None:
    sources, widest = _list_sources(image)
    url = next((absolute for absolute in map(document.absolute_url, sources) if absolute), None)
    if url is None:
        return None
    style = dict(_STYLE_SIDE.findall(image.get("style") or ""))
    width = _side(image.get("width")) or _side(style.get("width")) or widest
    height = _side(image.get("height")) or _side(style.get("height"))
    alt = " ".join((image.get("alt") or "").split()) or None
    names = f"{image.get('class') or ''} {image.get('id') or ''}"
    if not _is_creative(url, names, alt=alt, width=width, height=height):
        return None
    return Creative(image_url=url, alt=alt, width=width, height=height)


def _from_style(document: Document, element: HtmlElement) -> Creative | None:
    """A background image: how heroes and banners are often made."""
    style = element.get("style") or ""
    match = _STYLE_IMAGE.search(style)
    url = document.absolute_url(match[1]) if match else None
    if url is None:
        return None
    sides = {name.lower(): _side(value) for name, value in _STYLE_SIDE.findall(style)}
    alt = " ".join((element.get("aria-label") or element.get("title") or "").split()) or None
    names = f"{element.get('class') or ''} {element.get('id') or ''}"
    if not _is_creative(url, names, alt=alt, width=sides.get("width"), height=sides.get("height")):
        return None
    return Creative(image_url=url, alt=alt, width=sides.get("width"), height=sides.get("height"))


def _list_sources(image: HtmlElement) -> tuple[list[str], int | None]:
    """Addresses to try, best first, and the width of the largest one where a set gives widths."""
    sources = [image.get(name) or "" for name in _LAZY]
    source = image.get("src") or ""
    # A lazy image has a stand-in in src; without a data attribute src is the picture.
    sources.append(source)
    sets = [image.get(name) or "" for name in (*_LAZY_SETS, "srcset")]
    parent = image.getparent()
    while parent is not None and parent.tag == "source":  # libxml2 takes what follows a <source> for its content
        parent = parent.getparent()
    if parent is not None and parent.tag == "picture":
        sets += [entry.get("srcset") or entry.get("data-srcset") or "" for entry in parent.iter("source")]
    candidates = [entry for text in sets for entry in _parse_set(text)]
    widest = max((int(size) for _, size, unit in candidates if unit == "w"), default=None)
    candidates.sort(key=lambda entry: -entry[1])
    sources += [address for address, _, _ in candidates]
    usable = [text for text in sources if text and not text.strip().lower().startswith(("data:", "blob:", "about:"))]
    return usable, widest if widest is None or widest <= _MAX_SIDE else None


def _parse_set(text: str) -> Iterator[tuple[str, float, str]]:
    for address, size, unit in _CANDIDATE.findall(text[:20_000]):
        yield address, float(size) if size else 1.0, unit or "x"


def _is_creative(url: str, names: str, *, alt: str | None, width: int | None, height: int | None) -> bool:
    if any(side is not None and side < _MIN_SIDE for side in (width, height)):
        return False
    parts = urlsplit(url)
    if _TRACKERS.search(parts.hostname or ""):
        return False
    if _NO_CREATIVE.search(_file_name(url)) or _NO_CREATIVE.search(names):
        return False
    # Vector files are drawings and icons unless they are shown large.
    return not parts.path.lower().endswith(".svg") or (width or 0) >= 200 or bool(alt and len(alt) > 20)


def _find_wrappers(tree: HtmlElement) -> set[HtmlElement]:
    """Elements around the page's headings and main part: their names describe the page."""
    wrappers: set[HtmlElement] = set()
    for element in tree.iter("h1", "main"):
        wrappers.add(element)
        wrappers.update(element.iterancestors())
    return wrappers


def _is_out_of_place(element: HtmlElement, wrappers: set[HtmlElement]) -> bool:
    node: HtmlElement | None = element.getparent()
    while node is not None and node not in wrappers:
        if find_hints(node) & _NEVER:
            return True
        # Of a page's header only what stands beside its heading is more than the logo.
        if node.tag == "header" and next(node.iterancestors("main", "article", "section"), None) is None:
            return True
        node = node.getparent()
    return False


def _side(text: str | None) -> int | None:
    match = _SIDE.match(text or "")
    side = int(match[1]) if match else 0
    return side if 0 < side <= _MAX_SIDE else None


def _file_name(url: str) -> str:
    return urlsplit(url).path.rsplit("/", 1)[-1]


def _identity(url: str) -> str:
    """The same picture in another size is the same creative: the address without query and scheme."""
    parts = urlsplit(url)
    # Image services name the picture in the query.
    return f"{parts.netloc}{parts.path}" if "." in _file_name(url) else f"{parts.netloc}{parts.path}?{parts.query}"
