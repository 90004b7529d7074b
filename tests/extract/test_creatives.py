"""Creatives: the pictures that advertise, with address, text and size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.extract.creatives import MAX_CREATIVES, read_creatives
from workbench.extract.document import parse_document
from workbench.extract.page import Creative

SITE = "https://penrill.example/one"


def read(body: str, head: str = "") -> tuple[Creative, ...]:
    html = f"<html><head>{head}</head><body>{body}</body></html>"
    return read_creatives(parse_document(html, url=SITE))


def urls(body: str, head: str = "") -> list[str]:
    return [creative.image_url for creative in read(body, head)]


def test_the_shared_image_comes_first_and_is_not_repeated() -> None:
    head = "<meta property='og:image' content='/hero.jpg'><meta property='og:image:width' content='1200'>"
    creatives = read("<img src='/side.jpg'><img src='/hero.jpg?w=800' alt='One, on a train' height='630'>", head)
    assert creatives == (
        Creative(image_url="https://penrill.example/hero.jpg", alt="One, on a train", width=1200, height=630),
        Creative(image_url="https://penrill.example/side.jpg"),
    )


@pytest.mark.parametrize(
    ("image", "width", "height"),
    [
        ("<img src='a.jpg' width='640' height='480'>", 640, 480),
        ("<img src='a.jpg' width='640px' height='100%'>", 640, None),
        ("<img src='a.jpg' style='width: 300px; height:200.5px'>", 300, 200),
        ("<img src='a.jpg' srcset='a-400.jpg 400w, a-1600.jpg 1600w'>", 1600, None),
        ("<img src='a.jpg' srcset='a-2x.jpg 2x'>", None, None),
        ("<img src='a.jpg' width='99999999'>", None, None),
    ],
)
def test_size(image: str, width: int | None, height: int | None) -> None:
    (creative,) = read(image)
    assert (creative.width, creative.height) == (width, height)
    assert creative.image_url == "https://penrill.example/a.jpg"


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("<img src='data:image/gif;base64,R0' data-src='/lazy.jpg'>", "/lazy.jpg"),
        ("<img src='/blank.gif' data-original='/lazy.jpg'>", "/lazy.jpg"),
        ("<img srcset='/s.jpg 400w, /l.jpg 1600w'>", "/l.jpg"),
        ("<picture><source srcset='/p.webp 800w'><img alt='x'></picture>", "/p.webp"),
        ("<div style=\"background-image: url('/hero.jpg')\">Hello</div>", "/hero.jpg"),
    ],
)
def test_where_the_picture_is(image: str, url: str) -> None:
    assert urls(image) == [f"https://penrill.example{url}"]


@pytest.mark.parametrize(
    "markup",
    [
        "<img src='data:image/png;base64,AAAA'>",
        "<img src='/t.gif' width='1' height='1'>",
        "<img src='https://www.facebook.com/tr?id=1'>",
        "<img src='/img/cart-icon.png'>",
        "<img src='/img/logo.svg'>",
        "<img src='/sprite.png' class='sprite'>",
        "<img src='/small.png' width='24'>",
        "<nav><img src='/a.jpg'></nav>",
        "<header><img src='/a.jpg'></header>",
        "<footer><img src='/a.jpg'></footer>",
        "<div class='reviews'><img src='/reader.jpg'></div>",
        "<div class='related-products'><img src='/other.jpg'></div>",
        "<img>",
        "<img src=''>",
        "<img src='http://['>",
    ],
)
def test_what_is_no_creative(markup: str) -> None:
    assert urls(f"<h1>One</h1>{markup}") == []


def test_names_of_the_page_itself_rule_nothing_out() -> None:
    assert urls("<div class='page related'><h1>One</h1><img src='/hero.jpg'></div>") == [
        "https://penrill.example/hero.jpg"
    ]


def test_picture_services_name_the_picture_in_the_query() -> None:
    body = "<img src='https://cdn.example/i?id=1'><img src='https://cdn.example/i?id=2'>"
    assert urls(body) == ["https://cdn.example/i?id=1", "https://cdn.example/i?id=2"]


def test_a_page_keeps_so_many() -> None:
    assert len(read("".join(f"<img src='/{number}.jpg'>" for number in range(200)))) == MAX_CREATIVES


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80), st.text(max_size=40), st.text(max_size=40))
def test_any_attribute_is_survived(source: str, srcset: str, style: str) -> None:
    def quote(text: str) -> str:
        return text.replace("&", "&amp;").replace('"', "&quot;")

    body = f'<img src="{quote(source)}" srcset="{quote(srcset)}" style="{quote(style)}" width="{quote(style)}">'
    assert all(creative.image_url.startswith(("http://", "https://")) for creative in read(body))
