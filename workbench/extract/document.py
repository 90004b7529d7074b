"""One parsed page: decoded and parsed once, then shared by all readers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urljoin, urlsplit

from lxml import etree
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from workbench.extract.blocks import Block, read_blocks
from workbench.extract.decoding import decode_page

__all__ = ["MAX_CHARACTERS", "Document", "parse_document"]

MAX_CHARACTERS = 10_000_000
"""A longer page is cut here, with a warning. The collector keeps no response above 10 MB."""

# libxml2 stops reading at this depth even with huge_tree, and drops what follows.
_MAX_DEPTH = 2000
_LAYOUT_TAGS = re.compile(
    r"</?(?:div|span|font|center|b|i|u|em|strong|small|big|section|blockquote|ul|ol|dl|table|tbody|tr|td)\b[^<>]*>",
    re.IGNORECASE,
)
_ANY_TAG = re.compile(r"<[^<>]*>")
_JSON = "input: this is JSON, not a page"
_EMPTY = "<html><head></head><body></body></html>"
_MARKUP = re.compile(
    r"<\s*(?:!doctype|html|head|body|div|p|a|h[1-6]|span|table|article|main|section|title|meta|ul)\b", re.I
)
_MAGIC = (
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"RIFF", "a media file"),
    (b"\x00asm", "a program"),
)
_BINARY_SHARE = 0.1


@dataclass
class Document:
    """A page, read once. ``tree`` is shared: read it, and copy it before changing anything.

    ``html`` is the decoded source, ``url`` where it came from, ``base_url`` what relative links start from, and
    ``warnings`` what was wrong with it.
    """

    html: str
    tree: HtmlElement
    url: str | None = None
    base_url: str | None = None
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks of the page, read once for all who need them."""
        return read_blocks(self.tree)

    def absolute_url(self, link: str | None) -> str | None:
        """An http(s) address from a link on the page; None where there is none or it cannot be read."""
        if not link or not link.strip():
            return None
        try:
            joined = urljoin(self.base_url or "", re.sub(r"[\t\r\n]", "", link.strip()))
            parts = urlsplit(joined)
        except ValueError:
            return None
        return joined if parts.scheme in ("http", "https") and parts.netloc else None


def parse_document(html: str | bytes, *, url: str | None = None, content_type: str | None = None) -> Document:
    """Read a page. Whatever comes in, a Document comes out; what was wrong is in its warnings.

    ``content_type`` is the HTTP header, such as ``text/html; charset=gbk``.
    """
    other = _name_other_format(html, content_type)
    if other:
        return Document("", _parse(_EMPTY), url, _base_url(None, url), [f"input: this is {other}, not a page"])
    text, warnings = decode_page(html, content_type=content_type)
    if len(text) > MAX_CHARACTERS:
        warnings.append(f"input: {len(text)} characters; read up to {MAX_CHARACTERS}")
        text = text[:MAX_CHARACTERS]
    if not text.strip():
        warnings.append("input: the page is empty")
        return Document(text, _parse(_EMPTY), url, _base_url(None, url), warnings)
    warnings += _note_other_text(text)
    tree = _parse(_EMPTY) if _JSON in warnings else _parse_to_any_depth(text, warnings)
    return Document(text, tree, url, _base_url(tree, url), warnings)


def _name_other_format(html: str | bytes, content_type: str | None) -> str | None:
    """What the input is, where it is clearly no page."""
    head = html[:64].encode("utf-8", "replace") if isinstance(html, str) else html[:64]
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    media_type = (content_type or "").split(";")[0].strip().lower()
    if media_type.split("/")[0] in ("image", "audio", "video", "font") and b"<" not in head:
        return f"{media_type} data"
    if isinstance(html, bytes) and not html.startswith((b"\xff\xfe", b"\xfe\xff")):
        sample = html[:8192]
        controls = sum(byte < 9 or 13 < byte < 32 for byte in sample)
        if controls > _BINARY_SHARE * max(1, len(sample)) and not _MARKUP.search(sample.decode("latin-1")):
            return "binary data"
    return None


def _note_other_text(text: str) -> list[str]:
    start = text[:2000].lstrip()
    if start.startswith(("{", "[")) and not _MARKUP.search(start):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return []
        return [_JSON]
    if start.startswith("<?xml") and not re.search(r"<html\b|<!doctype html", text[:5000], re.IGNORECASE):
        return ["input: this is XML, read as if it were a page"]
    if not _MARKUP.search(text):
        return ["input: no HTML was found, read as plain text"]
    return []


def _parse(text: str) -> HtmlElement:
    # Bytes, because lxml refuses a str that carries an XML declaration. Comments and processing instructions are no
    # elements, and every reader would have to step around them.
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, collect_ids=False, huge_tree=True)
    return document_fromstring(text.encode("utf-8"), parser=parser)


def _parse_to_any_depth(text: str, warnings: list[str]) -> HtmlElement:
    try:
        tree = _parse(text)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError, AssertionError) as error:
        warnings.append(f"input: no markup could be read ({error})")
        return _parse(_EMPTY)
    if not _is_too_deep(tree):
        return tree
    warnings.append("input: tags are nested too deeply; read without its layout tags")
    for pattern in (_LAYOUT_TAGS, _ANY_TAG):
        try:
            tree = _parse(pattern.sub(" ", text))
        except (etree.ParserError, etree.XMLSyntaxError, ValueError, AssertionError):
            continue
        if not _is_too_deep(tree):
            return tree
    return _parse(_EMPTY)


def _is_too_deep(tree: HtmlElement) -> bool:
    depth = 0
    for event, _ in etree.iterwalk(tree, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth >= _MAX_DEPTH:
            return True
    return False


def _base_url(tree: HtmlElement | None, url: str | None) -> str | None:
    href = None if tree is None else next((base.get("href") for base in tree.iter("base") if base.get("href")), None)
    if not href:
        return url
    try:
        joined = urljoin(url or "", href.strip())
        return joined if urlsplit(joined).scheme in ("http", "https") else url
    except ValueError:
        return url
