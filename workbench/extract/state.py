"""The product in a page's embedded data: what shops built from scripts hold instead of markup and text.

Read last and with care: such data also describes other products, carts and experiments. Only an object that is named
like the page's own product, and that has a price, counts.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from rapidfuzz import fuzz

from workbench.extract.availability import normalize_availability
from workbench.extract.currencies import CODES, Market, currency_from_sign
from workbench.extract.document import Document
from workbench.extract.identifiers import check_gtin
from workbench.extract.loosejson import read_value_after
from workbench.extract.page import Offer
from workbench.extract.prices import parse_price

__all__ = ["read_state_offer"]

_ASSIGNMENT = re.compile(r"(?:\b[\w.$\[\]\"']{2,60}\s*=(?!=)|\.push\(|\bJSON\.parse\()\s*(?=[{\[])")
_DATA_ATTRIBUTE = re.compile(r"^data-(?:.*-)?(?:product|item|offer|ecommerce|state|props|page|variant)s?(?:-.*)?$")
_NAMES = ("name", "title", "productName", "product_name", "displayName", "item_name", "productTitle")
_PRICES = (
    "salePrice", "sale_price", "specialPrice", "currentPrice", "current_price", "finalPrice", "final_price",
    "sellingPrice", "promotionPrice", "price", "priceValue", "price_amount", "unitPrice", "amount", "value",
)  # fmt: skip
_CURRENCIES = ("currency", "priceCurrency", "currencyCode", "currency_code", "currencyIsoCode")
_SKUS = ("sku", "skuId", "sku_id", "productId", "product_id", "id", "item_id", "code", "articleNumber")
_BRANDS = ("brand", "brandName", "brand_name", "manufacturer", "vendor", "item_brand")
_STOCKS = ("availability", "stockStatus", "stock_status", "availabilityStatus")
_MAX_OBJECTS = 20_000
_MAX_STARTS = 60
_LEAST_LIKENESS = 90


def read_state_offer(document: Document, names: Sequence[str], market: Market) -> Offer | None:
    """The offer of the product that has one of ``names``, from data in scripts and attributes; None if none fits."""
    wanted = [name.casefold() for name in names if name and len(name) >= 4]
    if not wanted:
        return None
    left = _MAX_OBJECTS
    for value in _embedded_values(document):
        stack = [value]
        while stack and left > 0:
            current = stack.pop()
            if isinstance(current, list):
                stack.extend(reversed(current[:200]))
            elif isinstance(current, dict):
                left -= 1
                offer = _offer_from(current, wanted, market)
                if offer is not None:
                    return offer
                stack.extend(reversed([entry for entry in current.values() if isinstance(entry, (dict, list))]))
    return None


def _embedded_values(document: Document) -> Iterator[Any]:
    for script in document.tree.iter("script"):
        kind = (script.get("type") or "").lower()
        text = script.text or ""
        if "price" not in text.lower() or "ld+json" in kind:
            continue
        if "json" in kind:
            yield read_value_after(text, 0)
            continue
        position = 0
        for _ in range(_MAX_STARTS):
            found = _ASSIGNMENT.search(text, position)
            if found is None:
                break
            position = found.end()
            yield read_value_after(text, found.end())
    for node in document.tree.iter():
        for name, content in node.attrib.items():
            if len(content) > 20 and _DATA_ATTRIBUTE.match(str(name)) and "price" in content.lower():
                yield read_value_after(html.unescape(str(content)), 0)


def _offer_from(item: dict[str, Any], wanted: Sequence[str], market: Market) -> Offer | None:
    name = next((item[key] for key in _NAMES if isinstance(item.get(key), str) and item[key].strip()), None)
    if name is None or max(fuzz.ratio(name.casefold()[:200], other[:200]) for other in wanted) < _LEAST_LIKENESS:
        return None
    currency = _text(item, _CURRENCIES)
    amount = _amount(item)
    if amount is None:
        return None
    price = parse_price(amount, market, currency_hint=currency)
    if price is None or price.amount <= 0:
        return None
    code = currency if currency in CODES else currency_from_sign(price.sign, market)
    sku = _text(item, _SKUS)
    return Offer(
        name=" ".join(name.split())[:300],
        price=price.amount,
        currency=code or market.currency,
        availability=normalize_availability(_text(item, _STOCKS)),
        sku=sku if sku and len(sku) <= 64 else None,
        gtin=check_gtin(_text(item, ("gtin", "gtin13", "ean", "upc", "barcode"))),
        brand=_text(item, _BRANDS),
    )


def _amount(item: dict[str, Any]) -> str | None:
    """The price under the key that says most plainly what is paid now; it may be one level down."""
    for key in _PRICES:
        value = item.get(key)
        if isinstance(value, dict):
            inner = _amount(value) if key not in ("amount", "value") else None
            if inner is not None:
                return inner
        elif isinstance(value, str) and len(value) <= 30 and re.search(r"\d", value):
            return value
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 10**9:
            # Shopify's product data counts in cents, in whole numbers, beside keys of its own.
            is_cents = isinstance(value, int) and "compare_at_price" in item
            return str(Decimal(value) / 100) if is_cents else str(value)
    return None


def _text(item: dict[str, Any], keys: Sequence[str]) -> str | None:
    for key in keys:
        value = item.get(key)
        if isinstance(value, dict):
            value = value.get("name")
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None
