"""Price texts to amounts and currencies. A layer over price-parser: it finds the number, price-parser reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache

from price_parser.parser import parse_number

from workbench.extract.currencies import CODES, SIGNS, TENDERS, Market, currency_from_sign, is_local

__all__ = ["PriceText", "find_prices", "parse_price", "plain_digits"]

_DIGITS = {ord(other): str(value) for zero in "０٠۰०০๐" for value in range(10) for other in chr(ord(zero) + value)}
_SPACES = dict.fromkeys((0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000), " ")
_MARKS = {
    **_DIGITS,
    **_SPACES,
    **dict.fromkeys(map(ord, "\u200b\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069\ufeff\u00ad"), None),
    ord("٫"): ".",
    ord("٬"): ",",
    ord("，"): ",",
    ord("．"): ".",
    ord("’"): "'",
    ord("＄"): "$",
    ord("："): ":",
    ord("＋"): "+",
    ord("％"): "%",
    ord("\u2212"): "-",
}
"""Digits and separators of other scripts, and the characters that only steer the direction of writing."""

_MAX_LENGTH = 2000
# Written in lower case by many shops, and no words of any language.
_LOWER_CODES = frozenset(
    re.findall(
        r"\w+",
        """aed aud brl cad chf clp cny czk dkk eur gbp hkd huf idr inr jpy krw kzt mkd mxn myr nok nzd pln rub sek sgd
        twd uah usd vnd zar""",
    )
)
_ALL_SIGNS = frozenset(SIGNS) | TENDERS | _LOWER_CODES
# Codes that are words in headings and buttons ("TOP 10", "TRY 3 months") mean money only where it is legal tender.
_WORDS = frozenset(
    re.findall(r"\w+", "ALL BAM BOB COP CUP ERN GEL MAD MOP PEN SOS TOP TRY ANG LAK Re L K P E D G Q q с ID")
)
_LONGEST_SIGN = max(map(len, _ALL_SIGNS))
_DOLLAR_CODES = frozenset(code for code in TENDERS if code.endswith("D"))
_FIRST_CHARACTERS = frozenset(sign[0] for sign in _ALL_SIGNS)
_LAST_CHARACTERS = frozenset(sign[-1] for sign in _ALL_SIGNS)
# Digits in groups: the separators between them are read later.
_AMOUNT = r"(?:(?<![\w,])\.\d{1,2}(?![\d.,])|\d+(?:[.,' ]\d+)*(?:[.,]\s\d{2}(?![\d.,]))?)"
_NUMBER = re.compile(_AMOUNT)
_ANY_DIGIT = re.compile(r"\d")
_GLUE_BEFORE = re.compile(r"[\s:]{0,3}\$?[-–]?\s?\.{0,2}$")
_GLUE_AFTER = re.compile(r"(?:,[-–—]+|[.,]?[-–—]{1,2})?\s{0,2}")
_CENTS = re.compile(r"\s?(\d{2})(?![\d.,])")
_PLAIN = re.compile(rf"(?P<number>{_AMOUNT})(?P<tail>\s*(?:%|\S)?)")
_TEN_THOUSAND = re.compile(r"\s?万")
_MONTHS = re.compile(
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?,?\s+\d|\b\d{4}-\d{2}-\d{2}\b|^\s*\d{1,2}-\d{1,2}\s*$",
    re.IGNORECASE,
)
_RANGE = re.compile(rf"({_AMOUNT})\s*(?:to|a|à|bis|до|至|~|[-–—])\s*$", re.IGNORECASE)
_FREE_SHIPPING = re.compile(
    r"^\W*(?:free|gratis|kostenlos\w*|gratuit\w*|免费|免費)\W*"
    r"(?:(?:shipping|delivery|versand|livraison|envío|spedizione|доставка)\b|运费|運費|配送|送货)",
    re.IGNORECASE,
)
_FREE = re.compile(r"^\W*(?:free|gratis|kostenlos|gratuit|gratuito|免费|免費|無料|무료|бесплатно)\W*$", re.IGNORECASE)
_THREE_DECIMALS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})
_NO_DECIMALS = frozenset({"CLP", "IDR", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF", "COP", "HUF", "ISK", "IRR"})


@dataclass(frozen=True)
class PriceText:
    """A price in a text. ``currency`` is ISO 4217, ``sign`` what stood there; ``start`` and ``end`` are its place."""

    amount: Decimal
    currency: str | None
    sign: str | None
    start: int = 0
    end: int = 0


def plain_digits(text: str) -> str:
    """The text with ASCII digits, separators and spaces, whatever script it was written in."""
    return text.translate(_MARKS)


def find_prices(text: str, market: Market | None = None) -> tuple[PriceText, ...]:
    """Every number in the text that stands next to a currency sign or code, in order."""
    # Most texts of a page hold no number.
    return _find_prices(text[:_MAX_LENGTH], market) if _ANY_DIGIT.search(text) else ()


# Several readers look at the same texts of a page.
@lru_cache(maxsize=4096)
def _find_prices(text: str, market: Market | None) -> tuple[PriceText, ...]:
    return tuple(_prices_in(plain_digits(text), market))


def _prices_in(text: str, market: Market | None) -> Iterator[PriceText]:
    position = 0
    while match := _NUMBER.search(text, position):
        start, end = match.span()
        position = end
        before, begin = _sign_before(text, start, market)
        times = _TEN_THOUSAND.match(text, end)
        if times:
            end = times.end()
        after, stop = _sign_after(text, end, market)
        if after and not before and stop < len(text) and text[stop].isdigit():
            cents = _CENTS.match(text, stop) if after == "€" else None
            if cents is None:
                continue  # "iPhone 12 €799": the sign belongs to the number that follows.
        # A code says more than a sign: "$ 12.00 CAD"; but in "12 USD 15 EUR" each number has its own.
        sign = after if after and (not before or (after.upper() in CODES and before.upper() not in CODES)) else before
        if not sign:
            continue
        currency = currency_from_sign(sign, market)
        amount = _read_number(match.group(0), currency)
        if amount is None:
            continue
        if times:
            amount *= 10_000
        if sign is before:
            position = stop = end
        cents = _CENTS.match(text, stop) if sign == after == "€" and amount == amount.to_integral_value() else None
        if cents:
            amount, stop = amount + Decimal(f"0.{cents.group(1)}"), cents.end()
        position = max(position, stop)
        yield PriceText(amount, currency, sign, begin if before else start, stop)


def _sign_before(text: str, end: int, market: Market | None) -> tuple[str | None, int]:
    glue = _GLUE_BEFORE.search(text, max(0, end - 8), end)
    # The glue may have taken a part of the sign itself ("R$ 12"), so every end in it is tried.
    for stop in range(end, glue.start() - 1 if glue else end - 1, -1):
        if stop <= 0 or text[stop - 1] not in _LAST_CHARACTERS:
            continue
        for length in range(min(_LONGEST_SIGN, stop), 0, -1):
            sign = text[stop - length : stop]
            if sign in _ALL_SIGNS and _stands_alone(text, stop - length, stop, market):
                longer = _sign_before(text, stop - length, market) if sign == "$" else (None, 0)
                return longer if longer[0] in _DOLLAR_CODES else (sign, stop - length)
    return None, end


def _sign_after(text: str, start: int, market: Market | None) -> tuple[str | None, int]:
    glue = _GLUE_AFTER.match(text, start)
    begin = glue.end() if glue else start
    if begin >= len(text) or text[begin] not in _FIRST_CHARACTERS:
        return None, start
    for length in range(min(_LONGEST_SIGN, len(text) - begin), 0, -1):
        sign = text[begin : begin + length]
        if sign in _ALL_SIGNS and _stands_alone(text, begin, begin + length, market):
            return sign, begin + length
    return None, start


def _stands_alone(text: str, start: int, end: int, market: Market | None) -> bool:
    """Whether a sign made of letters is a word of its own: "Ft" is none in "Fta". CJK needs no gap."""
    first, last = text[start], text[end - 1]
    if first.isalpha() and ord(first) < 0x0600 and start > 0 and _is_letter(text[start - 1]):
        return False
    if last.isalpha() and ord(last) < 0x0600 and end < len(text) and _is_letter(text[end]):
        return False
    sign = text[start:end]
    return sign not in _WORDS or market is None or any(is_local(code, market) for code in SIGNS.get(sign, (sign,)))


def _is_letter(character: str) -> bool:
    return character.isalpha() and ord(character) < 0x0600


def parse_price(
    text: str | None, market: Market | None = None, *, currency_hint: str | None = None
) -> PriceText | None:
    """The price in a text that is known to be about one, such as an element of class ``price``.

    The first number beside a currency wins; without one, the first number that is not a percentage. ``currency_hint``
    is a text that may hold the currency. None where there is no price; a text that says "free" is a price of 0.
    """
    if not text or not text.strip():
        return None
    text = plain_digits(text[:_MAX_LENGTH]).strip()
    hinted = _find_sign(plain_digits(currency_hint[:_MAX_LENGTH])) if currency_hint else None
    ten_thousand = re.search(rf"({_AMOUNT})\s*万", text)
    if _FREE_SHIPPING.match(text):
        return None
    for found in find_prices(text, market):
        lower = _RANGE.search(text[: found.start])
        amount = _read_number(lower.group(1), found.currency) if lower else None
        return found if amount is None or amount > found.amount else replace(found, amount=amount)
    if _MONTHS.search(text):
        return None
    sign = _find_sign(text) or hinted
    currency = currency_from_sign(sign, market)
    for match in _PLAIN.finditer(text):
        if match["tail"].strip() == "%":
            continue
        amount = _read_number(match["number"], currency)
        if amount is None:
            return None
        if ten_thousand and ten_thousand.start() == match.start():
            amount *= 10_000
        return PriceText(amount, currency, sign, match.start("number"), match.end("number"))
    if _FREE.match(text):
        return PriceText(Decimal(0), currency, sign, 0, len(text))
    return None


def _find_sign(text: str) -> str | None:
    """A sign anywhere in the text. One letter alone ("L'unité", "P.V.P.") counts only beside a number."""
    for position, character in enumerate(text):
        if character in _FIRST_CHARACTERS:
            for length in range(min(_LONGEST_SIGN, len(text) - position), 0, -1):
                sign = text[position : position + length]
                if sign not in _ALL_SIGNS or not _stands_alone(text, position, position + length, None):
                    continue
                if len(sign) > 1 or not _is_letter(sign) or sign == text:
                    longer = text[position + length :].lstrip()[:4].strip("$ ") if sign == "$" else ""
                    return longer if longer in _DOLLAR_CODES else sign
    return None


def _read_number(number: str, currency: str | None) -> Decimal | None:
    """A number in digit groups. Where three digits follow the only separator, the currency decides."""
    number = re.sub(r"([.,])\s(?=\d{2}$)", r"\1", number.strip())
    if number.startswith("."):
        return Decimal(f"0{number}") if number[1:].isdigit() else None
    compact = number.replace(" ", "").replace("'", "")
    if " " in number and not _is_grouped(number):
        compact = number.split(" ")[0]
    separator: str | None = None
    match = re.fullmatch(r"(\d+)([.,])(\d{3})", compact)
    if match:
        whole, mark, _ = match.groups()
        if whole == "0" or currency in _THREE_DECIMALS or len(whole) > 3:
            separator = mark
        elif currency in _NO_DECIMALS:
            separator = None
    elif re.fullmatch(r"\d+[.,]\d{3}[.,]\d{3}", compact) and currency in _THREE_DECIMALS:
        separator = compact[-4]
    if separator:
        other = "," if separator == "." else "."
        compact = compact.replace(other, "").replace(separator, ".")
        return Decimal(compact) if compact.count(".") == 1 else None
    return parse_number(compact)


def _is_grouped(number: str) -> bool:
    """Spaces inside a number separate thousands: ``1 234,56``; in ``12 500 ml`` they would too, in ``2 20`` not."""
    parts = re.split(r"[ ]", number)
    return all(re.fullmatch(r"\d{3}(?:[.,]\d+)?", part) for part in parts[1:]) and len(parts[0]) <= 3
