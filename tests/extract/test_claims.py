"""Claims: what a company says of its product, and nothing that stands around it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.extract.claims import read_claims
from workbench.extract.document import parse_document

PRODUCT = """
<html lang="en"><body>
<header><a href="/">Penrill</a> <span>Call us: 555 0100 any day of the week</span></header>
<nav><ul><li><a href="/one">Penrill One</a></li><li>Support and service centre</li></ul></nav>
<main>
<h1>Penrill One</h1>
<p>All of the paper. Half of the fuss.</p>
<p class="price">$319.00</p>
<p>or 4 payments of $79.75</p>
<p>In stock, ships in 24 hours.</p>
<p>4.1 out of 5 from 85 reviews</p>
<button>Add to cart for later use</button>
<h2>Why Penrill One</h2>
<ul><li>Up to three weeks on one charge</li><li>Cloud sync</li><li>Survives a drop from a desk</li>
<li>Up to three weeks  on one charge</li></ul>
<h2>Specifications</h2>
<table><tr><th>Weight</th><td>340 g</td></tr><tr><th>Ports</th><td>USB-C</td></tr></table>
<dl><dt>Memory</dt><dd>64 GB</dd></dl>
<section class="reviews"><h2>Reviews</h2><p>I love this tablet very much.</p></section>
<div itemprop="review"><p>My brother wants one of these too.</p></div>
<blockquote>The best tablet we have ever tested.</blockquote>
<p>Penrill One costs $319 in the United States and ships to every state from our own warehouse.</p>
</main>
<footer><p>Shipping to all of the United States and Canada</p></footer>
<p>© 2026 Penrill Inc. All rights reserved.</p>
<div class="cookie-notice"><p>We use cookies to make this site better for you.</p></div>
<p>We use cookies to make this site better for you, too.</p>
</body></html>
"""


def texts(html: str, kind: str | None = "product") -> list[str]:
    return [claim.text for claim in read_claims(parse_document(html), kind=kind)]


def test_claims_of_a_product_page_in_page_order() -> None:
    claims = read_claims(parse_document(PRODUCT), kind="product")
    assert [(claim.text, claim.kind, claim.level) for claim in claims] == [
        ("Penrill One", "heading", 1),
        ("All of the paper. Half of the fuss.", "statement", None),
        ("Why Penrill One", "heading", 2),
        ("Up to three weeks on one charge", "statement", None),
        ("Cloud sync", "statement", None),
        ("Survives a drop from a desk", "statement", None),
        ("Specifications", "heading", 2),
        ("Weight | 340 g", "statement", None),
        ("Ports | USB-C", "statement", None),
        ("Memory: 64 GB", "statement", None),
        (
            "Penrill One costs $319 in the United States and ships to every state from our own warehouse.",
            "statement",
            None,
        ),
    ]


def test_each_bullet_of_a_changelog_is_a_statement() -> None:
    html = """<main><h1>Release notes</h1><h2>Folio OS 4.2</h2><p>2 November 2026</p>
    <ul><li>Handwriting search (beta)</li><li>Fixed: the clock could be an hour late</li></ul>
    <h2>Folio OS 4.1</h2><p>发布时间：2026年9月7日</p><ul><li>优化翻页速度</li></ul></main>"""
    assert texts(html, "changelog") == [
        "Release notes",
        "Folio OS 4.2",
        "Handwriting search (beta)",
        "Fixed: the clock could be an hour late",
        "Folio OS 4.1",
        "优化翻页速度",
    ]


def test_chinese_claims() -> None:
    html = """<body><h1>墨舒 M2</h1><p>写得像纸，用得比纸久</p><ul><li>一次充电可用约 3 周</li><li>云同步</li></ul>
    <p>库存：暂时缺货，预计 12 月 10 日到货</p>
    <p>商品编号：MS-M2-128</p><p>¥2299.00</p><p>© 2026 墨舒科技 版权所有</p></body>"""
    assert texts(html) == ["墨舒 M2", "写得像纸，用得比纸久", "一次充电可用约 3 周", "云同步"]


def test_pages_of_reviews_make_no_claims() -> None:
    assert texts(PRODUCT, "reviews") == []


def test_a_change_in_one_place_leaves_the_claims_of_all_others() -> None:
    before = texts(PRODUCT)
    after = texts(PRODUCT.replace("Up to three weeks", "Up to five weeks"))
    assert [text.replace("five", "three") for text in after] == before
    longer = texts(PRODUCT.replace("</section>", "<p>More words of a reader. " * 200 + "</section>"))
    assert longer == before


@pytest.mark.parametrize(
    "line",
    [
        "",
        "★★★★☆",
        "$19.99",
        "USD 19.99 per month",
        "19,99 €",
        "Menu",
        "1,204 reviews",
        "Only 3 left in our warehouse",
        "SKU: PN-ONE-64",
        "19 November 2026",
        "word " * 100,
    ],
)
def test_what_is_no_claim(line: str) -> None:
    assert texts(f"<main><h1>One</h1><p>{line}</p></main>") == ["One"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["h2", "p", "li", "td", "nav", "div"]), st.text(max_size=60)), max_size=12))
def test_claims_are_short_and_different(parts: list[tuple[str, str]]) -> None:
    html = "".join(f"<{tag}>{text}</{tag}>" for tag, text in parts)
    found = texts(f"<html><body>{html}</body></html>", None)
    assert len({" ".join(text.casefold().split()) for text in found}) == len(found)
    assert all(0 < len(text) <= 400 for text in found)
