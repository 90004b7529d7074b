"""Bytes of a page to a :class:`~workbench.extract.page.Page`. Pure: no network, no clock, no disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import resources
from typing import TypeVar

from workbench import __version__
from workbench.extract.claims import read_claims
from workbench.extract.creatives import read_creatives
from workbench.extract.document import parse_document
from workbench.extract.language import read_language
from workbench.extract.offers import read_offers
from workbench.extract.page import Claim, Creative, Offer, Page, Plan, Review
from workbench.extract.plans import read_plans
from workbench.extract.published import read_published
from workbench.extract.reviews import read_reviews
from workbench.extract.structured import Structured, read_structured
from workbench.extract.text import MainText, read_text
from workbench.extract.title import read_title

__all__ = ["EXTRACTOR", "extract_page"]

_T = TypeVar("_T")


def _name_extractor() -> str:
    digest = hashlib.sha256()
    sources = (item for item in resources.files(__name__).iterdir() if item.name.endswith(".py"))
    for source in sorted(sources, key=lambda item: item.name):
        digest.update(source.name.encode() + b"\0" + source.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return f"{__version__}+{digest.hexdigest()[:8]}"


EXTRACTOR: str = _name_extractor()
"""Id of the extraction code: the version and the first 8 hex digits of SHA-256 over the sources of this package."""


def extract_page(
    html: str | bytes, *, url: str | None = None, kind: str | None = None, content_type: str | None = None
) -> Page:
    """Read a page: title, language, date, text, offers, plans, reviews, claims and creatives.

    Args:
        html: the page as received (bytes are decoded here) or as text.
        url: where it came from; makes links absolute.
        kind: what the source is said to be: product, pricing, changelog, reviews, news, landing, ads. None: unknown.
        content_type: the HTTP header, for its charset.

    Returns:
        A Page with what could be read. What could not is in ``warnings``; no input raises.
    """
    document = parse_document(html, url=url, content_type=content_type)
    read = _Guard(document.warnings)
    structured = read("structured data", lambda: read_structured(document), Structured())
    main = read("text", lambda: read_text(document, kind=kind), MainText("", ()))
    offers: tuple[Offer, ...] = read("offers", lambda: read_offers(document, structured, kind), ())
    plans: tuple[Plan, ...] = read("plans", lambda: read_plans(document, structured, kind), ())
    reviews: tuple[Review, ...] = read("reviews", lambda: read_reviews(document, structured, kind), ())
    claims: tuple[Claim, ...] = read("claims", lambda: read_claims(document, kind=kind), ())
    creatives: tuple[Creative, ...] = read("creatives", lambda: read_creatives(document), ())
    return Page(
        url=url,
        kind=kind,
        title=read("title", lambda: read_title(document), None),
        language=read("language", lambda: read_language(document, main.text), None),
        published=read("date", lambda: read_published(document, kind=kind), None),
        text=main.text,
        offers=offers,
        plans=plans,
        reviews=reviews,
        claims=claims,
        creatives=creatives,
        warnings=tuple(document.warnings),
    )


class _Guard:
    """Runs one reader; an exception becomes a warning and the others still run."""

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings

    def __call__(self, what: str, reader: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return reader()
        except Exception as error:
            self._warnings.append(f"{what}: could not be read ({type(error).__name__}: {error})"[:300])
            return otherwise
