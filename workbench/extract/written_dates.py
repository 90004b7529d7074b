"""Dates as reviews carry them: ISO, in words of many languages, in Chinese. What depends on today is left unread."""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache

from babel import Locale, UnknownLocaleError

from workbench.extract.prices import plain_digits

__all__ = ["read_date"]

_LANGUAGES = (
    "en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs", "sk", "hu", "ro", "sl", "hr", "tr",
    "ru", "uk", "bg", "el", "id",
)  # fmt: skip
_ISO = re.compile(r"(?<!\d)(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)")
_YEAR_FIRST = re.compile(r"(?<!\d)(\d{4})\s?[./年년]\s?(\d{1,2})\s?[./月월]\s?(\d{1,2})(?:\s?[日일])?(?!\d)")
_YEAR_LAST = re.compile(r"(?<!\d)(\d{1,2})\s?[./-]\s?(\d{1,2})\s?[./-]\s?(\d{4}|\d{2})(?!\d)")
_DAY_MONTH = re.compile(
    r"(?<!\d)(\d{1,2})(?:st|nd|rd|th|º|er|e)?\.?\s+(?:de\s+|of\s+)?([^\W\d_]{3,12})\.?,?\s+(?:de\s+|del\s+)?(\d{4})"
)
_MONTH_DAY = re.compile(r"([^\W\d_]{3,12})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})")
_MONTH_FIRST_COUNTRIES = frozenset({"US", "PH", "CA"})


def read_date(text: str | None, country: str | None = None) -> dt.date | None:
    """The first date in the text. ``country`` decides what 03/11/2026 means; "3 days ago" is None: no clock."""
    if not text:
        return None
    text = plain_digits(text[:200]).strip()
    for pattern in (_ISO, _YEAR_FIRST):
        match = pattern.search(text)
        if match:
            return _date(match[1], match[2], match[3])
    match = _DAY_MONTH.search(text)
    if match and (month := _month(match[2])):
        return _date(match[3], month, match[1])
    match = _MONTH_DAY.search(text)
    if match and (month := _month(match[1])):
        return _date(match[3], month, match[2])
    match = _YEAR_LAST.search(text)
    if not match:
        return None
    first, second, year = int(match[1]), int(match[2]), int(match[3])
    year += 2000 if year < 100 else 0
    month_first = second > 12 or (first <= 12 and country in _MONTH_FIRST_COUNTRIES)
    return _date(year, first, second) if month_first else _date(year, second, first)


def _date(year: int | str, month: int | str, day: int | str) -> dt.date | None:
    try:
        found = dt.date(int(year), int(month), int(day))
    except ValueError:
        return None
    return found if 1990 <= found.year <= 2100 else None


def _month(word: str) -> int | None:
    name = word.lower().rstrip(".")
    # The other languages take 0.2 s to load, and most pages need none of them.
    return _month_names("en").get(name) or next(
        (number for language in _LANGUAGES if (number := _month_names(language).get(name))), None
    )


@lru_cache(maxsize=len(_LANGUAGES))
def _month_names(language: str) -> dict[str, int]:
    """Month names and their short forms in a language, from Unicode's locale data."""
    names = {"sept": 9} if language == "en" else {}
    try:
        months = Locale(language).months
    except UnknownLocaleError:  # A trimmed installation of babel has fewer languages.
        return names
    for context in ("format", "stand-alone"):
        for width in ("wide", "abbreviated"):
            for number, name in months[context][width].items():
                names.setdefault(name.lower().rstrip("."), number)
    return names
