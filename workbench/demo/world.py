"""The demo's world: what its sites say at any moment, read from ``content/``.

Each company has a TOML file. Its top holds what the site says on the first day; each ``[[changes]]`` table is laid
over it from its ``at`` on: tables are merged, other values replaced, and the dotted keys in ``remove`` taken away. An
entry of a list that carries a ``date`` (a release, a news item, a review) shows from the next day on.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.store.archive import SourceStatus

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CONTENT", "Outcome", "PageSpec", "Review", "World", "load_world"]

CONTENT = Path(__file__).parent / "content"

_COMPANIES = ("larkpaper", "ondine", "penrill", "moshu")


@dataclass(frozen=True)
class PageSpec:
    """One page of a demo site, the same for all moments."""

    source_id: str
    company_id: str
    url: str
    template: str
    subject: str
    """Key of the company's state that holds what the page is about."""
    encoding: str = "utf-8"
    content_type: str = "text/html; charset=utf-8"
    etag: bool = False
    """Whether the server sends an ETag, and so answers 304 to a page that did not change."""
    review_page: int = 0
    """Number of this page in a paginated list of reviews; 0 for other pages."""


@dataclass(frozen=True)
class Review:
    """One review as written; see reviews_*.jsonl."""

    id: str
    product: str
    author: str
    rating: int
    date: date
    title: str
    text: str


@dataclass(frozen=True)
class Outcome:
    """What an attempt on a source gave instead of a page, from ``since`` up to, not including, ``until``."""

    source: str
    status: SourceStatus
    note: str
    http_status: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    def covers(self, moment: datetime) -> bool:
        """Whether an attempt at ``moment`` ends like this."""
        return (self.since is None or self.since <= moment) and (self.until is None or moment < self.until)


@dataclass(frozen=True)
class World:
    """All content, and the four weeks' sessions."""

    companies: Mapping[str, Mapping[str, Any]]
    reviews: tuple[Review, ...]
    sessions: tuple[datetime, ...]
    """When the collector ran, UTC, ascending."""
    outcomes: tuple[Outcome, ...]
    page_size: int
    """Reviews on one page of a list."""

    @property
    def pages(self) -> tuple[PageSpec, ...]:
        """All pages of all sites, as they were on the first day."""
        return tuple(
            _page_spec(source_id, company_id, raw["site"]["host"], page)
            for company_id, raw in self.companies.items()
            for source_id, page in raw["pages"].items()
        )

    def state(self, company_id: str, moment: datetime) -> dict[str, Any]:
        """What the company's site says at ``moment``. The result is the caller's own copy."""
        raw = self.companies[company_id]
        state = {key: copy.deepcopy(value) for key, value in raw.items() if key != "changes"}
        for change in raw.get("changes", ()):
            if change["at"] <= moment:
                patch = {key: value for key, value in change.items() if key not in ("at", "remove")}
                _merge(state, patch)
                for path in change.get("remove", ()):
                    _remove(state, path)
        for key, value in state.items():
            if isinstance(value, list):
                state[key] = [item for item in value if item.get("date", date.min) < moment.date()]
        return state

    def reviews_at(self, product: str, moment: datetime) -> list[Review]:
        """Reviews of a product shown at ``moment``, newest first: those dated before that day."""
        shown = [review for review in self.reviews if review.product == product and review.date < moment.date()]
        return sorted(shown, key=lambda review: (review.date, review.id), reverse=True)

    def outcome(self, source_id: str, moment: datetime) -> Outcome | None:
        """Why the source gives no page at ``moment``; None where it does."""
        return next((o for o in self.outcomes if o.source == source_id and o.covers(moment)), None)


@lru_cache(maxsize=1)
def load_world() -> World:
    """Read ``content/`` once."""
    plan = _read_toml("sessions.toml")
    return World(
        companies={name: _read_toml(f"{name}.toml") for name in _COMPANIES},
        reviews=tuple(
            Review(**{**row, "date": date.fromisoformat(row["date"])})
            for path in sorted(CONTENT.glob("reviews_*.jsonl"))
            for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        ),
        sessions=tuple(session["at"] for session in plan["sessions"]),
        outcomes=tuple(Outcome(**outcome) for outcome in plan["outcomes"]),
        page_size=plan["page_size"],
    )


def _read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads((CONTENT / name).read_text(encoding="utf-8"))


def _page_spec(source_id: str, company_id: str, host: str, page: Mapping[str, Any]) -> PageSpec:
    rest = {key: value for key, value in page.items() if key not in ("path", "url")}
    return PageSpec(source_id, company_id, page.get("url") or host + page["path"], **rest)


def _merge(state: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(state.get(key), dict):
            _merge(state[key], value)
        else:
            state[key] = copy.deepcopy(value)


def _remove(state: dict[str, Any], path: str) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        state = state[parent]
    # A key that is not there is a mistake in the content, so this may raise.
    del state[last]
