"""A page as rows of the lake's tables."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import polars as pl

from workbench.extract.page import Offer, Page, Review
from workbench.ingest.authors import fold, hash_author, redactor
from workbench.store.tables import TABLES

__all__ = ["Rows", "Shown", "detect_review_language", "first_shown", "offer_key", "review_id", "rows_from_pages"]

_MAX_INT32 = 2**31 - 1
_MAX_MONEY = Decimal(10) ** 14 - 1  # Decimal(18, 4) holds 14 digits before the point; rounding may not add one


@dataclass(frozen=True)
class Shown:
    """A page as one snapshot showed it."""

    snapshot_id: str
    company_id: str
    source_id: str
    url: str
    fetched_at: datetime
    kind: str
    http_status: int | None
    payload_sha256: str | None
    page: Page

    @property
    def origin(self) -> dict[str, Any]:
        """The columns every table has."""
        return {
            "snapshot_id": self.snapshot_id,
            "company_id": self.company_id,
            "source_id": self.source_id,
            "url": self.url,
            "fetched_at": self.fetched_at,
        }

    @property
    def is_error(self) -> bool:
        """The server said that this is not the page (HTTP 4xx, 5xx): what it shows is not what the company offers."""
        return self.http_status is not None and self.http_status >= 400


@dataclass
class Rows:
    """Rows by table."""

    by_table: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, table: str, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows."""
        self.by_table.setdefault(table, []).extend(rows)

    def frame(self, table: str) -> pl.DataFrame:
        """The rows of one table in its declared schema."""
        return pl.DataFrame(self.by_table.get(table, []), schema=TABLES[table].schema)


def rows_from_pages(shown: Iterable[Shown], *, extractor: str, salt: bytes, keep: frozenset[str]) -> Rows:
    """Rows of pages, offers, plans, claims, reviews and creatives.

    Names of review authors are masked in every free text of their page; ``keep`` holds folded words that stay (see
    ``workbench.ingest.authors``). A page that is an error has a row in pages only. ``reviews`` has one row for each
    review and snapshot that shows it; picking the first is the caller's.
    """
    rows = Rows()
    for item in shown:
        page, origin = item.page, item.origin
        redact = redactor(page, keep=keep)
        notes = list(page.warnings)
        if not item.is_error:
            rows.add("offers", _offers(page, origin, notes))
            rows.add("plans", _plans(page, origin, notes))
            rows.add(
                "claims",
                (
                    {**origin, "position": n, "kind": claim.kind, "level": claim.level, "text": redact(claim.text)}
                    for n, claim in enumerate(page.claims)
                ),
            )
            rows.add(
                "creatives",
                (
                    {
                        **origin,
                        "position": n,
                        "image_url": creative.image_url,
                        "alt": None if creative.alt is None else redact(creative.alt),
                        "width": _int32(creative.width),
                        "height": _int32(creative.height),
                    }
                    for n, creative in enumerate(page.creatives)
                ),
            )
            rows.add(
                "reviews",
                (
                    {
                        "review_id": review_id(review, item.company_id, salt=salt),
                        **origin,
                        "author_hash": hash_author(review.author, salt),
                        "rating": _finite(review.rating),
                        "rating_scale": _finite(review.rating_scale),
                        "title": None if review.title is None else redact(review.title),
                        "text": redact(review.text),
                        "language": detect_review_language(f"{review.title or ''} {review.text}", page.language),
                        "published": review.date,
                    }
                    for review in page.reviews
                ),
            )
        rows.add(
            "pages",
            [
                {
                    **origin,
                    "kind": item.kind,
                    "http_status": item.http_status,
                    "payload_sha256": item.payload_sha256,
                    "title": None if page.title is None else redact(page.title),
                    "language": page.language,
                    "published": page.published,
                    "text": redact(page.text),
                    "warnings": [redact(note) for note in notes],
                    "extractor": extractor,
                }
            ],
        )
    return rows


def first_shown(found: pl.DataFrame, stored: pl.DataFrame, ids: Sequence[str]) -> pl.DataFrame:
    """The reviews ``found`` in the snapshots ``ids`` that no other snapshot in the lake showed earlier, one row each.

    Frames have the schema of the table reviews. So a review belongs to the first snapshot that shows it, in whatever
    order weeks are read.
    """
    order = ["fetched_at", "snapshot_id"]
    first = found.sort(order, maintain_order=True).unique("review_id", keep="first", maintain_order=True)
    others = stored.filter(~pl.col("snapshot_id").is_in(list(ids))).select("review_id", *order)
    later = pl.col("fetched_at_right") < pl.col("fetched_at")
    same_time = (pl.col("fetched_at_right") == pl.col("fetched_at")) & (
        pl.col("snapshot_id_right") < pl.col("snapshot_id")
    )
    beaten = first.join(others, on="review_id", how="inner").filter(later | same_time)
    return first.join(beaten, on="review_id", how="anti").select(found.columns)


def _offers(page: Page, origin: dict[str, Any], notes: list[str]) -> Iterator[dict[str, Any]]:
    for n, offer in enumerate(page.offers):
        yield {
            **origin,
            "position": n,
            "offer_key": offer_key(offer, n),
            **offer.model_dump(exclude={"price", "list_price"}),
            "price": _money(offer.price, f"price of offer {n + 1}", notes),
            "list_price": _money(offer.list_price, f"list price of offer {n + 1}", notes),
        }


def _plans(page: Page, origin: dict[str, Any], notes: list[str]) -> Iterator[dict[str, Any]]:
    for n, plan in enumerate(page.plans):
        yield {
            **origin,
            "position": n,
            **plan.model_dump(exclude={"price", "features"}),
            "price": _money(plan.price, f"price of plan {n + 1}", notes),
            "features": list(plan.features),
        }


def offer_key(offer: Offer, position: int) -> str:
    """What tells that two snapshots show the same product: GTIN, else SKU, else MPN, else the folded name.

    An offer without any of them is known by its place, ``#0`` for the page's main product.
    """
    return offer.gtin or offer.sku or offer.mpn or fold(offer.name) or f"#{position}"


def review_id(review: Review, company_id: str, *, salt: bytes) -> str:
    """Name of a review: SHA-256 over company, author, title, text, rating and day, the first 32 hex digits.

    Title and text are folded and the rating is taken as a share of its scale, so the same review on two pages of a
    company, or in a hundred snapshots, is one row. The author is needed because short praise repeats ("很好", five
    stars, the same day) and is in it as the keyed hash only: without the salt nobody can test a name against an id.
    So the ids are stable as long as the workspace keeps its salt.
    """
    rating = _finite(review.rating)
    scale = _finite(review.rating_scale)
    parts = (
        company_id,
        hash_author(review.author, salt) or "",
        fold(review.title),
        fold(review.text),
        "" if rating is None else f"{rating / scale if scale else rating:.4f}",
        review.date.isoformat() if review.date else "",
    )
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


def detect_review_language(text: str, page_language: str | None) -> str | None:
    """ISO 639-1 of a review: ``zh`` when Chinese characters dominate, else the page's language.

    On a Chinese page a review in Latin letters counts as English. A character weighs as much as two letters, being
    about half a word. A text without letters has its page's language.
    """
    chinese = 2 * len(re.findall(r"[\u3400-\u9fff\uf900-\ufaff]", text))
    kana = 2 * len(re.findall(r"[\u3040-\u30ff]", text))
    other = sum(1 for character in text if character.isalpha()) - (chinese + kana) // 2
    if not chinese + kana + other:
        return page_language
    if chinese > other and kana * 4 < chinese:
        return "zh"
    return "en" if page_language in (None, "zh") else page_language


def _money(value: Decimal | None, what: str, notes: list[str]) -> Decimal | None:
    if value is None:
        return None
    if abs(value) > _MAX_MONEY:
        notes.append(f"{what} left out: {value} is not an amount of money")
        return None
    return value.quantize(Decimal("0.0001"), ROUND_HALF_EVEN)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _int32(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= _MAX_INT32 else None
