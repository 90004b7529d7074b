"""Tiers from a comparison table: one column a tier, one row a feature."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lxml.html import HtmlElement

from workbench.extract.currencies import Market
from workbench.extract.document import Document
from workbench.extract.page import Plan
from workbench.extract.segments import segments_of
from workbench.extract.tiers import has_price, plan_from_texts
from workbench.extract.view import View, describe

__all__ = ["read_table_plans"]

_MAX_COLUMNS = 12
_MAX_ROWS = 400
_YES = re.compile(
    r"^\W*(?:[✓✔☑✅√●•⚫]|yes|y|ja|oui|s[íi]|да|included|unlimited access|是|有|支持|含|包含|あり|○)\W*$",
    re.IGNORECASE,
)
_NO = re.compile(
    r"^\W*(?:[✗✘✕✖❌×xX–—-]|no|n|nein|non|нет|not included|not available|none|n/a|否|无|無|不支持|なし)?\W*$",
    re.IGNORECASE,
)
_YES_NAME = re.compile(r"check|tick|yes|included|available|true|(?<!un)supported", re.IGNORECASE)
_NO_NAME = re.compile(
    r"cross|times|(?<![a-z])no(?![a-z])|not[-_ ]|close|minus|dash|unavailable|unsupported|false", re.IGNORECASE
)
_PRICE_ROW = re.compile(
    r"^\W*(?:price|pricing|cost|monthly|yearly|annual|per month|preis|prix|precio|prezzo|preço|prijs|pris|cena|"
    r"цена|价格|價格|月费|年费|"
    r"料金|가격)",
    re.IGNORECASE,
)


def read_table_plans(document: Document, view: View, market: Market, priced: Sequence[HtmlElement]) -> list[Plan]:
    """The tiers of the table on the page that has most of them; empty where no table compares priced columns."""
    best: list[Plan] = []
    around = {above for node in priced for above in view.chain(node)}
    for table in document.tree.iter("table"):
        if table not in around:
            continue
        plans = _plans_from_table(table, view, market)
        if len(plans) > len(best):
            best = plans
    return best


def _plans_from_table(table: HtmlElement, view: View, market: Market) -> list[Plan]:
    rows = [_cells(row) for row in list(table.iter("tr"))[:_MAX_ROWS]]
    rows = [row for row in rows if row]
    if len(rows) < 2:
        return []
    header = rows[0]
    if not 3 <= len(header) <= _MAX_COLUMNS + 1:
        return []
    columns = list(range(1, len(header)))
    heads = [_texts(header[column], view) for column in columns]
    if any(not texts for texts in heads):
        return []
    priced: dict[int, list[str]] = {column: texts[1:] for column, texts in zip(columns, heads, strict=True)}
    skipped: set[int] = set()
    for place, row in enumerate(rows[1:], start=1):
        label = " ".join(_texts(row[0], view)) if row[0] is not None else ""
        with_price = sum(has_price(" ".join(_texts(cell, view)), market) for cell in row[1:])
        named = bool(_PRICE_ROW.match(label))
        if len(row) != len(header) or not (with_price and (named or (with_price >= 2 and not skipped))):
            continue
        if not skipped:
            for column in columns:
                # The row's label carries the period where the cell does not: "Price per month".
                priced[column] = [*_texts(row[column], view), label, *priced[column]]
        skipped.add(place)
    plans = []
    for column, texts in zip(columns, heads, strict=True):
        plan = plan_from_texts(texts[0], priced[column], market)
        if plan is None:
            return []
        features = _features(rows, column, len(header), view, skipped)
        plans.append(plan.model_copy(update={"features": features}))
    return plans if any(plan.price is not None for plan in plans) else []


def _cells(row: HtmlElement) -> list[HtmlElement]:
    cells: list[HtmlElement] = []
    for cell in row:
        if cell.tag in ("td", "th"):
            span = cell.get("colspan") or "1"
            cells += [cell] * (int(span) if span.isdigit() and 1 <= int(span) <= _MAX_COLUMNS else 1)
    return cells


def _texts(cell: HtmlElement, view: View) -> list[str]:
    return [segment.text for segment in segments_of(cell, view) if not segment.is_struck]


def _features(
    rows: Sequence[Sequence[HtmlElement]], column: int, width: int, view: View, skipped: set[int]
) -> tuple[str, ...]:
    found: list[str] = []
    for place, row in enumerate(rows[1:], start=1):
        if place in skipped or len(row) != width or row[0] is row[column]:
            continue
        label = " ".join(_texts(row[0], view))
        value = _value(row[column], view)
        if not label or value is None:
            continue
        found.append(f"{label}: {value}" if value else label)
    return tuple(dict.fromkeys(found))


def _value(cell: HtmlElement, view: View) -> str | None:
    """None: not in this tier. Empty: in it. Otherwise what or how much of it."""
    text = " ".join(_texts(cell, view))
    labels = [
        label
        for node in cell.iter()
        if isinstance(node.tag, str)
        for label in (*map(node.get, ("aria-label", "alt", "title")), describe(node) if node is not cell else "")
        if label
    ]
    if text and _YES.match(text):
        return ""
    if not _NO.match(text):
        return text
    if text or any(_NO.match(label) or _NO_NAME.search(label) for label in labels):
        return None
    return "" if any(_YES.match(label) or _YES_NAME.search(label) for label in labels) else None
