"""Pages named by sitemaps and feeds."""

from __future__ import annotations

import gzip
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from workbench.collect import collect
from workbench.collect.discover import (
    Listed,
    choose_pages,
    order_by_newest,
    read_feed,
    read_sitemap,
    same_site,
)
from workbench.collect.problems import PageError
from workbench.store.archive import Archive

BASE = "https://www.ondine.example/sitemap.xml"
NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def sitemap(data: str | bytes, max_bytes: int = 100_000):
    return read_sitemap(data.encode() if isinstance(data, str) else data, url=BASE, max_bytes=max_bytes)


def urls(listing) -> list[str]:
    return [item.url for item in listing.listed]


def test_a_sitemap():
    found = sitemap(
        f"""<?xml version="1.0" encoding="UTF-8"?>
        <!-- made by hand --><?xml-stylesheet href="x.xsl"?>
        <urlset {NAMESPACE} xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
          <url><loc> https://www.ondine.example/folio </loc><lastmod>2026-11-16</lastmod>
            <image:image><image:loc>https://cdn.example/folio.jpg</image:loc></image:image></url>
          <url><loc>/relative?a=1&amp;b=2#part</loc><lastmod>2026-11-16T08:00:00+02:00</lastmod></url>
          <url><loc><![CDATA[https://www.ondine.example/cdata]]></loc><lastmod>soon</lastmod></url>
          <url><lastmod>2026-11-16</lastmod></url>
          <url><loc>mailto:a@b.example</loc></url>
        </urlset>"""
    )
    assert found.kind == "pages"
    assert found.listed == (
        Listed("https://www.ondine.example/folio", datetime(2026, 11, 16, tzinfo=timezone.utc)),
        Listed("https://www.ondine.example/relative?a=1&b=2", datetime(2026, 11, 16, 6, tzinfo=timezone.utc)),
        Listed("https://www.ondine.example/cdata"),
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_a_sitemap_index_in_any_encoding(encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>'
    text += "<sitemapindex><sitemap><loc>/墨舒.xml</loc></sitemap></sitemapindex>"
    found = sitemap(text.encode(encoding))
    assert (found.kind, urls(found)) == ("index", ["https://www.ondine.example/墨舒.xml"])


def test_a_sitemap_without_namespace_and_with_a_bare_ampersand():
    assert urls(sitemap("<urlset><url><loc>/a?b=1&c=2</loc></url></urlset>"))[0].startswith(
        "https://www.ondine.example/a?b=1"
    )


def test_a_text_sitemap():
    text = b"\xef\xbb\xbfhttps://www.ondine.example/1\r\n\r\n# note\nhttps://www.ondine.example/2\n"
    assert urls(sitemap(text)) == ["https://www.ondine.example/1", "https://www.ondine.example/2"]


def test_a_zipped_sitemap_and_a_zipped_bomb():
    text = b"<urlset><url><loc>/a</loc></url></urlset>"
    assert urls(sitemap(gzip.compress(text))) == ["https://www.ondine.example/a"]
    with pytest.raises(PageError, match="larger than"):
        sitemap(gzip.compress(bytes(10_000_000)))


@pytest.mark.parametrize("text", ["<html><body>not here</body></html>", "<", "<>", "\ufeff<rss/>", "<a><b></a>"])
def test_no_sitemap(text):
    with pytest.raises(PageError, match="is no sitemap"):
        sitemap(text)


def test_entities_are_neither_expanded_nor_fetched(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("https://www.ondine.example/secret")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    documents = {
        f'<!DOCTYPE urlset [<!ENTITY x SYSTEM "{secret.as_uri()}">]>': ["https://www.ondine.example/b"],
        f'<!DOCTYPE urlset SYSTEM "{secret.as_uri()}">': ["https://www.ondine.example/b"],
        # The parser itself gives up on this one.
        f'<!DOCTYPE urlset [<!ENTITY l0 "https://www.ondine.example/lol">{laughs}<!ENTITY x "&l11;">]>': [],
    }
    for dtd, expected in documents.items():
        found = sitemap(f"{dtd}<urlset><url><loc>&x;</loc></url><url><loc>/b</loc></url></urlset>")
        assert urls(found) == expected


def test_rss():
    found = read_feed(
        b"""<rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom"><channel><link>https://o.example/</link>
        <atom:link rel="self" href="https://o.example/feed"/>
        <item><title>New</title><link>https://o.example/new?a=1&amp;b=2</link><guid>x</guid></item>
        <item><guid>https://o.example/by-guid</guid></item>
        <item><guid isPermaLink="false">https://o.example/no</guid></item>
        <item><link>/old</link></item></channel></rss>""",
        url="https://o.example/feed",
    )
    assert urls(found) == ["https://o.example/new?a=1&b=2", "https://o.example/by-guid", "https://o.example/old"]


def test_atom():
    found = read_feed(
        b"""<feed xmlns="http://www.w3.org/2005/Atom" xml:base="https://o.example/blog/">
        <link href="https://o.example/"/>
        <entry><link rel="edit" href="/edit"/><link rel="alternate" href="1"/>
        <updated>2026-11-16T06:00:00Z</updated></entry>
        <entry><link href="https://o.example/2"/></entry></feed>""",
        url="https://feeds.example/o",
    )
    assert found.listed[0] == Listed("https://o.example/blog/1", datetime(2026, 11, 16, 6, tzinfo=timezone.utc))
    assert urls(found) == ["https://o.example/blog/1", "https://o.example/2"]


def test_rss_1():
    found = read_feed(
        b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/">
        <channel><link>https://o.example/</link></channel><item><link>https://o.example/1</link></item></rdf:RDF>""",
        url="https://o.example/feed",
    )
    assert urls(found) == ["https://o.example/1"]


def test_no_feed():
    with pytest.raises(PageError, match="is no RSS or Atom feed"):
        read_feed(b"<html></html>", url=BASE)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text("<>/:!-[]&;?'\"= aurlsetlocfdi", max_size=60).map(str.encode))
def test_any_bytes_are_a_listing_or_a_page_error(data):
    for read in (lambda: sitemap(data), lambda: read_feed(data, url=BASE)):
        try:
            listing = read()
        except PageError:
            continue
        assert all(item.url.startswith(("http://", "https://")) for item in listing.listed)


_moments = st.none() | st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.just(timezone.utc))  # noqa: DTZ001


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("abc/?=&;<>墨", max_size=8), _moments), max_size=8))
def test_what_is_written_into_a_sitemap_is_read_from_it(pairs):
    root = etree.Element("{http://www.sitemaps.org/schemas/sitemap/0.9}urlset")
    for path, moment in pairs:
        entry = etree.SubElement(root, "{http://www.sitemaps.org/schemas/sitemap/0.9}url")
        etree.SubElement(entry, "{http://www.sitemaps.org/schemas/sitemap/0.9}loc").text = f"https://o.example/{path}"
        if moment:
            lastmod = etree.SubElement(entry, "{http://www.sitemaps.org/schemas/sitemap/0.9}lastmod")
            lastmod.text = moment.isoformat(timespec="seconds")
    found = sitemap(etree.tostring(root, encoding="utf-8", xml_declaration=True)).listed
    assert [(i.url, i.changed_at) for i in found] == [
        (f"https://o.example/{path}", moment and moment.replace(microsecond=0)) for path, moment in pairs
    ]


@settings(deadline=None)
@given(st.lists(st.builds(Listed, st.text("ab", max_size=2), _moments)), st.randoms())
def test_the_order_does_not_depend_on_the_order_of_the_document(listed, random):
    shuffled = random.sample(listed, len(listed))
    ordered = order_by_newest(listed)
    assert ordered == order_by_newest(shuffled)
    dated = [item.changed_at for item in ordered if item.changed_at]
    assert dated == sorted(dated, reverse=True)
    assert all(item.changed_at is None for item in ordered[len(dated) :])


def test_same_site():
    home = "https://www.ondine.example/sitemap.xml"
    assert same_site("https://ondine.example/a", home)
    assert same_site("http://shop.ondine.example/a", home)
    assert same_site("https://www.ondine.example/a", "https://feeds.ondine.example/rss")
    assert same_site("http://127.0.0.1:8000/a", "http://127.0.0.1/rss")
    assert not same_site("https://notondine.example/a", home)
    assert not same_site("https://ondine.example.evil.example/", home)
    assert not same_site("https://example/", home)


def test_pages_are_chosen_once_on_the_site_and_as_asked():
    listed = [Listed(f"https://o.example/{name}") for name in ("shop/1", "blog/1", "shop/1", "shop/2", "shop/3")]
    listed.insert(0, Listed("https://elsewhere.example/shop/9"))
    site = "https://o.example/sitemap.xml"
    shop = [f"https://o.example/shop/{n}" for n in (1, 2, 3)]
    assert choose_pages(listed, site=site, include=r"/shop/\d$", max_pages=20) == shop
    assert choose_pages(listed, site=site, include="/shop/", max_pages=2) == shop[:2]
    assert choose_pages(listed, site=site, include="/shop/", max_pages=2, taken=shop[:1]) == shop[1:]


# With a server ----------------------------------------------------------------------------------------------------


def listing(rogue, *paths, kind="urlset") -> str:
    entry = "url" if kind == "urlset" else "sitemap"
    inner = "".join(f"<{entry}><loc>{rogue.origin}{path}</loc></{entry}>" for path in paths)
    return f"<{kind} {NAMESPACE}>{inner}</{kind}>"


def test_a_sitemap_index_is_read_and_its_pages_are_fetched(rogue, watch, fast, tmp_path):
    rogue.page("/map.xml", listing(rogue, "/a.xml", "/b.xml.gz", "/gone.xml", kind="sitemapindex"))
    rogue.page("/a.xml", listing(rogue, "/shop/2", "/blog/1", "/shop/1"))
    rogue.page("/b.xml.gz", gzip.compress(listing(rogue, "/shop/3", "/shop/1").encode()))
    for path in ("/shop/1", "/shop/2", "/shop/3", "/blog/1"):
        rogue.page(path, f"<p>{path}</p>")
    source = {"url": rogue.origin + "/map.xml", "id": "shop", "discover": "sitemap", "include": "/shop/"}
    plain = {"url": rogue.origin + "/shop/2", "id": "two"}
    result = collect(watch(source, plain), progress=False, pacing=fast)
    assert [(o.source_id, o.url.removeprefix(rogue.origin), o.http_status) for o in result.outcomes] == [
        ("shop", "/map.xml", 200),
        ("shop", "/a.xml", 200),
        ("shop", "/b.xml.gz", 200),
        ("shop", "/gone.xml", 404),
        ("shop", "/shop/1", 200),
        ("shop", "/shop/3", 200),
        ("two", "/shop/2", 200),
    ]
    assert result.outcomes[0].note == "names 5 pages, 2 taken"
    assert {e.source_id for e in Archive(tmp_path / "archive").entries() if "/shop/" in e.url} == {"shop", "two"}
    assert all(len(rogue.asked(f"/shop/{n}")) == 1 for n in (1, 2, 3))
    assert not rogue.asked("/blog/1")


def test_a_feed_that_has_not_changed_still_names_its_pages(rogue, watch, fast):
    feed = f"<rss><channel><item><link>{rogue.origin}/news/1</link></item></channel></rss>".encode()

    def answer(request):
        same = request.headers.get("If-None-Match") == '"f"'
        request.reply(304) if same else request.reply(200, feed, {"ETag": '"f"'})

    rogue.answers["/feed"] = answer
    rogue.page("/news/1", "<p>news</p>")
    workspace = watch({"url": rogue.origin + "/feed", "discover": "feed", "kind": "news"})
    for status in ("fetched", "not-modified", "not-modified"):
        result = collect(workspace, progress=False, pacing=fast)
        assert [(o.url.removeprefix(rogue.origin), o.status) for o in result.outcomes] == [
            ("/feed", status),
            ("/news/1", status),
        ]


def test_pages_elsewhere_or_against_robots_are_not_fetched(rogue, other, watch, fast):
    rogue.page("/robots.txt", "User-agent: *\nDisallow: /no\n")
    rogue.page(
        "/map.xml", f"<urlset><url><loc>{rogue.origin}/no</loc></url><url><loc>http://else.test/</loc></url></urlset>"
    )
    result = collect(watch({"url": rogue.origin + "/map.xml", "discover": "sitemap"}), progress=False, pacing=fast)
    assert [o.status for o in result.outcomes] == ["fetched", "robots-denied"]
    assert result.outcomes[0].note == "names 2 pages, 1 taken"


def test_a_page_in_place_of_a_sitemap_says_so(rogue, watch, fast):
    rogue.page("/map.xml", "<!doctype html><html><p>hello</p></html>")
    (outcome,) = collect(
        watch({"url": rogue.origin + "/map.xml", "discover": "sitemap"}), progress=False, pacing=fast
    ).outcomes
    assert (outcome.status, outcome.note) == ("fetched", "is no sitemap: there is no XML in it")


def test_a_page_named_by_two_sitemaps_counts_for_the_first(rogue, watch, fast):
    rogue.answers["/1.xml"] = lambda request: (
        rogue.stopping.wait(0.3),
        request.reply(200, listing(rogue, "/page").encode()),
    )
    rogue.page("/2.xml", listing(rogue, "/page"))
    rogue.page("/page", "<p>page</p>")
    sources = [{"url": rogue.origin + f"/{n}.xml", "id": f"map{n}", "discover": "sitemap"} for n in (1, 2)]
    result = collect(watch(*sources), progress=False, pacing=fast)
    assert [(o.source_id, o.url.removeprefix(rogue.origin)) for o in result.outcomes] == [
        ("map1", "/1.xml"),
        ("map1", "/page"),
        ("map2", "/2.xml"),
    ]
