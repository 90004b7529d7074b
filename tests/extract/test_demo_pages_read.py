"""The demo's pages are read as they were written: every product, tier and review, at every session."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from workbench.demo.pages import render_page
from workbench.demo.world import PageSpec, World, load_world
from workbench.extract.document import parse_document
from workbench.extract.offers import read_offers
from workbench.extract.page import Offer, Plan, Review
from workbench.extract.plans import read_plans
from workbench.extract.reviews import read_reviews
from workbench.extract.structured import read_structured

WORLD = load_world()
PRODUCTS = [spec for spec in WORLD.pages if "/product" in spec.template]
PLANS = [
    spec for spec in WORLD.pages if spec.template.rpartition("/")[2] in ("pricing.html", "plans.html", "cloud.html")
]
REVIEWS = [spec for spec in WORLD.pages if spec.review_page]
OTHERS = [spec for spec in WORLD.pages if spec not in (*PRODUCTS, *PLANS, *REVIEWS)]


def read(
    world: World, spec: PageSpec, moment: Any, kind: str | None
) -> tuple[tuple[Offer, ...], tuple[Plan, ...], tuple[Review, ...], list[str]] | None:
    page = render_page(world, spec, moment)
    if page.http_status != 200:
        return None
    document = parse_document(page.payload, url=spec.url, content_type=spec.content_type)
    structured = read_structured(document)
    return (
        read_offers(document, structured, kind),
        read_plans(document, structured, kind),
        read_reviews(document, structured, kind),
        document.warnings,
    )


@pytest.mark.parametrize("kind", ["product", None])
@pytest.mark.parametrize("spec", PRODUCTS, ids=lambda spec: spec.source_id)
def test_products_are_read_at_every_session(spec: PageSpec, kind: str | None) -> None:
    for moment in WORLD.sessions:
        found = read(WORLD, spec, moment, kind)
        if found is None:
            continue
        written = WORLD.state(spec.company_id, moment)[spec.subject]
        offers, plans, reviews, warnings = found
        assert len(offers) == 1
        offer = offers[0]
        assert offer.name == written["name"]
        assert offer.price == Decimal(str(written["price"]))
        assert offer.currency == written["currency"]
        assert offer.list_price == (Decimal(str(written["list_price"])) if "list_price" in written else None)
        assert offer.availability == written["availability"], (moment, written.get("stock_note"))
        assert offer.sku == written.get("sku", written.get("code"))
        assert (plans, reviews, warnings) == ((), (), [])


@pytest.mark.parametrize("kind", ["pricing", None])
@pytest.mark.parametrize("spec", PLANS, ids=lambda spec: spec.source_id)
def test_tiers_are_read_at_every_session(spec: PageSpec, kind: str | None) -> None:
    for moment in WORLD.sessions:
        found = read(WORLD, spec, moment, kind)
        if found is None:
            continue
        state = WORLD.state(spec.company_id, moment)
        _, plans, _, _ = found
        written = list(state["plans"].values())
        currency = "CNY" if spec.company_id == "moshu" else "USD"
        assert [plan.name for plan in plans] == [plan["name"] for plan in written]
        for plan, truth in zip(plans, written, strict=True):
            assert plan.price == (Decimal(str(truth["price"])) if "price" in truth else None)
            assert plan.per_unit == truth.get("per_unit")
            if plan.price:
                assert (plan.currency, plan.billing_period) == (currency, truth["period"])
            if "features" in truth:
                assert plan.features == tuple(truth["features"])


@pytest.mark.parametrize("kind", ["reviews", None])
@pytest.mark.parametrize("spec", REVIEWS, ids=lambda spec: spec.source_id)
def test_reviews_are_read_whole(spec: PageSpec, kind: str | None) -> None:
    moment = WORLD.sessions[-1]
    found = read(WORLD, spec, moment, kind)
    assert found is not None
    state = WORLD.state(spec.company_id, moment)
    first = (spec.review_page - 1) * WORLD.page_size
    written = WORLD.reviews_at(state["reviews"]["product"], moment)[first : first + WORLD.page_size]
    assert [
        (review.author, review.rating, review.rating_scale, review.title, review.text, review.date)
        for review in found[2]
    ] == [(one.author, float(one.rating), 5.0, one.title or None, one.text, one.date) for one in written]


@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: spec.source_id)
def test_nothing_is_found_where_nothing_is_for_sale(spec: PageSpec) -> None:
    found = read(WORLD, spec, WORLD.sessions[-1], None)
    if found is None or "accessories" in spec.template:
        return
    offers, plans, reviews, _ = found
    assert not [offer for offer in offers if offer.price is not None]
    assert (plans, reviews) == ((), ())
