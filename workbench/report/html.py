"""From values to safe HTML: one Jinja environment, escaping on by default, and the few helpers sections share.

Everything that came from a page is a plain ``str`` and is escaped where it enters a template. Only HTML made here is
``Markup``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

__all__ = [
    "TEMPLATES",
    "chip",
    "clean",
    "clip",
    "day",
    "link",
    "minute",
    "one_line",
    "percent",
    "plural",
    "quoted",
    "render",
    "style_sheet",
    "words",
]

TEMPLATES = Path(__file__).parent / "template"

_LONGEST_TEXT = 600  # characters of one quoted text in the HTML; JSON and CSV carry it whole

_SEVERITIES = {"high": "▲", "medium": "◆", "low": "●", "note": "○"}
_STATUSES = {
    "fetched": "✓",
    "not-modified": "=",
    "robots-denied": "⊘",
    "blocked": "✕",
    "failed": "!",
    "stale": "◷",
    "never": "–",
}
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES / "sections"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {"day": day, "minute": minute, "quoted": quoted, "clip": clip, "percent": percent, "clean": clean}
    )
    environment.globals.update({"chip": chip, "link": link, "plural": plural, "words": words})
    return environment


def render(template: str, **values: Any) -> Markup:
    """Fill ``template/sections/<template>.html.j2``. Every ``str`` is escaped; a name left out is an error."""
    return Markup(_environment().get_template(f"{template}.html.j2").render(**values))  # noqa: S704


@lru_cache(maxsize=1)
def style_sheet() -> str:
    """The report's CSS, all of it under ``.wb`` so that it does not touch a notebook around it."""
    return (TEMPLATES / "weekly" / "report.css").read_text(encoding="utf-8")


def clean(text: str) -> str:
    """``text`` without control and direction-changing characters, which could disguise what a page says."""
    kept = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn") else " " for c in text)
    return " ".join("".join(kept).split())


def one_line(text: str) -> str:
    """The lines of a text side by side, with a dot between them."""
    return " · ".join(line.strip() for line in text.split("\n") if line.strip())


def clip(text: str, length: int = _LONGEST_TEXT) -> str:
    """``text`` cut after ``length`` characters, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def quoted(text: str, length: int = _LONGEST_TEXT) -> Markup:
    """Text from a page, cleaned and cut, with its language marked where the script tells it."""
    shown = clip(clean(text), length)
    if _HAN.search(shown):
        return Markup('<span lang="zh">{}</span>').format(shown)
    return escape(shown)


def chip(kind: str, value: str) -> Markup:
    """A small label whose meaning is in its sign and its word, colour being third.

    ``kind`` is ``severity`` or ``status``.
    """
    signs = _SEVERITIES if kind == "severity" else _STATUSES
    name = value if value in signs else "note"
    return Markup('<span class="chip {}-{}"><span class="sign" aria-hidden="true">{}</span>{}</span>').format(
        kind, name, signs.get(value, "○"), value
    )


def link(url: str, text: str | None = None, length: int = 90) -> Markup:
    """An address as an external link where it is http or https, else as plain text."""
    shown = clip(clean(text if text is not None else url), length)
    try:
        parts = urlsplit(url)
        safe = parts.scheme in ("http", "https") and bool(parts.hostname) and clean(url) == url
    except ValueError:
        safe = False
    if not safe:
        return escape(shown)
    return Markup('<a class="out" href="{}" rel="noopener noreferrer nofollow">{}</a>').format(url, shown)


def percent(value: float | None, digits: int = 1) -> str:
    """A signed percentage with a true minus sign. Empty for None."""
    if value is None:
        return ""
    rounded = round(value, digits) + 0.0  # no minus zero
    return f"{rounded:+.{digits}f} %".replace("-", "−")


def minute(moment: datetime | None) -> str:
    """``2026-11-18 06:10`` in UTC. Empty for None."""
    return "" if moment is None else f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M}"


def day(moment: datetime | None) -> str:
    """``18 Nov 2026`` in UTC, whatever the locale. Empty for None."""
    if moment is None:
        return ""
    utc = moment.astimezone(timezone.utc)
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{utc.day} {months[utc.month - 1]} {utc.year}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 page``, ``2 pages``, ``1,204 pages``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def words(parts: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    items = list(parts)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
