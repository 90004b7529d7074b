"""A second run: what has not changed, what only looks so, and the run as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from datetime import datetime, timedelta, timezone

import pytest

from workbench.collect import Outcome, collect
from workbench.errors import CollectError
from workbench.store.archive import Archive

PAGE = "<html><title>Folio</title><p>Ondine Folio, $399</p></html>"
MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)


@pytest.fixture
def one(watch, fast):
    def run(url: str, **policy) -> Outcome:
        (outcome,) = collect(watch(url, **policy), progress=False, pacing=fast).outcomes
        return outcome

    return run


def conditional(rogue, path, etag, body=PAGE):
    def answer(request):
        if request.headers.get("If-None-Match") == etag:
            request.reply(304, b"", {"ETag": etag})
        else:
            request.reply(200, body.encode(), {"ETag": etag})

    rogue.answers[path] = answer
    return rogue.origin + path


def test_304_becomes_a_revisit_each_time(rogue, one, tmp_path):
    utf8 = 'W/"纸-1"'.encode().decode("latin-1")  # as http.server writes and reads the bytes of a header
    url = conditional(rogue, "/folio", utf8)
    assert [one(url).status for _ in range(4)] == ["fetched", *["not-modified"] * 3]
    assert [h.get("if-none-match") is not None for h in rogue.asked("/folio")] == [False, True, True, True]
    archive = Archive(tmp_path / "archive")
    first, *later = archive.entries()
    assert {e.refers_to for e in later} == {first.snapshot_id}
    assert {e.http_status for e in later} == {304}
    assert len({e.snapshot_id for e in (first, *later)}) == 4
    assert archive.payload(later[-1]) == PAGE.encode()


def test_last_modified_is_asked_with(rogue, one):
    stamp = "Mon, 16 Nov 2026 06:00:00 GMT"
    url = rogue.page("/folio", PAGE, Last_Modified=stamp)
    one(url)
    assert one(url).status == "not-modified"
    assert rogue.asked("/folio")[1]["if-modified-since"] == stamp


def test_the_same_payload_without_validators_is_a_revisit(rogue, one, tmp_path):
    url = rogue.page("/folio", PAGE)
    assert [one(url).status for _ in range(3)] == ["fetched", "not-modified", "not-modified"]
    assert [e.http_status for e in Archive(tmp_path / "archive").entries()] == [200, 200, 200]


def test_an_address_that_is_not_ascii_is_the_same_the_next_time(rogue, one, tmp_path):
    conditional(rogue, "/%E7%BA%B8?%E5%A2%A8=1", '"1"')
    url = rogue.origin + "/纸?墨=1"
    assert [one(url).status, one(url).status] == ["fetched", "not-modified"]
    assert {e.url for e in Archive(tmp_path / "archive").entries()} == {url}


def test_a_changed_page_is_fetched(rogue, one):
    url = conditional(rogue, "/folio", '"1"')
    one(url)
    conditional(rogue, "/folio", '"2"', PAGE.replace("399", "349"))
    assert one(url).status == "fetched"
    assert rogue.asked("/folio")[1]["if-none-match"] == '"1"'


def test_the_same_bytes_under_another_charset_are_another_page(rogue, one):
    body = "<p>墨舒 M2</p>".encode("gbk")
    url = rogue.page("/m2", body, Content_Type="text/html; charset=utf-8")
    one(url)
    rogue.page("/m2", body, Content_Type="text/html; charset=gbk")
    assert one(url).status == "fetched"


def test_a_page_that_goes_and_comes_back(rogue, one):
    url = conditional(rogue, "/folio", '"1"')
    seen = [one(url)]
    rogue.page("/folio", "<p>gone</p>", 404)
    seen += [one(url), one(url)]
    conditional(rogue, "/folio", '"1"')
    seen += [one(url)]
    assert [(o.status, o.http_status) for o in seen] == [
        ("fetched", 200),
        ("fetched", 404),
        ("not-modified", 404),
        ("fetched", 200),
    ]


def test_a_failed_run_in_between_does_not_lose_the_validators(rogue, one):
    url = conditional(rogue, "/folio", '"1"')
    one(url)
    rogue.page("/folio", "", 503)
    assert one(url).status == "failed"
    conditional(rogue, "/folio", '"1"')
    assert one(url).status == "not-modified"


def test_a_304_that_answers_no_question_is_failed(rogue, one):
    outcome = one(rogue.page("/folio", "", 304))
    assert (outcome.status, outcome.http_status) == ("failed", 304)
    assert "nothing was asked" in outcome.note


def test_validators_go_only_to_the_address_they_came_from(rogue, one):
    url = rogue.page("/start", "", 302, Location="/a")
    conditional(rogue, "/a", '"a"')
    one(url)
    assert one(url).status == "not-modified"
    assert [h.get("if-none-match") for h in rogue.asked("/start")] == [None, None]
    assert [h.get("if-none-match") for h in rogue.asked("/a")] == [None, '"a"']
    rogue.page("/start", "", 302, Location="/b")
    rogue.page("/b", "", 304)
    assert one(url).status == "failed"
    assert rogue.asked("/b")[0].get("if-none-match") is None


def test_a_page_whose_original_is_lost_is_fetched_in_full(rogue, one, tmp_path):
    url = conditional(rogue, "/folio", '"1"')
    one(url)
    (first,) = (tmp_path / "archive").glob("*.warc.gz")
    one(url)
    first.unlink()
    assert one(url).status == "fetched"


def test_snapshots_are_dated_by_the_clock(rogue, watch, fast, tmp_path):
    ticks = iter(range(100))
    result = collect(
        watch(rogue.page("/a", PAGE), rogue.page("/b", PAGE, 403)),
        progress=False,
        pacing=fast,
        clock=lambda: MONDAY + timedelta(seconds=next(ticks)),
    )
    assert result.started_at == MONDAY
    assert result.finished_at == MONDAY + timedelta(seconds=3)
    assert [e.attempted_at for e in Archive(tmp_path / "archive").entries()] == [
        MONDAY + timedelta(seconds=1),
        MONDAY + timedelta(seconds=2),
    ]


def test_outcomes_counts_and_summary(rogue, watch, fast):
    rogue.page("/robots.txt", "User-agent: *\nDisallow: /no\n")
    urls = [
        rogue.page("/yes", PAGE),
        rogue.page("/no", PAGE),
        rogue.page("/shut", "", 403),
        rogue.page("/5", "", 500),
    ]
    result = collect(watch(*urls), progress=True, pacing=fast)
    assert [o.url for o in result.outcomes] == urls
    assert result.counts == {"fetched": 1, "not-modified": 0, "robots-denied": 1, "blocked": 1, "failed": 1}
    lines = result.summary().splitlines()
    assert lines[0].startswith("4 pages: 1 fetched, 1 robots-denied, 1 blocked, 1 failed (0.0 MB, ")
    assert [line.split()[:2] for line in lines[1:]] == [["robots-denied", "s1"], ["blocked", "s2"], ["failed", "s3"]]
    assert lines[3].endswith("HTTP 500")


def test_only_some_sources(rogue, watch, fast):
    urls = [rogue.page(f"/{n}", PAGE) for n in range(3)]
    workspace = watch(*urls)
    assert [o.url for o in collect(workspace, only=["s1"], progress=False, pacing=fast).outcomes] == [urls[1]]
    assert len(collect(workspace, only=["rival"], progress=False, pacing=fast).outcomes) == 3
    with pytest.raises(CollectError, match=r"No source or company has the id 'nobody'.*s0, s1, s2"):
        collect(workspace, only=["nobody"], progress=False)


def test_nothing_to_collect_is_an_error(watch, tmp_path):
    with pytest.raises(CollectError, match=r"has no sources.*workbench doctor"):
        collect(watch(), progress=False)
    assert not (tmp_path / "archive").exists()


def test_an_address_that_cannot_be_archived_is_an_error_at_once(watch, tmp_path):
    with pytest.raises(ValueError, match="%20"):
        collect(watch("https://rival.example/a b"), progress=False)
    assert not (tmp_path / "archive").exists()


def test_inside_a_running_event_loop(rogue, watch, fast):
    workspace = watch(rogue.page("/", PAGE))

    async def cell():
        return collect(workspace, progress=False, pacing=fast)

    assert asyncio.run(cell()).counts["fetched"] == 1


@pytest.fixture
def interruptible():
    """SIGINT as a terminal gives it: a job that a shell starts in the background is born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("in_loop", [False, True])
def test_ctrl_c_keeps_what_was_archived(rogue, watch, fast, tmp_path, in_loop):
    good = rogue.page("/good", PAGE)
    drip = rogue.says("/drip", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", *[b"x"] * 200, pause_s=0.05)
    workspace = watch(good, drip)

    def interrupt():
        for _ in range(200):
            if rogue.asked("/drip") and list((tmp_path / "archive").glob("*.warc.gz.open")):
                break
            rogue.stopping.wait(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    async def cell():
        return collect(workspace, progress=False, pacing=fast)

    def run():
        if not in_loop:
            return collect(workspace, progress=False, pacing=fast)
        # As a notebook kernel does; asyncio.run would take the signal for itself.
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            return loop.run_until_complete(cell())

    waiter = threading.Thread(target=interrupt)
    waiter.start()
    with pytest.raises(KeyboardInterrupt):
        run()
    waiter.join()
    (entry,) = Archive(tmp_path / "archive").entries()
    assert (entry.url, entry.status) == (good, "fetched")
    assert not list((tmp_path / "archive").glob("*.open"))
