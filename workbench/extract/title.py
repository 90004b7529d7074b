"""A page's title, without the name of the site where that is safe to tell."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from workbench.extract.document import Document

__all__ = ["read_title"]

_MAX_TITLE = 300
# With the site's name cut off, these would say nothing.
_GENERIC = frozenset(("home", "homepage", "index", "welcome", "startseite", "accueil", "首页", "首頁"))
# Separators between a title and the name of the site. A bare hyphen belongs to words, and a colon to titles.
_SEPARATOR = re.compile(r"\s+[|\-–—·•»:/\\]+\s+|\s*[｜|_丨]\s*|\s*::\s*")


def read_title(document: Document) -> str | None:
    """Title of a page: ``og:title``, else ``<title>``, else the first ``<h1>``.

    The site's name is cut off only where the page gives it (``og:site_name``, ``application-name``), where it is the
    domain's, or where the rest is the page's own heading.
    """
    tree = document.tree
    meta = {
        (element.get("property") or element.get("name") or "").lower(): _squeeze(element.get("content"))
        for element in reversed(list(tree.iter("meta")))
    }
    headings = [_squeeze(" ".join(heading.itertext())) for heading in tree.iter("h1")]
    heading = next((text for text in headings if text), None)
    # An <svg> may hold a <title> too; the page's is the first one in its head.
    named = next(
        (_squeeze(element.text_content()) for element in tree.iter("title") if _is_page_title(element)), None
    )
    sites = {_fold(name) for name in (meta.get("og:site_name"), meta.get("application-name")) if name}
    sites |= _names_from_host(document.url)
    for candidate in (meta.get("og:title") or meta.get("twitter:title"), named, heading):
        if not candidate:
            continue
        title = _cut_site_name(candidate.strip(" |-–—·•"), sites, heading)
        title = candidate if _fold(title) in _GENERIC else title
        if _fold(title) and (_fold(title) not in sites or candidate == heading or not heading):
            return title[:_MAX_TITLE]
    return heading[:_MAX_TITLE] if heading else None


def _is_page_title(element: object) -> bool:
    parent = element.getparent() if hasattr(element, "getparent") else None
    return parent is None or parent.tag != "svg"


def _cut_site_name(title: str, sites: set[str], heading: str | None) -> str:
    cuts = list(_SEPARATOR.finditer(title))
    if not cuts:
        return title
    own = _fold(heading or "")
    for cut in cuts:
        before, after = title[: cut.start()], title[cut.end() :]
        if own and _fold(before) == own:
            return before.strip()
        if _fold(after) in sites and _fold(before):
            return before.strip()
    first = cuts[0]
    if _fold(title[: first.start()]) in sites and _fold(title[first.end() :]):
        return title[first.end() :].strip()
    return title


def _names_from_host(url: str | None) -> set[str]:
    """Ways a site may write the name in its address: ``penrill.example`` is "Penrill" or "penrill.example"."""
    try:
        host = (urlsplit(url or "").hostname or "").removeprefix("www.")
    except ValueError:
        return set()
    labels = host.split(".")
    if len(labels) < 2:
        return set()
    # co.uk, com.cn and the like: the name stands before a short second-level label.
    name = labels[-3] if len(labels) > 2 and len(labels[-2]) <= 3 else labels[-2]
    return {_fold(name), _fold(host), _fold(".".join(labels[-2:]))}


def _fold(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _squeeze(text: str | None) -> str:
    return " ".join((text or "").split())
