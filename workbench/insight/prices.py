"""Prices and availability over time, side by side with the own product's, and tiers as a matrix.

All functions read rows of the lake's offers and plans tables and count only what a snapshot shows: a page that
was not seen in the week keeps its last known price with ``seen_in_week`` false.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from workbench.insight.catalogue import Catalogue, without_tiers
from workbench.insight.money import monthly_amount, percent_change
from workbench.insight.price_index import PRICE_INDEX, price_index
from workbench.store.tables import MONEY, TIME
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = [
    "PLAN_MATRIX",
    "PRICE_HISTORY",
    "PRICE_INDEX",
    "STOCK_TRANSITIONS",
    "plan_matrix",
    "price_history",
    "price_index",
    "stock_transitions",
]

PRICE_HISTORY = pl.Schema(
    {
        "week": pl.String(),
        "company_id": pl.String(),
        "product": pl.String(),  # the workspace's name where it knows the product, else the page's
        "category": pl.String(),
        "item": pl.String(),  # product, plan
        "source_id": pl.String(),
        "url": pl.String(),
        "price": MONEY,
        "currency": pl.String(),
        "billing_period": pl.String(),  # plans
        "per_unit": pl.String(),  # plans
        "list_price": MONEY,  # only when above the price
        "promotion": pl.Boolean(),  # price below the list price
        "previous_price": MONEY,  # the last other price in the same currency, null if there was none
        "percent": pl.Float64(),  # price against previous_price
        "since": TIME,  # first snapshot of the current price's run
        "days_at_price": pl.Int32(),  # whole days from since to last_seen
        "at_least": pl.Boolean(),  # the history begins with this price, so that it may be older
        "low": MONEY,  # over the history in the lake, same currency
        "high": MONEY,
        "new_low": pl.Boolean(),  # the price moved in the week, below every earlier one
        "new_high": pl.Boolean(),
        "availability": pl.String(),
        "availability_since": TIME,
        "snapshots": pl.Int32(),  # that show a price
        "last_seen": TIME,
        "seen_in_week": pl.Boolean(),
        "snapshot_id": pl.String(),  # newest that shows the price
        "snapshot_previous": pl.String(),  # newest that shows previous_price
    }
)

PLAN_MATRIX = pl.Schema(
    {
        "company_id": pl.String(),
        "source_id": pl.String(),
        "url": pl.String(),
        "position": pl.Int32(),
        "tier": pl.String(),
        "price": MONEY,  # as shown; null: on request
        "currency": pl.String(),
        "billing_period": pl.String(),
        "per_unit": pl.String(),
        "monthly_price": MONEY,  # null where the period is unknown or the price is paid once
        "features": pl.List(pl.String),
        "fetched_at": TIME,
        "seen_in_week": pl.Boolean(),
        "snapshot_id": pl.String(),
    }
)

STOCK_TRANSITIONS = pl.Schema(
    {
        "company_id": pl.String(),
        "product": pl.String(),
        "source_id": pl.String(),
        "url": pl.String(),
        "before": pl.String(),
        "after": pl.String(),
        "at": TIME,  # first snapshot that shows ``after``
        "in_week": pl.Boolean(),
        "snapshot_before": pl.String(),
        "snapshot_after": pl.String(),
    }
)


@dataclass(frozen=True)
class _Key:
    """One line of the price table: where a product is sold in several currencies, one for each."""

    company_id: str
    product: str
    currency: str | None
    period: str | None = None
    per_unit: str | None = None


def price_history(
    offers: pl.DataFrame, plans: pl.DataFrame | None = None, *, workspace: Workspace, week: Week
) -> pl.DataFrame:
    """One row a company, product (or tier) and currency on offer at the end of ``week``; schema PRICE_HISTORY.

    A product shown on several pages is followed on one of them: a product page before others, then by the order of
    the workspace. Sorted as the workspace's companies, products before tiers, then as on the page.
    """
    catalogue = Catalogue(workspace)
    if plans is not None:
        offers = without_tiers(offers, plans)
    rows = []
    for item, frame in (("product", offers), ("plan", plans)):
        if frame is None:
            continue
        for key, series in _series(frame, catalogue, week, item=item).items():
            if (row := _history_row(key, series, catalogue, week, item=item)) is not None:
                rows.append(row)
    rows.sort(key=lambda row: row["order"])
    return pl.DataFrame([{name: row[name] for name in PRICE_HISTORY} for row in rows], schema=PRICE_HISTORY)


def _series(frame: pl.DataFrame, catalogue: Catalogue, week: Week, *, item: str) -> dict[_Key, list[dict[str, Any]]]:
    """Rows of each product from its one page, in time order, at most one a snapshot (the first on the page)."""
    rows = frame.filter(pl.col("fetched_at") < week.end).sort("fetched_at", "snapshot_id", "position").to_dicts()
    rows = [row for row in rows if catalogue.known(row["company_id"]) and (item == "plan" or catalogue.listed(row))]
    for row in rows:
        row["product"] = catalogue.product(row) if item == "product" else row["name"]
    currencies: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        if row["currency"]:
            currencies[row["product"], row["source_id"], row["url"]].add(row["currency"])
    grouped: dict[_Key, dict[tuple[str, str], dict[str, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        only = currencies[row["product"], row["source_id"], row["url"]]
        # A price whose currency was not read is in the only one the product is ever sold in there.
        currency = row["currency"] or (next(iter(only)) if len(only) == 1 else None)
        billed = item == "plan" and row["price"] != 0  # free is free for any time and any number
        period, unit = (row["billing_period"], row["per_unit"]) if billed else (None, None)
        key = _Key(row["company_id"], row["product"], currency, period, unit)
        grouped[key][row["source_id"], row["url"]].setdefault(row["snapshot_id"], row)
    chosen = {}
    newest = {(row["source_id"], row["url"]): row["snapshot_id"] for row in rows}
    for key, places in grouped.items():
        # A page that goes on without the product says that it is gone; a page not seen since says nothing.
        places = {place: seen for place, seen in places.items() if newest[place] in seen}
        priced = [place for place in places if any(row["price"] is not None for row in places[place].values())]
        if priced:
            place = min(priced, key=lambda place: catalogue.preference(*place))
            chosen[key] = list(places[place].values())
    return chosen


def _history_row(
    key: _Key, series: Sequence[Mapping[str, Any]], catalogue: Catalogue, week: Week, *, item: str
) -> dict[str, Any] | None:
    priced = [row for row in series if row["price"] is not None]
    last = priced[-1]
    price: Decimal = last["price"]
    run = _last_run(priced, lambda row: row["price"])
    earlier = priced[: len(priced) - len(run)]
    others = [row["price"] for row in earlier]
    list_price = last.get("list_price")
    promotion = list_price is not None and list_price > price
    moved = bool(earlier) and run[0]["fetched_at"] >= week.start
    stock = [row for row in series if row.get("availability")]
    stock_run = _last_run(stock, lambda row: row["availability"])
    previous = earlier[-1] if earlier else None
    return {
        "order": (
            catalogue.company_place(key.company_id),
            item != "product",
            catalogue.preference(last["source_id"], last["url"]),
            last["position"],
            key.product,
            key.currency or "",
            key.period or "",
            key.per_unit or "",
        ),
        "week": str(week),
        "company_id": key.company_id,
        "product": key.product,
        "category": catalogue.category(key.company_id, key.product) if item == "product" else None,
        "item": item,
        "source_id": last["source_id"],
        "url": last["url"],
        "price": price,
        "currency": key.currency,
        "billing_period": key.period,
        "per_unit": key.per_unit,
        "list_price": list_price if promotion else None,
        "promotion": promotion,
        "previous_price": previous["price"] if previous else None,
        "percent": percent_change(previous["price"], price) if previous else None,
        "since": run[0]["fetched_at"],
        "days_at_price": (last["fetched_at"] - run[0]["fetched_at"]).days,
        "at_least": not earlier,
        "low": min([price, *others]),
        "high": max([price, *others]),
        "new_low": moved and price < min(others),
        "new_high": moved and price > max(others),
        "availability": stock_run[-1]["availability"] if stock_run else None,
        "availability_since": stock_run[0]["fetched_at"] if stock_run else None,
        "snapshots": len(priced),
        "last_seen": last["fetched_at"],
        "seen_in_week": last["fetched_at"] >= week.start,
        "snapshot_id": last["snapshot_id"],
        "snapshot_previous": previous["snapshot_id"] if previous else None,
    }


def _last_run(
    rows: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], object]
) -> list[Mapping[str, Any]]:
    """The rows at the end that share one value."""
    run: list[Mapping[str, Any]] = []
    for row in reversed(rows):
        if run and value(row) != value(run[0]):
            break
        run.append(row)
    return run[::-1]


def plan_matrix(plans: pl.DataFrame, week: Week) -> pl.DataFrame:
    """The tiers of every pricing page as its newest snapshot up to the week's end shows them; schema PLAN_MATRIX.

    ``monthly_price`` brings tiers to one period (a year of 365 days); the price as shown stands beside it. Sorted by
    company, source, address and position.
    """
    seen = plans.filter(pl.col("fetched_at") < week.end).sort("fetched_at", "snapshot_id")
    newest = seen.group_by("source_id", "url", maintain_order=True).agg(pl.col("snapshot_id").last())
    rows = []
    for row in seen.join(newest, on=["source_id", "url", "snapshot_id"], how="semi").to_dicts():
        made = {
            **row,
            "tier": row["name"],
            "monthly_price": monthly_amount(row["price"], row["billing_period"]),
            "seen_in_week": row["fetched_at"] >= week.start,
        }
        rows.append({name: made[name] for name in PLAN_MATRIX})
    return pl.DataFrame(rows, schema=PLAN_MATRIX).sort("company_id", "source_id", "url", "position")


def stock_transitions(offers: pl.DataFrame, *, workspace: Workspace, week: Week) -> pl.DataFrame:
    """Every change of availability in the history up to the end of ``week``, oldest first; schema STOCK_TRANSITIONS.

    A snapshot that does not state the availability says nothing.
    """
    catalogue = Catalogue(workspace)
    rows = offers.filter(pl.col("fetched_at") < week.end).sort("fetched_at", "snapshot_id", "position").to_dicts()
    newest: dict[tuple[str, str, str, str], Mapping[str, Any]] = {}
    counted: set[tuple[str, ...]] = set()
    found = []
    for row in rows:
        if not row["availability"] or not catalogue.known(row["company_id"]) or not catalogue.listed(row):
            continue
        key = (row["company_id"], catalogue.product(row), row["source_id"], row["url"])
        if (*key, row["snapshot_id"]) in counted:
            continue  # a variant further down the page
        counted.add((*key, row["snapshot_id"]))
        before, newest[key] = newest.get(key), row
        if before is not None and before["availability"] != row["availability"]:
            found.append(
                {
                    "company_id": key[0],
                    "product": key[1],
                    "source_id": key[2],
                    "url": key[3],
                    "before": before["availability"],
                    "after": row["availability"],
                    "at": row["fetched_at"],
                    "in_week": row["fetched_at"] >= week.start,
                    "snapshot_before": before["snapshot_id"],
                    "snapshot_after": row["snapshot_id"],
                }
            )
    found.sort(key=lambda row: (row["at"], catalogue.company_place(row["company_id"]), row["product"], row["url"]))
    return pl.DataFrame(found, schema=STOCK_TRANSITIONS)
