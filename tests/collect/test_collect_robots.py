"""robots.txt by RFC 9309, with a real server."""

from __future__ import annotations

import pytest

from workbench.collect import collect

PAGE = "<p>Ondine Folio, $399</p>"


@pytest.fixture
def statuses(watch, fast):
    """Collect addresses and give path -> status."""

    def run(*urls: str, **policy) -> dict[str, str]:
        result = collect(watch(*urls, **policy), progress=False, pacing=fast)
        return {"/" + o.url.split("/", 3)[3]: o.status for o in result.outcomes}

    return run


def test_rules_for_our_name_win_over_those_for_all(rogue, statuses):
    rogue.page(
        "/robots.txt",
        "User-agent: *\nDisallow: /\n\nUser-agent: Workbench\nDisallow: /private\nAllow: /private/open$\n",
    )
    urls = [rogue.page(path, PAGE) for path in ("/", "/private", "/private/open", "/private/openly")]
    assert statuses(*urls) == {
        "/": "fetched",
        "/private": "robots-denied",
        "/private/open": "fetched",
        "/private/openly": "robots-denied",
    }
    assert len(rogue.asked("/robots.txt")) == 1
    assert not rogue.asked("/private")


def test_another_robots_name_that_holds_ours_is_not_ours(rogue, statuses):
    rogue.page("/robots.txt", "User-agent: workbench-pro\nDisallow: /\n")
    assert statuses(rogue.page("/", PAGE)) == {"/": "fetched"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_4xx_means_there_are_no_rules(rogue, statuses, status):
    rogue.page("/robots.txt", "User-agent: *\nDisallow: /\n", status)
    assert statuses(rogue.page("/", PAGE)) == {"/": "fetched"}


@pytest.mark.parametrize("status", [429, 500, 503, 501])
def test_5xx_and_429_mean_keep_out(rogue, watch, fast, status):
    rogue.page("/robots.txt", "", status)
    urls = [rogue.page(path, PAGE) for path in ("/1", "/2")]
    result = collect(watch(*urls), progress=False, pacing=fast)
    assert [(o.status, o.http_status) for o in result.outcomes] == [("robots-denied", status)] * 2
    assert {path for path, _, _ in rogue.seen} == {"/robots.txt"}
    assert "nothing may be fetched there now" in result.outcomes[0].note


def test_robots_that_recover_are_read(rogue, statuses):
    def answer(request):
        first = len(rogue.asked("/robots.txt")) == 1
        request.reply(503) if first else request.reply(200, b"User-agent: *\nDisallow: /no\n")

    rogue.answers["/robots.txt"] = answer
    urls = [rogue.page("/yes", PAGE), rogue.page("/no", PAGE)]
    assert statuses(*urls, retries=1) == {"/yes": "fetched", "/no": "robots-denied"}


def test_robots_that_never_end_are_cut_and_their_start_counts(rogue, statuses):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nUser-agent: *\nDisallow: /no\n"
    rogue.says("/robots.txt", head, *[b"# " + b"x" * 65000 + b"\n"] * 1000)
    urls = [rogue.page("/yes", PAGE), rogue.page("/no", PAGE)]
    assert statuses(*urls) == {"/yes": "fetched", "/no": "robots-denied"}


def test_robots_that_drip_keep_us_out(rogue, watch, fast):
    rogue.says("/robots.txt", b"HTTP/1.1 200 OK\r\n\r\n", *[b"#"] * 100, pause_s=0.1)
    result = collect(watch(rogue.page("/", PAGE), timeout_s=0.4), progress=False, pacing=fast)
    assert result.counts["failed"] == 1
    assert not rogue.asked("/")


def test_redirected_robots_hold_for_the_host_that_was_asked(rogue, other, statuses):
    rogue.page("/robots.txt", "", 301, Location=other.origin + "/1")
    for number in range(1, 5):
        other.page(f"/{number}", "", 302, Location=f"/{number + 1}")
    other.page("/5", "User-agent: *\nDisallow: /no\n")
    urls = [rogue.page("/yes", PAGE), rogue.page("/no", PAGE)]
    assert statuses(*urls, max_redirects=0) == {"/yes": "fetched", "/no": "robots-denied"}


def test_robots_lost_in_redirects_count_as_missing(rogue, statuses):
    rogue.page("/robots.txt", "", 301, Location="/robots.txt")
    assert statuses(rogue.page("/", PAGE)) == {"/": "fetched"}


def test_robots_redirected_to_a_private_address_are_not_read(rogue, statuses):
    rogue.page("/robots.txt", "", 301, Location="http://169.254.169.254/")
    assert statuses(rogue.page("/", PAGE)) == {"/": "failed"}


def test_a_crawl_delay_is_kept_up_to_the_longest(rogue, watch, fast):
    rogue.page("/robots.txt", "User-agent: *\nCrawl-delay: 60\n")
    urls = [rogue.page(f"/{n}", PAGE) for n in range(3)]
    assert collect(watch(*urls), progress=False, pacing=fast).counts["fetched"] == 3
    times = [at for _, _, at in rogue.seen]
    # Three distances of 0.3 s, less what a busy machine takes from the first.
    assert 0.7 < times[-1] - times[0] < 10


def test_requests_to_one_host_keep_their_distance(rogue, watch, fast):
    urls = [rogue.page(f"/{n}", PAGE) for n in range(4)]
    collect(watch(*urls, requests_per_second=5), progress=False, pacing=fast)
    times = sorted(at for _, _, at in rogue.seen)
    assert times[-1] - times[0] > 0.5  # four distances of 0.2 s, less what a busy machine takes from the first
