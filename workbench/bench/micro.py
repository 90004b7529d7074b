"""Requests a second of a MicroBatcher, from many threads with one text each."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import monotonic, sleep
from typing import Any, Final

import numpy as np

from workbench.errors import ParameterError
from workbench.runtime.micro import MicroBatcher
from workbench.runtime.session import Session

__all__ = ["P99_BAR_MS", "RATE_BAR", "MicroBench", "measure_micro"]

RATE_BAR: Final = 1000.0
"""Requests a second that 64 threads must get answered."""

P99_BAR_MS: Final = 10.0
"""What 99 of 100 of them may take at most."""

_WARM_UP: Final = 0.2  # of the seconds, before counting begins


@dataclass(frozen=True)
class MicroBench:
    """What ``measure_micro`` measured. Latencies run from when a request was due until its answer was there.

    ``offered``: requests a second that the threads wanted to send; None where each sent its next as soon as it had
    its answer. ``mean_batch``: texts of a batch.
    """

    threads: int
    offered: float | None
    seconds: float
    requests: int
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    mean_batch: float

    @property
    def passed(self) -> bool:
        """Whether both bars hold."""
        return self.requests_per_s >= RATE_BAR and self.p99_ms <= P99_BAR_MS

    def summary(self) -> str:
        """One line for a person."""
        how = "as fast as answers come" if self.offered is None else f"{self.offered:,.0f} a second sent"
        return (
            f"{self.threads} threads, {how}: {self.requests_per_s:,.0f} requests a second, p50 {self.p50_ms:.1f} ms, "
            f"p99 {self.p99_ms:.1f} ms, {self.mean_batch:.1f} texts a batch"
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**asdict(self), "passed": self.passed, "bars": {"requests_per_s": RATE_BAR, "p99_ms": P99_BAR_MS}}


def measure_micro(
    session: Session,
    texts: Sequence[str],
    *,
    threads: int = 64,
    seconds: float = 5.0,
    rate: float | None = None,
    tasks: Sequence[str] | None = None,
    max_wait_ms: float = 2.0,
    max_batch: int = 64,
) -> MicroBench:
    """Send single texts from ``threads`` threads for ``seconds``, after a fifth of that as a warm-up.

    ``rate``: requests a second, of all threads together, sent on a timetable; a request that is sent late because the
    thread still waited for an answer counts from when it was due, so that a slow batcher cannot hide behind its
    slowness. None: each thread sends the next as soon as it has its answer, which shows the highest rate and not a
    latency that anybody should plan with. Raises ParameterError without texts, and what a request raised.
    """
    if not texts:
        raise ParameterError("There are no texts to send. Give some.")
    latencies: list[list[float]] = [[] for _ in range(threads)]
    answered = [0] * threads  # within the time; one that waits for too long is answered after it
    errors: list[BaseException] = []
    with MicroBatcher(session, max_wait_ms=max_wait_ms, max_batch=max_batch, tasks=tasks) as batcher:
        gate = threading.Barrier(threads + 1)
        begin = monotonic() + 3600  # set when all threads are there

        def send(number: int) -> None:
            own = random.Random(number).sample(texts, len(texts))  # noqa: S311 - a reproducible order
            gate.wait()
            start, count_from = begin, begin + _WARM_UP * seconds
            end = count_from + seconds
            turn = 0
            while not errors:
                due = monotonic() if rate is None else start + (turn * threads + number) / rate
                if due >= end:
                    return
                if rate is not None and (early := due - monotonic()) > 0:
                    sleep(early)
                try:
                    batcher.read(own[turn % len(own)])
                except BaseException as error:  # told by the caller's thread, once
                    errors.append(error)
                    return
                done = monotonic()
                if due >= count_from:
                    latencies[number].append(done - due)
                answered[number] += count_from <= done < end
                turn += 1

        senders = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(threads)]
        for sender in senders:
            sender.start()
        begin = monotonic() + 0.05
        gate.wait()
        for sender in senders:
            sender.join()
        stats = batcher.stats()
    if errors:
        raise errors[0]
    values = np.concatenate([np.array(own, np.float64) for own in latencies]) * 1000
    if not len(values):
        raise ParameterError(f"No request was answered in {seconds:g} seconds. Measure longer.")
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return MicroBench(
        threads=threads,
        offered=rate,
        seconds=seconds,
        requests=len(values),
        requests_per_s=sum(answered) / seconds,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        max_ms=float(values.max()),
        mean_batch=stats.mean_batch,
    )
