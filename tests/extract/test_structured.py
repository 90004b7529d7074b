"""Markup for machines: several syntaxes in one form, and what is broken repaired or reported."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.extract.document import Document, parse_document
from workbench.extract.loosejson import read_json_values, read_value_after
from workbench.extract.structured import Structured, find_items, read_structured, text_of


def read(html: str, url: str = "https://shop.example/p/1") -> tuple[Document, Structured]:
    document = parse_document(html, url=url)
    return document, read_structured(document)


def json_ld(text: str) -> str:
    return f'<html><body><script type="application/ld+json">{text}</script></body></html>'


@pytest.mark.parametrize(
    "text",
    [
        '{"@type": "Product", "name": "Kettle",}',
        '{"@type": "Product", /* the name */ "name": "Kettle"}',
        '{"@type": "Product", "name": "Kettle" // said so\n}',
        '<!-- {"@type": "Product", "name": "Kettle"} -->',
        '//<![CDATA[\n{"@type": "Product", "name": "Kettle"}\n//]]>',
        '{"@type": "Product", "name": "Kettle", "note": "a \\q escape"}',
        '{"@type": "Product", "name": "Kettle", "stock": undefined}',
        '{"@type": "Product", "name": "Kettle"};',
        "{&quot;@type&quot;: &quot;Product&quot;, &quot;name&quot;: &quot;Kettle&quot;}",
        '{"@type": "Product", "name": "Kettle", "offers": {"@type": "Offer", "price": 1',
    ],
)
def test_broken_json_ld_is_repaired_and_reported(text: str) -> None:
    document, structured = read(json_ld(text))
    assert [item["name"] for item in find_items(structured, "Product")] == ["Kettle"]
    assert document.warnings in ([], ["structured data: a JSON-LD block was repaired"])


def test_json_ld_that_cannot_be_read_is_reported_and_hides_nothing_else() -> None:
    good = '<script type="application/ld+json">{"@type": "Product", "name": "Kettle"}</script>'
    document, structured = read(json_ld(f"not json at all</script>{good}<script>"))
    assert len(list(find_items(structured, "Product"))) == 1
    assert document.warnings == ["structured data: a JSON-LD block could not be read"]


def test_several_objects_in_one_block_are_all_read() -> None:
    _, structured = read(json_ld('{"@type": "Product", "name": "A"}\n{"@type": "Product", "name": "B"}'))
    assert [item["name"] for item in find_items(structured, "Product")] == ["A", "B"]


def test_graphs_are_opened_and_references_followed_without_going_in_circles() -> None:
    _, structured = read(
        json_ld(
            """{"@context": "https://schema.org", "@graph": [
            {"@type": "Organization", "@id": "#org", "name": "Maker", "owns": {"@id": "#product"}},
            {"@type": "schema:product", "@id": "#product", "name": "Kettle", "brand": {"@id": "#org"}}]}"""
        )
    )
    product = next(find_items(structured, "Product"))
    assert text_of(product["brand"]) == "Maker"


def test_microdata_keeps_nested_scopes_apart() -> None:
    _, structured = read(
        """<div itemscope itemtype="https://schema.org/Product"><h1 itemprop="name">Kettle</h1>
        <div itemprop="offers" itemscope itemtype="http://schema.org/Offer"><meta itemprop="price" content="19.90">
        <span itemprop="seller" itemscope itemtype="http://schema.org/Organization"><b itemprop="name">Shop</b></span>
        </div></div>"""
    )
    product = next(find_items(structured, "Product"))
    assert product["name"] == "Kettle"
    assert product["offers"]["price"] == "19.90"
    assert product["offers"]["seller"] == {"@type": ("Organization",), "name": "Shop"}


def test_rdfa_lite_and_loose_itemprops_are_read() -> None:
    _, structured = read(
        """<div vocab="https://schema.org/" typeof="Product"><span property="name">Kettle</span>
        <div property="offers" typeof="Offer"><span property="price" content="19.90">19,90 €</span></div></div>
        <meta itemprop="sku" content="K-1">"""
    )
    product = next(find_items(structured, "Product"))
    assert text_of(product["name"]) == "Kettle"
    assert text_of(product["offers"][0]["price"]) == "19.90"
    assert structured.loose == {"sku": "K-1"}


def test_meta_tags_keep_their_first_content() -> None:
    _, structured = read(
        """<html><head><meta property="og:title" content="Kettle &amp; cup"><meta property="OG:Title" content="Other">
        <link rel="canonical" href="https://shop.example/kettle"></head><body></body></html>"""
    )
    assert structured.meta["og:title"] == "Kettle & cup"
    assert structured.meta["canonical"] == "https://shop.example/kettle"


def test_descriptions_lose_tags_and_entities() -> None:
    assert text_of({"name": "<b>Big &amp; small</b>\n kettle"}) == "Big & small kettle"
    assert text_of([None, "", {"@value": "x"}]) == "x"
    assert text_of(True) is None


def test_state_in_scripts_is_read_up_to_its_end() -> None:
    script = 'window.__STATE__ = {"price": 12.5, "tags": ["a"]}; run();'
    assert read_value_after(script, script.index("=") + 1) == {"price": 12.5, "tags": ["a"]}
    assert read_value_after("var x = y;", 7) is None


@given(st.text(max_size=300))
def test_any_text_as_json_is_read_without_an_error(text: str) -> None:
    values, _ = read_json_values(text)
    assert isinstance(values, list)


@given(st.text(alphabet='{}[]",:\\/*<!->\n abc1', max_size=200))
def test_any_heap_of_brackets_is_read_without_an_error(text: str) -> None:
    read_json_values(text)


def test_deep_and_unclosed_input_takes_no_long_time() -> None:
    assert read_json_values("[" * 100_000)[0] == []
    assert read_json_values('{"a":' * 5_000 + "1")[1]
    assert read_json_values("/*" * 100_000) == ([], True)
