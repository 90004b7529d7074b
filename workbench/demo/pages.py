"""The demo's pages: templates in ``site/`` filled with what the world says at a moment."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_UP, Decimal
from email.utils import format_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from workbench.demo.world import PageSpec, Review, World

__all__ = ["RenderedPage", "render_page"]

# Not from strftime: its names follow the locale, and the demo's bytes must not.
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


@dataclass(frozen=True)
class RenderedPage:
    """A server's answer: 200 with the page, or 404 once the page is gone."""

    http_status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    payload: bytes


def render_page(world: World, spec: PageSpec, moment: datetime) -> RenderedPage:
    """What the page's server answers at ``moment``. The same arguments give the same bytes."""
    state = world.state(spec.company_id, moment)
    headers = [("Date", format_datetime(moment, usegmt=True))]
    if spec.source_id not in state["pages"]:
        payload = _environment().get_template("not_found.html").render().encode()
        return RenderedPage(404, "Not Found", (*headers, ("Content-Type", "text/html; charset=utf-8")), payload)
    html = _environment().get_template(spec.template).render(**_context(world, spec, moment, state))
    # Strict: a character that the declared encoding does not have is a mistake in the content.
    payload = html.encode(spec.encoding)
    headers.append(("Content-Type", spec.content_type))
    if spec.etag:
        headers.append(("ETag", f'"{hashlib.sha256(payload).hexdigest()[:16]}"'))
    return RenderedPage(200, "OK", tuple(headers), payload)


def _context(world: World, spec: PageSpec, moment: datetime, state: dict[str, Any]) -> dict[str, Any]:
    reviews = world.reviews_at(state["reviews"]["product"], moment)
    first = max(spec.review_page - 1, 0) * world.page_size
    return {
        **state,
        "page": spec,
        "topic": state[spec.subject],
        "now": moment,
        # As a real server would: another value on each visit.
        "token": hashlib.sha256(f"{spec.url} {moment.isoformat()}".encode()).hexdigest()[:32],
        "shown": reviews[first : first + world.page_size],
        "page_count": max(1, math.ceil(len(reviews) / world.page_size)),
        "rating": {"count": len(reviews), "mean": _mean(reviews)},
        "days_until": lambda day: (day - moment.date()).days,
    }


def _mean(reviews: list[Review]) -> str:
    return f"{sum(r.rating for r in reviews) / len(reviews):.1f}" if reviews else "0.0"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        money=Decimal,
        usd=lambda amount: f"${_cents(amount):,.2f}",
        plain=lambda amount: f"{_cents(amount):.2f}",
        short=lambda amount: f"{Decimal(amount).normalize():f}",
        thousands=lambda amount: f"{Decimal(amount):,.0f}",
        longdate=lambda day: f"{day.day} {_MONTHS[day.month - 1]} {day.year}",
        shortdate=lambda day: f"{_MONTHS[day.month - 1][:3]} {day.day}, {day.year}",
        zhdate=_zhdate,
    )
    return environment


def _cents(amount: str | Decimal) -> Decimal:
    return Decimal(amount).quantize(Decimal("0.01"), ROUND_UP)


def _zhdate(day: date) -> str:
    return f"{day.year}年{day.month}月{day.day}日"
