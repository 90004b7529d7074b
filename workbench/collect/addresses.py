"""Which addresses may be connected to, decided at the moment of connecting.

The collector fetches what workspace.toml, a sitemap or a redirect names, so a page could try to point it at a machine
inside the network it runs in. ``GuardedBackend`` resolves the host, checks *every* address it resolves to, and
connects to one of the addresses it has checked: there is no second look-up that could answer differently (DNS
rebinding), and odd spellings such as ``http://2130706433/`` are judged by what they resolve to. TLS and the Host
header still use the name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urljoin

import httpcore
import httpx

from workbench.collect.problems import AddressError

__all__ = ["GuardedBackend", "Resolver", "address_problem", "check_url", "resolve"]

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to IP addresses, best first. Raises OSError when there are none."""

_ADDRESSES_TRIED = 4

# Reachable from inside some clouds only, or never a web site: refused even for a host that the workspace allows.
_NEVER = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),  # link-local, with the metadata service of most clouds
    IPv4Network("100.100.100.200/32"),  # metadata, Alibaba Cloud
    IPv4Network("168.63.129.16/32"),  # metadata, Azure; looks public
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::254/128"),  # metadata, AWS
)
# Older Pythons count these as public. IANA special-purpose registries; RFC 9637 for 3fff::/20.
_NOT_PUBLIC = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv6Network("2001::/23"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("3fff::/20"),
)
_IPV6_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def address_problem(address: str, *, private_allowed: bool = False) -> str | None:
    """Why ``address`` (an IP address) may not be connected to, or None when it may."""
    try:
        ip = ip_address(address)
    except ValueError:
        return "is not an IP address"
    if isinstance(ip, IPv6Address):
        # An IPv4 address in an IPv6 coat is judged by the IPv4 address: that is where the connection ends.
        ip = ip.ipv4_mapped or ip.sixtofour or _ipv4_from_nat64(ip) or ip
    if _within(ip, _NEVER):
        return "is a link-local or metadata address"
    if ip.is_multicast or ip.is_unspecified:
        return "is not the address of one host"
    if private_allowed:
        return None
    public = ip.is_global and not _within(ip, _NOT_PUBLIC)
    if isinstance(ip, IPv6Address):
        public = public and ip in _IPV6_UNICAST
    return None if public else "is not a public address"


def _within(ip: IPv4Address | IPv6Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)


def _ipv4_from_nat64(ip: IPv6Address) -> IPv4Address | None:
    return IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None


def check_url(url: str, *, base: str = "") -> httpx.URL:
    """The parsed address, resolved against ``base``.

    Raises AddressError unless it is http(s) with a host and without a password.
    """
    try:
        parsed = httpx.URL(urljoin(base, url.strip()))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise AddressError(f"the address {url[:200]!r} cannot be read: {error}") from None
    if parsed.scheme not in ("http", "https"):
        raise AddressError(f"leads to {parsed.scheme or 'no scheme'}:, and only http and https are fetched")
    if not parsed.host:
        raise AddressError(f"the address {url[:200]!r} names no host")
    if parsed.userinfo:
        raise AddressError("the address carries a user name or password")
    return parsed.copy_with(fragment=None)


async def resolve(host: str, port: int) -> list[str]:
    """Look ``host`` up with the system's resolver. Raises OSError when it has no address."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only.

    ``allow_private_hosts``: hosts, as spelt in the address, that may be private. Metadata and link-local addresses
    stay refused for them too. ``resolver`` and ``inner`` (which connects to an IP address) are for tests.
    """

    def __init__(
        self,
        allow_private_hosts: Collection[str] = (),
        *,
        resolver: Resolver = resolve,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allowed = {_folded(host) for host in allow_private_hosts}
        self._resolver = resolver
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a checked address of ``host``. Raises AddressError, or httpcore's errors."""
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be looked up: {error}") from error
        allowed = _folded(host) in self._allowed
        for address in addresses:
            # One bad address is enough: a name that mixes public and private ones is up to something.
            if problem := address_problem(address, private_allowed=allowed):
                shown = host if host == address else f"{host} ({address})"
                hint = "" if allowed else "; if you mean it, add the host to collect.allow_private_hosts"
                raise AddressError(f"{shown} {problem}{hint}")
        tried = list(addresses)[:_ADDRESSES_TRIED]
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in tried:
            try:
                return await self._inner.connect_tcp(
                    address,
                    port,
                    timeout=None if timeout is None else timeout / len(tried),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:  # noqa: PERF203 (a few at most)
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Always refused. Raises AddressError."""
        raise AddressError("sockets on this machine are not fetched")

    async def sleep(self, seconds: float) -> None:
        """Wait; asked for by httpcore between connection attempts."""
        await asyncio.sleep(seconds)


def _folded(host: str) -> str:
    host = host.strip().strip("[]").rstrip(".").lower()
    try:
        return host if host.isascii() else httpx.URL(host=host).raw_host.decode("ascii")
    except httpx.InvalidURL:
        return host
