"""How a shift in reviews is told: the fact with its numbers, what it may mean, what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from workbench.insight.rules import Severity
from workbench.insight.sentiment import ALL, telling_shifts, topic_name
from workbench.insight.stories import Story
from workbench.workspace import Company, Workspace

__all__ = ["ShiftStory", "percent_words", "tell_shift"]

_SMALLEST = 0.10
"""A smaller difference is not worth a finding, however sure."""
_GRAVE = 0.20
"""The whole interval beyond this: of high severity."""
_SUREST = 0.85
"""Of a finding that rests on a model's reading."""
_MOST_SNAPSHOTS = 4


@dataclass(frozen=True)
class ShiftStory:
    """A story with what a finding needs besides."""

    story: Story
    severity: Severity
    confidence: float
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    """Each fact with the snapshots it was read from."""
    snapshot_ids: tuple[str, ...]
    size: float
    """The largest difference, in points."""


def percent_words(share: float) -> str:
    """``69 %``."""
    return f"{share * 100:.0f} %"


def tell_shift(company: Company, shifts: pl.DataFrame, workspace: Workspace) -> ShiftStory | None:
    """The story of a company's shifts (schema SHIFTS); None when there is none worth a finding."""
    topics = {topic: topic_name(workspace, topic) for topic in shifts["topic"].unique().to_list()}
    rows = [
        row
        for row in telling_shifts(shifts.filter(pl.col("company_id") == company.id).to_dicts())
        if abs(row["delta"]) >= _SMALLEST and row["topic"] != "other"
    ]
    if not rows:
        return None
    # All reviews first, then the largest difference.
    rows.sort(key=lambda row: (row["topic"] != ALL, -abs(row["delta"]), row["measure"], row["topic"]))
    lead = rows[0]
    worse = lead["delta"] > 0
    rows = [row for row in rows if (row["delta"] > 0) == worse]
    about = [row for row in rows if row["topic"] != ALL]
    headline = _headline(company, lead, about, topics)
    if worse:
        meaning = (
            f"Buyers who read reviews may hold back, and owners of {company.name} products may look around; "
            "one week cannot tell whether it lasts."
        )
        subject = f" on “{topics[about[0]['topic']]}”" if about else ""
        action = (
            f"Read the quotes in section 5, check how your own product stands{subject}, "
            "and be ready for buyers who ask."
        )
    else:
        meaning = f"What held buyers back from {company.name} may be going."
        action = "Find out in the quotes of section 5 what became better, and whether an argument of yours is weaker."
    grave = worse and any(row["low"] >= _GRAVE for row in rows)
    return ShiftStory(
        story=Story(headline, meaning, action),
        severity="high" if grave else "medium",
        confidence=round(min(_SUREST, 1 - lead["q"]), 2),
        facts=tuple((_fact(row, topics), tuple(row["snapshot_ids"][:_MOST_SNAPSHOTS])) for row in rows),
        snapshot_ids=tuple(dict.fromkeys(i for row in rows for i in row["snapshot_ids"]))[:_MOST_SNAPSHOTS],
        size=max(abs(row["delta"]) for row in rows) * 100,
    )


def _headline(
    company: Company, lead: Mapping[str, Any], about: Sequence[Mapping[str, Any]], topics: Mapping[str, str]
) -> str:
    verb = "rose" if lead["delta"] > 0 else "fell"
    what = "Negative reviews" if lead["topic"] == ALL else _subject(lead, topics)
    headline = (
        f"{what} of {company.name} {verb} from {percent_words(lead['share_baseline'])} to "
        f"{percent_words(lead['share_week'])}: {lead['cases_week']} of {lead['reviews_week']} this week, "
        f"{lead['cases_baseline']} of {lead['reviews_baseline']} in the four weeks before."
    )
    if lead["topic"] == ALL and about:
        named = list(dict.fromkeys(topics[row["topic"]] for row in about))[:2]
        headline += f" It shows most in what they say on {' and '.join(f'“{name}”' for name in named)}."
    return headline


def _subject(row: Mapping[str, Any], topics: Mapping[str, str]) -> str:
    name = topics[row["topic"]]
    return (
        f"Complaints about “{name}” in reviews" if row["measure"] == "complaints" else f"Negative reviews on “{name}”"
    )


def _fact(row: Mapping[str, Any], topics: Mapping[str, str]) -> str:
    what = "Negative reviews" if row["topic"] == ALL else _subject(row, topics)
    points = f"{row['delta'] * 100:+.0f}".replace("-", "−")
    interval = f"{row['low'] * 100:+.0f} to {row['high'] * 100:+.0f}".replace("-", "−")
    q = "below 0.001" if row["q"] < 0.001 else f"{row['q']:.3f}"
    return (
        f"{what}: {row['cases_week']} of {row['reviews_week']} ({percent_words(row['share_week'])}), before "
        f"{row['cases_baseline']} of {row['reviews_baseline']} ({percent_words(row['share_baseline'])}); "
        f"{points} points, 95 % interval {interval}, q {q}; as a model read them"
    )
