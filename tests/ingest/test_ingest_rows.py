from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.extract.page import Claim, Creative, Offer, Page, Plan, Review
from workbench.ingest.rows import Shown, detect_review_language, offer_key, review_id, rows_from_pages
from workbench.store.tables import TABLES

SALT = b"salt"
READ = ("pages", "offers", "plans", "claims", "reviews", "creatives")


def shown(page: Page, **values: Any) -> Shown:
    given: dict[str, Any] = {
        "snapshot_id": "s",
        "company_id": "ondine",
        "source_id": "folio",
        "url": "https://ondine.example/folio",
        "fetched_at": dt.datetime(2026, 11, 16, tzinfo=dt.timezone.utc),
        "kind": "product",
        "http_status": 200,
        "payload_sha256": "0" * 64,
        "page": page,
    }
    return Shown(**{**given, **values})


def tables_of(*pages: Shown) -> dict[str, list[dict[str, Any]]]:
    rows = rows_from_pages(pages, extractor="x", salt=SALT, keep=frozenset())
    return {table: rows.frame(table).to_dicts() for table in READ}


FULL = Page(
    title="Folio",
    language="en",
    published=dt.date(2026, 11, 1),
    text="All about the Folio.",
    offers=(
        Offer(name="Folio", price=Decimal("399"), list_price=Decimal("449.00005"), currency="USD", sku="OF-1"),
        Offer(name="Pen"),
    ),
    plans=(Plan(name="Free", price=Decimal("0"), features=("a", "b")), Plan(name="Team")),
    reviews=(Review(author="Ann Lee", rating=4, rating_scale=5, text="Good pen.", date=dt.date(2026, 11, 2)),),
    claims=(Claim(text="Folio", kind="heading", level=1), Claim(text="Writes like paper", kind="statement")),
    creatives=(Creative(image_url="https://ondine.example/a.png", alt="A pen", width=10, height=20),),
    warnings=("no price for offer 2",),
)


def test_everything_on_a_page_becomes_rows() -> None:
    found = tables_of(shown(FULL))
    for table in READ:
        assert all(row["snapshot_id"] == "s" and row["company_id"] == "ondine" for row in found[table])
    assert [(row["position"], row["offer_key"], row["price"]) for row in found["offers"]] == [
        (0, "OF-1", Decimal("399.0000")),
        (1, "pen", None),
    ]
    assert found["offers"][0]["list_price"] == Decimal("449.0000"), "half a unit of the last place goes to even"
    assert [(row["name"], row["price"], row["features"]) for row in found["plans"]] == [
        ("Free", Decimal("0.0000"), ["a", "b"]),
        ("Team", None, []),
    ]
    assert [(row["kind"], row["level"], row["text"]) for row in found["claims"]] == [
        ("heading", 1, "Folio"),
        ("statement", None, "Writes like paper"),
    ]
    assert found["creatives"][0]["width"] == 10
    assert found["reviews"][0]["rating_scale"] == 5
    page = found["pages"][0]
    assert (page["title"], page["extractor"], page["warnings"]) == ("Folio", "x", ["no price for offer 2"])


@pytest.mark.parametrize("status", [404, 410, 500])
def test_an_error_page_has_a_row_in_pages_only(status: int) -> None:
    found = tables_of(shown(FULL, http_status=status))
    assert found["pages"][0]["http_status"] == status
    assert found["pages"][0]["text"] == "All about the Folio."
    assert all(not found[table] for table in READ if table != "pages")


money = st.none() | st.decimals(allow_nan=False, allow_infinity=False)
numbers = st.none() | st.floats()
texts = st.text(max_size=20)
maybe = st.none() | texts
pages = st.builds(
    Page,
    title=maybe,
    language=maybe,
    text=texts,
    offers=st.lists(st.builds(Offer, name=maybe, price=money, list_price=money, sku=maybe), max_size=3).map(tuple),
    plans=st.lists(st.builds(Plan, name=texts, price=money), max_size=2).map(tuple),
    reviews=st.lists(
        st.builds(Review, author=maybe, rating=numbers, rating_scale=numbers, title=maybe, text=texts), max_size=3
    ).map(tuple),
    claims=st.lists(
        st.builds(Claim, text=texts, kind=st.just("heading"), level=st.none() | st.integers(1, 6)), max_size=2
    ).map(tuple),
    creatives=st.lists(
        st.builds(Creative, image_url=texts, alt=maybe, width=st.none() | st.integers(), height=st.none()), max_size=2
    ).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(page=pages)
def test_any_page_fits_the_tables(page: Page) -> None:
    rows = rows_from_pages([shown(page)], extractor="x", salt=SALT, keep=frozenset())
    for table in READ:
        frame = rows.frame(table)
        assert frame.schema == TABLES[table].schema
    assert rows.frame("offers").height == len(page.offers)
    assert rows.frame("reviews").height == len(page.reviews)


def test_what_is_no_amount_is_left_out_with_a_word() -> None:
    page = Page(
        offers=(Offer(name="a", price=Decimal("1e30"), list_price=Decimal("-1e15")),),
        plans=(Plan(name="b", price=Decimal("99999999999999.99999")),),
        creatives=(Creative(image_url="x", width=2**40, height=-1),),
    )
    found = tables_of(shown(page))
    assert (found["offers"][0]["price"], found["offers"][0]["list_price"], found["plans"][0]["price"]) == (None,) * 3
    assert (found["creatives"][0]["width"], found["creatives"][0]["height"]) == (None, None)
    assert [note.split(":")[0] for note in found["pages"][0]["warnings"]] == [
        "price of offer 1 left out",
        "list price of offer 1 left out",
        "price of plan 1 left out",
    ]


@pytest.mark.parametrize(
    ("offer", "key"),
    [
        (Offer(gtin="1", sku="2", mpn="3", name="N"), "1"),
        (Offer(sku="2", mpn="3", name="N"), "2"),
        (Offer(mpn="3", name="N"), "3"),
        (Offer(name="  Slate　10 PRO "), "slate 10 pro"),
        (Offer(name="ＦＯＬＩＯ"), "folio"),
        (Offer(), "#4"),
    ],
)
def test_offer_key(offer: Offer, key: str) -> None:
    assert offer_key(offer, 4) == key


def identify(company: str = "ondine", salt: bytes = SALT, **values: Any) -> str:
    given: dict[str, Any] = {
        "author": "Ann Lee",
        "rating": 4,
        "rating_scale": 5,
        "title": "Fine",
        "text": "Good pen.",
        "date": dt.date(2026, 11, 2),
    }
    return review_id(Review(**{**given, **values}), company, salt=salt)


@pytest.mark.parametrize(
    "values",
    [
        {"author": "ann  LEE "},
        {"text": " Good\n pen. "},
        {"title": "FINE"},
        {"rating": 8, "rating_scale": 10},
    ],
)
def test_the_same_review_has_the_same_id(values: dict[str, Any]) -> None:
    assert identify(**values) == identify()


@pytest.mark.parametrize(
    "values",
    [
        {"author": "Bo Lee"},
        {"author": None},
        {"text": "Good pen!"},
        {"title": None},
        {"rating": 5},
        {"rating": None},
        {"date": dt.date(2026, 11, 3)},
        {"date": None},
        {"company": "penrill"},
    ],
)
def test_another_review_has_another_id(values: dict[str, Any]) -> None:
    assert identify(**values) != identify()


def test_an_id_does_not_give_a_name_away() -> None:
    """Who does not have the salt cannot try names; without a name the salt plays no part."""
    assert identify(salt=b"other") != identify()
    assert identify(author=None, salt=b"other") == identify(author=None)


@pytest.mark.parametrize(
    ("text", "page_language", "expected"),
    [
        ("手感很好，写字像在纸上。", "zh", "zh"),
        ("手感很好，写字像在纸上。", "en", "zh"),
        ("手感很好，推荐 Ondine Folio", None, "zh"),
        ("Great pen, my notes are all there.", "zh", "en"),
        ("Great pen, my notes are all there.", None, "en"),
        ("Der Stift ist gut.", "de", "de"),
        ("The menu says 设置 and I cannot change it to English", "en", "en"),
        ("ペンがとても書きやすいです。", "ja", "ja"),
        ("", "zh", "zh"),
        ("5/5 !!!", None, None),
    ],
)
def test_language_of_a_review(text: str, page_language: str | None, expected: str | None) -> None:
    assert detect_review_language(text, page_language) == expected
