"""robots.txt by RFC 9309: fetched once a run for each origin, asked before every request.

2xx                          its rules hold (the first 500 KiB of them)
4xx                          there are none: everything may be fetched (2.3.1.3)
429, 5xx                     nothing may be fetched from there in this run (2.3.1.4)
no answer at all             nothing either; the pages are reported as failed, which is what happened
more than five redirects     as if there were none (2.3.1.2)
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from protego import Protego

from workbench.collect.addresses import check_url
from workbench.collect.http import PRODUCT, Fetcher
from workbench.collect.problems import BlockedError, BodyError, PageError, RedirectError, RobotsDeniedError

__all__ = ["Robots"]

log = logging.getLogger(__name__)

_PARSED_BYTES = 500 * 1024  # 2.5: at least this much must be parsed
_REDIRECTS = 5


@dataclass(frozen=True)
class _Rules:
    """``parser``: None when nothing is forbidden. ``refusal``: what is raised for every page, and why."""

    parser: Protego | None = None
    refusal: type[PageError] | None = None
    why: str = ""
    http_status: int | None = None


class Robots:
    """The rules of all origins met in one run."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._rules: dict[str, _Rules] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def permit(self, url: str) -> None:
        """Return when ``url`` may be fetched. Raises RobotsDeniedError; PageError if its host is silent."""
        parsed = check_url(url)
        robots_url = str(parsed.copy_with(raw_path=b"/robots.txt"))
        async with self._locks.setdefault(robots_url, asyncio.Lock()):
            if robots_url not in self._rules:
                self._rules[robots_url] = await self._read(robots_url, parsed.host)
        rules = self._rules[robots_url]
        if rules.refusal:
            raise rules.refusal(f"{robots_url}: {rules.why}", http_status=rules.http_status)
        if rules.parser and not rules.parser.can_fetch(str(parsed), PRODUCT):
            raise RobotsDeniedError(f"{robots_url} does not allow {parsed.raw_path.decode('ascii')}")

    async def _read(self, robots_url: str, host: str) -> _Rules:
        try:
            response = await self._fetcher.get(robots_url, max_redirects=_REDIRECTS, cut_at=_PARSED_BYTES)
        except RedirectError as error:
            log.info("%s counts as missing: %s", robots_url, error)
            return _Rules()
        except PageError as error:
            return _rules_from_error(error)
        status = response.http_status
        if 200 <= status < 300:
            parser = Protego.parse(response.payload.decode("utf-8-sig", errors="replace"))
            self._keep_distance(parser, host)
            return _Rules(parser)
        if 400 <= status < 500:
            return _Rules()
        return _Rules(None, RobotsDeniedError, f"HTTP {status}, so nothing may be fetched there now", status)

    def _keep_distance(self, parser: Protego, host: str) -> None:
        asked = parser.crawl_delay(PRODUCT)
        if asked and asked > 0:
            longest = self._fetcher.pacing.crawl_delay_max_s
            if asked > longest:
                log.warning("%s asks for a Crawl-delay of %g s; %g s are kept", host, asked, longest)
            self._fetcher.gates.slow_down(host, min(asked, longest))


def _rules_from_error(error: PageError) -> _Rules:
    status = error.http_status
    if status is None and not isinstance(error, BodyError):
        return _Rules(None, PageError, str(error))  # no answer: nothing was said, so nothing was denied either
    if isinstance(error, BlockedError):
        # A challenge with 403 is a 4xx; whether the page itself is behind the challenge too will show.
        return (
            _Rules() if status is not None and 400 <= status < 500 else _Rules(None, BlockedError, str(error), status)
        )
    return _Rules(None, RobotsDeniedError, f"{error}, so nothing may be fetched there now", status)
