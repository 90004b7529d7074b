"""Which product of the workspace a row of the lake is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from workbench.insight.spans import fold
from workbench.workspace import Company, Workspace

__all__ = ["Catalogue", "without_tiers"]


class Catalogue:
    """The workspace's name and category for what a page calls something else."""

    def __init__(self, workspace: Workspace) -> None:
        self._companies: Mapping[str, Company] = {company.id: company for company in workspace.companies}
        self._order = {company.id: place for place, company in enumerate(workspace.companies)}
        refs = list(workspace.sources())
        self._about = {ref.source.id: ref.source.product for ref in refs}
        self._kinds = {ref.source.id: ref.source.kind for ref in refs}
        self._places = {ref.source.id: place for place, ref in enumerate(refs)}

    def known(self, company_id: str) -> bool:
        return company_id in self._companies

    def product(self, row: Mapping[str, Any]) -> str:
        """The workspace's product that an offer is, by name, alias or as the main one of its page; else its name."""
        name = row["name"] or ""
        for product in self._companies[row["company_id"]].products:
            if fold(name) in {fold(text) for text in (product.name, *product.aliases)}:
                return product.name
        about = self._about.get(row["source_id"])
        main = row["position"] == 0 and self._kinds.get(row["source_id"]) == "product"
        return about if about and (main or not name) else name or row["offer_key"] or ""

    def category(self, company_id: str, product: str) -> str | None:
        return next((p.category for p in self._companies[company_id].products if p.name == product), None)

    def listed(self, row: Mapping[str, Any]) -> bool:
        """Whether an offer is a product of its page: beside a product page's named one there are only teasers."""
        source_id = row["source_id"]
        single = self._kinds.get(source_id) == "product" and self._about.get(source_id) is not None
        return row["position"] == 0 or not single or self.is_named(row)

    def is_named(self, row: Mapping[str, Any]) -> bool:
        return any(self.product(row) == product.name for product in self._companies[row["company_id"]].products)

    def preference(self, source_id: str, url: str) -> tuple[bool, int, str, str]:
        """Product pages before others, then the order of the workspace's file."""
        return (
            self._kinds.get(source_id) != "product",
            self._places.get(source_id, len(self._places)),
            source_id,
            url,
        )

    def company_place(self, company_id: str) -> int:
        return self._order[company_id]


def without_tiers(offers: pl.DataFrame, plans: pl.DataFrame) -> pl.DataFrame:
    """Offers that are not a plan tier of the same snapshot under the same name: such a tier is told as a plan."""
    tiers = plans.select("snapshot_id", pl.col("name").map_elements(fold, return_dtype=pl.String).alias("tier"))
    named = offers.with_columns(pl.col("name").fill_null("").map_elements(fold, return_dtype=pl.String).alias("tier"))
    return named.join(tiers, on=["snapshot_id", "tier"], how="anti", maintain_order="left").drop("tier")
