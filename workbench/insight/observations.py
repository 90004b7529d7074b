"""The lake's rows as snapshots: what one archived page said at one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from workbench.errors import LakeError
from workbench.insight.spans import fold
from workbench.weeks import Week

__all__ = ["ClaimSeen", "OfferSeen", "PageHistory", "PlanSeen", "Snapshot", "page_histories"]


@dataclass(frozen=True)
class OfferSeen:
    """One row of the offers table."""

    position: int
    key: str
    name: str
    price: Decimal | None
    currency: str | None
    list_price: Decimal | None
    availability: str | None
    identifiers: frozenset[str]
    """GTIN, SKU and MPN, each with what it is in front."""
    condition: str | None

    @property
    def regular(self) -> Decimal | None:
        """The crossed-out price; None when it is not above the price, so that nothing is reduced."""
        if self.list_price is None or (self.price is not None and self.list_price <= self.price):
            return None
        return self.list_price


@dataclass(frozen=True)
class PlanSeen:
    """One row of the plans table."""

    position: int
    name: str
    price: Decimal | None
    currency: str | None
    period: str | None
    per_unit: str | None
    features: tuple[str, ...]


@dataclass(frozen=True)
class ClaimSeen:
    """One row of the claims table."""

    position: int
    kind: str
    level: int | None
    text: str


@dataclass(frozen=True)
class Snapshot:
    """One archived response and what today's extractor reads from it."""

    snapshot_id: str
    company_id: str
    source_id: str
    url: str
    fetched_at: datetime
    kind: str
    title: str
    http_status: int | None
    extractor: str | None
    has_text: bool
    offers: tuple[OfferSeen, ...]
    plans: tuple[PlanSeen, ...]
    claims: tuple[ClaimSeen, ...]

    @property
    def gone(self) -> bool:
        """The server says that the page is not there: HTTP 404 or 410."""
        return self.http_status in (404, 410)

    @property
    def answered(self) -> bool:
        """The server answered with the page, whatever is on it."""
        return self.http_status is None or self.http_status < 400

    @property
    def readable(self) -> bool:
        """The server answered with the page, and something could be read."""
        return self.answered and (self.has_text or bool(self.offers or self.plans or self.claims))

    @property
    def usable(self) -> bool:
        """It says something about the page. Anything else, such as HTTP 503 or an empty page, counts as not seen."""
        return self.gone or self.readable


@dataclass(frozen=True)
class PageHistory:
    """The usable snapshots of one page (source and address), in time order, around one week.

    Usable is what can be read or is gone. ``earlier`` holds those before the week that lie inside the window and, in
    any case, the newest one and the newest readable one: what this week is compared with. ``inside`` is never empty.
    """

    earlier: tuple[Snapshot, ...]
    inside: tuple[Snapshot, ...]

    @property
    def last(self) -> Snapshot:
        """The week's last snapshot."""
        return self.inside[-1]


def page_histories(
    pages: pl.DataFrame,
    *,
    offers: pl.DataFrame,
    plans: pl.DataFrame,
    claims: pl.DataFrame,
    week: Week,
    window_days: int,
) -> list[PageHistory]:
    """Every page with a usable snapshot inside the week, sorted by company, source and address.

    Raises LakeError when the week's last snapshot and the one it is compared with were read by different extractors:
    then a difference could be ours instead of the page's. Other snapshots of another extractor are left out.
    """
    seen = pages.filter(pl.col("fetched_at") < week.end)
    wanted = _pages_of_week(seen, week)
    seen = seen.join(wanted, on=["source_id", "url"], how="semi")
    ids = seen.select("snapshot_id")
    rows = {
        name: _rows_by_snapshot(frame.join(ids, on="snapshot_id", how="semi"))
        for name, frame in (("offers", offers), ("plans", plans), ("claims", claims))
    }
    by_page: dict[tuple[str, str, str], list[Snapshot]] = defaultdict(list)
    for row in seen.sort("fetched_at", "snapshot_id").to_dicts():
        by_page[row["company_id"], row["source_id"], row["url"]].append(_snapshot(row, rows))
    histories = (_history(by_page[key], week, window_days) for key in sorted(by_page))
    return [history for history in histories if history is not None]


def _pages_of_week(pages: pl.DataFrame, week: Week) -> pl.DataFrame:
    return pages.filter(pl.col("fetched_at") >= week.start).select("source_id", "url").unique()


def _rows_by_snapshot(frame: pl.DataFrame) -> Mapping[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in frame.sort("snapshot_id", "position").to_dicts():
        grouped[row["snapshot_id"]].append(row)
    return grouped


def _history(snapshots: list[Snapshot], week: Week, window_days: int) -> PageHistory | None:
    inside = [s for s in snapshots if s.fetched_at >= week.start and s.usable]
    if not inside:
        return None
    last = inside[-1]
    before = [s for s in snapshots if s.fetched_at < week.start]
    # These two are always read again with the week, however old they are (see ``ingest_week``).
    for snapshot in before[-1:] + [s for s in before if s.answered][-1:]:
        if snapshot.extractor != last.extractor:
            raise LakeError(
                f"{last.url}: snapshot {snapshot.snapshot_id[:12]} was read by extractor {snapshot.extractor}, "
                f"{last.snapshot_id[:12]} by {last.extractor}, so their difference may be the extractor's. "
                f"Read both again with: workbench weekly --week {week}"
            )
    same = [s for s in before if s.extractor == last.extractor and s.usable]
    start = last.fetched_at - timedelta(days=window_days)
    compared = {s.snapshot_id for s in same[-1:] + [s for s in same if s.readable][-1:]}
    earlier = tuple(s for s in same if s.fetched_at >= start or s.snapshot_id in compared)
    return PageHistory(earlier, tuple(s for s in inside if s.extractor == last.extractor))


def _snapshot(row: Mapping[str, Any], rows: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> Snapshot:
    snapshot_id = row["snapshot_id"]
    plans = rows["plans"].get(snapshot_id, [])
    # A tier that the page also marks up as an offer is told once, as a tier.
    tiers = {fold(plan["name"] or "") for plan in plans} - {""}
    return Snapshot(
        snapshot_id=snapshot_id,
        company_id=row["company_id"],
        source_id=row["source_id"],
        url=row["url"],
        fetched_at=row["fetched_at"],
        kind=row["kind"] or "",
        title=row["title"] or "",
        http_status=row["http_status"],
        extractor=row["extractor"],
        has_text=bool((row["text"] or "").strip()),
        offers=tuple(_offer(o) for o in rows["offers"].get(snapshot_id, ()) if fold(o["name"] or "") not in tiers),
        plans=tuple(map(_plan, plans)),
        claims=tuple(map(_claim, _with_text(rows["claims"].get(snapshot_id, ())))),
    )


def _with_text(rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return (row for row in rows if (row["text"] or "").strip())


def _offer(row: Mapping[str, Any]) -> OfferSeen:
    identifiers = frozenset(f"{name} {row[name]}" for name in ("gtin", "sku", "mpn") if row[name])
    return OfferSeen(
        position=row["position"],
        key=row["offer_key"] or "",
        name=row["name"] or "",
        price=row["price"],
        currency=row["currency"],
        list_price=row["list_price"],
        availability=row["availability"],
        identifiers=identifiers,
        condition=row["condition"],
    )


def _plan(row: Mapping[str, Any]) -> PlanSeen:
    return PlanSeen(
        position=row["position"],
        name=row["name"] or "",
        price=row["price"],
        currency=row["currency"],
        period=row["billing_period"],
        per_unit=row["per_unit"],
        features=tuple(row["features"] or ()),
    )


def _claim(row: Mapping[str, Any]) -> ClaimSeen:
    return ClaimSeen(position=row["position"], kind=row["kind"] or "statement", level=row["level"], text=row["text"])
