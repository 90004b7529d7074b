"""extract_page: whatever comes in, a Page comes out, and every part of it is there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench.extract as extract
from workbench.extract import EXTRACTOR, extract_page
from workbench.extract.page import Page

PRODUCT = """<!doctype html><html lang="zh"><head><meta charset="{charset}"><title>墨舒 M2 纸感平板 | 墨舒</title>
<meta property="og:site_name" content="墨舒"><meta property="og:image" content="/m2.jpg">
<script type="application/ld+json">{{"@context": "https://schema.org", "@type": "Product", "name": "墨舒 M2 纸感平板",
"sku": "MS-M2-128", "offers": {{"@type": "Offer", "price": "2299.00", "priceCurrency": "CNY",
"availability": "https://schema.org/InStock"}}}}</script></head>
<body><main><h1>墨舒 M2 纸感平板</h1><p>写得像纸，用得比纸久，一块屏幕陪你读完一整个书架的书。</p>
<p class="price">￥2299.00</p><ul><li>一次充电可用约 3 周</li><li>支持 18W 快充</li></ul></main></body></html>"""


@pytest.mark.parametrize(
    ("declared", "encoding"), [("gbk", "gbk"), ("gb2312", "gbk"), ("utf-8", "gbk"), ("utf-8", "utf-8")]
)
def test_a_chinese_product_page_whole(declared: str, encoding: str) -> None:
    page = extract_page(
        PRODUCT.format(charset=declared).encode(encoding), url="https://www.moshu.example/m2", kind="product"
    )
    assert page.title == "墨舒 M2 纸感平板"
    assert page.language == "zh"
    assert page.kind == "product"
    assert page.url == "https://www.moshu.example/m2"
    assert "写得像纸" in page.text
    (offer,) = page.offers
    assert (offer.name, str(offer.price), offer.currency) == ("墨舒 M2 纸感平板", "2299.00", "CNY")
    assert (offer.sku, offer.availability) == ("MS-M2-128", "InStock")
    assert "一次充电可用约 3 周" in [claim.text for claim in page.claims]
    assert page.creatives[0].image_url == "https://www.moshu.example/m2.jpg"


def test_a_page_survives_json_and_back() -> None:
    page = extract_page(PRODUCT.format(charset="utf-8"), url="https://www.moshu.example/m2", kind="product")
    assert Page.model_validate_json(page.model_dump_json()) == page


@pytest.mark.parametrize(
    "reader", ["read_offers", "read_plans", "read_reviews", "read_claims", "read_creatives", "read_text"]
)
def test_one_reader_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("out of paper")

    monkeypatch.setattr(extract, reader, fail)
    page = extract_page(PRODUCT.format(charset="utf-8"), kind="product")
    assert f"{reader.removeprefix('read_')}: could not be read (ValueError: out of paper)" in page.warnings
    parts = {"offers": page.offers, "claims": page.claims, "creatives": page.creatives, "text": page.text}
    kept = {name for name, part in parts.items() if part}
    # The picture of this page has no address without the page's own.
    assert kept == {"offers", "claims", "text"} - {reader.removeprefix("read_")}
    assert page.title == "墨舒 M2 纸感平板"


def test_the_extractor_is_named_by_version_and_sources() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\+[0-9a-f]{8}", EXTRACTOR)


def test_markup_in_a_title_stays_text() -> None:
    page = extract_page("<title>&lt;script&gt;alert(1)&lt;/script&gt;</title><p>x")
    assert page.title == "<script>alert(1)</script>"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 2000,
        b"%PDF-1.7\n" + bytes(range(256)) * 20,
        b'{"price": "9.99", "items": [1, 2, 3]}',
        b"<?xml version='1.0'?><rss><channel><item><title>x</title></item></channel></rss>",
        b"<div>" * 50_000 + b"deep",
        b"<table><tr><td>" * 3000,
        b"<b><p>" * 2000,
        b"<ul><li>" * 2000,
        b"<html><body><script>" + b"x = {};" * 20_000,
        b"<" * 200_000,
        b"&#xD800;&#0;&#x1F;&bogus;&#99999999999;",
        b"<p class='" + b"a" * 300_000,
        "\ud800\udfff<p>x",
        "<title></title><h1></h1><p></p><img><a></a><time></time><script type='application/ld+json'>{{{</script>",
    ],
    ids=range(15),
)
@pytest.mark.parametrize("kind", [None, "pricing"])
def test_nothing_raises(data: str | bytes, kind: str | None) -> None:
    page = extract_page(data, url="https://a.example/", kind=kind)
    assert page.model_dump_json()


def test_large_pages_are_read() -> None:
    words = "A paragraph with a few words in it that nobody has to read to the end. "
    paragraph = f"<p>{words * 300}</p>"
    page = extract_page(f"<html><body><main>{paragraph * 150}</main></body></html>")
    assert "nobody has to read" in page.text
    assert any("too many for trafilatura" in warning for warning in page.warnings)


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([None, "product", "pricing", "changelog", "reviews", "news", "landing", "ads"]),
)
def test_random_bytes_make_a_page(data: bytes, kind: str | None) -> None:
    assert extract_page(data, url="https://a.example/x", kind=kind).model_dump_json()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_pages_make_a_page(data: st.DataObject) -> None:
    page = bytearray(PRODUCT.format(charset="utf-8").encode())
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(page)))
        length = data.draw(st.integers(0, 40))
        page[start : start + length] = data.draw(
            st.one_of(st.binary(max_size=20), st.sampled_from([b"<", b'"', b"<p", b"\xff"]))
        )
    assert extract_page(bytes(page), url="https://a.example/x", kind="product").model_dump_json()
