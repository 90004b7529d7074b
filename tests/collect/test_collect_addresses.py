"""Which addresses are public."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.collect.addresses import GuardedBackend, address_problem, check_url
from workbench.collect.http import user_agent
from workbench.collect.problems import AddressError

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.7",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "fc00::1",
    "fec0::1",
    "2001:db8::1",
    "2001::1",  # Teredo
    "3fff::1",
    "100::1",
    "::7f00:1",  # IPv4-compatible, deprecated
    "::ffff:0:7f00:1",  # IPv4-translated
    "64:ff9b:1::7f00:1",
    "::ffff:10.0.0.1",
    "2002:a00:1::1",
    "64:ff9b::a00:1",
]
NEVER = [
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    assert address_problem(address) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_unless_allowed(address):
    assert address_problem(address) == "is not a public address"
    assert address_problem(address, private_allowed=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_never(address):
    assert address_problem(address) is not None
    assert address_problem(address, private_allowed=True) is not None


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "1.2.3.4.5", "0x7f000001"])
def test_no_address(text):
    assert address_problem(text, private_allowed=True) == "is not an IP address"


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_in_every_ipv6_coat(ip: IPv4Address):
    bare = address_problem(str(ip))
    mapped = IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed)
    nat64 = IPv6Address(IPv6Address("64:ff9b::").packed[:12] + ip.packed)
    sixtofour = IPv6Address(b"\x20\x02" + ip.packed + b"\0" * 10)
    assert [address_problem(str(coat)) for coat in (mapped, nat64, sixtofour)] == [bare] * 3


@settings(deadline=None)
@given(st.ip_addresses())
def test_nothing_that_python_calls_private_is_public(ip):
    if ip.is_private or ip.is_loopback or ip.is_multicast or ip.is_link_local or ip.is_unspecified:
        embedded = isinstance(ip, IPv6Address) and (ip.ipv4_mapped or ip.sixtofour)
        assert embedded or address_problem(str(ip)) is not None


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example/", "file:///etc/passwd", "//a.example", "a.example", "", "http://", "http://a:b@c.example/"],
)
def test_no_web_address(url):
    with pytest.raises(AddressError):
        check_url(url)


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_an_address_or_an_address_error(url, base):
    try:
        parsed = check_url(url, base=base)
    except AddressError:
        return
    assert parsed.scheme in ("http", "https")
    assert parsed.host


def test_a_check_resolves_against_the_base_and_drops_the_fragment():
    assert str(check_url(" ../x#y ", base="https://a.example/b/c")) == "https://a.example/x"


def test_allowed_hosts_are_the_same_in_any_spelling():
    backend = GuardedBackend(["Shop.Example.", "[::1]", "墨舒.example"])
    assert backend._allowed == {"shop.example", "::1", "xn--2oss77g.example"}


@pytest.mark.parametrize(
    ("contact", "shown"),
    [
        ("", ""),
        ("mail@own.example", " (+mail@own.example)"),
        ("x\r\nEvil: 1", " (+xEvil: 1)"),
        ("a (b) c", " (+a b c)"),
        ("墨舒", ""),
    ],
)
def test_the_user_agent_is_a_header_whatever_the_contact(contact, shown):
    name = user_agent(contact)
    assert name.startswith("workbench/")
    assert name.endswith(shown or name)
    assert name.isprintable()
