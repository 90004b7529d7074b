from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from worlds import FOLIO, WEEK, Site, make_workspace, on

from workbench.ingest.coverage import sources_frame

FEED = """
[[competitors.sources]]
id = "news"
url = "https://ondine.example/feed.xml"
kind = "news"
discover = "feed"
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(make_workspace(tmp_path, extra=FEED))


def rows(site: Site, *, source: str = "folio", week: Any = WEEK) -> list[dict[str, Any]]:
    entries = site.archive.entries(end=week.end)
    frame = sources_frame(site.workspace, week, entries, window_days=28)
    return [row for row in frame.sort("source_id", "url").to_dicts() if row["source_id"] == source]


def test_every_source_has_a_row_before_anything_is_fetched(site: Site) -> None:
    frame = sources_frame(site.workspace, WEEK, [], window_days=28)
    assert frame.height == 5
    assert set(frame["status"]) == {"stale"}
    assert set(frame["note"]) == {"never fetched; run: workbench collect"}
    assert frame["snapshot_id"].null_count() == frame["attempted_at"].null_count() == 5


def test_the_last_attempt_of_the_week_counts(site: Site) -> None:
    first = site.show(b"a", on(-7))
    site.miss(on(0), "blocked", note="captcha")
    second = site.same(on(2))
    (row,) = rows(site)
    assert (row["status"], row["http_status"], row["note"]) == ("not-modified", 304, "")
    assert (row["snapshot_id"], row["snapshot_at"], row["attempted_at"]) == (second, on(2), on(2))
    site.miss(on(3), "robots-denied", note="robots.txt says no")
    (row,) = rows(site)
    assert (row["status"], row["note"], row["attempted_at"]) == ("robots-denied", "robots.txt says no", on(3))
    assert (row["snapshot_id"], row["snapshot_at"]) == (second, on(2))
    # What comes after the week is not known in it.
    site.show(b"b", on(7))
    assert rows(site) == [row]
    (earlier,) = rows(site, week=WEEK.back(1))
    assert (earlier["status"], earlier["snapshot_id"]) == ("fetched", first)


def test_a_week_without_an_attempt_is_stale(site: Site) -> None:
    seen = site.show(b"a", on(-3))
    site.miss(on(-1), "failed", note="timeout")
    (row,) = rows(site)
    assert row["status"] == "stale"
    assert row["note"] == "not tried this week; last try 2026-11-15: failed (timeout); run: workbench collect"
    assert (row["snapshot_id"], row["attempted_at"]) == (seen, on(-1))


def test_a_snapshot_older_than_the_threshold_is_stale(tmp_path: Path) -> None:
    site = Site(make_workspace(tmp_path, extra="[thresholds]\nstale_after_days = 3\n"))
    site.show(b"a", on(2))
    (row,) = rows(site)
    assert row["status"] == "stale"
    assert row["note"] == "last seen 2026-11-18, more than 3 days before the week's end"
    site.same(WEEK.end - timedelta(days=3))
    assert rows(site)[0]["status"] == "not-modified"
    site.miss(on(6), "failed", note="timeout")
    assert rows(site)[0]["status"] == "failed", "a failure says more than stale"


def test_a_page_that_is_gone_was_fetched(site: Site) -> None:
    site.show(b"not here", on(1), status=404)
    (row,) = rows(site)
    assert (row["status"], row["http_status"]) == ("fetched", 404)


def test_discovered_pages_come_and_go_with_the_feed(site: Site) -> None:
    feed, article = "https://ondine.example/feed.xml", "https://ondine.example/news/1"
    site.show(b"<rss/>", on(-7), url=feed, source="news")
    site.show(b"news", on(-7), url=article, source="news")
    assert [row["url"] for row in rows(site, source="news", week=WEEK.back(1))] == [feed, article]
    # This week the feed was not read, so nobody knows whether the article is still in it.
    site.miss(on(0), url=feed, source="news", note="HTTP 503")
    assert [(row["url"], row["status"]) for row in rows(site, source="news")] == [
        (feed, "failed"),
        (article, "stale"),
    ]
    # Then it was, and the article was no longer tried: it has left the feed.
    site.show(b"<rss></rss>", on(1), url=feed, source="news")
    assert [(row["url"], row["status"]) for row in rows(site, source="news")] == [(feed, "fetched")]


def test_an_address_a_source_had_before_is_not_a_gap(site: Site) -> None:
    site.show(b"old", on(-7), url=FOLIO + "-old")
    site.show(b"new", on(1))
    assert [row["url"] for row in rows(site)] == [FOLIO]
