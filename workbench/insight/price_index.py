"""What competitors ask for a hundred of the own price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from statistics import fmean
from typing import Any

import polars as pl

from workbench.insight.money import base_amount
from workbench.store.tables import MONEY
from workbench.workspace import Company, Workspace

__all__ = ["PRICE_INDEX", "price_index"]

PRICE_INDEX = pl.Schema(
    {
        "company_id": pl.String(),
        "category": pl.String(),
        "index": pl.Float64(),  # 100 is the own price; mean over products
        "products": pl.Int32(),  # n: products with a price that could be compared
        "own_price": MONEY,  # mean of the own products of the category, in base
        "base": pl.String(),  # currency the comparison was made in
        "reason": pl.String(),  # why there is no index, or what it leaves out
        "snapshot_ids": pl.List(pl.String),  # the competitor's
    }
)


def price_index(history: pl.DataFrame, workspace: Workspace) -> pl.DataFrame:
    """What each competitor asks for a hundred of the own price, by category; schema PRICE_INDEX.

    For each competitor's product 100 × price / own price, where the own price is the mean of the own products of the
    same category; the index is the mean of these. Amounts are compared in the own currency when they share it, else
    in the base currency at the workspace's fixed rates. Without a rate, or without a price on one side, ``index`` is
    null and ``reason`` says so. ``history`` is what ``price_history`` gives.
    """
    rows = history.filter(pl.col("item") == "product").to_dicts()
    own = _by_category(rows, workspace.company.id, workspace)
    result = []
    for company in workspace.competitors:
        theirs = _by_category(rows, company.id, workspace)
        categories = dict.fromkeys(p.category for p in company.products) or dict.fromkeys(theirs)
        for category in categories:
            if category is None and not (own.get(None) and theirs.get(None)):
                continue
            if len(categories) > 1 and not own.get(category) and not theirs.get(category):
                continue  # sold as tiers, not as products: nobody has a price to compare
            result.append(_index_row(company, category, own.get(category, []), theirs.get(category, []), workspace))
    return pl.DataFrame(result, schema=PRICE_INDEX)


def _by_category(
    rows: Iterable[Mapping[str, Any]], company_id: str, workspace: Workspace
) -> dict[str | None, list[list[Mapping[str, Any]]]]:
    """The company's products as lists of their rows, one row a currency, in the order of the file."""
    named = {product.name for product in workspace.company_by_id(company_id).products}
    products: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["company_id"] == company_id and (row["product"] in named or not named):
            products[row["product"]].append(row)
    grouped: dict[str | None, list[list[Mapping[str, Any]]]] = defaultdict(list)
    for found in products.values():
        grouped[found[0]["category"]].append(found)
    return grouped


def _index_row(
    company: Company,
    category: str | None,
    own: Sequence[Sequence[Mapping[str, Any]]],
    theirs: Sequence[Sequence[Mapping[str, Any]]],
    workspace: Workspace,
) -> dict[str, Any]:
    about = f" in {category}" if category else ""
    own_currencies = {row["currency"] for rows in own for row in rows if row["currency"]}
    prefer = min(own_currencies, default=workspace.currency.base)
    # The own price is brought to the base currency; where no rate leads there, only the same currency compares.
    base = workspace.currency.base
    if own and all(_price_in(base, rows, workspace, prefer=prefer) is None for rows in own):
        base = prefer
    own_found = [found for rows in own if (found := _price_in(base, rows, workspace, prefer=prefer))]
    own_price = sum((amount for amount, _ in own_found), Decimal(0)) / len(own_found) if own_found else None
    ratios, used, reasons = [], [], []
    for rows in theirs:
        found = _price_in(base, rows, workspace, prefer=prefer)
        if found is None:
            currencies = " and ".join(dict.fromkeys(row["currency"] or "no stated currency" for row in rows))
            reasons.append(f"no rate from {currencies} to {base}: set currency.rates in workspace.toml")
        elif own_price:
            amount, row = found
            ratios.append(float(100 * amount / own_price))
            used.append(row["snapshot_id"])
            if not row["seen_in_week"]:
                reasons.append(f"{row['product']} was not seen this week, its last known price is used")
    if not theirs:
        reasons.insert(0, f"no price of {company.name}{about} is known")
    if not own_price:
        reasons.insert(0, f"no price of your own{about} is known in {base}")
    return {
        "company_id": company.id,
        "category": category,
        "index": round(fmean(ratios), 2) if ratios else None,
        "products": len(ratios),
        "own_price": own_price.quantize(Decimal("0.0001")) if own_price is not None else None,
        "base": base,
        "reason": "; ".join(dict.fromkeys(reasons)) or None,
        "snapshot_ids": used,
    }


def _price_in(
    currency: str, rows: Sequence[Mapping[str, Any]], workspace: Workspace, *, prefer: str
) -> tuple[Decimal, Mapping[str, Any]] | None:
    """A product's price in ``currency`` and the row it is from: the one shown in ``prefer`` or ``currency`` first."""
    for row in sorted(rows, key=lambda row: (row["currency"] != prefer, row["currency"] != currency)):
        if row["currency"] == currency:
            return row["price"], row
        if currency == workspace.currency.base:
            amount = base_amount(row["price"], row["currency"], workspace.currency)
            if amount is not None:
                return amount, row
    return None
