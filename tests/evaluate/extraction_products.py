"""Product extraction against labelled pages, and price parsing against labelled strings.

The pages are 63 of a public product-extraction benchmark (MIT) with hand-made labels. A label is a set of accepted
values. A value given where the label has none is a false positive; a wrong one counts as that and as a miss.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import polars as pl
from price_parser import Price
from tqdm.auto import tqdm

from workbench.extract.currencies import currency_from_sign
from workbench.extract.document import parse_document
from workbench.extract.offers import read_offers
from workbench.extract.page import Offer
from workbench.extract.plans import read_plans
from workbench.extract.prices import parse_price
from workbench.extract.reviews import read_reviews
from workbench.extract.structured import read_structured

__all__ = ["Counts", "run", "scores"]

PAGES = "web/product_pages.tar.xz"
STRINGS = "web/price_strings.parquet"
FIELDS = ("price", "availability", "sku", "currency", "brand", "gtin", "mpn")
HALVES = ("design", "held-out")
_FILLED = "availability, silence as InStock"
"""As the benchmark scores systems that may say nothing."""
_EXACT = "sku, every character"
"""Without the benchmark's rule that punctuation and case do not matter."""
_IN_STOCK = frozenset(
    {"InStock", "LimitedAvailability", "PreOrder", "PreSale", "OnlineOnly", "InStoreOnly", "MadeToOrder"}
)


@dataclass
class Counts:
    """True positives, false positives and false negatives of one field."""

    hits: int = 0
    false_positives: int = 0
    misses: int = 0

    def add(self, accepted: Sequence[str], value: str | None) -> bool:
        """Count one page; True where the value is right or rightly absent."""
        right = value is not None and value in accepted
        self.hits += right
        self.false_positives += value is not None and not right
        self.misses += bool(accepted) and not right
        return right or (value is None and not accepted)

    @property
    def f1(self) -> float:
        wrong = self.false_positives + self.misses
        return 2 * self.hits / (2 * self.hits + wrong) if self.hits or wrong else 1.0

    @property
    def precision(self) -> float:
        given = self.hits + self.false_positives
        return self.hits / given if given else 0.0

    @property
    def recall(self) -> float:
        there = self.hits + self.misses
        return self.hits / there if there else 0.0


@dataclass
class Outcome:
    """What came of all pages."""

    counts: dict[tuple[str, str], Counts] = field(default_factory=dict)
    wrong: list[tuple[str, str, str, list[str], str | None]] = field(default_factory=list)
    milliseconds: float = 0.0
    pages: int = 0
    exceptions: int = 0


def half_of(key: str) -> str:
    """Half of the pages were looked at while the rules were written; the other half only through its scores."""
    return HALVES[int(key[:8], 16) % 2]


def read_pages(data: Path) -> Iterator[tuple[str, Mapping[str, Any], bytes]]:
    """Id, labels and bytes of every page, in the archive's order."""
    with tarfile.open(data / PAGES) as archive:
        files = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
        labels_file = archive.extractfile(files["ground-truth.json"])
        if labels_file is None:
            raise FileNotFoundError(f"{PAGES} holds no ground-truth.json; fetch the archive again.")
        labels = json.load(labels_file)
        for key in sorted(labels):
            page = archive.extractfile(files[f"{key}.html"])
            if page is not None:
                yield key, labels[key], page.read()


def evaluate_pages(data: Path) -> Outcome:
    """Read every page and count. Times only the commercial readers, the shared parse not included."""
    outcome = Outcome({(name, half): Counts() for name in FIELDS for half in (*HALVES, "all")})
    outcome.counts |= {(name, half): Counts() for name in (_FILLED, _EXACT) for half in (*HALVES, "all")}
    for key, labels, html in tqdm(list(read_pages(data)), desc="product pages", unit="page"):
        outcome.pages += 1
        document = parse_document(html, url=labels["url"])
        before = time.process_time()
        try:
            structured = read_structured(document)
            offers = read_offers(document, structured, None)
            read_plans(document, structured, None)
            read_reviews(document, structured, None)
        except Exception:
            outcome.exceptions += 1
            offers = ()
        outcome.milliseconds += (time.process_time() - before) * 1000
        outcome.exceptions += any("could not be read (" in warning for warning in document.warnings)
        offer = offers[0] if offers else Offer()
        for name in FIELDS:
            accepted, value = _comparable(name, labels, offer)
            for half in (half_of(key), "all"):
                right = outcome.counts[name, half].add(accepted, value)
            if not right:
                outcome.wrong.append((half_of(key), key[:8], name, accepted, value))
        accepted, value = _comparable("availability", labels, offer)
        for half in (half_of(key), "all"):
            outcome.counts[_FILLED, half].add(accepted, value or "InStock")
            outcome.counts[_EXACT, half].add(labels.get("sku", []), offer.sku)
    return outcome


def _comparable(name: str, labels: Mapping[str, Any], offer: Offer) -> tuple[list[str], str | None]:
    """Accepted values and ours in one form: numbers as numbers, availability as in or out, codes bare."""
    accepted: list[str] = labels.get(name, [])
    value = getattr(offer, name)
    if name == "price":
        return [_number(text) for text in accepted], None if value is None else _number(str(value))
    if name == "availability":
        return accepted, None if value is None else "InStock" if value in _IN_STOCK else "OutOfStock"
    if name == "currency":
        # Labels hold the sign as shown; "$" is right for any dollar.
        codes = [code for text in accepted if (code := currency_from_sign(text.strip("~")))]
        if value and "$" in accepted and (value.endswith("D") or value in ("ARS", "CLP", "MXN", "COP")):
            return [value], value
        return codes, value if accepted else None
    if name == "brand":
        return [
            text.casefold().strip() for text in accepted
        ], value.casefold().strip() if value and accepted else None
    if name in ("gtin", "mpn"):
        return [text.lstrip("0") for text in accepted], value.lstrip("0") if value and accepted else None
    return [_code(text) for text in accepted], None if value is None else _code(str(value))


def _number(text: str) -> str:
    try:
        return format(Decimal(text.strip()).normalize(), "f")
    except InvalidOperation:
        return text.strip()


def _code(text: str) -> str:
    """The benchmark accepts a code whose punctuation differs: 123/123 for 123123."""
    return re.sub(r"[^0-9a-z]", "", text.casefold())


@dataclass
class StringOutcome:
    """Right answers of both parsers on labelled price strings."""

    strings: int = 0
    ours: int = 0
    plain: int = 0
    signs: int = 0
    our_signs: int = 0
    plain_signs: int = 0


def evaluate_strings(data: Path) -> StringOutcome:
    """Amounts on all strings that hold a digit or no amount, and currency signs where the label has one."""
    outcome = StringOutcome()
    for row in pl.read_parquet(data / STRINGS).iter_rows(named=True):
        text, hint = row["price_raw"], row["currency_raw"]
        gold = None if row["amount"] is None else Decimal(row["amount"])
        ours = parse_price(text, currency_hint=hint)
        plain = Price.fromstring(text, hint)
        outcome.strings += 1
        outcome.ours += _same(gold, ours.amount if ours else None)
        outcome.plain += _same(gold, plain.amount)
        if row["currency"] and gold is not None:
            outcome.signs += 1
            outcome.our_signs += bool(ours and _same_currency(ours.sign, row["currency"]))
            outcome.plain_signs += _same_currency(plain.currency, row["currency"])
    return outcome


def _same(one: Decimal | None, two: Decimal | None) -> bool:
    return one is None and two is None if one is None or two is None else abs(one - two) < Decimal("1e-9")


def _same_currency(sign: str | None, gold: str) -> bool:
    if sign is None:
        return False
    code = currency_from_sign(sign)
    return sign == gold or (code is not None and code == currency_from_sign(gold))


def scores(data: Path) -> dict[str, float]:
    """Flat scores for the gate, such as ``products.price_f1``."""
    return _scores(evaluate_pages(data), evaluate_strings(data))


def _scores(pages: Outcome, strings: StringOutcome) -> dict[str, float]:
    found = {f"products.{name}_f1": pages.counts[name, "all"].f1 for name in ("price", "availability", "sku")}
    found |= {
        f"products.{name}_f1_{half.replace('-', '_')}": pages.counts[name, half].f1
        for name in ("price", "availability", "sku")
        for half in HALVES
    }
    found["products.without_exception"] = 1 - pages.exceptions / max(1, pages.pages)
    found["price_strings.amount"] = strings.ours / max(1, strings.strings)
    found["price_strings.amount_over_price_parser"] = (strings.ours - strings.plain) / max(1, strings.strings)
    found["price_strings.currency"] = strings.our_signs / max(1, strings.signs)
    return found


def run(data: Path) -> str:
    """Tables for people: fields by half, price strings, time a page, exceptions."""
    pages, strings = evaluate_pages(data), evaluate_strings(data)
    lines = [
        f"Product pages: {pages.pages}; pages with an exception: {pages.exceptions}; "
        f"{pages.milliseconds / max(1, pages.pages):.0f} ms CPU a page for offers, plans, reviews and markup.",
        "",
        "| field | F1, all | precision | recall | pages with a label | F1, design half | F1, held-out half |",
        "|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(name for name, _ in pages.counts))
    for name in names:
        whole = pages.counts[name, "all"]
        halves = " | ".join(f"{pages.counts[name, half].f1:.3f}" for half in HALVES)
        lines.append(
            f"| {name} | {whole.f1:.3f} | {whole.precision:.3f} | {whole.recall:.3f} | "
            f"{whole.hits + whole.misses} | {halves} |"
        )
    lines += [
        "",
        "Currency, brand, GTIN and MPN are scored on pages with a label for them only.",
        "",
        "| price strings | amount right | currency right |",
        "|---|---|---|",
        f"| workbench | {strings.ours}/{strings.strings} = {strings.ours / strings.strings:.4f} | "
        f"{strings.our_signs}/{strings.signs} = {strings.our_signs / strings.signs:.4f} |",
        f"| price-parser alone | {strings.plain}/{strings.strings} = {strings.plain / strings.strings:.4f} | "
        f"{strings.plain_signs}/{strings.signs} = {strings.plain_signs / strings.signs:.4f} |",
        "",
        f"Data: {PAGES} {_digest(data / PAGES)}, {STRINGS} {_digest(data / STRINGS)}",
    ]
    return "\n".join(lines)


def _digest(path: Path) -> str:
    return f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
