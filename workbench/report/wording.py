"""Words for the codes in the tables."""

from __future__ import annotations

__all__ = ["availability_word", "kind_word", "language_word", "value_word"]

_KINDS = {
    "price": "Price",
    "list_price": "List price",
    "currency": "Currency",
    "availability": "Availability",
    "offer_added": "Product added",
    "offer_removed": "Product removed",
    "plan_added": "Plan added",
    "plan_removed": "Plan removed",
    "plan_renamed": "Plan renamed",
    "plan_price": "Plan price",
    "plan_features": "Plan features",
    "claim_added": "Claim added",
    "claim_removed": "Claim removed",
    "claim_reworded": "Claim reworded",
    "page_gone": "Page gone",
    "page_back": "Page back",
    "page_added": "Page new",
    "flapping": "Back and forth",
}

# schema.org ItemAvailability, short names.
_AVAILABILITY = {
    "InStock": "in stock",
    "OutOfStock": "out of stock",
    "SoldOut": "sold out",
    "PreOrder": "pre-order",
    "PreSale": "pre-sale",
    "BackOrder": "back order",
    "Discontinued": "discontinued",
    "LimitedAvailability": "limited",
    "OnlineOnly": "online only",
    "InStoreOnly": "in store only",
    "MadeToOrder": "made to order",
    "Reserved": "reserved",
}


_LANGUAGES = {"en": "English", "zh": "Chinese", "ja": "Japanese", "de": "German", "fr": "French", "es": "Spanish"}


def language_word(code: str) -> str:
    """An ISO 639-1 code in words; one that is not known stays."""
    return _LANGUAGES.get(code, code)


def kind_word(kind: str) -> str:
    """A kind of change in words."""
    return _KINDS.get(kind, kind.replace("_", " "))


def availability_word(value: str) -> str:
    """An availability in words; one that is not known stays as the page gives it."""
    return _AVAILABILITY.get(value, value)


def value_word(kind: str, value: str | None) -> str:
    """One side of a change: availabilities in words, ``not shown`` for a side that is missing where both belong."""
    if kind in ("availability", "flapping"):
        return availability_word(value) if value else "not shown"
    if not value and kind in ("price", "list_price", "plan_price", "currency", "plan_renamed"):
        return "not shown"
    return value or ""
