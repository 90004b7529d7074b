"""What a page's markup states about its offers, each with how much it looks like the page's own product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from rapidfuzz import fuzz

from workbench.extract.availability import normalize_availability, normalize_condition
from workbench.extract.currencies import Market, currency_from_sign
from workbench.extract.document import Document
from workbench.extract.identifiers import check_gtin
from workbench.extract.page import Offer
from workbench.extract.prices import parse_price
from workbench.extract.structured import (
    Item,
    Structured,
    find_items,
    first,
    list_of,
    number_text_of,
    text_of,
    types_of,
)
from workbench.extract.view import View

__all__ = [
    "MAX_OFFERS",
    "Context",
    "StatedOffer",
    "clean_code",
    "clip",
    "read_amount",
    "read_gtin",
    "read_stated_offers",
    "url_key",
]

MAX_OFFERS = 50
"""More offers than this on one page are a listing; the rest is left out with a warning."""

_PRODUCT_TYPES = (
    "Product",
    "ProductGroup",
    "ProductModel",
    "IndividualProduct",
    "SomeProducts",
    "Vehicle",
    "Car",
    "Book",
    "SoftwareApplication",
    "WebApplication",
    "MobileApplication",
    "Event",
    "Service",
)
_OFFER_TYPES = ("Offer", "AggregateOffer", "OfferForPurchase", "OfferForLease", "Demand")
_GTIN_KEYS = ("gtin13", "gtin", "gtin14", "gtin12", "gtin8", "ean", "isbn", "upc", "productID")
_LIST_PRICE_TYPES = ("listprice", "strikethroughprice", "srp", "msrp", "regularprice", "suggestedretailprice")


@dataclass(frozen=True)
class StatedOffer:
    """An offer as markup states it. ``rank`` says how much it looks like the page's main product."""

    offer: Offer
    url: str | None = None
    group: str | None = None
    rank: float = 0.0


@dataclass
class Context:
    """What the readers of one page's offers share."""

    document: Document
    structured: Structured
    market: Market
    view: View
    title: str | None
    own_urls: frozenset[str] = field(default_factory=frozenset)


def read_stated_offers(context: Context) -> Iterator[StatedOffer]:
    """Every offer that JSON-LD, microdata or RDFa state, variants and offered items included, in page order."""
    used: set[int] = set()
    offered = {
        id(item): offer
        for offer in find_items(context.structured, *_OFFER_TYPES)
        for item in list_of(offer.get("itemOffered"))
        if isinstance(item, dict)
    }
    for place, found in enumerate(find_items(context.structured, *_PRODUCT_TYPES)):
        if id(found) in used or (place > 0 and "Event" in types_of(found) and not found.get("offers")):
            continue
        used.add(id(found))
        product = found
        if not product.get("offers") and id(found) in offered:
            product = {**found, "offers": offered[id(found)]}
        variants = [entry for entry in list_of(product.get("hasVariant")) if isinstance(entry, dict)]
        used.update(map(id, variants))
        for variant in variants:
            yield from _offers_of(context, {**_inherited(product), **variant}, place, group=_group_id(product))
        if not variants or product.get("offers"):
            yield from _offers_of(context, product, place, group=_group_id(product) if variants else None)


def _inherited(group: Item) -> Item:
    return {key: group[key] for key in ("brand", "name", "manufacturer", "url") if key in group}


def _group_id(product: Item) -> str | None:
    return text_of(product.get("productGroupID")) or text_of(product.get("@id")) or text_of(product.get("name"))


def _offers_of(context: Context, product: Item, place: int, *, group: str | None) -> Iterator[StatedOffer]:
    raw = [entry for entry in list_of(product.get("offers")) if isinstance(entry, dict)]
    offers: list[Item] = []
    for entry in raw:
        nested = [inner for inner in list_of(entry.get("offers")) if isinstance(inner, dict)]
        # An AggregateOffer stands for its offers where it has them; some shops wrap one Offer in another.
        offers += [{**{k: v for k, v in entry.items() if k != "offers"}, **inner} for inner in nested] or [entry]
    if not offers:
        # Old microdata puts the price on the product itself.
        offers = [product if product.get("price") is not None else {}]
    url = text_of(product.get("url")) or text_of(product.get("@id"))
    for offer in offers[: MAX_OFFERS * 4]:
        read = _offer_from_item(context, product, offer)
        yield StatedOffer(
            offer=read,
            url=text_of(offer.get("url")) or url,
            group=group or (text_of(product.get("name")) if len(offers) > 1 else None),
            rank=_rank(context, product, read, (url, text_of(offer.get("url"))), place),
        )


def _offer_from_item(context: Context, product: Item, item: Item) -> Offer:
    currency_text = text_of(item.get("priceCurrency")) or text_of(product.get("priceCurrency"))
    price, currency, list_price = _price_of(context, item, currency_text)
    gtin = next(
        (code for key in _GTIN_KEYS for source in (item, product) if (code := read_gtin(source.get(key)))), None
    )
    availability = normalize_availability(text_of(item.get("availability")) or text_of(product.get("availability")))
    sku = clean_code(text_of(item.get("sku")) or text_of(product.get("sku")) or _product_id(product))
    return Offer(
        name=clip(text_of(product.get("name")) or text_of(item.get("name"))),
        price=price,
        currency=currency,
        list_price=list_price,
        availability=availability,
        sku=sku,
        gtin=gtin,
        mpn=clean_code(text_of(item.get("mpn")) or text_of(product.get("mpn"))),
        brand=clip(text_of(product.get("brand")) or text_of(product.get("manufacturer")), 80),
        condition=normalize_condition(text_of(item.get("itemCondition")) or text_of(product.get("itemCondition"))),
    )


def _price_of(
    context: Context, item: Item, currency_text: str | None
) -> tuple[Decimal | None, str | None, Decimal | None]:
    """Price, currency and list price of an offer, its price specifications included."""
    market = context.market
    raw = first(item.get("price"))
    if isinstance(raw, dict):
        item = {**item, **raw}
    price = read_amount(item.get("price"), currency_text, market)
    list_price: Decimal | None = None
    for specification in list_of(item.get("priceSpecification")):
        if not isinstance(specification, dict):
            continue
        currency_text = currency_text or text_of(specification.get("priceCurrency"))
        amount = read_amount(specification.get("price"), currency_text, market)
        kind = (text_of(specification.get("priceType")) or text_of(specification.get("name")) or "").lower()
        kind = kind.rsplit("/", 1)[-1].replace(" ", "").replace("_", "")
        if amount is None:
            continue
        if any(name in kind for name in _LIST_PRICE_TYPES):
            list_price = max(amount, list_price or amount)
        elif price is None and specification.get("referenceQuantity") is None:
            price = amount
    if price is None:
        price = read_amount(item.get("lowPrice"), currency_text, market)
    if price is None:
        price = read_amount(item.get("highPrice"), currency_text, market)
    if price is not None and list_price is not None and list_price <= price:
        list_price = None
    return price, _currency(context, item, currency_text), list_price


def read_amount(value: Any, currency_text: str | None, market: Market) -> Decimal | None:
    """A price from a property's value, read as machines write it, else as people do; None for nothing or zero."""
    text = number_text_of(value)
    if text is None:
        return None
    currency = currency_from_sign(currency_text, market)
    plain = _plain_decimal(text, currency)
    if plain is not None:
        return plain
    parsed = parse_price(text, market, currency_hint=currency_text)
    return parsed.amount if parsed is not None and parsed.amount > 0 else None


def _plain_decimal(text: str, currency: str | None) -> Decimal | None:
    """A number written as machines write it: a point and any number of decimals; "1.299" in markup is 1.299."""
    text = text.strip()
    if not text.replace(".", "", 1).isdigit() or not text.isascii() or len(text) > 18:
        return None
    amount = Decimal(text)
    # Three decimals in a currency that has two or none: the point separates thousands after all.
    if "." in text and len(text.rsplit(".", 1)[1]) == 3 and currency in ("CLP", "IDR", "VND", "COP", "KRW", "HUF"):
        amount = Decimal(text.replace(".", ""))
    return amount if amount > 0 else None


def _currency(context: Context, item: Item, currency_text: str | None) -> str | None:
    stated = currency_from_sign(currency_text, context.market)
    if stated:
        return stated
    parsed = parse_price(number_text_of(item.get("price")), context.market)
    return (parsed.currency if parsed else None) or context.market.currency


def _product_id(product: Item) -> str | None:
    value = text_of(product.get("productID")) or text_of(product.get("productId"))
    return value.rsplit(":", 1)[-1] if value else None


def read_gtin(value: Any) -> str | None:
    """A trade number from a property's value, its check digit tested."""
    text = number_text_of(value)
    return check_gtin(text.rsplit(":", 1)[-1]) if text else None


def clean_code(value: str | None) -> str | None:
    """An article number without the marks around it; None for what cannot be one."""
    if value is None:
        return None
    code = value.strip(" :#")
    return code if 0 < len(code) <= 64 and not code.lower().startswith(("http", "null", "undefined")) else None


def clip(value: str | None, limit: int = 300) -> str | None:
    """A text cut to ``limit`` characters; None where nothing is left."""
    return value[:limit].strip() or None if value else None


def _rank(context: Context, product: Item, offer: Offer, urls: tuple[str | None, ...], place: int) -> float:
    """How much an item looks like what the page is about: same address, same name as the heading, early, priced."""
    rank = -0.02 * min(place, 50)
    keys = {key for url in urls if (key := url_key(context.document, url))}
    if keys & context.own_urls:
        rank += 1.5
    elif keys and context.own_urls:
        rank -= 0.7
    rank += 2.0 * _name_match(context, offer.name)
    rank += 0.5 if offer.price is not None else 0.0
    rank += 0.2 if product.get("offers") else 0.0
    rank -= 0.3 if set(types_of(product)) <= {"Event", "Service"} else 0.0
    return rank


def _name_match(context: Context, name: str | None) -> float:
    if not name:
        return 0.0
    heading = context.view.heading
    targets = [text for text in (context.title, heading.text_content() if heading is not None else None) if text]
    return max((fuzz.token_set_ratio(name.lower()[:200], text.lower()[:300]) for text in targets), default=0.0) / 100


def url_key(document: Document, url: str | None) -> str | None:
    """Host and path: what two addresses of one page have in common, whatever follows the question mark."""
    absolute = document.absolute_url(url)
    if absolute is None:
        return None
    try:
        parts = urlsplit(absolute)
    except ValueError:
        return None
    return f"{parts.netloc.lower().removeprefix('www.')}{parts.path.rstrip('/').lower()}"
