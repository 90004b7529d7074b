"""The readout: what of a week's changes a reader has to know, in at most three findings.

Changes of one company that tell one story become one finding: price cuts of several products together with the claims
that advertise them, tiers that went together with the features that moved. A finding needs a change of high or medium
severity; findings are ranked by severity × confidence, and a company that already has one gives way to others. The
headline states facts from the pages. A shift in a competitor's reviews (``workbench.insight.sentiment``) can be a
finding too; it rests on a model's reading, and its confidence says so. ``so_what`` is inference from the numbers and
says so by its hedges (may, looks, probably); ``action`` is a suggestion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from workbench.insight.coverage import coverage
from workbench.insight.rules import SEVERITIES
from workbench.insight.shift_story import ShiftStory, tell_shift
from workbench.insight.stories import STORIES, Row, Standing, Story, theme_of
from workbench.weeks import Week
from workbench.workspace import Company, Workspace

__all__ = ["Fact", "Finding", "Readout", "build_readout"]

_MOST = 3
_WEIGHT = {"high": 3.0, "medium": 2.0}
"""Only these severities make a finding."""
_SAME_COMPANY = 0.6
"""A further finding on the same company counts this much less."""
_OTHER_MATTER = 0.8
"""What its customers say is another matter than what it does, so such a finding counts less by this only."""


@dataclass(frozen=True)
class Fact:
    """A statement that is no row of the changes table, with the snapshots it was read from."""

    text: str
    snapshot_ids: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One thing to know, with the changes and snapshots it rests on."""

    severity: str
    confidence: float
    """That of the least certain of its gravest changes."""
    company_id: str
    headline: str
    """The fact."""
    so_what: str
    """The inference."""
    action: str
    """The suggestion."""
    change_ids: tuple[str, ...]
    snapshot_ids: tuple[str, ...]
    facts: tuple[Fact, ...] = ()
    """What it rests on besides changes."""


@dataclass(frozen=True)
class Readout:
    """``findings``, the gravest first; ``quiet`` when there are none; ``summary`` in a sentence or two."""

    findings: tuple[Finding, ...]
    quiet: bool
    summary: str


def build_readout(
    changes: pl.DataFrame,
    workspace: Workspace,
    week: Week,
    *,
    sources: pl.DataFrame | None = None,
    index: pl.DataFrame | None = None,
    sentiment: pl.DataFrame | None = None,
) -> Readout:
    """The findings of ``week`` among ``changes`` (schema of the lake's table).

    ``sources`` (the lake's table) lets the summary say how much was seen; ``index`` (from ``price_index``) lets price
    findings be set against the own product; ``sentiment`` (from ``sentiment_shifts``) adds shifts in reviews.
    """
    rows: list[Row] = changes.filter(pl.col("week") == str(week)).to_dicts()
    rows.sort(key=_rank)
    standing = Standing(workspace, index)
    candidates = []
    for company in workspace.competitors:
        for theme, members in _stories([row for row in rows if row["company_id"] == company.id]):
            story = STORIES[theme](company, members, standing)
            candidates.append((_finding(company, members, story), _size(members)))
        shift = None if sentiment is None else tell_shift(company, sentiment, workspace)
        if shift is not None:
            candidates.append((_shift_finding(company, shift), shift.size))
    findings = _choose(candidates)
    return Readout(findings, not findings, _summary(rows, findings, workspace, week, sources))


def _rank(row: Row) -> tuple[int, float, str]:
    """The gravest first, then the surest."""
    return (SEVERITIES.index(row["severity"]), -row["confidence"], row["change_id"])


def _stories(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Rows of one company by theme, themes in a fixed order; only those with something grave enough."""
    themes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["severity"] != "note" and (theme := theme_of(row)) is not None:
            themes[theme].append(row)
    # What only goes with a move of price joins it where there is one.
    for extra in ("list", "advertised"):
        host = next((theme for theme in ("cut", "rise") if themes.get(theme)), None)
        if extra == "advertised":
            host = "cut" if themes.get("cut") else "claims"
        if host is not None and extra in themes:
            themes[host] += themes.pop(extra)
    # A tier's new price beside tiers that came or went is part of their story.
    if any(row["kind"] in ("plan_added", "plan_removed") for row in themes.get("plans", ())):
        for theme in ("cut", "rise", "terms"):
            themes["plans"] += [row for row in themes.get(theme, ()) if row["kind"] == "plan_price"]
            themes[theme] = [row for row in themes.get(theme, ()) if row["kind"] != "plan_price"]
        themes["plans"].sort(key=_rank)
    return [(t, themes[t]) for t in STORIES if any(row["severity"] in _WEIGHT for row in themes.get(t, ()))]


def _finding(company: Company, rows: list[Row], story: Story) -> Finding:
    gravest = min((row["severity"] for row in rows), key=SEVERITIES.index)
    return Finding(
        severity=gravest,
        confidence=min(row["confidence"] for row in rows if row["severity"] == gravest),
        company_id=company.id,
        headline=story.headline,
        so_what=story.so_what,
        action=story.action,
        change_ids=tuple(row["change_id"] for row in rows),
        snapshot_ids=_unique(row[side] for row in rows for side in ("snapshot_before", "snapshot_after")),
    )


def _shift_finding(company: Company, shift: ShiftStory) -> Finding:
    return Finding(
        severity=shift.severity,
        confidence=shift.confidence,
        company_id=company.id,
        headline=shift.story.headline,
        so_what=shift.story.so_what,
        action=shift.story.action,
        change_ids=(),
        snapshot_ids=shift.snapshot_ids,
        facts=tuple(Fact(text, snapshot_ids) for text, snapshot_ids in shift.facts),
    )


def _unique(ids: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(i for i in ids if i))


def _size(rows: list[Row]) -> float:
    return max((abs(row["percent"]) for row in rows if row["percent"] is not None), default=0.0)


def _choose(candidates: list[tuple[Finding, float]]) -> tuple[Finding, ...]:
    """The best three, each company's second and third at a discount; the larger price move breaks ties."""
    chosen: list[Finding] = []
    left = list(candidates)
    while left and len(chosen) < _MOST:

        def score(candidate: tuple[Finding, float]) -> tuple[float, float]:
            finding, size = candidate
            told = [bool(other.facts) for other in chosen if other.company_id == finding.company_id]
            same = told.count(bool(finding.facts))
            factor = _SAME_COMPANY**same * _OTHER_MATTER ** (len(told) - same)
            return (round(_WEIGHT[finding.severity] * finding.confidence * factor, 6), size)

        best = max(left, key=score)  # the first of equals, which is the workspace's order
        left.remove(best)
        chosen.append(best[0])
    return tuple(sorted(chosen, key=lambda finding: SEVERITIES.index(finding.severity)))


def _summary(
    rows: list[Row], findings: tuple[Finding, ...], workspace: Workspace, week: Week, sources: pl.DataFrame | None
) -> str:
    seen = ""
    if sources is not None:
        cover = coverage(sources, workspace, week)
        if cover.seen == 0:
            return "No source was seen this week, so nothing can be said about changes."
        seen = f" in {_count(cover.seen, 'source')} seen; {len(cover.not_seen)} not seen"
    if findings:
        made_of = [_count(len(rows), "change")] if rows or all(finding.change_ids for finding in findings) else []
        if any(finding.facts for finding in findings):
            made_of.append("the week's reviews")
        return f"{_count(len(findings), 'finding')} from {' and '.join(made_of)}{seen}."
    text = f"No change above your thresholds{seen}."
    return f"{text} {_count(len(rows), 'smaller change')} recorded." if rows else text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
