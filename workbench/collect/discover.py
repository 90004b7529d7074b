"""The pages that a sitemap or a feed names. Pure functions of the document's bytes.

    sitemap   the sitemaps.org protocol: XML (also as .gz), an index of sitemaps, or a text of addresses
    feed      RSS 2.0, RSS 1.0, Atom

XML is read without DTDs, entities and network, so nothing in it can expand or reach out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal
from urllib.parse import urldefrag, urljoin, urlsplit

from lxml import etree

from workbench.collect.body import gunzip
from workbench.collect.problems import PageError

__all__ = ["Listed", "Listing", "choose_pages", "order_by_newest", "read_feed", "read_sitemap", "same_site"]

_NEVER = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Listed:
    """An address that a document names, and when that page is said to have changed last."""

    url: str
    changed_at: datetime | None = None


@dataclass(frozen=True)
class Listing:
    """What a document names: pages, or with ``kind`` index further sitemaps."""

    kind: Literal["pages", "index"]
    listed: tuple[Listed, ...]


def read_sitemap(data: bytes, *, url: str, max_bytes: int) -> Listing:
    """What a sitemap names, in its order. Raises PageError when it is no sitemap.

    ``url`` is the document's own address; addresses in it are resolved against it. A .gz file is unpacked to at most
    ``max_bytes``.
    """
    if data.startswith(b"\x1f\x8b"):
        data = gunzip(data, max_bytes=max_bytes)
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Listing("pages", tuple(_absolute((Listed(line) for line in _lines(data)), url)))
    root = _parse(data, "sitemap")
    name = _name(root)
    if name not in ("urlset", "sitemapindex"):
        raise PageError(f"is no sitemap: the outermost element is <{name[:40]}>")
    entries = [e for e in root if _name(e) == ("url" if name == "urlset" else "sitemap")]
    # Direct children only: an <image:loc> deeper down is no page.
    listed = [Listed(_child_text(e, "loc"), _moment(_child_text(e, "lastmod"))) for e in entries]
    return Listing("pages" if name == "urlset" else "index", tuple(_absolute(listed, url)))


def read_feed(data: bytes, *, url: str) -> Listing:
    """The pages a feed's entries lead to, in the feed's order (newest first by custom). Raises PageError."""
    root = _parse(data, "feed")
    name = _name(root)
    if name not in ("rss", "RDF", "feed"):
        raise PageError(f"is no RSS or Atom feed: the outermost element is <{name[:40]}>")
    entries = root.iter("{*}item", "{*}entry")
    listed = [Listed(_entry_link(e), _entry_moment(e)) for e in entries]
    return Listing("pages", tuple(_absolute(listed, root.base or url)))


def same_site(url: str, base: str) -> bool:
    """Whether one of the two hosts is the other (``www.`` apart) or lies under it, as feeds.a.example does."""
    host, home = ((urlsplit(address).hostname or "").removeprefix("www.") for address in (url, base))
    below = host.endswith(f".{home}") and "." in home
    above = home.endswith(f".{host}") and "." in host
    return bool(host and home) and (host == home or below or above)


def order_by_newest(listed: Iterable[Listed]) -> list[Listed]:
    """Last changed first, undated ones last, by address where that leaves it open: the same list every time."""
    by_address = sorted(listed, key=lambda item: item.url)
    return sorted(by_address, key=lambda item: item.changed_at or _NEVER, reverse=True)


def choose_pages(
    listed: Sequence[Listed], *, site: str, include: str | None, max_pages: int, taken: Iterable[str] = ()
) -> list[str]:
    """The first ``max_pages`` addresses that are on ``site``, match ``include`` and are not ``taken``, each once."""
    pattern = re.compile(include) if include else None
    chosen: dict[str, None] = {}
    skip = set(taken)
    for item in listed:
        if len(chosen) == max_pages:
            break
        if item.url in skip or not same_site(item.url, site) or (pattern and not pattern.search(item.url)):
            continue
        chosen[item.url] = None
    return list(chosen)


def _parse(data: bytes, what: str) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        huge_tree=False,
        recover=True,  # an unescaped & in an address is frequent
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise PageError(f"is no {what}: {error}") from None
    if root is None:
        raise PageError(f"is no {what}: there is no XML in it")
    return root


def _name(element: etree._Element) -> str:
    # Not by QName: it raises on names that the forgiving parser lets through.
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _child(element: etree._Element, name: str) -> etree._Element | None:
    return next((child for child in element if _name(child) == name), None)


def _child_text(element: etree._Element, name: str) -> str:
    child = _child(element, name)
    # Anything inside is an entity that was not expanded: half an address is none.
    return (child.text or "").strip() if child is not None and not len(child) else ""


def _entry_link(entry: etree._Element) -> str:
    links = [child for child in entry if _name(child) == "link"]
    for link in links:
        if link.get("href") and link.get("rel", "alternate") == "alternate":
            return urljoin(entry.base or "", link.get("href", ""))
    text = next((link.text.strip() for link in links if link.text and link.text.strip()), "")
    if text:
        return text
    guid = _child(entry, "guid")
    # RSS 2.0: a guid is a permalink unless it says otherwise.
    if guid is not None and guid.get("isPermaLink", "true").lower() == "true":
        return (guid.text or "").strip()
    return ""


def _entry_moment(entry: etree._Element) -> datetime | None:
    return _moment(_child_text(entry, "updated") or _child_text(entry, "date"))


def _moment(text: str) -> datetime | None:
    """A W3C date or date-time as UTC; None when there is none. A time without a zone counts as UTC."""
    match = re.match(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?(?:T(\d\d):(\d\d)(?::(\d\d))?\S*?(Z|[+-]\d\d:?\d\d)?$)?", text)
    if not match:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    stamp = f"{year}-{month or '01'}-{day or '01'}T{hour or '00'}:{minute or '00'}:{second or '00'}"
    offset = "+00:00" if zone in (None, "Z") else zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
    try:
        return datetime.fromisoformat(stamp + offset).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _lines(data: bytes) -> Iterator[str]:
    for line in data.decode("utf-8-sig", errors="replace").splitlines():
        if re.match(r"\s*https?://", line):
            yield line


def _absolute(listed: Iterable[Listed], base: str) -> Iterator[Listed]:
    for item in listed:
        text = re.sub(r"\s+", "", item.url)
        if not text:
            continue
        try:
            # An address that is whole stays as it is; urljoin would tidy it.
            url = urldefrag(text if re.match(r"https?://", text, re.I) else urljoin(base, text)).url
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and not parts.username
        except ValueError:
            continue
        if usable and len(url) <= 2000 and url.isprintable():
            yield Listed(url, item.changed_at)
