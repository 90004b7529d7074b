"""The rendered report in headless Chromium: it asks the network for nothing, has no error, prints.

The demo's report is looked at too when ``make demo`` has made it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from lxml import html
from report_world import WEEK, executed_notebook, hostile_world, plain_world
from scored_reviews import hostile_reviews, scored_world

from workbench.report import MAX_BYTES, build_report, render_report
from workbench.settings import settings

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        words = "Chromium is not installed; on Debian: apt-get install chromium"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(words)
        pytest.skip(words)
    return found


@dataclass
class Canary:
    """A server on this machine that notes who comes."""

    url: str
    seen: list[str]


@pytest.fixture
def canary() -> Iterator[Canary]:
    seen: list[str] = []

    class Note(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Note)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Canary(f"http://127.0.0.1:{server.server_port}", seen)
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Visit:
    """What one look at a page showed."""

    dom: html.HtmlElement
    console: list[str]
    hosts: set[str]
    """Hosts that anything was asked of, Chromium's own housekeeping included."""


def run(chromium: str, folder: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            # Nothing outside this machine can be reached, whatever the page or the browser tries.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder / 'profile'}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def visit(chromium: str, folder: Path, page: Path) -> Visit:
    log = folder / "net.json"
    done = run(chromium, folder, page, f"--log-net-log={log}", "--enable-logging=stderr", "--dump-dom")
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    urls = [event["params"]["url"] for event in events if "url" in event.get("params", {})]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Visit(html.document_fromstring(done.stdout), console, {urlsplit(url).hostname or "" for url in urls})


def rendered(world: object, folder: Path) -> Path:
    report = build_report(world.write(), WEEK)  # type: ignore[attr-defined]
    return render_report(executed_notebook(report, folder / "executed.ipynb"), folder / "report.html")


@pytest.fixture(scope="session")
def plain_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    return rendered(plain_world(folder / "workspace"), folder)


@pytest.fixture(scope="session")
def scored_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    return rendered(scored_world(folder / "workspace"), folder)


@pytest.fixture(scope="session")
def demo_page() -> Path:
    page = settings().reports / "demo" / "2026-W47" / "report.html"
    if not page.is_file():
        pytest.skip("the demo's report is not there; make it with: make demo")
    return page


@pytest.fixture(params=["plain_page", "scored_page", "demo_page"])
def page(request: pytest.FixtureRequest) -> Path:
    made: Path = request.getfixturevalue(request.param)
    return made


def names(page: Path) -> set[str]:
    """Every host that a page mentions anywhere."""
    return set(re.findall(r"https?://([\w.-]+)", page.read_text(encoding="utf-8")))


def test_the_test_would_notice(chromium: str, canary: Canary, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(f"<img src='{canary.url}/pixel'><script>console.error('x')</script>", encoding="utf-8")
    seen = visit(chromium, tmp_path, page)
    assert canary.seen == ["/pixel"]
    assert "127.0.0.1" in seen.hosts
    assert len(seen.console) == 1


def test_it_asks_the_network_for_nothing_and_has_no_error(chromium: str, page: Path, tmp_path: Path) -> None:
    seen = visit(chromium, tmp_path, page)
    assert seen.console == []
    assert not seen.hosts & names(page)
    assert "evidence" in seen.dom.text_content().lower()


def test_every_picture_has_words(chromium: str, page: Path, tmp_path: Path) -> None:
    dom = visit(chromium, tmp_path, page).dom
    drawings = dom.xpath("//svg|//*[local-name()='svg']")
    assert drawings
    for drawing in drawings:
        assert drawing.get("role") == "img"
        for name in drawing.get("aria-labelledby", "").split():
            assert dom.get_element_by_id(name).text_content().strip()
    assert all((picture.get("alt") or "").strip() for picture in dom.iter("img"))


def test_it_prints(chromium: str, page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    run(chromium, tmp_path, page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    data = paper.read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 3


def test_it_is_small(page: Path) -> None:
    assert page.stat().st_size <= MAX_BYTES


def test_a_hostile_page_reaches_nobody(chromium: str, canary: Canary, tmp_path: Path) -> None:
    attacks = (
        f"<img src={canary.url}/img>",
        f'"><svg onload=fetch("{canary.url}/svg")>',
        f"<style>@import url({canary.url}/css)</style>",
        f"</desc><image href='{canary.url}/image'/>",
        f"{canary.url}/plain.png",
    )
    world = hostile_world(tmp_path / "workspace", *attacks)
    for row in world.rows["creatives"]:
        row["image_url"] = f"{canary.url}/creative.png"
    page = rendered(hostile_reviews(world), tmp_path)
    assert "127.0.0.1" in names(page)
    seen = visit(chromium, tmp_path, page)
    assert canary.seen == []
    assert "127.0.0.1" not in seen.hosts
    # Not even tried: the content security policy had nothing to refuse.
    assert seen.console == []


def test_the_policy_holds_even_if_escaping_fails(
    chromium: str, canary: Canary, plain_page: Path, tmp_path: Path
) -> None:
    page = tmp_path / "broken.html"
    text = plain_page.read_text(encoding="utf-8")
    attack = (
        f"<img src='{canary.url}/img'><script>fetch('{canary.url}/js')</script>"
        f"<link rel=stylesheet href='{canary.url}/css'><iframe src='{canary.url}/frame'></iframe>"
    )
    page.write_text(text.replace("</main>", attack + "</main>"), encoding="utf-8")
    seen = visit(chromium, tmp_path, page)
    assert canary.seen == []
    assert len(seen.console) >= 3  # refused, and said so
