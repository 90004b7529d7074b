"""What the demo's content says is what extraction reads from its pages, for every site's own kind of markup.

Expected values come from the content files (through ``World``), never from here.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

import pytest

from workbench.demo.pages import render_page
from workbench.demo.world import CONTENT, load_world
from workbench.extract import extract_page
from workbench.extract.page import Page
from workbench.workspace import load_workspace

WORLD = load_world()
PAGES = {page.source_id: page for page in WORLD.pages}
KINDS = {ref.source.id: ref.source.kind for ref in load_workspace(CONTENT).sources()}
# The first session, the festival, the day after it, and the last: the four that differ most.
MOMENTS = (WORLD.sessions[0], WORLD.sessions[2], WORLD.sessions[3], WORLD.sessions[-1])


def is_there(source_id: str, moment: datetime) -> bool:
    return source_id in WORLD.state(PAGES[source_id].company_id, moment)["pages"]


CASES = [
    pytest.param(source_id, moment, id=f"{source_id}-{moment:%m%d}")
    for source_id in PAGES
    for moment in MOMENTS
    if is_there(source_id, moment)
]


def cases(*subjects_or_kinds: str) -> list[Any]:
    """The cases of pages by subject, or by the kind that workspace.toml gives them."""
    wanted = set(subjects_or_kinds)
    return [case for case in CASES if wanted & {PAGES[case.values[0]].subject, KINDS[case.values[0]]}]


@cache
def read(source_id: str, moment: datetime) -> Page:
    spec = PAGES[source_id]
    answer = render_page(WORLD, spec, moment)
    assert answer.http_status == 200
    content_type = dict(answer.headers)["Content-Type"]
    return extract_page(answer.payload, url=spec.url, kind=KINDS[source_id], content_type=content_type)


def said(source_id: str, moment: datetime) -> Any:
    """What the content says about the page's subject."""
    spec = PAGES[source_id]
    return WORLD.state(spec.company_id, moment)[spec.subject]


def money(table: dict[str, Any], key: str) -> Decimal | None:
    return Decimal(table[key]) if key in table else None


@pytest.mark.parametrize(("source_id", "moment"), cases("folio", "one", "slate", "m2", "m2_tw"))
def test_product_page(source_id: str, moment: datetime) -> None:
    expected, offers = said(source_id, moment), read(source_id, moment).offers
    assert offers
    main = offers[0]
    assert (main.name, main.price, main.currency) == (
        expected["name"],
        money(expected, "price"),
        expected["currency"],
    )
    assert main.list_price == money(expected, "list_price")
    assert main.availability == expected["availability"]
    assert main.sku == (expected.get("sku") or expected["code"])
    assert (main.gtin, main.mpn, main.brand) == (expected.get("gtin"), expected.get("mpn"), expected.get("brand"))


@pytest.mark.parametrize(("source_id", "moment"), cases("accessories"))
def test_page_of_several_products(source_id: str, moment: datetime) -> None:
    found = {(o.name, o.sku, o.price, o.currency, o.availability) for o in read(source_id, moment).offers}
    assert found == {
        (item["name"], item["sku"], Decimal(item["price"]), item["currency"], item["availability"])
        for item in said(source_id, moment).values()
    }


@pytest.mark.parametrize(("source_id", "moment"), cases("plans"))
def test_pricing_page(source_id: str, moment: datetime) -> None:
    state = WORLD.state(PAGES[source_id].company_id, moment)
    found = read(source_id, moment).plans
    assert [plan.name for plan in found] == [plan["name"] for plan in state["plans"].values()]
    currency = "CNY" if state["site"]["language"] == "zh-CN" else "USD"
    for (key, expected), plan in zip(state["plans"].items(), found, strict=True):
        assert plan.price == money(expected, "price"), plan
        assert plan.per_unit == expected.get("per_unit"), plan
        if plan.price:
            assert (plan.currency, plan.billing_period) == (currency, expected["period"]), plan
        if "matrix" in state:
            # A comparison table: a feature is a row that says something other than no.
            labels = [row["label"] for row in state["matrix"].values() if row[key] is not False]
            assert len(plan.features) == len(labels)
            assert all(label in feature for label, feature in zip(labels, plan.features, strict=True))
        else:
            assert plan.features == tuple(expected["features"])


@pytest.mark.parametrize(("source_id", "moment"), cases("reviews"))
def test_review_page(source_id: str, moment: datetime) -> None:
    first = (PAGES[source_id].review_page - 1) * WORLD.page_size
    expected = WORLD.reviews_at(said(source_id, moment)["product"], moment)[first : first + WORLD.page_size]
    found = read(source_id, moment).reviews
    assert [(r.author, r.rating, r.rating_scale, r.title, squeeze(r.text), r.date) for r in found] == [
        (r.author, r.rating, 5, r.title or None, squeeze(r.text), r.date) for r in expected
    ]


@pytest.mark.parametrize(
    ("source_id", "moment"), [case for case in CASES if KINDS[case.values[0]] not in ("reviews", "pricing")]
)
def test_only_review_pages_have_reviews(source_id: str, moment: datetime) -> None:
    assert read(source_id, moment).reviews == ()


@pytest.mark.parametrize(("source_id", "moment"), cases("folio", "one", "slate", "m2", "m2_tw", "landing"))
def test_claims(source_id: str, moment: datetime) -> None:
    found = [claim.text for claim in read(source_id, moment).claims]
    expected = claims_of(said(source_id, moment))
    assert expected
    assert [claim for claim in found if claim in set(expected)] == expected


@pytest.mark.parametrize(("source_id", "moment"), cases("folio", "one", "slate", "m2", "landing"))
def test_hero_is_a_creative(source_id: str, moment: datetime) -> None:
    hero = said(source_id, moment)["hero"]
    found = {(c.alt, c.width, c.height) for c in read(source_id, moment).creatives if hero["file"] in c.image_url}
    assert found == {(hero["alt"], hero["width"], hero["height"])}


@pytest.mark.parametrize(("source_id", "moment"), CASES)
def test_language_and_characters(source_id: str, moment: datetime) -> None:
    spec, page = PAGES[source_id], read(source_id, moment)
    assert page.language == ("zh" if spec.company_id == "moshu" else "en")
    assert page.title
    everything = page.model_dump_json()
    assert "\ufffd" not in everything
    assert "???" not in everything


@pytest.mark.parametrize(("source_id", "moment"), cases("changelog"))
def test_changelog_text(source_id: str, moment: datetime) -> None:
    releases = said(source_id, moment)[:4]
    text = squeeze(read(source_id, moment).text)
    for release in releases:
        assert release["version"] in text
        assert all(item in text for item in release["items"])


@pytest.mark.parametrize("source_id", ["penrill-teams", "penrill-news", "penrill-pricing", "penrill-one"])
def test_session_tokens_change_nothing(source_id: str) -> None:
    first, second = WORLD.sessions[:2] if source_id != "penrill-teams" else WORLD.sessions[1:3]
    before, after = (render_page(WORLD, PAGES[source_id], moment).payload for moment in (first, second))
    assert before != after
    assert content(read(source_id, first)) == content(read(source_id, second))


def test_cookie_banner_is_no_claim() -> None:
    before, after = (read("larkpaper-slate", moment) for moment in (WORLD.sessions[0], WORLD.sessions[-1]))
    assert "A cookie keeps" in render_page(WORLD, PAGES["larkpaper-slate"], WORLD.sessions[-1]).payload.decode()
    assert content(before) == content(after)


def content(page: Page) -> dict[str, Any]:
    """What changes are looked for in."""
    return page.model_dump(include={"title", "offers", "plans", "claims", "creatives"})


def claims_of(subject: dict[str, Any]) -> list[str]:
    if "sections" in subject:
        return [text for section in subject["sections"].values() for text in [section["heading"], *section["claims"]]]
    claims = subject["claims"]
    return list(claims.values()) if isinstance(claims, dict) else claims


def squeeze(text: str) -> str:
    return " ".join(text.split())


def test_every_page_is_in_some_test() -> None:
    tested = {"folio", "one", "slate", "m2", "m2_tw", "accessories", "plans", "reviews", "releases"}
    subjects = {spec.subject for spec in WORLD.pages if KINDS[spec.source_id] not in ("landing", "news")}
    assert subjects == tested
