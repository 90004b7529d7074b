"""Where redirects may lead, and where they may not."""

from __future__ import annotations

import pytest

from workbench.collect import Outcome, collect
from workbench.store.archive import Archive

PAGE = "<html><title>Folio</title><p>Ondine Folio, $399</p></html>"


@pytest.fixture
def one(watch, fast):
    def run(url: str, **policy) -> Outcome:
        (outcome,) = collect(watch(url, **policy), progress=False, pacing=fast).outcomes
        return outcome

    return run


def test_a_redirect_is_followed_and_both_addresses_are_kept(rogue, one, tmp_path):
    url = rogue.page("/old", "", 301, Location="/new?x=1#part")
    rogue.page("/new?x=1", PAGE)
    assert one(url).status == "fetched"
    (entry,) = Archive(tmp_path / "archive").entries()
    assert (entry.url, entry.final_url) == (url, rogue.origin + "/new?x=1")


def test_a_redirect_loop_ends(rogue, one):
    rogue.page("/a", "", 302, Location="/b")
    rogue.page("/b", "", 302, Location="/a")
    outcome = one(rogue.origin + "/a", max_redirects=20)
    assert outcome.status == "failed"
    assert "circle" in outcome.note
    assert len(rogue.asked("/a")) == 1


def test_a_redirect_to_itself_that_sets_a_cookie_is_no_loop(rogue, other, one):
    def answer(request):
        if "cookie" in rogue.seen[-1][1]:
            request.reply(302, b"", {"Location": other.origin + "/landing"})
        else:
            request.reply(302, b"", {"Location": "/door", "Set-Cookie": "seen=1; Path=/door"})

    rogue.answers["/door"] = answer
    other.page("/landing", PAGE)
    assert one(rogue.origin + "/door").status == "fetched"
    assert [h.get("cookie") for h in rogue.asked("/door")] == [None, "seen=1"]
    assert "cookie" not in other.asked("/landing")[0]


def test_cookies_do_not_outlive_the_page(rogue, watch, fast):
    first = rogue.page("/1", PAGE, Set_Cookie="id=1; Path=/")
    second = rogue.page("/2", PAGE)
    collect(watch(first, second, connections_per_host=1), progress=False, pacing=fast)
    assert all("cookie" not in headers for _, headers, _ in rogue.seen)


@pytest.mark.parametrize("hops", [0, 2])
def test_the_number_of_redirects_is_limited(rogue, one, hops):
    for number in range(5):
        rogue.page(f"/{number}", "", 302, Location=f"/{number + 1}")
    outcome = one(rogue.origin + "/0", max_redirects=hops)
    assert outcome.status == "failed"
    assert f"more than {hops} redirects" in outcome.note
    assert len(rogue.seen) == 1 + hops + 1  # with robots.txt


ELSEWHERE = [
    ("file:///etc/passwd", "leads to file:"),
    ("gopher://127.0.0.1/", "leads to gopher:"),
    ("mailto:a@b.example", "cannot be read"),
    ("javascript:alert(1)", "cannot be read"),
    ("data:text/html,x", "cannot be read"),
    ("http://169.254.169.254/latest/meta-data/", "metadata"),
    ("http://[::ffff:169.254.169.254]/", "metadata"),
    ("http://[fd00:ec2::254]/", "metadata"),
    ("http://10.0.0.1/", "10.0.0.1 is not a public address"),
    ("http://localhost:{port}/private", "not a public address"),
    ("http://127.0.0.2:{port}/private", "not a public address"),
    ("http://2130706433:{port}/private", "2130706433 (127.0.0.1) is not a public address"),
    ("http://0x7f.1:{port}/private", "0x7f.1 (127.0.0.1) is not a public address"),
    ("http://0177.0.0.1:{port}/private", "cannot be read"),
    ("http://[::1]:{port}/private", "::1 is not a public address"),
    ("http://[::ffff:127.0.0.1]:{port}/private", "is not a public address"),
    ("http://[64:ff9b::7f00:1]:{port}/private", "is not a public address"),
    ("http://0.0.0.0:{port}/private", "metadata"),
    ("http://user:secret@127.0.0.1:{port}/private", "user name"),
    ("http://[broken", "cannot be read"),
]


def test_redirects_to_anything_but_public_web_pages_are_refused(rogue, watch, fast):
    port = rogue.server_address[1]
    rogue.page("/private", "<p>secret</p>")
    urls = [
        rogue.page(f"/{number}", "", 302, Location=location.format(port=port))
        for number, (location, _) in enumerate(ELSEWHERE)
    ]
    result = collect(watch(*urls), progress=False, pacing=fast)
    for (location, said), outcome in zip(ELSEWHERE, result.outcomes, strict=True):
        assert outcome.status == "failed", location
        assert said in outcome.note, location
        assert "secret" not in outcome.note
    assert not rogue.asked("/private")


def test_a_redirect_without_an_address(rogue, one):
    outcome = one(rogue.page("/go", "", 302))
    assert (outcome.status, outcome.http_status) == ("failed", 302)


def test_a_private_source_is_refused_with_a_hint_unless_it_is_listed(rogue, one):
    url = rogue.page("/", PAGE)
    outcome = one(url, allow_private_hosts=[])
    assert outcome.status == "failed"
    assert "127.0.0.1 is not a public address" in outcome.note
    assert "collect.allow_private_hosts" in outcome.note
    assert not rogue.seen
    assert one(url).status == "fetched"


def test_a_metadata_address_is_refused_even_when_it_is_listed(one):
    outcome = one("http://169.254.169.254/latest/", allow_private_hosts=["169.254.169.254"])
    assert (outcome.status, "metadata" in outcome.note) == ("failed", True)


def test_proxies_of_the_environment_are_not_used(rogue, other, one, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.origin)
    assert one(rogue.page("/", PAGE)).status == "fetched"
    assert not other.seen


def test_robots_of_the_host_redirected_to_are_asked(rogue, other, one):
    url = rogue.page("/go", "", 302, Location=other.origin + "/secret")
    other.page("/robots.txt", "User-agent: workbench\nDisallow: /secret\n", Content_Type="text/plain")
    other.page("/secret", PAGE)
    outcome = one(url)
    assert outcome.status == "robots-denied"
    assert other.origin in outcome.note
    assert not other.asked("/secret")


def test_robots_are_asked_again_for_a_redirect_on_the_same_host(rogue, one):
    rogue.page("/robots.txt", "User-agent: *\nDisallow: /cart\n")
    url = rogue.page("/go", "", 302, Location="/cart/1")
    assert one(url).status == "robots-denied"
    assert not rogue.asked("/cart/1")
    assert len(rogue.asked("/robots.txt")) == 1
