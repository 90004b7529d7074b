"""How fast: one gate a host, through which every request goes, robots.txt and retries included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

__all__ = ["Gates", "Pacing"]


@dataclass(frozen=True)
class Pacing:
    """Waiting times in seconds, and how many requests run at once over all hosts."""

    backoff_s: float = 1.0
    """Wait before the first retry; doubled for each further one, with jitter."""
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 120.0
    """A server that asks for a longer wait is not asked again in this run."""
    crawl_delay_max_s: float = 30.0
    """A longer Crawl-delay in robots.txt is cut to this."""
    requests_at_once: int = 16


class _Gate:
    def __init__(self, interval_s: float, connections: int) -> None:
        self.interval_s = interval_s
        self.ready_at = 0.0
        self.places = asyncio.Semaphore(connections)
        self.turn = asyncio.Lock()


class Gates:
    """The gates of all hosts. Made and used inside one event loop."""

    def __init__(self, requests_per_second: float, connections_per_host: int, *, at_once: int) -> None:
        self._interval_s = 1 / requests_per_second
        self._connections = connections_per_host
        self._all = asyncio.Semaphore(at_once)
        self._gates: dict[str, _Gate] = {}

    def _gate(self, host: str) -> _Gate:
        if host not in self._gates:
            self._gates[host] = _Gate(self._interval_s, self._connections)
        return self._gates[host]

    def slow_down(self, host: str, interval_s: float) -> None:
        """Leave at least ``interval_s`` between two requests to ``host`` (a Crawl-delay)."""
        gate = self._gate(host)
        gate.interval_s = max(gate.interval_s, interval_s)
        # The request that brought the news counts: the next one keeps the distance to it.
        gate.ready_at = max(gate.ready_at, asyncio.get_running_loop().time() + interval_s)

    def hold(self, host: str, seconds: float) -> None:
        """Send nothing to ``host`` for so long (a Retry-After)."""
        gate = self._gate(host)
        gate.ready_at = max(gate.ready_at, asyncio.get_running_loop().time() + seconds)

    @asynccontextmanager
    async def through(self, host: str) -> AsyncIterator[None]:
        """Wait for the host's turn and hold one of its connections for the length of the block."""
        gate, now = self._gate(host), asyncio.get_running_loop().time
        async with gate.places:
            async with gate.turn:
                # Asked again after each sleep: hold() may have moved the time meanwhile.
                while (wait := gate.ready_at - now()) > 0:
                    await asyncio.sleep(wait)
                gate.ready_at = now() + gate.interval_s
            # Last, so that those who wait for a slow host keep nobody else waiting.
            async with self._all:
                yield
