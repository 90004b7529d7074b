"""Values of imported records as the lake has them: texts, ratings, days, languages.

Each function gives None for a value that says nothing, and ValueError for one that cannot be understood.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from workbench.extract.ratings import rating_from_text
from workbench.extract.written_dates import read_date
from workbench.ingest.rows import detect_review_language

__all__ = ["day_of", "guess_scale", "language_of", "rating_of", "text_of"]


def text_of(value: Any) -> str | None:
    """A value as text; None for nothing, blanks and containers."""
    if value is None or isinstance(value, (Mapping, list)) or (isinstance(value, float) and math.isnan(value)):
        return None
    # Half a character, as broken JSON leaves behind, cannot be stored.
    return str(value).encode("utf-8", "replace").decode().strip() or None


def guess_scale(values: Iterable[Any]) -> float:
    """The best rating possible: 5, 10 or 100, the first that no value is above."""
    largest = max((number for value in values if (number := _number(value)) is not None), default=0.0)
    return 5.0 if largest <= 5 else 10.0 if largest <= 10 else 100.0


def rating_of(value: Any, scale: float) -> tuple[float, float] | None:
    """Rating and scale: a number up to ``scale``, words or signs ("4 out of 5", "★★★☆☆"), or true and false."""
    text = text_of(value)
    if text is None:
        return None
    if text.casefold() in ("true", "false"):
        return (float(text.casefold() == "true"), 1.0)
    number = _number(value)
    if number is not None and 0 <= number <= scale:
        return (number, scale)
    stated = rating_from_text(text) if number is None else None
    if stated is None:
        raise ValueError(text)
    return stated


def day_of(value: Any, country: str | None = None) -> dt.date | None:
    """The day a value names: a date, a written one, or seconds or milliseconds since 1970.

    ``country`` decides what 03/11/2026 means: the third of November, but the eleventh of March in the US.
    """
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    text = text_of(value)
    if text is None:
        return None
    if re.fullmatch(r"(?:19|20)\d{6}", text):
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    if re.fullmatch(r"\d{9,10}(?:\.\d+)?|\d{12,13}", text):
        seconds = float(text) / (1000 if len(text.partition(".")[0]) > 10 else 1)
        text = f"{dt.datetime.fromtimestamp(seconds, dt.timezone.utc):%Y-%m-%d}"
    found = read_date(text, country)
    if found is None:
        raise ValueError(text)
    return found


def language_of(stated: Any, text: str) -> str | None:
    """ISO 639-1: what is stated ("zh-Hans", "en_US"), else what the letters of ``text`` say."""
    match = re.match(r"([A-Za-z]{2})(?![A-Za-z])", text_of(stated) or "")
    return match[1].lower() if match else detect_review_language(text, None)


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) else None
    text = text_of(value)
    match = re.fullmatch(r"[+-]?\d{1,6}(?:[.,]\d{1,12})?", text) if text else None
    return float(match[0].replace(",", ".")) if match else None
