"""Offers on golden pages: one page for each way in which shops state what they sell, and for what."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.extract.availability import normalize_availability, normalize_condition
from workbench.extract.document import parse_document
from workbench.extract.identifiers import check_gtin
from workbench.extract.offers import MAX_OFFERS, read_offers
from workbench.extract.page import Offer
from workbench.extract.plans import read_plans
from workbench.extract.reviews import read_reviews
from workbench.extract.structured import read_structured

URL = "https://shop.example/p/kettle"


def read(html: str, *, url: str = URL, kind: str | None = None) -> tuple[tuple[Offer, ...], list[str]]:
    document = parse_document(html, url=url)
    return read_offers(document, read_structured(document), kind), document.warnings


def one(html: str, **options: Any) -> Offer:
    offers, _ = read(html, **options)
    assert len(offers) >= 1
    return offers[0]


def json_ld(text: str, body: str = "") -> str:
    return f'<html lang="en"><body><script type="application/ld+json">{text}</script>{body}</body></html>'


def shop_page(main: str, *, lang: str = "en", after: str = "") -> str:
    """A page as shops make them: a header with a basket, the product, other products, a footer."""
    return f"""<html lang="{lang}"><head><title>Kettle - Shop</title></head><body>
    <header><a href="/">Shop</a> <div class="mini-cart">Basket: $0.00</div></header>
    <main><div class="product">{main}</div>
    <section class="related-products"><h2>You may also like</h2>
    <ul><li><a href="/p/cup">Cup <span class="price">$4.00</span></a></li>
    <li><a href="/p/pot">Pot <span class="price">$24.00</span></a> Sold out</li></ul></section></main>{after}
    <footer>Free shipping over $49</footer></body></html>"""


# --- markup ---------------------------------------------------------------------------------------------------------


def test_everything_an_offer_states_is_read() -> None:
    offer = one(
        json_ld(
            """{"@context": "https://schema.org", "@type": "Product", "name": "Kettle", "sku": "K-1", "mpn": "KT100",
            "gtin13": "4006381333931", "brand": {"@type": "Brand", "name": "Stove &amp; Co"},
            "offers": {"@type": "Offer", "price": 79.5, "priceCurrency": "EUR", "itemCondition": "https://schema.org/NewCondition",
            "availability": "https://schema.org/InStock"}}"""
        )
    )
    assert offer == Offer(
        name="Kettle",
        price=Decimal("79.5"),
        currency="EUR",
        availability="InStock",
        sku="K-1",
        gtin="4006381333931",
        mpn="KT100",
        brand="Stove & Co",
        condition="NewCondition",
    )


@pytest.mark.parametrize(
    ("offers", "price", "list_price"),
    [
        (
            '{"@type": "AggregateOffer", "lowPrice": "10.00", "highPrice": "30.00", "priceCurrency": "USD"}',
            "10.00",
            None,
        ),
        ('{"@type": "Offer", "priceSpecification": {"price": "10.00", "priceCurrency": "USD"}}', "10.00", None),
        (
            """{"@type": "Offer", "price": "10.00", "priceCurrency": "USD", "priceSpecification":
            {"@type": "UnitPriceSpecification", "priceType": "https://schema.org/ListPrice", "price": 15}}""",
            "10.00",
            "15",
        ),
        (
            """{"@type": "Offer", "priceCurrency": "USD", "priceSpecification": [
            {"priceType": "https://schema.org/StrikethroughPrice", "price": "15.00"}, {"price": "10.00"}]}""",
            "10.00",
            "15.00",
        ),
        ('{"@type": "Offer", "price": "$1,299.00", "priceCurrency": "USD"}', "1299.00", None),
        ('{"@type": "Offer", "price": "1.299,00", "priceCurrency": "EUR"}', "1299.00", None),
        ('[{"@type": "Offer", "price": "10.00", "priceCurrency": "USD"}]', "10.00", None),
        (
            """{"@type": "AggregateOffer", "priceCurrency": "USD", "offers": [
            {"@type": "Offer", "price": "10.00"}, {"@type": "Offer", "price": "10.00"}]}""",
            "10.00",
            None,
        ),
    ],
)
def test_prices_are_found_wherever_schema_org_lets_them_be(offers: str, price: str, list_price: str | None) -> None:
    offer = one(json_ld(f'{{"@type": "Product", "name": "Kettle", "offers": {offers}}}'))
    assert offer.price == Decimal(price)
    assert offer.list_price == (Decimal(list_price) if list_price else None)


def test_a_price_of_zero_in_markup_is_no_price() -> None:
    offer = one(
        json_ld(
            '{"@type": "Product", "name": "Kettle", "sku": "K-1", "offers": {"price": "0", "priceCurrency": "ILS"}}'
        )
    )
    assert (offer.price, offer.currency) == (None, None)


def test_the_page_s_own_product_comes_first() -> None:
    page = json_ld(
        """[{"@type": "Product", "name": "Cup", "url": "https://shop.example/p/cup", "offers": {"price": 4}},
        {"@type": "Product", "name": "Kettle", "url": "https://shop.example/p/kettle", "offers": {"price": 30}}]""",
        "<h1>Kettle</h1>",
    )
    offers, _ = read(page)
    assert [(offer.name, offer.price) for offer in offers] == [("Kettle", Decimal(30)), ("Cup", Decimal(4))]


def test_variants_make_one_product_that_is_in_stock_if_one_of_them_is() -> None:
    page = json_ld(
        """{"@type": "ProductGroup", "name": "Kettle", "productGroupID": "K", "brand": "Stove", "hasVariant": [
        {"@type": "Product", "sku": "K-R", "offers": {"price": 30, "availability": "OutOfStock"}},
        {"@type": "Product", "sku": "K-B", "offers": {"price": 30, "availability": "InStock"}}]}""",
        "<h1>Kettle</h1>",
    )
    offers, _ = read(page)
    assert [(offer.name, offer.brand, offer.availability, offer.sku) for offer in offers] == [
        ("Kettle", "Stove", "InStock", None),
        ("Kettle", "Stove", "OutOfStock", "K-R"),
        ("Kettle", "Stove", "InStock", "K-B"),
    ]


def test_an_offer_names_its_item_too() -> None:
    page = json_ld(
        """{"@type": "Offer", "price": "30.00", "priceCurrency": "USD",
        "itemOffered": {"@type": "Product", "name": "Kettle", "sku": "K-1"}}"""
    )
    assert (one(page).name, one(page).sku, one(page).price) == ("Kettle", "K-1", Decimal("30.00"))


def test_open_graph_prices_are_read() -> None:
    offer = one(
        """<html><head><meta property="og:type" content="product"><meta property="og:title" content="Kettle">
        <meta property="product:price:amount" content="30.00"><meta property="product:price:currency" content="CAD">
        <meta property="product:availability" content="out of stock"><meta property="product:brand" content="Stove">
        <meta property="product:original_price:amount" content="40.00"></head><body><h1>Kettle</h1></body></html>"""
    )
    assert (offer.price, offer.list_price, offer.currency) == (Decimal("30.00"), Decimal("40.00"), "CAD")
    assert (offer.availability, offer.brand) == ("OutOfStock", "Stove")


def test_more_offers_than_sense_are_cut_with_a_warning() -> None:
    products = ",".join(
        f'{{"@type": "Product", "name": "Thing {n}", "sku": "T{n}", "offers": {{"price": {n}}}}}'
        for n in range(1, MAX_OFFERS + 20)
    )
    offers, warnings = read(json_ld(f"[{products}]"))
    assert len(offers) == MAX_OFFERS
    assert any(warning.startswith("offers: ") for warning in warnings)


# --- what readers see -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "lang", "price", "list_price", "currency"),
    [
        (
            '<h1>Kettle</h1><div class="price-box"><del>$40.00</del> <span class="price">$30.00</span></div>',
            "en",
            "30.00",
            "40.00",
            "USD",
        ),
        ('<h1>Kettle</h1><p class="price">Was £40.00 Now £30.00</p>', "en-GB", "30.00", "40.00", "GBP"),
        (
            '<h1>Wasserkocher</h1><p>UVP 49,95 €</p><p class="preis">39,95 €</p><p>Grundpreis 3,99 € / 100 g</p>',
            "de",
            "39.95",
            "49.95",
            "EUR",
        ),
        ('<h1>Kettle</h1><span class="price"><sup>$</sup>12<sup>95</sup></span>', "en", "12.95", None, "USD"),
        ('<h1>Bouilloire</h1><div class="prix">19 €95</div>', "fr", "19.95", None, "EUR"),
        (
            '<h1>Kettle</h1><span class="amount">$30.00</span> or 4 payments of <span class="amount">$7.50</span>',
            "en",
            "30.00",
            None,
            "USD",
        ),
        (
            """<h1>水壶</h1><div>市场价：<span>¥199.00</span></div>
            <div>促销价：<em class="p-price">¥149.00</em></div><div>运费：¥12.00</div>""",
            "zh-CN",
            "149.00",
            "199.00",
            "CNY",
        ),
        ('<h1>ケトル</h1><p class="price">￥２，９８０</p>', "ja", "2980", None, "JPY"),
        (
            '<h1>Kettle</h1><p>Shipping: $5.99</p><p class="our-price">$30.00</p><p>You save $10.00</p>',
            "en",
            "30.00",
            None,
            "USD",
        ),
    ],
)
def test_the_visible_price_is_the_one_a_buyer_pays(
    main: str, lang: str, price: str, list_price: str | None, currency: str
) -> None:
    offer = one(shop_page(main, lang=lang))
    assert (offer.price, offer.list_price, offer.currency) == (
        Decimal(price),
        Decimal(list_price) if list_price else None,
        currency,
    )


def test_a_struck_price_in_markup_gives_way_to_the_one_beside_it() -> None:
    page = json_ld(
        '{"@type": "Product", "name": "Kettle", "offers": {"price": "40.00", "priceCurrency": "USD"}}',
        '<h1>Kettle</h1><p class="price"><s>$40.00</s> <b class="sale-price">$30.00</b></p><button>Buy now</button>',
    )
    offer = one(page)
    assert (offer.price, offer.list_price) == (Decimal("30.00"), Decimal("40.00"))


def test_prices_of_other_products_are_not_the_page_s() -> None:
    assert read(shop_page("<h1>About us</h1><p>We have made kettles since 1920.</p>"), kind="news")[0] == ()
    assert read(shop_page("<h1>About us</h1><p>We have made kettles since 1920.</p>"))[0] == ()


@pytest.mark.parametrize(
    ("url", "lang", "currency"),
    [
        ("https://shop.example.ca/p/kettle", "en", "CAD"),
        ("https://shop.example.com.au/p/kettle", "en", "AUD"),
        ("https://shop.example/en-nz/p/kettle", "en", "NZD"),
        ("https://shop.example.tw/p/kettle", "zh-TW", "TWD"),
        ("https://shop.example/p/kettle", "en-SG", "SGD"),
        ("https://shop.example/p/kettle", "en", "USD"),
    ],
)
def test_a_dollar_is_the_market_s_dollar(url: str, lang: str, currency: str) -> None:
    page = shop_page('<h1>Kettle</h1><p class="price">$30.00</p><button>Add to cart</button>', lang=lang)
    assert one(page, url=url).currency == currency


@pytest.mark.parametrize(
    ("main", "lang", "availability"),
    [
        ("<button>Add to cart</button>", "en", "InStock"),
        ("<button disabled>Add to cart</button>", "en", "OutOfStock"),
        ("<button disabled>Sold out</button><p>Sold out</p>", "en", "SoldOut"),
        ('<p class="stock">Out of stock</p>', "en", "OutOfStock"),
        ('<p class="stock">Only 3 left in stock</p><button>Add to cart</button>', "en", "LimitedAvailability"),
        ("<p>Currently unavailable.</p>", "en", "OutOfStock"),
        ("<button>Pre-order now</button><p>Ships in May. Pre-order</p>", "en", "PreOrder"),
        ("<p>This model is discontinued</p>", "en", "Discontinued"),
        ("<button>In den Warenkorb</button>", "de", "InStock"),
        ('<p class="lieferstatus">Derzeit nicht verfügbar</p>', "de", "OutOfStock"),
        ("<button>Ajouter au panier</button>", "fr", "InStock"),
        ("<p>Rupture de stock</p>", "fr", "OutOfStock"),
        ("<button>加入购物车</button>", "zh-CN", "InStock"),
        ("<p>售罄</p>", "zh-CN", "SoldOut"),
        (
            '<p>库存：<span class="stock">暂时缺货，到货通知</span></p><button>到货通知</button>',
            "zh-CN",
            "OutOfStock",
        ),
        ('<span class="stock">预售，12 月 5 日发出</span><button>立即预订</button>', "zh-CN", "PreSale"),
        ("<button>放入購物車</button>", "zh-TW", "InStock"),
        ("<button>カートに入れる</button>", "ja", "InStock"),
        ("<button>В корзину</button>", "ru", "InStock"),
        (
            "<select><option>Red - sold out</option><option>Blue</option></select><button>Buy now</button>",
            "en",
            "InStock",
        ),
    ],
)
def test_availability_is_what_the_page_tells_its_readers(main: str, lang: str, availability: str) -> None:
    page = shop_page(f'<h1>Kettle</h1><p class="price">$30.00</p>{main}', lang=lang)
    assert one(page).availability == availability


@pytest.mark.parametrize(
    ("main", "sku"),
    [
        ("<p>SKU: KT-100</p>", "KT-100"),
        ("<p>Art.-Nr.: 12345</p>", "12345"),
        ("<table><tr><th>Item #</th><td>998877</td></tr></table>", "998877"),
        ("<p>商品编号：MS-1</p>", "MS-1"),
        ("<dl><dt>Артикул</dt><dd>01245</dd></dl>", "01245"),
        ('<span class="product-reference">1002/710</span>', "1002/710"),
        ('<form><input type="hidden" name="product_id" value="4711"><button>Add to cart</button></form>', "4711"),
        ("<p>Model: the best one</p>", None),
    ],
)
def test_article_numbers_are_read_from_labels_names_and_forms(main: str, sku: str | None) -> None:
    page = shop_page(f'<h1>Kettle</h1><p class="price">$30.00</p>{main}')
    assert one(page).sku == sku


def test_an_article_number_in_the_address_counts_if_the_page_uses_it() -> None:
    page = shop_page('<h1>Kettle</h1><p class="price">$30.00</p><img src="/img/8472913.jpg" data-id="8472913">')
    assert one(page, url="https://shop.example/kettle-8472913.html").sku == "8472913"
    assert one(page, url="https://shop.example/kettle-5551234.html").sku is None


@pytest.mark.parametrize(
    ("text", "gtin"),
    [
        ("4006381333931", "4006381333931"),
        ("4006381333932", None),
        ("978-0-306-40615-7", "9780306406157"),
        ("0-306-40615-2", "9780306406157"),
        ("036000291452", "036000291452"),
        ("96385074", "96385074"),
        ("0000000000000", None),
        ("12345", None),
        (None, None),
    ],
)
def test_only_trade_numbers_with_a_right_check_digit_are_kept(text: str | None, gtin: str | None) -> None:
    assert check_gtin(text) == gtin


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("http://schema.org/InStock", "InStock"),
        ("https://schema.org/PreOrder", "PreOrder"),
        ("in stock", "InStock"),
        ("in_stock", "InStock"),
        ("oos", "OutOfStock"),
        ("Out of stock", "OutOfStock"),
        ("LimitedAvailability", "LimitedAvailability"),
        ("http://schema.org/SoldOut/", "SoldOut"),
        ("Auf Lager", "InStock"),
        ("whatever", None),
        (None, None),
    ],
)
def test_availability_in_markup_gets_its_short_name(value: str | None, name: str | None) -> None:
    assert normalize_availability(value) == name


def test_conditions_get_their_short_name() -> None:
    assert normalize_condition("http://schema.org/UsedCondition") == "UsedCondition"
    assert normalize_condition("New without tags") == "NewCondition"
    assert normalize_condition("renewed") is None


@pytest.mark.parametrize(
    "data",
    [
        '<script id="__NEXT_DATA__" type="application/json">{"items": [{"name": "Cup", "price": 4}, %s]}</script>',
        '<script>window.__STATE__ = {"page": {"product": %s}}; start();</script>',
        '<script>dataLayer.push({"ecommerce": {"detail": {"products": [%s]}}});</script>',
        "<div data-product='%s'></div>",
    ],
)
def test_embedded_data_is_read_where_nothing_else_has_a_price(data: str) -> None:
    product = '{"name": "Steel kettle", "sku": "K-77", "brand": {"name": "Stove"}, "price": {"value": 30.5}}'
    page = shop_page("<h1>Steel kettle</h1>" + data.replace("%s", product) + "<button>Add to cart</button>")
    offer = one(page)
    assert (offer.name, offer.price, offer.sku, offer.brand) == ("Steel kettle", Decimal("30.5"), "K-77", "Stove")


def test_prices_in_cents_are_read_as_such() -> None:
    data = '<script>var product = {"title": "Steel kettle", "price": 3050, "compare_at_price": null};</script>'
    assert one(shop_page(f"<h1>Steel kettle</h1>{data}<button>Add to cart</button>")).price == Decimal("30.5")


def test_embedded_data_about_another_product_is_left_alone() -> None:
    data = '<script>var state = {"name": "Copper pan", "price": 99};</script>'
    assert one(shop_page(f"<h1>Steel kettle</h1>{data}<button>Add to cart</button>")).price is None


# --- anything at all ------------------------------------------------------------------------------------------------

GOLDEN = shop_page(
    """<h1>Kettle</h1><div itemscope itemtype="https://schema.org/Product"><span itemprop="name">Kettle</span>
    <div itemprop="offers" itemscope itemtype="https://schema.org/Offer"><span itemprop="price">30.00</span></div>
    <div itemprop="review" itemscope><p class="review">★★★☆☆ 3 November 2026 Fine</p></div></div>
    <div class="plans"><div><h3>A</h3>$5 / month</div><div><h3>B</h3>Free</div></div>
    <table><tr><th></th><th>A</th><th>B</th></tr><tr><td>x</td><td>$5 / month</td><td>✓</td></tr></table>""",
    after='<script type="application/ld+json">{"@type": "Product", "offers": [{"price": "1"}]}</script>',
)


def read_all(html: str) -> None:
    document = parse_document(html, url=URL)
    structured = read_structured(document)
    for kind in (None, "pricing", "reviews"):
        read_offers(document, structured, kind)
        read_plans(document, structured, kind)
        read_reviews(document, structured, kind)
    # The readers report an error of their own as a warning; here there must be none to report.
    assert [warning for warning in document.warnings if "could not be read (" in warning] == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_page_with_parts_cut_doubled_or_swapped_is_read_without_an_error(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    text = GOLDEN
    for _ in range(chance.randint(1, 8)):
        start, end = sorted(chance.randint(0, len(text)) for _ in range(2))
        part = text[start:end]
        text = chance.choice(
            [text[:start] + text[end:], text[:end] + part + text[end:], text[:start] + part[::-1] + text[end:]]
        )[:20_000]
    read_all(text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    read_all(text)


def test_very_deep_pages_are_read_without_an_error() -> None:
    read_all("<div class='review price'>" * 3000 + "$5 / month" + "</div>" * 3000)
    read_all(json_ld('{"offers":' * 500 + "1" + "}" * 500))
