"""How changes of one kind are told: the fact, what it may mean, what to do about it.

Each story takes one company's changes on one theme, the gravest first, and writes three short English texts. Facts
use nothing but the changes; inference is hedged and uses their numbers and the price index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from workbench.insight import rules
from workbench.insight.matching import match_texts
from workbench.insight.money import base_amount, format_percent
from workbench.insight.spans import fold, numbers_in
from workbench.workspace import Company, Workspace

__all__ = ["STORIES", "Row", "Standing", "Story", "theme_of"]

Row = dict[str, Any]
"""One row of the changes table."""

_QUOTED = 100  # characters of a page's text in a sentence
_NAMED = 3  # items named before "and n more"

_ADVERTISED = re.compile(
    r"\b(?:sale|discounts?|offers?|deals?|save|off|black friday|cyber monday|promo(?:tion|tional)?|coupons?)\b"
    r"|优惠|折扣|特价|特惠|促销|立减|直降|满减|双11|双十一|黑五|優惠|特價|促銷|\d折"
)
_STOCK = {
    "InStock": "in stock",
    "OutOfStock": "out of stock",
    "SoldOut": "sold out",
    "PreOrder": "open for pre-order",
    "PreSale": "in pre-sale",
    "BackOrder": "on back-order",
    "Discontinued": "discontinued",
    "LimitedAvailability": "in limited supply",
    "OnlineOnly": "sold online only",
    "InStoreOnly": "sold in stores only",
    "MadeToOrder": "made to order",
}
_NOT_TO_BE_HAD = ("OutOfStock", "SoldOut", "Discontinued", "BackOrder")
_PAGES = {
    "product": "product page",
    "pricing": "pricing page",
    "changelog": "release notes",
    "reviews": "review page",
    "news": "news page",
    "landing": "landing page",
    "ads": "advertising page",
}


@dataclass(frozen=True)
class Story:
    """Three texts of a finding."""

    headline: str
    so_what: str
    action: str


class Standing:
    """Where a competitor's product stands against the own one."""

    def __init__(self, workspace: Workspace, index: pl.DataFrame | None) -> None:
        self._workspace = workspace
        rows = [] if index is None else index.to_dicts()
        self._own = {(row["company_id"], row["category"]): (row["own_price"], row["base"]) for row in rows}
        self._sources = {ref.source.id: ref.source for ref in workspace.sources()}

    def page_word(self, source_id: str) -> str:
        """``product page``, ``release notes``, …"""
        source = self._sources.get(source_id)
        return _PAGES.get(source.kind if source else "", "page")

    def own_name(self, category: str | None) -> str:
        """The own product of a category; several are an average."""
        names = [p.name for p in self._workspace.company.products if p.category == category]
        return names[0] if len(names) == 1 else f"your average in {category}" if category else "your average"

    def gap(self, company: Company, row: Row) -> tuple[str, float, float] | None:
        """The own product's name, and by how many percent the product's price is above it, before and after."""
        if row["kind"] != "price":
            return None
        category = self._category(company, row)
        own, base = self._own.get((company.id, category), (None, ""))
        before, after = (self._amount(row[f"amount_{side}"], row["currency"], base) for side in ("before", "after"))
        if not own or before is None or after is None:
            return None
        return self.own_name(category), float((before / own - 1) * 100), float((after / own - 1) * 100)

    def _category(self, company: Company, row: Row) -> str | None:
        source = self._sources.get(row["source_id"])
        wanted = {fold(row["subject"])}
        for product in company.products:
            if wanted & {fold(name) for name in (product.name, *product.aliases)}:
                return product.category
        about = source.product if source is not None and source.kind == "product" else None
        return next((product.category for product in company.products if product.name == about), None)

    def _amount(self, amount: Decimal | None, currency: str | None, base: str) -> Decimal | None:
        if amount is None or currency == base:
            return amount
        return (
            base_amount(amount, currency, self._workspace.currency) if base == self._workspace.currency.base else None
        )


def theme_of(row: Row) -> str | None:
    """The story a change belongs to; None for those that are never told.

    ``list`` and ``advertised`` join a move of price where the company has one.
    """
    kind = row["kind"]
    if kind == "list_price":
        return "list"
    if kind in ("price", "plan_price"):
        if row["percent"]:
            return "cut" if row["percent"] < 0 else "rise"
        if row["amount_before"] is not None and row["amount_before"] == 0 and row["amount_after"]:
            return "rise"
        return "terms" if kind == "plan_price" else None
    if kind == "availability":
        return "out" if row["after"] in _NOT_TO_BE_HAD else "back"
    if kind.startswith("claim_"):
        return "advertised" if _ADVERTISED.search(fold(row["after"] or "")) else "claims"
    if kind.startswith("plan_"):
        return "plans"
    if kind.startswith("offer_"):
        return "range"
    return {"currency": "currency", "page_gone": "pages", "page_back": "pages", "page_added": "pages"}.get(kind)


# Words


def _quote(text: str) -> str:
    plain = " ".join(text.split())
    return f"“{plain if len(plain) <= _QUOTED else plain[: _QUOTED - 1].rstrip() + '…'}”"


def _join(parts: Sequence[str], *, most: int = _NAMED) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c and 2 more``."""
    shown = list(parts[:most])
    if len(parts) > most:
        shown.append(f"{len(parts) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _once(rows: Iterable[Row]) -> list[Row]:
    """Rows that say the same of the same thing on several pages, once."""
    return list({(r["kind"], fold(r["subject"]), r["before"], r["after"]): r for r in reversed(list(rows))}.values())[
        ::-1
    ]


def _news(rows: Sequence[Row], *kinds: str) -> list[Row]:
    """The changes of these kinds, once each."""
    return _once(row for row in rows if row["kind"] in kinds)


def _thing(row: Row) -> str:
    return f"the {row['subject']} plan" if row["kind"].startswith("plan_") else row["subject"]


# Prices


def _tell_cut(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    return _tell_move(company, rows, standing, cut=True)


def _tell_rise(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    return _tell_move(company, rows, standing, cut=False)


def _tell_move(company: Company, rows: Sequence[Row], standing: Standing, *, cut: bool) -> Story:
    moves = sorted(_news(rows, "price", "plan_price"), key=lambda row: -abs(row["percent"] or 1e9))
    sizes = sorted(abs(row["percent"]) for row in moves if row["percent"] is not None)
    verb, than = ("cut", "lower") if cut else ("raised", "higher")
    lead = moves[0]
    if len(moves) == 1:
        size = f", {format_percent(sizes[0])} {than}" if sizes else ""
        fact = f"{company.name} {verb} the price of {_thing(lead)} from {lead['before']} to {lead['after']}{size}"
        if rules.PROMOTION_BEGAN in lead["why"]:
            fact += f", {_promotion_words(lead['why'])}"
    else:
        span = f" by {_span(sizes)}" if sizes else ""
        listed = _join([f"{_thing(row)} from {row['before']} to {row['after']}" for row in moves])
        fact = f"{company.name} {verb} {len(moves)} prices{span}: {listed}"
    headline = f"{fact}."
    advertised = [row["after"] for row in _news(rows, "claim_added", "claim_reworded")]
    if advertised:
        headline += f" The site now says {_join([_quote(text.rstrip('.')) for text in advertised], most=2)}."
    gap = next((gap for row in moves if (gap := standing.gap(company, row))), None)
    meaning = [_gap_words(lead, gap, cut=cut, row=next(r for r in moves if standing.gap(company, r)))] if gap else []
    if not meaning:
        meaning = [_size_words(company, lead, sizes, cut=cut)]
    if cut:
        meaning.append(_lasting_words(company, moves))
    own = gap[0] if gap else "your own price"
    if cut:
        action = f"Decide whether {own} answers this; look again next week whether the price holds."
    else:
        action = f"Use it while it lasts: show buyers who compare how {own} stands against {lead['after']}."
    return Story(headline, " ".join(meaning), action)


def _promotion_words(why: str) -> str:
    """The words on the promotion, as the change has them."""
    match = re.search(rf"{rules.PROMOTION_BEGAN} [A-Z]{{0,3}} ?[\d,]+(?:\.\d+)?", why)
    return match[0] if match else "shown as a promotion"


def _span(sizes: Sequence[float]) -> str:
    low, high = format_percent(sizes[0]), format_percent(sizes[-1])
    return low if low == high else f"{low} to {high}"


def _gap_words(lead: Row, gap: tuple[str, float, float], *, cut: bool, row: Row) -> str:
    own, before, after = gap
    was, now = _relation(before), _relation(after)
    name = row["subject"]
    if (before >= 0) != (after >= 0):
        effect = "it may win buyers who compare prices" if cut else "price may speak for you now"
        return f"{name} was {was} {own} and is now {now} it; {effect}."
    if cut:
        effect = "the gap may draw buyers who compare prices" if after < 0 else "your advantage in price shrinks"
    else:
        effect = "your advantage in price grows" if after > 0 else "it is still the cheaper choice"
    return f"{name} is now {now} {own} ({_relation(before, bare=True)} before); {effect}."


def _relation(percent: float, *, bare: bool = False) -> str:
    if abs(percent) < 0.05:
        return "as dear" if bare else "as dear as"
    return f"{format_percent(percent)} {'dearer' if percent > 0 else 'cheaper'}{'' if bare else ' than'}"


def _size_words(company: Company, lead: Row, sizes: Sequence[float], *, cut: bool) -> str:
    if not sizes or lead["percent"] is None:
        return f"What was free at {company.name} costs money now; users who do not want to pay may look around."
    size = format_percent(sizes[-1])
    if cut:
        return f"A cut of {size} may draw buyers who compare prices."
    return f"A rise of {size} may send buyers who compare prices to alternatives."


def _lasting_words(company: Company, moves: Sequence[Row]) -> str:
    began = [row for row in moves if rules.PROMOTION_BEGAN in row["why"]]
    if len(moves) > 1 and len(began) != len(moves):
        return f"{len(moves)} cuts in one week look like a decision on prices rather than a single clearance."
    if began:
        return "As a promotion it will probably end."
    if moves[0]["kind"] == "price" and rules.PROMOTION_STILL not in moves[0]["why"]:
        return "No higher list price stands beside it, so it looks lasting."
    return f"How long {company.name} means to keep it is not stated."


def _tell_list(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    lead = next((row for row in rows if row["before"] and row["after"]), rows[0])
    move = f"from {lead['before']} to {lead['after']}" if lead["before"] and lead["after"] else "on show"
    return Story(
        f"{company.name} changed the list price of {lead['subject']} {move}; what a buyer pays stayed the same.",
        "A higher list price makes the same price look like a better deal; a lower one may prepare a lasting cut.",
        f"Compare what buyers pay, not the discount that {company.name} shows.",
    )


def _tell_currency(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    lead = rows[0]
    others = f" The same goes for {_join([r['subject'] for r in _once(rows)[1:]])}." if len(_once(rows)) > 1 else ""
    return Story(
        f"{company.name} now shows {lead['subject']} in another currency: "
        f"{lead['before']} before, {lead['after']} now.{others}",
        "This may be another edition of the page, chosen by where it was fetched from, rather than a new price.",
        "Open both archived pages; if the edition changed, watch the address of the one you want.",
    )


def _tell_terms(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    parts = [f"the {row['subject']} plan from {row['before']} to {row['after']}" for row in _once(rows)]
    return Story(
        f"{company.name} changed how it charges: {_join(parts)}.",
        "What a customer pays depends on other things than before, so it may be dearer for some, cheaper for others.",
        "Work out both prices for a typical customer of yours before you compare.",
    )


# Plans


def _tell_plans(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    rows = _once(rows)
    removed, added = _news(rows, "plan_removed"), _news(rows, "plan_added")
    renamed, features = _news(rows, "plan_renamed"), _news(rows, "plan_features")
    lost = [(row["subject"], line) for row in (*removed, *features) for line in _features(row, "before")]
    gained = [(row["subject"], line) for row in (*features, *added) for line in _features(row, "after")]
    moved = [
        (line, old, new) for old, line in lost for new, text in gained if fold(text) == fold(line) and old != new
    ]
    told = {fold(line) for line, _, _ in moved}
    clauses = []
    if removed:
        clauses.append(f"removed {_plans(removed, 'before')}")
    for old, new in dict.fromkeys((old, new) for _, old, new in moved):
        lines = [_quote(line) for line, a, b in moved if (a, b) == (old, new)]
        clauses.append(f"moved {_join(lines)} from {old} to {new}")
    if added:
        clauses.append(f"added {_plans(added, 'after')}")
    clauses += [_price_clause(row) for row in _news(rows, "plan_price")]
    for row in features:
        clauses += _feature_clauses(row, told)
    clauses += [f"renamed the {row['before']} plan to {row['after']}" for row in renamed]
    if len(clauses) > _NAMED:
        more = len(clauses) - _NAMED
        clauses = [*clauses[:_NAMED], f"made {more} more change{'s' if more > 1 else ''} to its plans"]
    headline = f"{company.name} {_join(clauses, most=len(clauses))}."
    free = next((row for row in removed if row["amount_before"] is not None and row["amount_before"] == 0), None)
    if free is not None:
        meaning = f"Users of {_plans([free], 'before')} may have to pay or leave, so some may look for another home."
        action = "Prepare an offer for people who come from a free plan, and an import of their data."
    elif removed:
        meaning = (
            f"Customers of {_join([row['subject'] for row in removed])} may have to move to another plan and compare."
        )
        action = "Show these customers which of your plans comes closest to what they had."
    elif added:
        meaning = (
            f"{_join([row['subject'] for row in added])} looks aimed at buyers whom the other plans did not fit."
        )
        action = "Check which of your plans it competes with."
    else:
        meaning = "What buyers get for the same money changed, so feature comparisons may be out of date."
        action = "Update your comparison of plans."
    if moved:
        meaning += " Keeping a feature that moved to another plan may now cost more."
    return Story(headline, meaning, action)


def _price_clause(row: Row) -> str:
    verb = "changed" if not row["percent"] else "cut" if row["percent"] < 0 else "raised"
    size = f" ({format_percent(row['percent'])} {'less' if row['percent'] < 0 else 'more'})" if row["percent"] else ""
    return f"{verb} the price of {_thing(row)} from {row['before']} to {row['after']}{size}"


def _features(row: Row, side: str) -> list[str]:
    lines = (row[side] or "").split("\n")
    return [line for line in (lines if row["kind"] == "plan_features" else lines[1:]) if line]


def _plans(rows: Sequence[Row], side: str) -> str:
    named = []
    for row in rows:
        price = (row[side] or "").split("\n")[0]
        free = fold(price) == "free"
        named.append(f"the free {row['subject']} plan" if free else f"the {row['subject']} plan ({price})")
    return _join([name.replace("free Free", "Free") for name in named])


def _feature_clauses(row: Row, told: set[str]) -> list[str]:
    before = [line for line in _features(row, "before") if fold(line) not in told]
    after = [line for line in _features(row, "after") if fold(line) not in told]
    pairs = match_texts(before, after)
    changed = [f"{_quote(before[p.before])} to {_quote(after[p.after])}" for p in pairs]
    gone = [_quote(t) for i, t in enumerate(before) if i not in {p.before for p in pairs}]
    come = [_quote(t) for i, t in enumerate(after) if i not in {p.after for p in pairs}]
    plan = f"the {row['subject']} plan"
    clauses = [f"took {_join(gone)} out of {plan}"] if gone else []
    clauses += [f"changed {_join(changed)} in {plan}"] if changed else []
    return clauses + ([f"added {_join(come)} to {plan}"] if come else [])


# Stock and range


def _stock(value: str) -> str:
    return _STOCK.get(value) or " ".join(re.findall(r"[A-Z]?[a-z]+", value)).lower() or value


def _tell_stock(company: Company, rows: Sequence[Row], *, out: bool) -> Story:
    rows = _once(rows)
    parts = [f"{row['subject']} is now {_stock(row['after'])} ({_stock(row['before'])} before)" for row in rows]
    headline = f"At {company.name}, {_join(parts)}."
    names = _join([row["subject"] for row in rows])
    if any(row["after"] == "Discontinued" for row in rows):
        return Story(
            headline,
            f"{names} looks to be at the end of its life; a successor may follow.",
            "Watch for a successor, and prepare a page for its owners who look for a replacement.",
        )
    if out:
        return Story(
            headline,
            f"Buyers who want {names} now may look elsewhere; low supply can also announce a new model.",
            "Make sure that your own stock is shown plainly while theirs is out.",
        )
    return Story(
        headline,
        f"Supply of {names} seems to be changing, so what was out of reach for buyers may be an option again.",
        "Stop leaning on their shortage in your messages.",
    )


def _tell_out(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    return _tell_stock(company, rows, out=True)


def _tell_back(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    return _tell_stock(company, rows, out=False)


def _tell_range(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    came, went = _news(rows, "offer_added"), _news(rows, "offer_removed")
    clauses = []
    if came:
        clauses.append(f"now offers {_join([_priced(row, 'after') for row in came])}")
    if went:
        clauses.append(f"no longer shows {_join([_priced(row, 'before') for row in went])}")
    if came and went:
        meaning = f"{came[0]['subject']} looks like the successor of {went[0]['subject']}."
    elif came:
        meaning = f"{company.name} may reach buyers with {came[0]['subject']} that it did not reach before."
    else:
        meaning = f"{company.name} may have taken {went[0]['subject']} out of its range, or moved it to another page."
    action = (
        "Compare it with yours, feature by feature." if came else "Check whether it is sold elsewhere on their site."
    )
    return Story(f"{company.name} {_join(clauses)}.", meaning, action)


def _priced(row: Row, side: str) -> str:
    price = row[side]
    return f"{row['subject']} ({price})" if row[f"amount_{side}"] is not None else row["subject"]


def _tell_pages(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    gone, others = _news(rows, "page_gone"), _news(rows, "page_back", "page_added")
    clauses = []
    if gone:
        pages = [f"its {standing.page_word(row['source_id'])} {_quote(row['subject'])}" for row in gone]
        clauses.append(f"took {_join(pages)} off its site")
    if others:
        pages = [_quote(row["subject"]) for row in others]
        clauses.append(f"put up {_join(pages)}")
    return Story(
        f"{company.name} {_join(clauses)}.",
        "What the page was about may be ending, or it moved to another address."
        if gone
        else "The page may announce something that is not on sale yet.",
        "Look for the new address and put it into workspace.toml." if gone else "Read the page.",
    )


# Claims


def _tell_claims(company: Company, rows: Sequence[Row], standing: Standing) -> Story:
    rows = _once(rows)
    lead = rows[0]
    page = standing.page_word(lead["source_id"])
    if lead["kind"] == "claim_reworded":
        fact = f"{company.name} changed {_quote(lead['before'])} to {_quote(lead['after'])} on its {page}"
    elif lead["kind"] == "claim_added":
        fact = f"{company.name} now says {_quote(lead['after'])} on its {page}"
    else:
        fact = f"{company.name} no longer says {_quote(lead['before'])} on its {page}"
    more = len(rows) - 1
    headline = f"{fact}." if not more else f"{fact}, and changed {more} more claim{'s' if more > 1 else ''}."
    numbers = _one_number(lead)
    if numbers is not None:
        before, after = numbers
        size = float((after - before) / before * 100)
        word = "more" if size > 0 else "less"
        meaning = (
            f"The number goes from {before:f} to {after:f}, {format_percent(size)} {word}; "
            f"if it holds, it may change how {company.name} compares with you."
        )
        action = "Check the claim against tests and reviews, and your own figure for the same thing."
    elif lead["kind"] == "claim_removed":
        meaning = f"{company.name} may no longer stand by this, or no longer think that it sells."
        action = "See whether the product itself changed."
    else:
        meaning = f"{company.name} seems to put weight on this now."
        action = "Compare it with what you say on the same subject."
    return Story(headline, meaning, action)


def _one_number(row: Row) -> tuple[Decimal, Decimal] | None:
    """The number that changed in a reworded claim, when it is the only one."""
    if row["kind"] != "claim_reworded":
        return None
    before, after = numbers_in(row["before"]), numbers_in(row["after"])
    if len(before) != len(after):
        return None
    moved = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    if len(moved) != 1:
        return None
    plain = [Decimal(number) for number in moved[0] if re.fullmatch(r"\d+(?:\.\d+)?", number)]
    return (plain[0], plain[1]) if len(plain) == 2 and plain[0] else None


STORIES: Mapping[str, Callable[[Company, Sequence[Row], Standing], Story]] = {
    "cut": _tell_cut,
    "rise": _tell_rise,
    "plans": _tell_plans,
    "out": _tell_out,
    "back": _tell_back,
    "terms": _tell_terms,
    "list": _tell_list,
    "currency": _tell_currency,
    "range": _tell_range,
    "pages": _tell_pages,
    "claims": _tell_claims,
}
"""Theme to how it is told, in the order in which equals are ranked."""
