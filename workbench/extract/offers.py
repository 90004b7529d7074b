"""How a price is found: what the page states for machines, checked against and filled from what its readers see."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Any

from rapidfuzz import fuzz

from workbench.extract.availability import (
    find_buy_button,
    normalize_availability,
    normalize_condition,
    read_visible_availability,
)
from workbench.extract.currencies import currency_from_sign, read_market
from workbench.extract.document import Document
from workbench.extract.identifiers import (
    find_labelled,
    sku_from_attributes,
    sku_from_named,
    sku_from_url,
)
from workbench.extract.page import Offer
from workbench.extract.state import read_state_offer
from workbench.extract.stated import (
    MAX_OFFERS,
    Context,
    StatedOffer,
    clean_code,
    clip,
    read_amount,
    read_gtin,
    read_stated_offers,
    url_key,
)
from workbench.extract.structured import (
    Structured,
)
from workbench.extract.visible import VisiblePrice, choose_price

__all__ = ["MAX_OFFERS", "read_offers"]

log = logging.getLogger(__name__)

_NO_PRICE_KINDS = frozenset({"pricing", "news", "reviews", "changelog"})
_SAME_NAME = 90
_SURE = 2.0
_GONE = ("SoldOut", "OutOfStock", "Discontinued")


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
    context = Context(
        document=document,
        structured=structured,
        market=read_market(document, meta),
        view=structured.seen(document),
        title=title,
        own_urls=frozenset(
            key
            for url in (document.url, meta.get("canonical"), meta.get("og:url"))
            if (key := url_key(document, url))
        ),
    )
    stated = sorted(read_stated_offers(context), key=lambda entry: -entry.rank)
    main, others = _split_main(context, stated)
    offer = _complete_main(context, main, kind, is_listing=_is_listing(stated))
    offers = [*([offer] if offer is not None else []), *others]
    unique = list(dict.fromkeys(entry for entry in offers if _says_something(entry)))
    if len(unique) > MAX_OFFERS:
        document.warnings.append(f"offers: {len(unique)} found, the first {MAX_OFFERS} are kept")
    return tuple(unique[:MAX_OFFERS])


def _says_something(offer: Offer) -> bool:
    return offer.price is not None or offer.availability is not None or offer.sku is not None


def _title_of(document: Document) -> str | None:
    return next(
        (" ".join(text.split()) for node in document.tree.iter("title") if (text := node.text_content())), None
    )


# --- which of them is the page's own --------------------------------------------------------------------------------


def _split_main(context: Context, stated: list[StatedOffer]) -> tuple[Offer | None, list[Offer]]:
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


def _same_product(one: StatedOffer, two: StatedOffer) -> bool:
    if one is two or (one.group is not None and one.group == two.group):
        return True
    name, other = one.offer.name, two.offer.name
    return bool(name and other) and fuzz.ratio(str(name).lower(), str(other).lower()) >= _SAME_NAME


def _is_listing(stated: list[StatedOffer]) -> bool:
    """Many priced products of about the same rank: a category page, where no offer is the page's own."""
    priced = [entry for entry in stated if entry.offer.price is not None]
    names = {entry.offer.name for entry in priced}
    return len(names) >= 4 and priced[0].rank < 1.5


# --- what readers see -----------------------------------------------------------------------------------------------


def _complete_main(context: Context, main: Offer | None, kind: str | None, *, is_listing: bool) -> Offer | None:
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
        or clean_code(loose.get("sku") or loose.get("productID"))
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
        gtin=offer.gtin or labelled.get("gtin") or read_gtin(loose.get("gtin13") or loose.get("gtin")),
        mpn=offer.mpn or labelled.get("mpn") or clean_code(loose.get("mpn")),
        brand=offer.brand or tagged.brand or labelled.get("brand") or clip(loose.get("brand"), 80),
        condition=offer.condition or tagged.condition,
    )


def _replace(offer: Offer, **changes: Any) -> Offer:
    return offer.model_copy(update=changes)


def _looks_like_product(
    context: Context, visible: VisiblePrice | None, tagged: Offer, has_button: bool, kind: str | None
) -> bool:
    if kind == "product" or tagged.price is not None:
        return True
    if "product" in context.structured.meta.get("og:type", "").lower():
        return True
    if kind is not None:
        return visible is not None and has_button
    return has_button or (visible is not None and (visible.is_named or visible.score >= _SURE))


def _product_name(context: Context) -> str | None:
    heading = context.view.heading
    text = " ".join(heading.text_content().split()) if heading is not None else ""
    return clip(text or context.title)


def _from_meta(context: Context) -> Offer:
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
    price = read_amount(tag("sale_price:amount"), currency_text, context.market)
    price = price or read_amount(tag("price:amount") or loose.get("price"), currency_text, context.market)
    regular = read_amount(tag("original_price:amount", "price:standard_amount"), currency_text, context.market)
    if price is None:
        for index in (1, 2):
            # Twitter's product card: a label and a value.
            if "price" in meta.get(f"twitter:label{index}", "").lower():
                price = read_amount(meta.get(f"twitter:data{index}"), currency_text, context.market)
    return Offer(
        price=price,
        currency=currency_from_sign(currency_text, context.market),
        list_price=regular if price is not None and regular is not None and regular > price else None,
        availability=normalize_availability(tag("availability")),
        sku=clean_code(tag("retailer_item_id", "sku") or None),
        brand=clip(tag("brand"), 80),
        condition=normalize_condition(tag("condition")),
    )


def _from_state(context: Context, tagged: Offer, main: Offer | None, kind: str | None) -> Offer:
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
