"""A server on this machine that misbehaves as told, and workspaces that watch it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from workbench.collect import Pacing
from workbench.workspace import Workspace

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request; answers are functions of it."""

    protocol_version = "HTTP/1.1"
    server: Rogue

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, time.monotonic()))
        answer = self.server.answers.get(self.path)
        try:
            if answer is None:
                self.reply(404, b"<p>nothing here</p>")
            else:
                answer(self)
        except OSError:
            self.close_connection = True

    def reply(self, status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """A well-formed answer."""
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def raw(self, *parts: bytes, pause_s: float = 0.0) -> None:
        """Any bytes at all, then the end of the connection."""
        self.close_connection = True
        for part in parts:
            if self.server.stopping.wait(pause_s):
                return
            self.wfile.write(part)
            self.wfile.flush()

    def log_message(self, *args: Any) -> None:
        pass


class Rogue(ThreadingHTTPServer):
    """``answers``: path to what is answered (robots.txt is 404 unless given). ``seen``: path, headers, time."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str], float]] = []
        self.stopping = threading.Event()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def page(self, path: str, body: bytes | str, status: int = 200, **headers: str) -> str:
        """Answer ``path`` the same way each time; gives its address. ``_`` in header names is a hyphen."""
        data = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = lambda request: request.reply(status, data, named)
        return self.origin + path

    def says(self, path: str, *parts: bytes, pause_s: float = 0.0) -> str:
        """Answer ``path`` with raw bytes; gives its address."""
        self.answers[path] = lambda request: request.raw(*parts, pause_s=pause_s)
        return self.origin + path

    def asked(self, path: str) -> list[dict[str, str]]:
        """Headers of each request for ``path``."""
        return [headers for seen, headers, _ in self.seen if seen == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is what many of the tests are about


def _serve() -> Iterator[Rogue]:
    with Rogue() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.stopping.set()
            made.shutdown()
            thread.join(5)


@pytest.fixture(autouse=True)
def _one_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the certificate of test_collect_http2 alone; reading all the usual ones takes a third of each test."""
    monkeypatch.setenv("SSL_CERT_FILE", str(Path(__file__).with_name("shop_test.pem")))


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    yield from _serve()


@pytest.fixture
def other() -> Iterator[Rogue]:
    """A second origin: another port."""
    yield from _serve()


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def fast() -> Pacing:
    return Pacing(backoff_s=0.01, backoff_max_s=0.05, retry_after_max_s=2.0, crawl_delay_max_s=0.3)


@pytest.fixture
def watch(tmp_path: Path) -> Callable[..., Workspace]:
    """Make a workspace that watches the given addresses (or source tables)."""

    def made(*sources: str | dict[str, Any], **policy: Any) -> Workspace:
        tables = [{"url": s, "kind": "product"} if isinstance(s, str) else {"kind": "product", **s} for s in sources]
        tables = [{"id": f"s{number}", **table} for number, table in enumerate(tables)]
        workspace = Workspace.model_validate(
            {
                "name": "test",
                "company": {"id": "own", "name": "Own"},
                "competitors": [{"id": "rival", "name": "Rival", "sources": tables}],
                "collect": {
                    "contact": "https://own.example/bot",
                    "requests_per_second": 50,
                    "connections_per_host": 4,
                    "timeout_s": 5,
                    "retries": 0,
                    "max_bytes": 200_000,
                    "allow_private_hosts": ["127.0.0.1"],
                    **policy,
                },
            }
        )
        workspace._root = tmp_path
        return workspace

    return made
