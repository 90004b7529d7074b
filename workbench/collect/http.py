"""One GET, done politely and with every limit in force.

What httpx leaves to its caller is done here: redirects by hand (each hop's scheme, robots.txt and address are
checked), one deadline for a whole response (a read timeout never ends a server that drips a byte a second), decoding
in bounded steps, retries that honour Retry-After, and a gate per host that every request goes through.

Proxies in the environment are not used: behind a proxy it is the proxy that resolves the host, and the check of the
address would check nothing. Certificates are, so SSL_CERT_FILE and SSL_CERT_DIR work as usual.

Cookies live for one page and its redirects. Some sites send a visitor in circles without them; kept longer they
would tie the visits together and make what is served depend on what was fetched before.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ssl import SSLCertVerificationError
from types import TracebackType

import httpcore
import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from workbench.collect.addresses import GuardedBackend, check_url
from workbench.collect.body import ACCEPT_ENCODING, Body
from workbench.collect.challenges import challenge_name
from workbench.collect.pacing import Gates, Pacing
from workbench.collect.problems import BlockedError, PageError, RedirectError, TransientError
from workbench.workspace import CollectPolicy

__all__ = ["PRODUCT", "Fetcher", "Response", "Validators", "Visit", "user_agent"]

log = logging.getLogger(__name__)

PRODUCT = "workbench"
"""Our product token, which robots.txt groups are matched on (RFC 9309, 2.2.1)."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ERROR_BODY_BYTES = 64 * 1024
_PAGE_STATUSES = frozenset({200, 203, 404, 410})


def user_agent(contact: str) -> str:
    """``workbench/<version> (+contact)``; without a contact still an honest name."""
    # Only what may stand in a header's comment (RFC 9110, 5.6.5).
    shown = re.sub(r"[^\x20-\x7e]|[()\\]", "", contact).strip()
    name = f"{PRODUCT}/{version('workbench')}"
    return f"{name} (+{shown})" if shown else name


@dataclass(frozen=True)
class Response:
    """A whole answer. ``payload`` is decoded; ``url`` is where the redirects ended."""

    url: str
    http_status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    payload: bytes
    http_version: str

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class Validators:
    """What a conditional GET asks with. They belong to ``url`` and are sent to no other address."""

    url: str
    etag: str | None = None
    last_modified: str | None = None

    def headers_for(self, url: str) -> list[tuple[bytes, bytes]]:
        """If-None-Match and If-Modified-Since, empty when ``url`` is another address."""
        if url != self.url:
            return []
        pairs = ((b"If-None-Match", self.etag), (b"If-Modified-Since", self.last_modified))
        return [(name, value.encode()) for name, value in pairs if value and value.isprintable()]


@dataclass
class Visit:
    """What is kept while one page is fetched: cookies, and the time spent with the server, in seconds."""

    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)
    seconds: float = 0.0


class _GuardedTransport(httpx.AsyncBaseTransport):
    """httpx on a connection pool whose every connection goes through ``backend``."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,  # the gates count
            max_keepalive_connections=20,
            keepalive_expiry=30,
            http1=True,
            http2=True,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=_core_url(request.url),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Stream(answer), extensions=answer.extensions
        )

    async def hang_up(self, url: httpx.URL) -> None:
        """Close the HTTP/2 connections to the origin of ``url``, after a response that was not read to its end.

        Its server may go on sending, which fills the connection's window until nothing moves in it any more, and
        httpcore does not reset the stream. The other pages of the host get a new connection; one that was under way
        is tried again. HTTP/1.1 needs none of it: there an unfinished response closes its own connection.
        """
        origin = _core_url(url).origin
        for connection in self._pool.connections:
            mine = connection.can_handle_request(origin) and "HTTP/2" in connection.info()
            if mine and not connection.is_closed():
                await connection.aclose()

    async def aclose(self) -> None:
        await self._pool.aclose()


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


class _Stream(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._answer.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


class Fetcher:
    """Fetches pages under a workspace's policy. Use as an async context manager, inside one event loop."""

    def __init__(
        self,
        policy: CollectPolicy,
        *,
        pacing: Pacing | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self.policy = policy
        self.pacing = pacing or Pacing()
        self.gates = Gates(
            policy.requests_per_second, policy.connections_per_host, at_once=self.pacing.requests_at_once
        )
        self._transport = _GuardedTransport(backend or GuardedBackend(policy.allow_private_hosts))
        self._client = httpx.AsyncClient(
            transport=self._transport,
            headers={
                "User-Agent": user_agent(policy.contact),
                "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                "Accept-Encoding": ACCEPT_ENCODING,
            },
            timeout=policy.timeout_s,
            trust_env=False,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),  # a Visit has its own
        )

    async def __aenter__(self) -> Fetcher:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def get(
        self,
        url: str,
        *,
        visit: Visit | None = None,
        validators: Validators | None = None,
        permit: Callable[[str], Awaitable[None]] | None = None,
        max_redirects: int | None = None,
        cut_at: int | None = None,
    ) -> Response:
        """Fetch ``url``, following redirects.

        ``permit`` is asked before each hop and raises to forbid it. With ``cut_at`` a longer body is cut there, in
        bytes; without it a body over the policy's ``max_bytes`` is an error. Raises PageError; an answer with any
        status that is worth no further try, 4xx included, is a Response.
        """
        visit = visit or Visit()
        hops = self.policy.max_redirects if max_redirects is None else max_redirects
        target = check_url(url)
        seen: set[tuple[str, str]] = set()
        while True:
            # The same address again is no loop when a cookie was set on the way.
            state = (str(target), "; ".join(sorted(f"{c.name}={c.value}" for c in visit.cookies.jar)))
            if state in seen:
                raise RedirectError(f"the redirects go in a circle, back to {target}")
            if len(seen) > hops:
                raise RedirectError(f"more than {hops} redirects, the last to {target}")
            seen.add(state)
            if permit:
                await permit(str(target))
            response = await self._with_retries(target, visit, validators, cut_at)
            if response.http_status not in _REDIRECTS:
                return response
            location = response.header("location")
            if not location:
                raise RedirectError(
                    f"HTTP {response.http_status} without an address to go to", http_status=response.http_status
                )
            target = check_url(location, base=str(target))

    async def _with_retries(
        self, url: httpx.URL, visit: Visit, validators: Validators | None, cut_at: int | None
    ) -> Response:
        backoff = wait_exponential(self.pacing.backoff_s, max=self.pacing.backoff_max_s) + wait_random(
            0, self.pacing.backoff_s
        )

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after_s if isinstance(error, TransientError) else None
            pause = max(float(backoff(state)), asked or 0)
            if asked is not None:
                self.gates.hold(url.host, pause)  # the other pages of that host wait as well
            return pause

        retrying = AsyncRetrying(
            sleep=asyncio.sleep,
            stop=stop_after_attempt(self.policy.retries + 1),
            retry=retry_if_exception_type(TransientError),
            wait=wait,
            reraise=True,
        )
        return await retrying(self._once, url, visit, validators, cut_at)

    async def _once(
        self, url: httpx.URL, visit: Visit, validators: Validators | None, cut_at: int | None
    ) -> Response:
        clock = asyncio.get_running_loop().time
        async with self.gates.through(url.host):
            began = clock()
            try:
                exchange = self._exchange(url, visit, validators, cut_at)
                response = await asyncio.wait_for(exchange, self.policy.timeout_s)
            except (TimeoutError, asyncio.TimeoutError, httpcore.TimeoutException):
                raise TransientError(f"no whole response within {self.policy.timeout_s:g} s") from None
            except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ConnectionNotAvailable) as error:
                raise _network_problem(error) from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                # httpx reads the address of a redirect even though it is not told to follow it.
                raise RedirectError(f"leads to an address that cannot be read: {error}") from error
            finally:
                visit.seconds += clock() - began
        self._refuse(response)
        return response

    async def _exchange(
        self, url: httpx.URL, visit: Visit, validators: Validators | None, cut_at: int | None
    ) -> Response:
        conditions = validators.headers_for(str(url)) if validators else []
        request = self._client.build_request("GET", url, headers=conditions)
        visit.cookies.set_cookie_header(request)
        response: httpx.Response | None = None
        whole = False
        try:
            response = await self._client.send(request, stream=True)
            visit.cookies.extract_cookies(response)
            # Nobody keeps the text of an error or a redirect; its start is enough to know a challenge by.
            keep = response.status_code in _PAGE_STATUSES
            limit = cut_at if cut_at is not None else self.policy.max_bytes if keep else _ERROR_BODY_BYTES
            payload = b""
            try:
                coding = response.headers.get("content-encoding", "")
                body = Body(coding, max_bytes=limit, cut=cut_at is not None or not keep)
                async for part in response.aiter_raw():
                    body.feed(part)
                    if body.full:
                        break
                payload = body.finish()
                whole = not body.full
            except PageError:
                if keep:
                    raise
        finally:
            if not whole:
                await self._transport.hang_up(url)
            if response is not None:
                await response.aclose()
        return Response(
            url=str(url),
            http_status=response.status_code,
            reason=response.reason_phrase,
            headers=tuple((key.decode("latin-1"), _text(value)) for key, value in response.headers.raw),
            payload=payload,
            http_version=response.http_version,
        )

    def _refuse(self, response: Response) -> None:
        """Raise for answers that are challenges, or that another try may better."""
        status = response.http_status
        if vendor := challenge_name({k.lower(): v for k, v in response.headers}, response.payload):
            raise BlockedError(f"HTTP {status} with a challenge page ({vendor})", http_status=status)
        if status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
            asked = _retry_after(response.header("retry-after"))
            longest = self.pacing.retry_after_max_s
            if asked is not None and asked > longest:
                raise PageError(
                    f"HTTP {status}, and the server asks to wait {asked:,.0f} s (at most {longest:g} s are waited)",
                    http_status=status,
                )
            raise TransientError(f"HTTP {status}", http_status=status, retry_after_s=asked)


def _text(value: bytes) -> str:
    # Header values are bytes; real servers send UTF-8 in them, and Latin-1 reads whatever is not.
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _network_problem(error: Exception) -> PageError:
    detail = str(error) or type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SSLCertVerificationError):
            return PageError(f"the certificate is not valid: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    return TransientError(f"the connection failed: {detail}")


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from Retry-After (RFC 9110, 10.2.3); None when there is none that can be read."""
    if not value:
        return None
    value = value.strip()
    if re.fullmatch(r"\d{1,12}", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(math.ceil((moment - datetime.now(timezone.utc)).total_seconds()), 0)
