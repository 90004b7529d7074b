"""Decoding in bounded steps."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.collect.body import Body, decode_body, gunzip
from workbench.collect.challenges import challenge_name
from workbench.collect.problems import BodyError, PageError, TransientError


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    "br,gzip": lambda data: gzip.compress(brotli.compress(data)),
    "": bytes,
    "identity": bytes,
    "utf-8": bytes,
}


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(PACKERS)),
    st.binary(max_size=300)
    | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=9), st.integers(0, 40_000)),
    st.sampled_from([1, 7, 4096, 10**6]),
)
def test_what_is_packed_is_unpacked_however_it_arrives(coding, data, size):
    size = max(size, len(data) // 2000)  # a byte at a time is for small bodies
    assert decode_body(pieces(PACKERS[coding](data), size), coding, max_bytes=10**6) == data


@settings(deadline=None)
@given(st.sampled_from(["gzip", "deflate", "br", "gzip, br"]), st.binary(max_size=200))
def test_any_bytes_are_a_body_or_a_page_error(coding, data):
    with contextlib.suppress(PageError):
        decode_body([data], coding, max_bytes=1000)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", ""])
def test_the_limit_is_exact(coding):
    packed = PACKERS[coding](bytes(100_000))
    assert len(decode_body([packed], coding, max_bytes=100_000)) == 100_000
    with pytest.raises(BodyError, match="larger than 99,999 bytes"):
        decode_body([packed], coding, max_bytes=99_999)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", ""])
def test_cut_bodies_are_cut_exactly(coding):
    data = bytes(range(256)) * 1000
    body = Body(coding, max_bytes=70_000, cut=True)
    for piece in pieces(PACKERS[coding](data), 999):
        body.feed(piece)
        if body.full:
            break
    assert body.full
    assert body.finish() == data[:70_000]


def test_a_bomb_inside_a_bomb_counts_at_every_layer():
    inner = gzip.compress(bytes(30_000_000))
    for coding, bomb in (("gzip, gzip", gzip.compress(inner)), ("gzip, br", brotli.compress(inner))):
        tracemalloc.start()
        try:
            with pytest.raises(BodyError, match="larger than"):
                decode_body([bomb], coding, max_bytes=1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def test_a_body_that_unpacks_to_nothing_is_limited_as_well():
    with pytest.raises(BodyError, match="larger than"):
        decode_body(pieces(gzip.compress(b"") * 500, 999), "gzip", max_bytes=5000)


def test_members_of_a_gzip_file_follow_each_other_and_padding_is_ignored():
    packed = gzip.compress(b"one ") + gzip.compress(b"two") + bytes(20)
    for size in (1, 5, 1000):
        assert decode_body(pieces(packed, size), "gzip", max_bytes=100) == b"one two"


def test_too_many_members_and_too_many_layers():
    with pytest.raises(BodyError, match="members"):
        gunzip(gzip.compress(b"") * 1100, max_bytes=10**6)
    with pytest.raises(BodyError, match="4 times"):
        Body("gzip, gzip, gzip, gzip", max_bytes=10)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_body_cut_short_is_worth_another_try_and_a_missing_one_is_empty(coding):
    packed = PACKERS[coding](b"<p>Ondine Folio</p>" * 50)
    for length in (1, len(packed) // 2, len(packed) - 1):
        with pytest.raises(TransientError):
            decode_body([packed[:length]], coding, max_bytes=10**6)
    assert decode_body([], coding, max_bytes=10) == b""


@pytest.mark.parametrize(
    ("page", "vendor"),
    [
        ("<html><script>window._cf_chl_opt = {}</script>", "Cloudflare"),
        ("<!-- x --><html><iframe>Request unsuccessful. Incapsula incident ID: 1</iframe>", "Imperva"),
        ('<!DOCTYPE html><html><div id="px-captcha"></div>', "HUMAN"),
        ("<html><script src='https://geo.captcha-delivery.com/c.js'></script>", "DataDome"),
        ("\ufeff<html><title>百度安全验证</title>", "Baidu"),
        ("<html><script>var arg1='A';setCookie('acw_sc__v2', x)</script>", "Alibaba Cloud"),
        # Ordinary pages of sites behind the same vendors.
        ("<html><script src='/cdn-cgi/challenge-platform/scripts/jsd/main.js'></script><p>$399</p>", None),
        ("<html><script src='https://js.datadome.co/tags.js'></script><p>$399</p>", None),
        ("<html><script src='/_Incapsula_Resource?SWJIYLWA=1'></script><p>$399</p>", None),
        ("<html><p>How we solved the captcha problem</p>", None),
        ('{"note": "window._cf_chl_opt"}', None),
        ("<html><p>window._cf_chl_opt" + "x" * 200_000, None),
    ],
)
def test_challenges_are_told_from_pages(page, vendor):
    assert challenge_name({}, page.encode()) == vendor


def test_challenges_in_headers():
    assert challenge_name({"cf-mitigated": "challenge"}, b"") == "Cloudflare"
    assert challenge_name({"x-amzn-waf-action": "captcha"}, b"") == "AWS WAF"
    assert challenge_name({"server": "cloudflare"}, b"<html>") is None
