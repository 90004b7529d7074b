"""Tiers of a pricing page: cards side by side, columns of a comparison table, or offers in JSON-LD."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from lxml.html import HtmlElement

from workbench.extract.billing import asks_for_contact, period_from_code, read_period, read_unit, says_free
from workbench.extract.currencies import Market, currency_from_sign, read_market
from workbench.extract.document import Document
from workbench.extract.page import Plan
from workbench.extract.plan_tables import read_table_plans
from workbench.extract.prices import parse_price
from workbench.extract.segments import Segment, segments_of
from workbench.extract.structured import Structured, find_items, list_of, number_text_of, text_of
from workbench.extract.tiers import has_price, plan_from_texts
from workbench.extract.view import View, describe

__all__ = ["read_plans"]

log = logging.getLogger(__name__)

_MAX_PLANS = 12
_MAX_FEATURES = 100
_MAX_PIECES = 200
"""A part of the page with more pieces of text than this is no card."""
_NAME_CLASS = re.compile(r"name|title|tier|heading|plan[-_]?(?:type|label)", re.IGNORECASE)
_BADGE = re.compile(
    r"^\W*(?:most popular|popular|recommended|best (?:value|seller|deal)|new|save \d+\s?%|beliebt\w*|empfohlen|"
    r"bestseller|populaire|"
    r"recommandé|más popular|consigliato|最受欢迎|最受歡迎|推荐|推薦|热门|熱門|超值|おすすめ|人気)\W*$",
    re.IGNORECASE,
)


def read_plans(document: Document, structured: Structured | None, kind: str | None = None) -> tuple[Plan, ...]:
    """Tiers in page order; on a page that is no pricing page only what clearly is a set of tiers. Never raises."""
    try:
        return _read(document, structured or Structured(), kind)
    except Exception as error:  # A page may hold anything; the other readers still have to run.
        log.debug("plans failed", exc_info=True)
        document.warnings.append(f"plans: could not be read ({type(error).__name__}: {error})"[:300])
        return ()


def _read(document: Document, structured: Structured, kind: str | None) -> tuple[Plan, ...]:
    if kind not in (None, "pricing", "landing", "product"):
        return ()
    view = structured.seen(document)
    market = read_market(document, structured.meta)
    cards: list[Plan] = []
    tables: list[Plan] = []
    priced = list(_priced_nodes(view, market))
    if kind == "pricing" or _speaks_of_time(view, market):
        cards = _card_plans(view, market, priced)
        tables = read_table_plans(document, view, market, priced)
    plans = cards if len(cards) >= 2 and _are_tiers(cards, kind) else tables
    if plans is cards and tables:
        by_name = {plan.name.casefold(): plan for plan in tables}
        plans = [_fill(plan, by_name.get(plan.name.casefold())) for plan in cards]
    if len(plans) < 2 or not _are_tiers(plans, kind):
        stated = _stated_plans(structured, market)
        plans = stated if len(stated) >= 2 and _are_tiers(stated, kind) else plans if kind == "pricing" else []
    if not plans and kind == "pricing":
        document.warnings.append("plans: no tiers were found on a page said to be a pricing page")
    currencies = {plan.currency for plan in plans if plan.currency}
    if len(currencies) == 1:
        # "Free" stands without a sign; it is free in the currency of the others.
        plans = [
            plan.model_copy(update={"currency": next(iter(currencies))})
            if plan.price == 0 and not plan.currency
            else plan
            for plan in plans
        ]
    return tuple(plans[:_MAX_PLANS])


def _are_tiers(plans: Sequence[Plan], kind: str | None) -> bool:
    """Products side by side have prices too; tiers are billed by time, or one of them is free or on request."""
    if len({plan.name for plan in plans}) < len(plans):
        return False
    priced = [plan for plan in plans if plan.price is not None]
    if kind == "pricing":
        return bool(priced)
    timed = [plan for plan in priced if plan.billing_period not in (None, "once")]
    rest = [plan for plan in plans if plan.price is None or plan.price == 0]
    return len(timed) >= 2 or (len(timed) == 1 and bool(rest))


def _fill(plan: Plan, other: Plan | None) -> Plan:
    if other is None or plan.features:
        return plan
    return plan.model_copy(update={"features": other.features})


# --- cards ----------------------------------------------------------------------------------------------------------


def _card_plans(view: View, market: Market, priced: Sequence[HtmlElement]) -> list[Plan]:
    """The set of sibling elements of which most hold a name and a price; the largest set, the innermost on a tie."""
    holders: dict[HtmlElement, dict[HtmlElement, None]] = defaultdict(dict)
    for node in priced:
        chain = view.chain(node)
        for child, parent in pairwise(chain):
            if parent.tag in ("html", "table", "thead", "tbody", "tr", "select"):
                break
            holders[parent][child] = None
    best: list[Plan] = []
    known: dict[HtmlElement, Plan | None] = {}
    for parent, children in holders.items():
        if not 2 <= len(children) <= _MAX_PLANS or view.traits(parent).is_struck:
            continue
        tag = next(iter(children)).tag
        cards = [node for node in parent if node.tag == tag and (node in children or _is_like(node, children))]
        if sum(node in children for node in cards) < 2:
            continue
        for node in cards:
            if node not in known:
                known[node] = _plan_from_card(node, view, market)
        plans = [plan for node in cards if (plan := known[node]) is not None]
        if len(plans) >= 2 and len(plans) >= len(children) * 0.6 and _weight(plans) > _weight(best):
            best = plans
    return best


def _speaks_of_time(view: View, market: Market) -> bool:
    """Whether some price on the page is followed by the time it is for: a cheap look before the dear one."""
    lines = view.lines
    return any(
        has_price(raw, market) and read_period(" ".join(text[:60] for _, _, text in lines[place : place + 4]))
        for place, (_, _, raw) in enumerate(lines)
    )


def _weight(plans: Sequence[Plan]) -> float:
    return sum(1 + 0.5 * bool(plan.billing_period) + 0.2 * bool(plan.features) for plan in plans)


def _is_like(node: HtmlElement, children: dict[HtmlElement, None]) -> bool:
    """A card without a price, told by the class it shares with the others."""
    own = set((node.get("class") or "").split())
    return any(own & set((other.get("class") or "").split()) for other in children) if own else False


def _priced_nodes(view: View, market: Market) -> Iterator[HtmlElement]:
    for _, owner, raw in view.lines:
        text = " ".join(raw.split())
        if len(text) > 200:
            continue
        is_sign = len(text) <= 3 and currency_from_sign(text, market) is not None
        if is_sign or says_free(text) or asks_for_contact(text) or has_price(text, market):
            yield owner


def _plan_from_card(node: HtmlElement, view: View, market: Market) -> Plan | None:
    segments = segments_of(node, view, limit=_MAX_PIECES)
    if not segments or len(segments) == _MAX_PIECES:
        return None
    name_at = _find_name(segments)
    if name_at is None:
        return None
    name = segments[name_at].text
    texts = [segment.text for place, segment in enumerate(segments) if place != name_at and not segment.is_struck]
    controls = {segment.text for segment in segments if segment.is_control}
    plan = plan_from_texts(name, texts, market, ignored=controls)
    if plan is None:
        return None
    return plan.model_copy(update={"features": _features(node, segments, name_at, plan, market)})


def _find_name(segments: Sequence[Segment]) -> int | None:
    def is_name(segment: Segment) -> bool:
        return 0 < len(segment.text) <= 60 and not _BADGE.match(segment.text) and not segment.is_struck

    for place, segment in enumerate(segments):
        if segment.is_heading and is_name(segment) and not has_price(segment.text):
            return place
    for place, segment in enumerate(segments[:6]):
        if is_name(segment) and _NAME_CLASS.search(describe(segment.node)):
            return place
    for place, segment in enumerate(segments[:3]):
        if is_name(segment) and not segment.is_control and not has_price(segment.text):
            return place
    return None


def _features(
    node: HtmlElement, segments: Sequence[Segment], name_at: int, plan: Plan, market: Market
) -> tuple[str, ...]:
    """List items where the card has a list; otherwise what follows the price, line by line."""
    items = [segment.text for segment in segments if segment.is_item and not segment.is_heading]
    if node.tag == "li":
        items = [
            segment.text
            for segment in segments
            if any(above.tag in ("li", "dd") for above in segment.node.iterancestors() if above is not node)
            and _is_inside_item(segment.node, node)
        ]
    if not items:
        start = name_at
        for place, segment in enumerate(segments):
            if plan.price is not None and has_price(segment.text, market):
                start = max(start, place)
        items = [
            segment.text
            for segment in segments[start + 1 :]
            if not segment.is_control
            and not segment.is_heading
            and len(segment.text) > 3
            and read_period(segment.text) is None
            and not says_free(segment.text)
            and not asks_for_contact(segment.text)
        ]
    cleaned = (re.sub(r"^[\s✓✔☑✅√•·●\-–—*]+", "", text).strip() for text in items)
    return tuple(dict.fromkeys(text for text in cleaned if text))[:_MAX_FEATURES]


def _is_inside_item(node: HtmlElement, card: HtmlElement) -> bool:
    current: HtmlElement | None = node
    while current is not None and current is not card:
        if current.tag in ("li", "dd"):
            return True
        current = current.getparent()
    return False


# --- JSON-LD --------------------------------------------------------------------------------------------------------


def _stated_plans(structured: Structured, market: Market) -> list[Plan]:
    plans: list[Plan] = []
    for offer in find_items(structured, "Offer"):
        name = text_of(offer.get("name")) or next(
            (text for item in list_of(offer.get("itemOffered")) if (text := text_of(item))), None
        )
        specification = next(
            (entry for entry in list_of(offer.get("priceSpecification")) if isinstance(entry, dict)), {}
        )
        amount = number_text_of(offer.get("price")) or number_text_of(specification.get("price"))
        price = parse_price(amount, market)
        if name is None or price is None:
            continue
        code = text_of(offer.get("priceCurrency")) or text_of(specification.get("priceCurrency"))
        quantity = next(
            (entry for entry in list_of(specification.get("referenceQuantity")) if isinstance(entry, dict)), {}
        )
        period = next(
            (
                period
                for value in (
                    specification.get("billingDuration"),
                    specification.get("unitCode"),
                    specification.get("unitText"),
                    quantity.get("unitCode"),
                    quantity.get("unitText"),
                )
                if (period := period_from_code(text_of(value)))
            ),
            None,
        )
        plans.append(
            Plan(
                name=name,
                price=price.amount,
                currency=currency_from_sign(code, market) or price.currency,
                billing_period=period or read_period(text_of(offer.get("description")) or ""),
                per_unit=read_unit(f"per {text_of(specification.get('unitText'))}"),
            )
        )
    return list({plan.name: plan for plan in reversed(plans)}.values())[::-1]
