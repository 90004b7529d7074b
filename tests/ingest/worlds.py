"""A small workspace whose archive a test fills as it likes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from workbench.store.archive import Archive
from workbench.store.lake import Lake
from workbench.store.tables import TABLES
from workbench.weeks import Week
from workbench.workspace import Workspace, load_workspace

WEEK = Week.parse("2026-W47")
FOLIO, PRICING, REVIEWS = (f"https://ondine.example/{page}" for page in ("folio", "pricing", "reviews"))

TOML = """
name = "tablets"
[company]
id = "larkpaper"
name = "Larkpaper"
[[company.products]]
name = "Larkpaper Slate 10"
[[company.sources]]
id = "own"
url = "https://larkpaper.example/"
kind = "product"
[[competitors]]
id = "ondine"
name = "Ondine"
aliases = ["Ondine Labs"]
[[competitors.products]]
name = "Ondine Folio Max"
[[competitors.sources]]
id = "folio"
url = "https://ondine.example/folio"
kind = "product"
[[competitors.sources]]
id = "pricing"
url = "https://ondine.example/pricing"
kind = "pricing"
[[competitors.sources]]
id = "reviews"
url = "https://ondine.example/reviews"
kind = "reviews"
"""


def make_workspace(folder: Path, *, extra: str = "") -> Workspace:
    """A workspace of two companies; ``extra`` goes to the end of workspace.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workspace.toml").write_text(TOML + extra, encoding="utf-8")
    return load_workspace(folder)


def on(day: float, *, week: Week = WEEK) -> datetime:
    """A moment of the report week: days after its Monday, at six in the morning."""
    return week.start + timedelta(days=day, hours=6)


def product_page(
    price: str = "399.00", *, name: str = "Ondine Folio", reviews: Iterable[Mapping[str, Any]] = (), body: str = ""
) -> bytes:
    """A product page with schema.org data and the same to see."""
    data = {
        "@context": "https://schema.org",
        "@type": "Product",
        "name": name,
        "sku": "OF-1",
        "offers": {
            "@type": "Offer",
            "price": price,
            "priceCurrency": "USD",
            "availability": "https://schema.org/InStock",
        },
        "review": [
            {
                "@type": "Review",
                "author": {"@type": "Person", "name": review["author"]},
                "name": review.get("title", "Review"),
                "reviewBody": review["text"],
                "datePublished": review.get("date", "2026-11-02"),
                "reviewRating": {"@type": "Rating", "ratingValue": review.get("rating", 4), "bestRating": 5},
            }
            for review in reviews
        ],
    }
    shown = "".join(
        f'<article class="review"><h3>{review.get("title", "Review")}</h3><p class="author">by {review["author"]}</p>'
        f"<p>{review['text']}</p></article>"
        for review in reviews
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<script type="application/ld+json">{json.dumps(data)}</script></head><body><main><h1>{name}</h1>'
        f"<p>A tablet of paper-like feel for people who write all day and want to find their notes again.</p>"
        f'<p class="price">$ {price}</p><ul><li>Battery for three weeks of writing</li><li>Works offline</li></ul>'
        f"{body}{shown}</main></body></html>"
    ).encode()


class Site:
    """Fills a workspace's archive, one session a call."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.archive = Archive(workspace.archive_dir)
        self.lake = Lake(workspace.lake_dir)

    def show(
        self, payload: bytes, at: datetime, *, url: str = FOLIO, source: str = "folio", status: int = 200
    ) -> str:
        """Archive a page; returns its snapshot id."""
        with self.archive.writer() as writer:
            entry = writer.response(
                source_id=source,
                url=url,
                fetched_at=at,
                http_status=status,
                headers=[("Content-Type", "text/html; charset=utf-8")],
                payload=payload,
            )
        return str(entry.snapshot_id)

    def same(self, at: datetime, *, url: str = FOLIO, source: str = "folio") -> str:
        """Archive that a page had not changed since it was last seen; returns the new snapshot id."""
        original = self.archive.latest(url)
        assert original is not None
        with self.archive.writer() as writer:
            entry = writer.revisit(source_id=source, url=url, fetched_at=at, original=original)
        return str(entry.snapshot_id)

    def miss(
        self, at: datetime, status: Any = "failed", *, url: str = FOLIO, source: str = "folio", note: str = ""
    ) -> None:
        """Archive an attempt that gave nothing."""
        with self.archive.writer() as writer:
            writer.attempt(source_id=source, url=url, attempted_at=at, status=status, note=note)

    def versions(self) -> dict[str, int | None]:
        """Version of every table."""
        return {table: self.lake.version(table) for table in TABLES}
