"""The collector against a server that misbehaves on purpose. Every request stays on this machine."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
import zlib
from datetime import datetime, timezone

import brotli
import pytest

from workbench.collect import Outcome, collect
from workbench.store.archive import Archive

PAGE = "<html><title>Folio</title><p>Ondine Folio, $399</p></html>"


@pytest.fixture
def one(watch, fast):
    """Collect one address and give its outcome."""

    def run(url: str, **policy) -> Outcome:
        result = collect(watch(url, **policy), progress=False, pacing=fast)
        (outcome,) = result.outcomes
        return outcome

    return run


def entries(tmp_path):
    return Archive(tmp_path / "archive").entries()


def test_a_page_is_fetched_and_archived_with_an_honest_name(rogue, one, tmp_path):
    url = rogue.page("/folio", PAGE, ETag='"v1"', Set_Cookie="session=secret", Connection="keep-alive")
    outcome = one(url)
    assert (outcome.status, outcome.http_status, outcome.note) == ("fetched", 200, "")
    assert outcome.bytes == len(PAGE)
    assert (outcome.company_id, outcome.source_id) == ("rival", "s0")
    (entry,) = entries(tmp_path)
    assert entry.snapshot_id == outcome.snapshot_id
    assert (entry.url, entry.final_url, entry.etag) == (url, url, '"v1"')
    assert Archive(tmp_path / "archive").payload(entry) == PAGE.encode()
    (sent,) = rogue.asked("/folio")
    assert sent["user-agent"].startswith("workbench/")
    assert sent["user-agent"].endswith(" (+https://own.example/bot)")
    raw = gzip.decompress((tmp_path / "archive" / entry.warc).read_bytes())
    assert b"ETag" in raw
    assert b"secret" not in raw
    assert b"keep-alive" not in raw


def test_without_a_contact_the_name_is_still_honest_and_a_hint_is_logged(rogue, one, caplog):
    one(rogue.page("/a", PAGE), contact="")
    assert rogue.asked("/a")[0]["user-agent"].startswith("workbench/")
    assert "(" not in rogue.asked("/a")[0]["user-agent"]
    assert "collect.contact is empty" in caplog.text


def test_a_slow_drip_ends_at_the_deadline(rogue, one):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    url = rogue.says("/drip", head, *[b"x"] * 100, pause_s=0.1)
    began = time.monotonic()
    outcome = one(url, timeout_s=0.5)
    assert outcome.status == "failed"
    assert "no whole response within 0.5 s" in outcome.note
    assert time.monotonic() - began < 5
    assert 0.4 < outcome.seconds < 3


def test_a_drip_of_header_bytes_ends_too(rogue, one):
    url = rogue.says("/drip", b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 100, pause_s=0.1)
    assert "no whole response" in one(url, timeout_s=0.5).note


def test_an_endless_body_ends_at_the_size_limit(rogue, one):
    endless = [b"x" * 65536] * 1000
    url = rogue.says("/endless", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", *endless)
    outcome = one(url, max_bytes=100_000)
    assert outcome.status == "failed"
    assert "larger than 100,000 bytes" in outcome.note


def test_an_endless_error_page_is_not_read_to_its_end(rogue, one):
    endless = [b"x" * 65536] * 1000
    url = rogue.says("/gone", b"HTTP/1.1 403 Forbidden\r\n\r\n", *endless)
    outcome = one(url)
    assert (outcome.status, outcome.http_status) == ("blocked", 403)


def test_endless_headers_end(rogue, one):
    lines = [b"X-A: " + b"b" * 4000 + b"\r\n"] * 1000
    outcome = one(rogue.says("/headers", b"HTTP/1.1 200 OK\r\n", *lines))
    assert outcome.status == "failed"


@pytest.mark.parametrize("how", ["gzip", "br", "deflate"])
def test_a_bomb_is_stopped_while_it_is_unpacked(rogue, one, how):
    size = 60_000_000
    zeros = bytes(1_000_000)
    if how == "br":
        packer = brotli.Compressor(quality=1)
        bomb = b"".join(packer.process(zeros) for _ in range(size // len(zeros))) + packer.finish()
    else:
        zipper = zlib.compressobj(wbits=31 if how == "gzip" else 15)
        bomb = b"".join(zipper.compress(zeros) for _ in range(size // len(zeros))) + zipper.flush()
    url = rogue.page("/bomb", bomb, Content_Encoding=how)
    tracemalloc.start()
    try:
        outcome = one(url, max_bytes=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.status == "failed"
    assert "larger than 1,000,000 bytes" in outcome.note
    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("how", "pack"),
    [
        ("gzip", gzip.compress),
        ("br", brotli.compress),
        ("deflate", zlib.compress),
        ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
        ("utf-8", bytes),  # a slip of the server, not a coding
    ],
)
def test_compressed_pages_are_archived_unpacked(rogue, one, tmp_path, how, pack):
    body = ("<p>纸感平板</p>" * 500).encode()
    outcome = one(rogue.page("/packed", pack(body), Content_Encoding=how))
    assert outcome.status == "fetched"
    (entry,) = entries(tmp_path)
    assert Archive(tmp_path / "archive").payload(entry) == body


@pytest.mark.parametrize("keep", [0.5, 0.99])
@pytest.mark.parametrize("pack", [gzip.compress, brotli.compress])
def test_a_compressed_body_cut_short_is_no_page(rogue, one, pack, keep):
    packed = pack(bytes(range(256)) * 40 + PAGE.encode())
    coding = b"gzip" if pack is gzip.compress else b"br"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + coding + b"\r\nConnection: close\r\n\r\n"
    outcome = one(rogue.says("/cut", head, packed[: int(len(packed) * keep)]))
    assert outcome.status == "failed"
    assert "ends before its end" in outcome.note


def test_a_broken_gzip_body_is_no_page(rogue, one):
    outcome = one(rogue.page("/broken", b"\x1f\x8b" + b"this is no gzip" * 10, Content_Encoding="gzip"))
    assert outcome.status == "failed"
    assert "compressed body is broken" in outcome.note


def test_a_coding_that_was_not_asked_for_is_no_page(rogue, one):
    outcome = one(rogue.page("/zstd", b"\x28\xb5\x2f\xfd" + bytes(20), Content_Encoding="zstd"))
    assert (outcome.status, "zstd" in outcome.note) == ("failed", True)


def test_a_body_shorter_than_it_says_is_tried_again_and_then_failed(rogue, one):
    url = rogue.says("/short", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b"<p>half a page")
    outcome = one(url, retries=2)
    assert outcome.status == "failed"
    assert "connection failed" in outcome.note
    assert len(rogue.asked("/short")) == 3


def test_a_body_that_breaks_once_is_whole_the_second_time(rogue, one):
    def answer(request):
        if len(rogue.asked("/flaky")) == 1:
            request.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b"<p>half")
        else:
            request.reply(200, PAGE.encode())

    rogue.answers["/flaky"] = answer
    assert one(rogue.origin + "/flaky", retries=1).status == "fetched"


def test_something_that_is_not_http(rogue, one):
    assert one(rogue.says("/ssh", b"SSH-2.0-OpenSSH_9.2\r\n")).status == "failed"


def test_a_wrong_charset_is_archived_as_it_came(rogue, one, tmp_path):
    body = "<p>墨舒 M2 纸感平板</p>".encode("gbk")
    assert one(rogue.page("/gbk", body, Content_Type="text/html; charset=utf-8")).status == "fetched"
    (entry,) = entries(tmp_path)
    assert Archive(tmp_path / "archive").payload(entry) == body
    assert entry.content_type == "text/html; charset=utf-8"


def test_an_empty_page_is_no_page(rogue, one):
    outcome = one(rogue.page("/empty", b"  \n"))
    assert (outcome.status, outcome.http_status) == ("failed", 200)


# Retries ------------------------------------------------------------------------------------------------------------


def test_429_is_asked_again_after_the_wait_it_names(rogue, one):
    def answer(request):
        first = len(rogue.asked("/busy")) == 1
        request.reply(429, b"slow down", {"Retry-After": "1"}) if first else request.reply(200, PAGE.encode())

    rogue.answers["/busy"] = answer
    assert one(rogue.origin + "/busy", retries=1).status == "fetched"
    first, second = (at for path, _, at in rogue.seen if path == "/busy")
    assert 0.95 < second - first < 10


def test_a_retry_after_holds_the_other_pages_of_the_host_too(rogue, watch, fast):
    def busy(request):
        first = len(rogue.asked("/busy")) == 1
        request.reply(503, b"", {"Retry-After": "1"}) if first else request.reply(200, PAGE.encode())

    rogue.answers["/busy"] = busy
    others = [rogue.page(f"/{n}", PAGE) for n in range(3)]
    workspace = watch(rogue.origin + "/busy", *others, retries=1, connections_per_host=1)
    assert collect(workspace, progress=False, pacing=fast).counts["fetched"] == 4
    pages = [(path, at) for path, _, at in rogue.seen if path != "/robots.txt"]
    assert pages[0][0] == "/busy"
    assert all(at - pages[0][1] > 0.95 for _, at in pages[1:])


def test_a_wait_beyond_the_longest_is_not_waited(rogue, one):
    url = rogue.page("/busy", "", 503, Retry_After="86400")
    outcome = one(url, retries=3)
    assert (outcome.status, outcome.http_status) == ("failed", 503)
    assert "86,400 s" in outcome.note
    assert len(rogue.asked("/busy")) == 1


def test_503_forever_fails_after_the_last_retry(rogue, one, tmp_path):
    outcome = one(rogue.page("/down", "down", 503), retries=2)
    assert (outcome.status, outcome.http_status, outcome.note) == ("failed", 503, "HTTP 503")
    assert len(rogue.asked("/down")) == 3
    (entry,) = entries(tmp_path)
    assert (entry.status, entry.http_status, entry.note, entry.snapshot_id) == ("failed", 503, "HTTP 503", None)


def test_refusals_are_not_asked_again(rogue, watch, fast):
    expected = {400: "failed", 401: "blocked", 403: "blocked", 418: "failed", 451: "blocked", 202: "failed"}
    urls = [rogue.page(f"/{status}", "<p>no</p>", status) for status in expected]
    result = collect(watch(*urls, retries=3), progress=False, pacing=fast)
    assert {o.http_status: o.status for o in result.outcomes} == expected
    assert all(len(rogue.asked(f"/{status}")) == 1 for status in expected)


def test_nobody_listening(one, closed_port):
    outcome = one(f"http://127.0.0.1:{closed_port}/")
    assert outcome.status == "failed"
    assert "robots.txt" in outcome.note
    assert "connection failed" in outcome.note


def test_a_challenge_with_status_200_is_blocked(rogue, one):
    page = "<!DOCTYPE html><html><title>Just a moment...</title><script>window._cf_chl_opt={}</script></html>"
    outcome = one(rogue.page("/door", page))
    assert outcome.status == "blocked"
    assert "Cloudflare" in outcome.note


def test_a_challenge_with_status_503_is_blocked_and_not_asked_again(rogue, one):
    outcome = one(rogue.page("/door", "<html>wait</html>", 503, cf_mitigated="challenge"), retries=3)
    assert (outcome.status, len(rogue.asked("/door"))) == ("blocked", 1)


@pytest.mark.parametrize("status", [404, 410])
def test_a_page_that_is_gone_is_evidence(rogue, one, tmp_path, status):
    url = rogue.page("/old", "<p>gone</p>", status, ETag='"gone"')
    outcome = one(url)
    assert (outcome.status, outcome.http_status) == ("fetched", status)
    assert "gone" in outcome.note
    (entry,) = entries(tmp_path)
    assert Archive(tmp_path / "archive").payload(entry) == b"<p>gone</p>"
    # The next time it is a revisit that still says so, and the ETag of an error page is never asked with.
    again = one(url)
    assert (again.status, again.http_status) == ("not-modified", status)
    assert "if-none-match" not in rogue.asked("/old")[1]


def test_one_crash_does_not_end_the_run(rogue, watch, fast, tmp_path):
    calls = []

    def clock():
        calls.append(1)
        if len(calls) == 2:  # the first is the start of the run, the second dates the first page
            raise ZeroDivisionError("the clock broke")
        return datetime.now(timezone.utc)

    pages = [rogue.page(f"/{n}", PAGE) for n in range(3)]
    result = collect(watch(*pages), progress=False, pacing=fast, clock=clock)
    assert sorted(o.status for o in result.outcomes) == ["failed", "fetched", "fetched"]
    assert "ZeroDivisionError: the clock broke" in result.summary()
    assert sorted(e.status for e in entries(tmp_path)) == ["failed", "fetched", "fetched"]


def test_the_archived_note_is_json_that_says_why(rogue, one, tmp_path):
    one(rogue.page("/no", "", 403))
    (path,) = (tmp_path / "archive").glob("*.warc.gz")
    record = gzip.decompress(path.read_bytes()).split(b"\r\n\r\n")
    said = next(json.loads(part) for part in record if part.startswith(b"{"))
    assert said == {"status": "blocked", "http_status": 403, "note": "HTTP 403"}
