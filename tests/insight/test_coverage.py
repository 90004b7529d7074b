"""What was seen, what was not."""

from __future__ import annotations

import pytest
from insight_world import URL, WEEK, day, market, source_frame, source_row

from workbench.insight.coverage import COVERAGE, STATUSES, coverage


def test_every_source_has_a_status_and_an_age() -> None:
    frame = source_frame(
        source_row("ondine-folio", "fetched", day(0)),
        source_row("ondine-pricing", "fetched", day(3)),
        source_row("larkpaper-slate", "failed", day(0)),
        source_row("moshu-m2", "robots-denied", None),
        source_row("moshu-m2", "fetched", day(0), week="2026-W40"),
        source_row("left-long-ago", "fetched", day(0)),
    )
    found = coverage(frame, market(), WEEK)
    assert found.rows.schema == COVERAGE
    assert found.rows.select("source_id", "status", "seen").rows() == [
        ("larkpaper-slate", "failed", True),
        ("ondine-folio", "fetched", True),
        ("ondine-pricing", "stale", False),
        ("moshu-m2", "robots-denied", False),
    ]
    # Tuesday 09:00 to Monday 00:00 is 5 days 15 hours.
    assert found.rows["age_days"].to_list()[:3] == pytest.approx([5.625, 5.625, 26.625], abs=0.006)
    assert found.rows["age_days"][3] is None
    assert found.counts == dict.fromkeys(STATUSES, 0) | {"fetched": 1, "stale": 1, "failed": 1, "robots-denied": 1}
    assert (found.seen, found.not_seen) == (2, ("ondine-pricing", "moshu-m2"))


def test_stale_is_a_matter_of_the_workspaces_days() -> None:
    frame = source_frame(source_row("ondine-folio", "not-modified", day(1)))
    by_default = coverage(frame, market(), WEEK).rows.filter(source_id="ondine-folio")
    patient = coverage(frame, market(stale_after_days=20), WEEK).rows.filter(source_id="ondine-folio")
    assert (by_default["status"].item(), patient["status"].item()) == ("stale", "not-modified")
    assert not patient["seen"].item()  # an old snapshot is not this week's


def test_source_never_asked_is_stale_and_says_what_to_run() -> None:
    found = coverage(source_frame(), market(), WEEK)
    assert set(found.rows["status"]) == {"stale"}
    assert found.rows.height == found.counts["stale"] == len(found.not_seen) == 4
    assert all("workbench collect" in note for note in found.rows["note"])


def test_pages_of_a_discovered_source_are_told_apart() -> None:
    frame = source_frame(
        source_row("ondine-folio", "fetched", day(0)),
        source_row("ondine-folio", "blocked", None, url=f"{URL}/b"),
    )
    assert f"ondine-folio ({URL}/b)" in coverage(frame, market(), WEEK).not_seen


def test_order_of_rows_does_not_matter() -> None:
    frame = source_frame(*(source_row(s.source.id, "fetched", day(0)) for s in market().sources()))
    assert coverage(frame, market(), WEEK).rows.equals(coverage(frame.reverse(), market(), WEEK).rows)
