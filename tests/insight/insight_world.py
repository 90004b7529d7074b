"""A small market to test with, and pages of it as the lake's frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl

from workbench.insight.changes import changes_of_week
from workbench.store.tables import TABLES
from workbench.weeks import Week
from workbench.workspace import Workspace

WEEK = Week.parse("2026-W47")
URL = "https://ondine.example/folio"
EXTRACTOR = "1.0+abcdef01"


def market(**thresholds: Any) -> Workspace:
    """One own company and two competitors; 1 EUR = 1.10 USD, CNY has no rate."""
    return Workspace.model_validate(
        {
            "name": "test",
            "company": {
                "id": "larkpaper",
                "name": "Larkpaper",
                "products": [{"name": "Larkpaper Slate 10", "category": "paper-tablet"}],
                "sources": [
                    {
                        "id": "larkpaper-slate",
                        "url": "https://larkpaper.example/slate",
                        "kind": "product",
                        "product": "Larkpaper Slate 10",
                    }
                ],
            },
            "competitors": [
                {
                    "id": "ondine",
                    "name": "Ondine",
                    "products": [{"name": "Ondine Folio", "category": "paper-tablet", "aliases": ["Folio"]}],
                    "sources": [
                        {"id": "ondine-folio", "url": URL, "kind": "product", "product": "Ondine Folio"},
                        {"id": "ondine-pricing", "url": "https://ondine.example/pricing", "kind": "pricing"},
                    ],
                },
                {
                    "id": "moshu",
                    "name": "Moshu",
                    "products": [{"name": "墨舒 M2", "category": "paper-tablet"}],
                    "sources": [
                        {"id": "moshu-m2", "url": "https://moshu.example/m2", "kind": "product", "product": "墨舒 M2"}
                    ],
                },
            ],
            "thresholds": thresholds,
            "currency": {"base": "USD", "rates": {"EUR": "1.10"}},
        }
    )


def day(weeks_back: int, weekday: int = 1, hour: int = 9) -> datetime:
    """A moment so many weeks before WEEK; 0 is Monday."""
    return WEEK.back(weeks_back).start + timedelta(days=weekday, hours=hour)


def offer(price: str | None = "449", **fields: Any) -> dict[str, Any]:
    """An offer row without its origin."""
    row: dict[str, Any] = {
        "name": "Ondine Folio",
        "currency": "USD",
        "availability": "InStock",
        "sku": "OF-1",
        **fields,
        "price": None if price is None else Decimal(price),
    }
    if row.get("list_price") is not None:
        row["list_price"] = Decimal(row["list_price"])
    row.setdefault("offer_key", row["sku"] or row["name"].casefold())
    return row


def plan(name: str, price: str | None, *features: str, **fields: Any) -> dict[str, Any]:
    """A plan row without its origin."""
    return {
        "name": name,
        "price": None if price is None else Decimal(price),
        "currency": "USD",
        "billing_period": "month",
        "features": list(features),
        **fields,
    }


class Pages:
    """Collects snapshots and gives them as frames."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("pages", "offers", "plans", "claims")}

    def add(
        self,
        at: datetime,
        *,
        offers: Sequence[Mapping[str, Any]] = (),
        plans: Sequence[Mapping[str, Any]] = (),
        claims: Sequence[str | Mapping[str, Any]] = (),
        company_id: str = "ondine",
        source_id: str = "ondine-folio",
        url: str = URL,
        kind: str = "product",
        **page: Any,
    ) -> str:
        """One snapshot; gives its id."""
        snapshot_id = f"{source_id}@{at:%m%d%H}"
        if any(row["snapshot_id"] == snapshot_id for row in self.rows["pages"]):
            snapshot_id += f"-{len(self.rows['pages'])}"
        origin = {
            "snapshot_id": snapshot_id,
            "company_id": company_id,
            "source_id": source_id,
            "url": url,
            "fetched_at": at.astimezone(timezone.utc),
        }
        defaults = {"kind": kind, "http_status": 200, "title": "A page", "text": "Words.", "extractor": EXTRACTOR}
        self.rows["pages"].append({**origin, **defaults, "warnings": [], **page})
        for table, items in (("offers", offers), ("plans", plans), ("claims", claims)):
            for position, item in enumerate(items):
                row = {"kind": "statement", "text": item} if isinstance(item, str) else dict(item)
                self.rows[table].append({**origin, "position": position, **row})
        return snapshot_id

    def frame(self, table: str) -> pl.DataFrame:
        schema = TABLES[table].schema
        return pl.DataFrame([{c: row.get(c) for c in schema} for row in self.rows[table]], schema=schema)

    def changes(self, workspace: Workspace | None = None, *, shuffle: int | None = None) -> pl.DataFrame:
        """The changes of WEEK; ``shuffle`` is the seed of another order of rows."""
        frames = {name: self.frame(name) for name in self.rows}
        if shuffle is not None:
            frames = {n: f.sample(fraction=1, shuffle=True, seed=shuffle) for n, f in frames.items()}
        return changes_of_week(
            frames["pages"],
            offers=frames["offers"],
            plans=frames["plans"],
            claims=frames["claims"],
            workspace=workspace or market(),
            week=WEEK,
        )


def two_weeks(before: Mapping[str, Any], after: Mapping[str, Any], **page: Any) -> pl.DataFrame:
    """Changes between one snapshot of last week and one of this week."""
    pages = Pages()
    pages.add(day(1), **page, **before)
    pages.add(day(0), **page, **after)
    return pages.changes()


def brief(changes: pl.DataFrame) -> list[tuple[str, str, str | None, str | None, str]]:
    """Kind, subject, before, after and severity of each change, in the table's order."""
    return changes.select("kind", "subject", "before", "after", "severity").rows()


def source_row(source_id: str, status: str, at: datetime | None, **fields: Any) -> dict[str, Any]:
    """A row of the sources table; ``at`` is when its newest snapshot was made."""
    row = {
        "week": str(WEEK),
        "company_id": source_id.split("-")[0],
        "source_id": source_id,
        "url": URL,
        "kind": "product",
        "status": status,
        "attempted_at": day(0),
        "snapshot_id": "s" if at else None,
        "snapshot_at": at,
    }
    return {**row, **fields}


def source_frame(*rows: dict[str, Any]) -> pl.DataFrame:
    """The sources table."""
    schema = TABLES["sources"].schema
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
