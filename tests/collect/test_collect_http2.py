"""TLS and HTTP/2, and connecting to the address that was checked, with a server of its own.

shop_test.pem is a key and a self-signed certificate for the name shop.test, used nowhere else. It was made with:
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=shop.test
-addext subjectAltName=DNS:shop.test -addext keyUsage=critical,digitalSignature,keyCertSign
-addext extendedKeyUsage=serverAuth
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import httpcore
import pytest

from workbench.collect.addresses import GuardedBackend
from workbench.collect.http import Fetcher
from workbench.collect.pacing import Pacing
from workbench.collect.problems import AddressError, BodyError, PageError
from workbench.workspace import CollectPolicy

PEM = Path(__file__).with_name("shop_test.pem")
PAGE = b"<p>Ondine Folio, $399</p>"


class Shop:
    """An HTTP/2 server: /endless never stops, /silent never starts, everything else is a page."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.names: list[str | None] = []
        self.seen: list[dict[str, str]] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(PEM)
        self.context.set_alpn_protocols(["h2"])
        self.context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(client,), daemon=True).start()

    def talk(self, client: socket.socket) -> None:
        try:
            with self.context.wrap_socket(client, server_side=True) as tls:
                self.speak(tls)
        except OSError:
            client.close()

    def speak(self, tls: ssl.SSLSocket) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        state.initiate_connection()
        tls.sendall(state.data_to_send())
        endless: set[int] = set()
        while data := tls.recv(65536):
            for event in state.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    headers = dict(event.headers)
                    self.seen.append(headers)
                    if headers[":path"] == "/silent":
                        continue
                    state.send_headers(event.stream_id, [(":status", "200"), ("content-type", "text/html")])
                    if headers[":path"] == "/endless":
                        endless.add(event.stream_id)
                    else:
                        state.send_data(event.stream_id, PAGE, end_stream=True)
            for stream in endless:
                while (room := min(state.local_flow_control_window(stream), 16384)) > 0:
                    state.send_data(stream, b"x" * room)
                    tls.sendall(state.data_to_send())
            tls.sendall(state.data_to_send())


@pytest.fixture
def shop():
    made = Shop()
    yield made
    made.socket.close()


def policy(**values) -> CollectPolicy:
    return CollectPolicy.model_validate({"requests_per_second": 50, "timeout_s": 5, "retries": 0, **values})


def get(urls: list[str], *, resolver, allowed=("shop.test",), inner=None, **values):
    """Fetch addresses one after the other with one Fetcher; an error stands in its response's place."""

    async def main():
        backend = GuardedBackend(allowed, resolver=resolver, inner=inner)
        async with Fetcher(policy(**values), pacing=Pacing(backoff_s=0.01), backend=backend) as fetcher:

            async def one(url):
                try:
                    return await fetcher.get(url)
                except PageError as error:
                    return error

            return [await one(url) for url in urls]

    return asyncio.run(main())


async def here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def test_http2_with_the_name_in_tls_and_in_the_request(shop):
    (response,) = get([f"https://shop.test:{shop.port}/folio"], resolver=here)
    assert (response.http_version, response.http_status, response.payload) == ("HTTP/2", 200, PAGE)
    assert shop.names == ["shop.test"]
    assert shop.seen[0][":authority"] == f"shop.test:{shop.port}"
    assert shop.seen[0]["user-agent"].startswith("workbench/")


def test_an_abandoned_body_does_not_clog_the_other_pages_of_the_host(shop):
    base = f"https://shop.test:{shop.port}"
    first, second, third = get([base + "/endless", base + "/folio", base + "/more"], resolver=here, max_bytes=50_000)
    assert isinstance(first, BodyError)
    assert [second.payload, third.payload] == [PAGE, PAGE]
    assert len(shop.names) == 2  # a new connection after the abandoned one, and then that one kept


def test_a_certificate_for_another_name_is_refused_and_not_tried_again(shop):
    (error,) = get([f"https://other.test:{shop.port}/"], resolver=here, allowed=("other.test",), retries=3)
    assert isinstance(error, PageError)
    assert "certificate is not valid" in str(error)
    assert not shop.seen
    assert len(shop.names) == 1


class Recorder(httpcore.AsyncNetworkBackend):
    """Connects nowhere; remembers where it was told to."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.addresses.append(host)
        raise httpcore.ConnectError("nobody there")


def test_the_checked_address_is_the_one_connected_to():
    """DNS rebinding: a name that is public when looked at and private a moment later."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    inner = Recorder()
    first, second = get(["http://evil.test/", "http://evil.test/"], resolver=rebinding, inner=inner)
    assert inner.addresses == ["93.184.216.34"]
    assert "connection failed" in str(first)
    assert isinstance(second, AddressError)
    assert "evil.test (127.0.0.1) is not a public address" in str(second)


def test_one_private_address_among_public_ones_is_enough_to_refuse():
    async def mixed(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    inner = Recorder()
    (error,) = get(["http://evil.test/"], resolver=mixed, inner=inner)
    assert isinstance(error, AddressError)
    assert not inner.addresses


def test_the_next_address_is_tried_when_one_does_not_answer(rogue):
    rogue.page("/", PAGE)
    tried: list[str] = []

    class Half(httpcore.AnyIOBackend):
        async def connect_tcp(self, host, port, **rest):
            tried.append(host)
            if host == "127.0.0.9":
                raise httpcore.ConnectTimeout("no answer")
            return await super().connect_tcp(host, port, **rest)

    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.9", "127.0.0.1"]

    (response,) = get([f"http://shop.test:{rogue.server_address[1]}/"], resolver=two, inner=Half())
    assert response.payload == PAGE
    assert tried == ["127.0.0.9", "127.0.0.1"]
    assert rogue.asked("/")[0]["host"] == f"shop.test:{rogue.server_address[1]}"


def test_a_name_that_does_not_exist():
    async def nowhere(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    (error,) = get(["http://nowhere.test/"], resolver=nowhere)
    assert "nowhere.test cannot be looked up" in str(error)


def test_a_body_that_never_comes_does_not_clog_the_host_either(shop):
    base = f"https://shop.test:{shop.port}"
    first, second = get([base + "/silent", base + "/folio"], resolver=here, timeout_s=0.4)
    assert "no whole response" in str(first)
    assert second.payload == PAGE
    assert len(shop.names) == 2


def test_pages_under_way_when_a_connection_is_given_up_are_tried_again(shop):
    base = f"https://shop.test:{shop.port}"

    async def main():
        backend = GuardedBackend(["shop.test"], resolver=here)
        values = policy(retries=4, max_bytes=50_000, connections_per_host=8)
        async with Fetcher(values, pacing=Pacing(backoff_s=0.01), backend=backend) as fetcher:
            paths = ["/endless", "/1", "/endless", "/2", "/endless", "/3", "/4"]
            return await asyncio.gather(*(fetcher.get(base + path) for path in paths), return_exceptions=True)

    found = asyncio.run(main())
    assert [isinstance(answer, BodyError) for answer in found] == [True, False, True, False, True, False, False]
    assert [answer.payload for answer in found if not isinstance(answer, BodyError)] == [PAGE] * 4
