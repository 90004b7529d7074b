"""How a price is found: what the page states for machines, checked against and filled from what its readers see."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from rapidfuzz import fuzz

from workbench.extract.availability import (
    find_buy_button,
    normalize_availability,
    normalize_condition,
    read_visible_availability,
)
from workbench.extract.currencies import Market, currency_from_sign, read_market
from workbench.extract.document import Document
from workbench.extract.identifiers import (
    check_gtin,
    find_labelled,
    sku_from_attributes,
    sku_from_named,
    sku_from_url,
)
from workbench.extract.page import Offer
from workbench.extract.prices import parse_price
from workbench.extract.state import read_state_offer
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
from workbench.extract.visible import VisiblePrice, choose_price

__all__ = ["MAX_OFFERS", "read_offers"]

log = logging.getLogger(__name__)

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
_NO_PRICE_KINDS = frozenset({"pricing", "news", "reviews", "changelog"})
_SAME_NAME = 90
_SURE = 2.0
_GONE = ("SoldOut", "OutOfStock", "Discontinued")


@dataclass(frozen=True)
class _Stated:
    """An offer as markup states it. ``rank`` says how much it looks like the page's main product."""

    offer: Offer
    url: str | None = None
    group: str | None = None
    rank: float = 0.0


@dataclass
class _Context:
    document: Document
    structured: Structured
    market: Market
    view: View
    title: str | None
    own_urls: frozenset[str] = field(default_factory=frozenset)


def read_offers(document: Document, structured: Structured, kind: str | None = None) -> tuple[Offer, ...]:
    """Offers on the page, the main product's first. Never raises; what fails becomes a warning on the document."""
    try:
        return _read(document, structured or Structured(), kind)
    except Exception as error:  # A page may hold anything; the other readers still have to run.
        log.debug("offers failed", exc_info=True)
        document.warnings.append(f"offers: could not be read ({type(error).__name__}: {error})"[:300])
        return ()


def _read(document: Document, structured: Structured, kind: str | None) -> tuple[Offer, ...]:
    meta = structured.meta
    title = meta.get("og:title") or meta.get("twitter:title") or _title_of(document)
    context = _Context(
        document=document,
        structured=structured,
        market=read_market(document, meta),
        view=structured.seen(document),
        title=title,
        own_urls=frozenset(
            key
            for url in (document.url, meta.get("canonical"), meta.get("og:url"))
            if (key := _url_key(document, url))
        ),
    )
    stated = sorted(_stated_offers(context), key=lambda entry: -entry.rank)
    main, others = _split_main(context, stated)
    offer = _complete_main(context, main, kind, is_listing=_is_listing(stated))
    offers = [*([offer] if offer is not None else []), *others]
    unique = list(dict.fromkeys(entry for entry in offers if _says_something(entry)))
    if len(unique) > MAX_OFFERS:
        document.warnings.append(f"offers: {len(unique)} found, the first {MAX_OFFERS} are kept")
    return tuple(unique[:MAX_OFFERS])


def _says_something(offer: Offer) -> bool:
    return offer.price is not None or offer.availability is not None or offer.sku is not None


# --- what markup states ---------------------------------------------------------------------------------------------


def _stated_offers(context: _Context) -> Iterator[_Stated]:
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


def _offers_of(context: _Context, product: Item, place: int, *, group: str | None) -> Iterator[_Stated]:
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
        yield _Stated(
            offer=read,
            url=text_of(offer.get("url")) or url,
            group=group or (text_of(product.get("name")) if len(offers) > 1 else None),
            rank=_rank(context, product, read, (url, text_of(offer.get("url"))), place),
        )


def _offer_from_item(context: _Context, product: Item, item: Item) -> Offer:
    currency_text = text_of(item.get("priceCurrency")) or text_of(product.get("priceCurrency"))
    price, currency, list_price = _price_of(context, item, currency_text)
    gtin = next((code for key in _GTIN_KEYS for source in (item, product) if (code := _gtin(source.get(key)))), None)
    availability = normalize_availability(text_of(item.get("availability")) or text_of(product.get("availability")))
    sku = _clean_code(text_of(item.get("sku")) or text_of(product.get("sku")) or _product_id(product))
    return Offer(
        name=_clip(text_of(product.get("name")) or text_of(item.get("name"))),
        price=price,
        currency=currency,
        list_price=list_price,
        availability=availability,
        sku=sku,
        gtin=gtin,
        mpn=_clean_code(text_of(item.get("mpn")) or text_of(product.get("mpn"))),
        brand=_clip(text_of(product.get("brand")) or text_of(product.get("manufacturer")), 80),
        condition=normalize_condition(text_of(item.get("itemCondition")) or text_of(product.get("itemCondition"))),
    )


def _price_of(
    context: _Context, item: Item, currency_text: str | None
) -> tuple[Decimal | None, str | None, Decimal | None]:
    """Price, currency and list price of an offer, its price specifications included."""
    market = context.market
    raw = first(item.get("price"))
    if isinstance(raw, dict):
        item = {**item, **raw}
    price = _amount(item.get("price"), currency_text, market)
    list_price: Decimal | None = None
    for specification in list_of(item.get("priceSpecification")):
        if not isinstance(specification, dict):
            continue
        currency_text = currency_text or text_of(specification.get("priceCurrency"))
        amount = _amount(specification.get("price"), currency_text, market)
        kind = (text_of(specification.get("priceType")) or text_of(specification.get("name")) or "").lower()
        kind = kind.rsplit("/", 1)[-1].replace(" ", "").replace("_", "")
        if amount is None:
            continue
        if any(name in kind for name in _LIST_PRICE_TYPES):
            list_price = max(amount, list_price or amount)
        elif price is None and specification.get("referenceQuantity") is None:
            price = amount
    if price is None:
        price = _amount(item.get("lowPrice"), currency_text, market)
    if price is None:
        price = _amount(item.get("highPrice"), currency_text, market)
    if price is not None and list_price is not None and list_price <= price:
        list_price = None
    return price, _currency(context, item, currency_text), list_price


def _amount(value: Any, currency_text: str | None, market: Market) -> Decimal | None:
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


def _currency(context: _Context, item: Item, currency_text: str | None) -> str | None:
    stated = currency_from_sign(currency_text, context.market)
    if stated:
        return stated
    parsed = parse_price(number_text_of(item.get("price")), context.market)
    return (parsed.currency if parsed else None) or context.market.currency


def _product_id(product: Item) -> str | None:
    value = text_of(product.get("productID")) or text_of(product.get("productId"))
    return value.rsplit(":", 1)[-1] if value else None


def _gtin(value: Any) -> str | None:
    text = number_text_of(value)
    return check_gtin(text.rsplit(":", 1)[-1]) if text else None


def _clean_code(value: str | None) -> str | None:
    if value is None:
        return None
    code = value.strip(" :#")
    return code if 0 < len(code) <= 64 and not code.lower().startswith(("http", "null", "undefined")) else None


def _clip(value: str | None, limit: int = 300) -> str | None:
    return value[:limit].strip() or None if value else None


def _rank(context: _Context, product: Item, offer: Offer, urls: tuple[str | None, ...], place: int) -> float:
    """How much an item looks like what the page is about: same address, same name as the heading, early, priced."""
    rank = -0.02 * min(place, 50)
    keys = {key for url in urls if (key := _url_key(context.document, url))}
    if keys & context.own_urls:
        rank += 1.5
    elif keys and context.own_urls:
        rank -= 0.7
    rank += 2.0 * _name_match(context, offer.name)
    rank += 0.5 if offer.price is not None else 0.0
    rank += 0.2 if product.get("offers") else 0.0
    rank -= 0.3 if set(types_of(product)) <= {"Event", "Service"} else 0.0
    return rank


def _name_match(context: _Context, name: str | None) -> float:
    if not name:
        return 0.0
    heading = context.view.heading
    targets = [text for text in (context.title, heading.text_content() if heading is not None else None) if text]
    return max((fuzz.token_set_ratio(name.lower()[:200], text.lower()[:300]) for text in targets), default=0.0) / 100


def _url_key(document: Document, url: str | None) -> str | None:
    """Host and path: what two addresses of one page have in common, whatever follows the question mark."""
    absolute = document.absolute_url(url)
    if absolute is None:
        return None
    try:
        parts = urlsplit(absolute)
    except ValueError:
        return None
    return f"{parts.netloc.lower().removeprefix('www.')}{parts.path.rstrip('/').lower()}"


def _title_of(document: Document) -> str | None:
    return next(
        (" ".join(text.split()) for node in document.tree.iter("title") if (text := node.text_content())), None
    )


# --- which of them is the page's own --------------------------------------------------------------------------------


def _split_main(context: _Context, stated: list[_Stated]) -> tuple[Offer | None, list[Offer]]:
    """The main product as one offer, and the others. Variants of the main product follow it."""
    if not stated:
        return None, []
    top = stated[0]
    family = [entry for entry in stated if _same_product(entry, top)]
    others = [entry.offer for entry in stated if entry not in family]
    if len(family) == 1:
        return top.offer, others
    head = next((entry.offer for entry in family if entry.offer.availability == "InStock"), top.offer)
    # The product can be bought if one of its variants can; a number that only one variant has is not the product's.
    prices = {entry.offer.price for entry in family if entry.offer.price is not None}
    skus = {entry.offer.sku for entry in family}
    gtins = {entry.offer.gtin for entry in family}
    mpns = {entry.offer.mpn for entry in family}
    head = head.model_copy(
        update={
            "price": top.offer.price
            if len(prices) > 1 and top.offer.availability in (None, "InStock")
            else head.price,
            "sku": head.sku if len(skus) == 1 else None,
            "gtin": head.gtin if len(gtins) == 1 else None,
            "mpn": head.mpn if len(mpns) == 1 else None,
        }
    )
    return head, [entry.offer for entry in family] + others


def _same_product(one: _Stated, two: _Stated) -> bool:
    if one is two or (one.group is not None and one.group == two.group):
        return True
    name, other = one.offer.name, two.offer.name
    return bool(name and other) and fuzz.ratio(str(name).lower(), str(other).lower()) >= _SAME_NAME


def _is_listing(stated: list[_Stated]) -> bool:
    """Many priced products of about the same rank: a category page, where no offer is the page's own."""
    priced = [entry for entry in stated if entry.offer.price is not None]
    names = {entry.offer.name for entry in priced}
    return len(names) >= 4 and priced[0].rank < 1.5


# --- what readers see -----------------------------------------------------------------------------------------------


def _complete_main(context: _Context, main: Offer | None, kind: str | None, *, is_listing: bool) -> Offer | None:
    """Check the main offer against the visible page and fill what markup leaves out."""
    document, view, meta = context.document, context.view, context.structured.meta
    if kind in _NO_PRICE_KINDS and main is None:
        return None
    button = find_buy_button(view)
    visible, visible_list, found = choose_price(document, view, context.market, buy_button=button)
    if kind in _NO_PRICE_KINDS:
        # What such a page shows is not its product's price but that of something it talks about.
        visible, visible_list, found = None, None, []
    tagged = _from_meta(context)
    if visible is None and tagged.price is None and (main is None or main.price is None):
        tagged = _from_state(context, tagged, main, kind)
    near = visible.node if visible else None
    seen = read_visible_availability(view, near)
    labelled = find_labelled(view)
    if main is None:
        # A page that says of one numbered article that it is gone is a product page, though it shows no price.
        is_gone = seen in _GONE and kind is None and bool(labelled.get("sku") or labelled.get("gtin"))
        if is_listing or not (is_gone or _looks_like_product(context, visible, tagged, button is not None, kind)):
            return None
    offer = main or Offer(name=_product_name(context))
    price, list_price = _settle_price(offer, tagged, visible, visible_list, found)
    currency = offer.currency if offer.price is not None else None
    currency = currency or tagged.currency or (visible.price.currency if visible else None) or context.market.currency
    loose = context.structured.loose
    availability = offer.availability or tagged.availability or normalize_availability(loose.get("availability"))
    if availability is None or (button is None and seen in (*_GONE, "PreOrder")):
        availability = seen or availability
    sku = (
        labelled.get("sku")
        or offer.sku
        or tagged.sku
        or _clean_code(loose.get("sku") or loose.get("productID"))
        or sku_from_named(view)
        or sku_from_attributes(document, view)
        or sku_from_url(document, meta.get("canonical"))
    )
    return _replace(
        offer,
        name=offer.name or _product_name(context),
        price=price,
        currency=currency if price is not None else None,
        list_price=list_price,
        availability=availability,
        sku=sku,
        gtin=offer.gtin or labelled.get("gtin") or _gtin(loose.get("gtin13") or loose.get("gtin")),
        mpn=offer.mpn or labelled.get("mpn") or _clean_code(loose.get("mpn")),
        brand=offer.brand or tagged.brand or labelled.get("brand") or _clip(loose.get("brand"), 80),
        condition=offer.condition or tagged.condition,
    )


def _replace(offer: Offer, **changes: Any) -> Offer:
    return offer.model_copy(update=changes)


def _looks_like_product(
    context: _Context, visible: VisiblePrice | None, tagged: Offer, has_button: bool, kind: str | None
) -> bool:
    if kind == "product" or tagged.price is not None:
        return True
    if "product" in context.structured.meta.get("og:type", "").lower():
        return True
    if kind is not None:
        return visible is not None and has_button
    return has_button or (visible is not None and (visible.is_named or visible.score >= _SURE))


def _product_name(context: _Context) -> str | None:
    heading = context.view.heading
    text = " ".join(heading.text_content().split()) if heading is not None else ""
    return _clip(text or context.title)


def _from_meta(context: _Context) -> Offer:
    """What OpenGraph and other meta tags say, and itemprops outside of any item."""
    meta, loose = context.structured.meta, context.structured.loose

    def tag(*names: str) -> str | None:
        return next(
            (
                meta[f"{prefix}{name}"]
                for prefix in ("product:", "og:", "")
                for name in names
                if meta.get(f"{prefix}{name}")
            ),
            None,
        )

    currency_text = tag("price:currency", "sale_price:currency") or loose.get("priceCurrency")
    price = _amount(tag("sale_price:amount"), currency_text, context.market)
    price = price or _amount(tag("price:amount") or loose.get("price"), currency_text, context.market)
    regular = _amount(tag("original_price:amount", "price:standard_amount"), currency_text, context.market)
    if price is None:
        for index in (1, 2):
            # Twitter's product card: a label and a value.
            if "price" in meta.get(f"twitter:label{index}", "").lower():
                price = _amount(meta.get(f"twitter:data{index}"), currency_text, context.market)
    return Offer(
        price=price,
        currency=currency_from_sign(currency_text, context.market),
        list_price=regular if price is not None and regular is not None and regular > price else None,
        availability=normalize_availability(tag("availability")),
        sku=_clean_code(tag("retailer_item_id", "sku") or None),
        brand=_clip(tag("brand"), 80),
        condition=normalize_condition(tag("condition")),
    )


def _from_state(context: _Context, tagged: Offer, main: Offer | None, kind: str | None) -> Offer:
    """The offer in the page's embedded data, where neither markup nor the visible page has a price."""
    if kind in _NO_PRICE_KINDS:
        return tagged
    names = [name for name in (main.name if main else None, _product_name(context), context.title) if name]
    found = read_state_offer(context.document, names, context.market)
    if found is None:
        return tagged
    # What meta tags say stays; embedded data only fills what they leave out.
    stated = {name: value for name, value in tagged.model_dump().items() if value is not None}
    return found.model_copy(update={**stated, "name": None, "price": found.price, "currency": found.currency})


def _settle_price(
    offer: Offer,
    tagged: Offer,
    visible: VisiblePrice | None,
    visible_list: Decimal | None,
    found: list[VisiblePrice],
) -> tuple[Decimal | None, Decimal | None]:
    """Markup's price, unless the page shows its readers another one: then markup carries the regular price."""
    stated = offer.price if offer.price is not None else tagged.price
    list_price = offer.list_price or tagged.list_price
    if visible is None:
        return stated, list_price
    seen = visible.price.amount
    if stated is None:
        return seen, visible_list or list_price
    if stated == seen:
        return stated, list_price or visible_list
    shown = [candidate for candidate in found if candidate.price.amount == stated]
    if shown and all(candidate.is_old for candidate in shown) and seen < stated:
        return seen, stated
    if not shown and tagged.price is not None and tagged.price == seen:
        return seen, visible_list or list_price
    return stated, list_price if list_price is None or list_price > stated else None
