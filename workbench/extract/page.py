"""What is read from one page: plain frozen models, no behaviour."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["BillingPeriod", "Claim", "Creative", "Offer", "Page", "Plan", "Review"]

BillingPeriod = Literal["hour", "day", "week", "month", "quarter", "year", "once"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Offer(_Frozen):
    """A product on offer. ``price`` is what a buyer pays now; ``list_price`` a higher, crossed-out one."""

    name: str | None = None
    price: Decimal | None = None
    currency: str | None = None
    """ISO 4217."""
    list_price: Decimal | None = None
    availability: str | None = None
    """schema.org ItemAvailability, short: InStock, OutOfStock, PreOrder, BackOrder, Discontinued, …"""
    sku: str | None = None
    gtin: str | None = None
    mpn: str | None = None
    brand: str | None = None
    condition: str | None = None
    """schema.org OfferItemCondition, short: NewCondition, UsedCondition, RefurbishedCondition, DamagedCondition."""


class Plan(_Frozen):
    """A tier of a pricing page. ``price`` is None where the page says to ask for it; 0 where it is free."""

    name: str
    price: Decimal | None = None
    currency: str | None = None
    billing_period: BillingPeriod | None = None
    per_unit: str | None = None
    """What the price is for one of: user, seat, device, …"""
    features: tuple[str, ...] = ()


class Review(_Frozen):
    """A review as shown. ``rating`` is on a scale that ends at ``rating_scale``."""

    author: str | None = None
    rating: float | None = None
    rating_scale: float | None = None
    title: str | None = None
    text: str = ""
    date: dt.date | None = None


class Claim(_Frozen):
    """A heading or a feature statement, in page order."""

    text: str
    kind: Literal["heading", "statement"]
    level: int | None = None
    """1 to 6 for headings."""


class Creative(_Frozen):
    """An image used to advertise. Sizes in CSS pixels, None where the page does not say."""

    image_url: str
    alt: str | None = None
    width: int | None = None
    height: int | None = None


class Page(_Frozen):
    """Everything read from one page. ``warnings`` say what could not be read, and why."""

    url: str | None = None
    kind: str | None = None
    title: str | None = None
    language: str | None = None
    """ISO 639-1."""
    published: dt.date | None = None
    text: str = ""
    offers: tuple[Offer, ...] = ()
    plans: tuple[Plan, ...] = ()
    reviews: tuple[Review, ...] = ()
    claims: tuple[Claim, ...] = ()
    creatives: tuple[Creative, ...] = ()
    warnings: tuple[str, ...] = ()
