"""Section 3: prices, the price index, plan tiers and stock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from workbench.insight.money import format_amount, format_plan_price
from workbench.insight.price_index import price_index
from workbench.insight.prices import plan_matrix, price_history, stock_transitions
from workbench.report.figure_index import index_figure
from workbench.report.html import day, percent, plural, quoted, render, words
from workbench.report.material import Material, View
from workbench.report.model import Section
from workbench.report.tables import Column, table
from workbench.report.wording import availability_word

__all__ = ["build_prices"]

_WEEKS_OF_INDEX = 12
_FEATURES_SHOWN = 6


def build_prices(material: Material, view: View, number: int) -> Section:
    """Old and new prices, the index against the own price, tiers side by side, changes of availability."""
    workspace, week = material.workspace, material.week
    products = [row for row in material.history.to_dicts() if row["item"] == "product"]
    index = material.index.to_dicts()
    tiers = plan_matrix(material.plans, week).to_dicts()
    compared = [row for row in index if row["index"] is not None]
    stock = stock_transitions(material.offers, workspace=workspace, week=week).to_dicts()
    past = _index_by_week(material)
    title = "Prices and availability"
    body = render(
        "prices",
        number=number,
        title=title,
        summary=_summary(products, material),
        price_table=_price_table(view.cut(products), view, len(products), material) if products else "",
        rates=_rates(material),
        figures=_figures(material, past),
        index_table=_index_table(view.cut(compared), view, len(compared), material) if compared else "",
        not_compared=_not_compared(index, material),
        plan_table=_plan_table(tiers, view, material) if tiers else "",
        stock_table=_stock_table(stock, view, material) if stock else "",
    )
    data = {
        "base_currency": workspace.currency.base,
        "prices": material.history.to_dicts(),
        "index": index,
        "index_by_week": past,
        "plans": tiers,
        "stock_transitions": stock,
    }
    return Section("prices", number, title, "ready", data, body)


def _index_by_week(material: Material) -> list[dict[str, Any]]:
    """The index at the end of each week that has offers, oldest first."""
    rows = []
    first: Any = material.offers["fetched_at"].min()
    for back in range(_WEEKS_OF_INDEX - 1, -1, -1):
        week = material.week.back(back)
        if first is None or week.end <= first:
            continue
        history = price_history(material.offers, workspace=material.workspace, week=week)
        rows += [
            {"week": str(week), **{name: row[name] for name in ("company_id", "category", "index")}}
            for row in price_index(history, material.workspace).to_dicts()
        ]
    return rows


def _figures(material: Material, past: Sequence[Mapping[str, Any]]) -> Markup:
    made: list[Markup] = []
    for category in dict.fromkeys(row["category"] for row in past):
        rows = [row for row in past if row["category"] == category and row["index"] is not None]
        if rows:
            made.append(index_figure(f"f-index-{len(made) + 1}", category, rows, material))
    return Markup("\n").join(made)


def _moved(row: Mapping[str, Any], material: Material) -> bool:
    return row["previous_price"] is not None and row["since"] >= material.week.start


def _summary(products: Sequence[Mapping[str, Any]], material: Material) -> str:
    if not products:
        return "No price was read from the pages seen so far."
    moved = [row for row in products if _moved(row, material)]
    lows = [str(row["product"]) for row in products if row["new_low"]]
    highs = [str(row["product"]) for row in products if row["new_high"]]
    unseen = sum(not row["seen_in_week"] for row in products)
    said = "No price moved this week."
    if moved:
        said = f"{len(moved)} of {plural(len(products), 'price')} moved this week."
    if lows:
        said += f" At a new low: {words(lows)}."
    if highs:
        said += f" At a new high: {words(highs)}."
    if unseen:
        said += f" {plural(unseen, 'price')} could not be seen this week and is shown as last known."
    return said


def _rates(material: Material) -> str:
    policy = material.workspace.currency
    rates = words(f"1 {code} = {rate:f} {policy.base}" for code, rate in sorted(policy.rates.items()))
    return f"Fixed rates: {rates}." if rates else "No rates are given, so currencies are not compared."


def _price_table(rows: Sequence[Mapping[str, Any]], view: View, total: int, material: Material) -> Markup:
    columns = [
        Column("product", "Product"),
        Column("before", "Before", "right"),
        Column("now", "Now", "right"),
        Column("percent", "Move", "right"),
        Column("kind", "Kind of price"),
        Column("days", "Days at price", "right"),
        Column("stock", "Stock"),
        Column("evidence", "Evidence"),
    ]
    made = []
    for row in rows:
        moved = _moved(row, material)
        made.append(
            {
                "company": material.company_name(row["company_id"]),
                "product": Markup("{}{}").format(quoted(row["product"], 80), _seen(row)),
                "before": format_amount(row["previous_price"], row["currency"])
                if row["previous_price"] is not None
                else None,
                "now": Markup("<strong>{}</strong>{}").format(
                    format_amount(row["price"], row["currency"]), _extreme(row)
                ),
                "percent": _move(row, moved),
                "kind": Markup('promotion<span class="small">regular {}</span>').format(
                    format_amount(row["list_price"], row["currency"])
                )
                if row["promotion"]
                else "regular",
                "days": f"{'≥ ' if row['at_least'] else ''}{row['days_at_price']}",
                "stock": _availability(row["availability"]),
                "evidence": _nowrap(view.evidence.cite(row["snapshot_previous"], row["snapshot_id"])),
            }
        )
    caption = "Prices at the end of the week. ≥ : the price stood when the archive began."
    return table("t-prices", caption, columns, made, group="company", total=total)


def _seen(row: Mapping[str, Any]) -> Markup:
    if row["seen_in_week"]:
        return Markup("")
    return Markup('<span class="small">not seen this week, last on {}</span>').format(day(row["last_seen"]))


def _extreme(row: Mapping[str, Any]) -> Markup:
    word = "new low" if row["new_low"] else "new high" if row["new_high"] else ""
    return Markup('<span class="small">{}</span>').format(word) if word else Markup("")


def _move(row: Mapping[str, Any], moved: bool) -> Markup:
    if moved:
        return Markup("{}").format(_arrow(row["percent"]))
    if row["previous_price"] is None:
        return Markup("no change")
    return Markup('no change<span class="small">{}, {}</span>').format(
        _arrow(row["percent"]), day(row["since"]).rpartition(" ")[0]
    )


def _arrow(value: float | None) -> str:
    if value is None:
        return "was free"
    return f"{'▼' if value < 0 else '▲'} {percent(value)}"


def _availability(value: str | None) -> str | None:
    return availability_word(value) if value else None


def _nowrap(markup: Markup) -> Markup:
    return Markup('<span class="nowrap">{}</span>').format(markup)


def _index_table(rows: Sequence[Mapping[str, Any]], view: View, total: int, material: Material) -> Markup:
    columns = [
        Column("company", "Company"),
        Column("category", "Category"),
        Column("index", "Index", "right"),
        Column("gap", "Against our price", "right"),
        Column("note", "From"),
        Column("evidence", "Evidence, ours first"),
    ]
    own = _own_snapshots(material)
    made = [
        {
            "company": material.company_name(row["company_id"]),
            "category": row["category"],
            "index": f"{row['index']:.0f}",
            "gap": percent(row["index"] - 100, 0),
            "note": row["reason"] or plural(row["products"], "product"),
            "evidence": view.evidence.listed([*own.get(row["category"], ()), *row["snapshot_ids"]]),
        }
        for row in rows
    ]
    return table("t-index", "Price index at the end of the week; our own price is 100.", columns, made, total=total)


def _own_snapshots(material: Material) -> dict[str | None, list[str]]:
    own: dict[str | None, list[str]] = {}
    for row in material.history.to_dicts():
        if row["item"] == "product" and row["company_id"] == material.workspace.company.id:
            own.setdefault(row["category"], []).append(row["snapshot_id"])
    return own


def _not_compared(rows: Sequence[Mapping[str, Any]], material: Material) -> list[str]:
    """One line a category for the companies that have no index in it."""
    who: dict[str | None, list[str]] = {}
    why: dict[str | None, str] = {}
    for row in rows:
        if row["index"] is None:
            who.setdefault(row["category"], []).append(material.company_name(row["company_id"]))
            why.setdefault(row["category"], (row["reason"] or "").partition("; ")[0])
    return [f"Not compared in {c or 'no category'}: {words(names)} ({why[c]})." for c, names in who.items()]


def _plan_table(tiers: Sequence[Mapping[str, Any]], view: View, material: Material) -> Markup:
    by_company: dict[str, list[Mapping[str, Any]]] = {}
    for row in tiers:
        by_company.setdefault(row["company_id"], []).append(row)
    ids = sorted(by_company, key=material.company_rank)
    for rows in by_company.values():  # tiers on request and paid once have no monthly price and come last
        rows.sort(key=lambda row: (row["monthly_price"] is None, row["monthly_price"] or 0, row["position"]))
    depth = max(len(rows) for rows in by_company.values())
    columns = [Column("tier", "Tier"), *(Column(f"c{n}", material.company_name(i)) for n, i in enumerate(ids))]
    made = []
    for place in view.cut(range(depth)):
        cells = {
            f"c{n}": _tier(by_company[i][place], view) if place < len(by_company[i]) else None
            for n, i in enumerate(ids)
        }
        made.append({"tier": str(place + 1), **cells})
    return table("t-plans", "Plan tiers by company.", columns, made, total=depth)


def _tier(row: Mapping[str, Any], view: View) -> Markup:
    shown = format_plan_price(row["price"], row["currency"], period=row["billing_period"], per_unit=row["per_unit"])
    monthly = Markup("")
    if row["monthly_price"] and row["billing_period"] != "month":
        monthly = Markup('<span class="small">{} a month</span>').format(
            format_amount(round(row["monthly_price"], 2), row["currency"])
        )
    features: Iterable[str] = row["features"] or ()
    listed = list(features)
    more = len(listed) - _FEATURES_SHOWN
    items = Markup("").join(Markup("<li>{}</li>").format(quoted(text, 90)) for text in listed[:_FEATURES_SHOWN])
    rest = Markup('<li class="muted">and {} more</li>').format(more) if more > 0 else Markup("")
    return Markup('<strong>{}</strong> {}<span class="small">{}</span>{}{}{}').format(
        quoted(row["tier"], 60),
        view.evidence.cite(row["snapshot_id"]),
        quoted(shown, 80),
        monthly,
        Markup("") if row["seen_in_week"] else Markup('<span class="small">not seen this week</span>'),
        Markup('<ul class="small">{}{}</ul>').format(items, rest) if listed else Markup(""),
    )


def _stock_table(rows: Sequence[Mapping[str, Any]], view: View, material: Material) -> Markup:
    columns = [
        Column("product", "Product"),
        Column("move", "Availability"),
        Column("at", "First seen"),
        Column("when", "This week"),
        Column("evidence", "Evidence"),
    ]
    newest = sorted(rows, key=lambda row: row["at"], reverse=True)
    made = [
        {
            "product": Markup('{}<span class="small">{}</span>').format(
                quoted(row["product"], 80), material.company_name(row["company_id"])
            ),
            "move": f"{_availability(row['before'])} → {_availability(row['after'])}",
            "at": _nowrap(Markup("{}").format(day(row["at"]))),
            "when": "yes" if row["in_week"] else "earlier",
            "evidence": _nowrap(view.evidence.cite(row["snapshot_before"], row["snapshot_after"])),
        }
        for row in view.cut(newest)
    ]
    return table("t-stock", "Changes of availability, newest first.", columns, made, total=len(rows))
