"""One tier of a pricing page from its name and the texts that stand around its price."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from workbench.extract.billing import asks_for_contact, read_period, read_unit, says_free
from workbench.extract.currencies import Market
from workbench.extract.page import Plan
from workbench.extract.prices import PriceText, find_prices

__all__ = ["has_price", "plan_from_texts"]

_SAVING = re.compile(
    r"(?:save|saving|spare|économisez|ahorra|risparmi|省|立减|orders?|over|above|reg\.?|was|原价)\W*$", re.IGNORECASE
)


def has_price(text: str, market: Market | None = None) -> bool:
    """Whether an amount with its currency stands in the text."""
    return bool(find_prices(text, market))


def plan_from_texts(
    name: str, texts: Sequence[str], market: Market, *, ignored: frozenset[str] | set[str] = frozenset()
) -> Plan | None:
    """A tier from its name and the texts around its price; None where no text speaks of a price at all."""
    for place, text in enumerate(texts):
        if text in ignored and not has_price(text, market):
            continue
        if says_free(text):
            return Plan(name=name, price=Decimal(0), currency=market.currency)
        if asks_for_contact(text):
            return Plan(name=name)
        window = " ".join(texts[place : place + 4])
        found = _first_price(window, market, within=len(text))
        if found is not None:
            after = window[found.end : found.end + 70]
            before = text[: found.start]
            return Plan(
                name=name,
                price=found.amount,
                currency=found.currency,
                billing_period=read_period(after) or read_period(before),
                per_unit=read_unit(after) or read_unit(before),
            )
    if any(asks_for_contact(text) for text in ignored):
        return Plan(name=name)
    if says_free(name):
        return Plan(name=name, price=Decimal(0), currency=market.currency)
    return None


def _first_price(window: str, market: Market, *, within: int) -> PriceText | None:
    """The first amount that begins in the first text; a sign on its own takes its number from the next."""
    for found in find_prices(window, market):
        if found.start > within:
            return None
        if not _SAVING.search(window[: found.start]):
            return found
    return None
