"""The day a page was published, found by htmldate, without looking at the clock.

Extraction is a pure function of the bytes, so two things differ from htmldate's defaults. The latest date it accepts
is a fixed day far off instead of today: a page fetched in 2026 that says 2031 is believed, and whoever knows when it
was fetched may judge. Its extensive search is off: it reads "3 days ago" or "12 March" by way of today's date.
"""

from __future__ import annotations

import copy
import datetime as dt

from htmldate import find_date
from lxml.html import HtmlElement, builder

from workbench.extract.document import Document

__all__ = ["read_published"]

_EARLIEST = "1995-01-01"
_LATEST = "2099-12-31"
# On these pages a date in the text belongs to a review, a delivery or an offer, not to the page.
_DATED_BY_MARKUP_ONLY = frozenset(("product", "pricing", "reviews", "landing", "ads"))


def read_published(document: Document, *, kind: str | None = None) -> dt.date | None:
    """Publication date; None where the page gives none.

    News and changelogs (and pages of unknown kind) are searched whole, other kinds only where a meta element, a
    link or the address states a date. A changelog's date is its newest entry's, any other page's its first.
    """
    tree = _keep_statements(document.tree) if kind in _DATED_BY_MARKUP_ONLY else document.tree
    found = find_date(
        tree,
        extensive_search=False,
        original_date=kind != "changelog",
        url=document.url,
        min_date=_EARLIEST,
        max_date=_LATEST,
    )
    return dt.date.fromisoformat(found) if found else None


def _keep_statements(tree: HtmlElement) -> HtmlElement:
    """A page of the same meta elements and links alone. JSON-LD is left out: it dates reviews and offers too."""
    kept = [copy.deepcopy(element) for element in tree.iter("meta", "link")]
    return builder.HTML(builder.HEAD(*kept), builder.BODY())
