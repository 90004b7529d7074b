"""Scattered requests, one text each and from many threads, read in batches."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Final

import numpy as np

from workbench.errors import BusyError, ModelError, ParameterError
from workbench.runtime.read import check_tasks, read_texts
from workbench.runtime.requests import Answer, Reply, Request, answers_of, fail, is_late
from workbench.runtime.session import Session

__all__ = ["Answer", "MicroBatcher", "MicroStats"]

logger = logging.getLogger(__name__)

_WORKERS: Final = {"onnxruntime": 2, "tensorrt": 1}
"""Batches under way at once. On a CPU one is tokenized or decoded while the network reads another. On a GPU the
network takes a fraction of a millisecond, and what is left is Python, which one thread does as fast as two: two took
the interpreter's lock from each other so often that others waited 30 ms for it. 64 threads with 1,200 requests a
second got 99 of 100 answers within 61 ms from two workers, and within 13 ms from one (16 cores, one H100)."""

_REMEMBERED: Final = 10_000  # latencies that percentiles are taken from
_CLOSED: Final = "The MicroBatcher is closed. Make a new one."
_EXIT_S: Final = 5.0  # what the interpreter's exit waits for a batch under way


@dataclass(frozen=True)
class MicroStats:
    """What a MicroBatcher did so far.

    ``answered``, ``failed`` (their batch raised), ``expired`` (deadline passed), ``refused`` (no room in the queue),
    ``cancelled`` (by the caller, or by closing) count requests; ``queued`` wait now, ``running`` batches are under
    way now. ``batch_sizes``: how many batches had how many texts. Latencies, in milliseconds, are of the last 10,000
    answers, from the call to the answer; NaN before the first.
    """

    answered: int
    failed: int
    expired: int
    refused: int
    cancelled: int
    queued: int
    running: int
    batch_sizes: Mapping[int, int]
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def batches(self) -> int:
        """How many were run."""
        return sum(self.batch_sizes.values())

    @property
    def mean_batch(self) -> float:
        """Texts of a batch; NaN before the first."""
        return sum(size * count for size, count in self.batch_sizes.items()) / (self.batches or float("nan"))


class MicroBatcher:
    """Reads single texts from any number of threads with ``session``, several at a time.

    One batch is under way at a time on a GPU, two on a CPU. The next is started as soon as there is room for it and
    one of these holds, whichever comes first:

    - ``max_batch`` requests wait;
    - one has waited ``max_wait_ms``, or half the time until its deadline;
    - no batch is under way: then waiting would leave the device idle, and a lone request goes through at once; on a
      GPU that is always so when there is room. With ``wait_when_idle`` this rule is off: fewer, larger batches, and
      up to ``max_wait_ms`` more for a lone request.

    While a batch runs the next one gathers, so that batches grow with the load by themselves. At most ``max_queue``
    requests wait; a further caller is held until there is room. ``tasks``: what is read where a request names none;
    by default all that the model gives. On a GPU the session is prepared for small batches of these, which takes a
    few seconds. A full collection of garbage stops all threads for 10 to 60 ms: a service may call gc.freeze() once
    it is warm. Close the batcher before its session; as a context manager it answers what waits and then ends.
    Raises ParameterError for numbers that make no sense and ModelError for a task that the model does not give.
    """

    def __init__(
        self,
        session: Session,
        *,
        max_wait_ms: float = 2.0,
        max_batch: int = 64,
        max_queue: int = 1024,
        tasks: Sequence[str] | None = None,
        wait_when_idle: bool = False,
    ) -> None:
        if not (max_wait_ms >= 0 and max_batch >= 1 and max_queue >= 1):
            raise ParameterError(
                f"max_wait_ms {max_wait_ms}, max_batch {max_batch}, max_queue {max_queue}: give a wait of 0 or more "
                "and room for at least one text."
            )
        self._session = session
        self._max_wait = max_wait_ms / 1000
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._wait_when_idle = wait_when_idle
        self._known_tasks: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._tasks = self._checked(tuple(tasks) if tasks is not None else tuple(session.spec.outputs))
        session.prepare(self._tasks)
        self._queue: deque[Request] = deque()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # something waits and nobody gathers it
        self._ready = threading.Condition(self._lock)  # what is gathered need not wait longer
        self._room = threading.Condition(self._lock)
        self._gathering = False
        self._start_by = float("inf")  # until when the one that gathers waits
        self._running = 0
        self._closed = False
        self._broken: str | None = None
        self._counts: Counter[str] = Counter()
        self._batch_sizes: Counter[int] = Counter()
        self._latencies: deque[float] = deque(maxlen=_REMEMBERED)
        # Daemons: the interpreter joins all others before its exit handlers run, and these end when they are told to.
        self._workers = [
            threading.Thread(target=self._serve, name=f"micro-batch-{number}", daemon=True)
            for number in range(_WORKERS[session.backend])
        ]
        atexit.register(self._exit)
        try:
            for worker in self._workers:
                worker.start()
        except BaseException:  # no more threads
            self._stop("The MicroBatcher could not be started.")
            atexit.unregister(self._exit)
            raise

    def read(
        self,
        text: str | None,
        tasks: Sequence[str] | None = None,
        *,
        deadline_ms: float | None = None,
        block: bool = True,
    ) -> Answer:
        """Read one text; returns when its answer is there.

        ``deadline_ms`` from now the caller gets DeadlineError, and a text that still waits then is not run. Raises
        what the text's batch raised, and what ``submit`` raises. In a future's callback the text is read at once and
        by itself: a batch that waited for another one might wait for itself.
        """
        if threading.current_thread() in self._workers:
            wanted = self._tasks if tasks is None else self._checked(tuple(tasks))
            if self._closed:
                raise ModelError(self._broken or _CLOSED)
            return answers_of(read_texts(self._session, [_checked_text(text)], wanted))[0]
        future = Reply()
        request = self._enqueue(future, text, tasks, deadline_ms, block)
        try:
            return future.result(None if request.deadline is None else max(0.0, request.deadline - monotonic()))
        except FutureTimeoutError:
            if future.done():  # at the last moment, or the batch itself raised such an error
                return future.result()
            self._give_up(request, "expired")
            raise is_late(request) from None
        except (KeyboardInterrupt, SystemExit):
            self._give_up(request, "cancelled")
            raise

    def submit(
        self,
        text: str | None,
        tasks: Sequence[str] | None = None,
        *,
        deadline_ms: float | None = None,
        block: bool = True,
    ) -> Future[Answer]:
        """The same as a future.

        One that still waits at its deadline is not run and gets DeadlineError; an answer that comes late is given.
        Without room in the queue this blocks, up to the deadline, which raises DeadlineError; with ``block`` False,
        and in a future's callback, it raises BusyError at once. Raises ModelError when the batcher is closed or the
        model does not give a task, and ParameterError for a text that is none.
        """
        future: Future[Answer] = Future()
        self._enqueue(future, text, tasks, deadline_ms, block)
        return future

    def stats(self) -> MicroStats:
        """Counts, batch sizes, queue and latencies."""
        with self._lock:
            latencies = np.array(self._latencies, np.float64) * 1000
            counts, sizes = dict(self._counts), dict(sorted(self._batch_sizes.items()))
            queued, running = len(self._queue), self._running
        p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) if len(latencies) else (float("nan"),) * 3
        return MicroStats(
            **{name: counts.get(name, 0) for name in ("answered", "failed", "expired", "refused", "cancelled")},
            queued=queued,
            running=running,
            batch_sizes=sizes,
            p50_ms=float(p50),
            p95_ms=float(p95),
            p99_ms=float(p99),
        )

    def close(self, *, drain: bool = True) -> None:
        """Take no more requests; answer those that wait, or with ``drain`` False fail them with ModelError.

        Returns when no batch is under way any more. A second call does nothing, but may drop what the first drains.
        """
        self._stop(None if drain else "The MicroBatcher was closed before this text was read. Make a new one.")
        for worker in self._workers:
            if worker is not threading.current_thread():  # a future's callback may close it
                worker.join()
        atexit.unregister(self._exit)

    def __enter__(self) -> MicroBatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    def _enqueue(
        self,
        future: Future[Answer] | Reply,
        text: str | None,
        tasks: Sequence[str] | None,
        deadline_ms: float | None,
        block: bool,
    ) -> Request:
        _checked_text(text)
        block = block and threading.current_thread() not in self._workers  # which make the room
        wanted = self._tasks if tasks is None else self._checked(tuple(tasks))
        now = monotonic()
        if deadline_ms is None:
            request = Request(text, wanted, now, None, now + self._max_wait, future)
        else:
            allowed = deadline_ms / 1000
            request = Request(text, wanted, now, now + allowed, now + min(self._max_wait, allowed / 2), future)
        with self._lock:
            while len(self._queue) >= self._max_queue and not self._closed:
                if not block:
                    self._counts["refused"] += 1
                    raise BusyError(
                        f"{len(self._queue)} texts wait already, max_queue is {self._max_queue}. Try again later, "
                        "or call with block=True to wait for room."
                    )
                left = None if request.deadline is None else request.deadline - monotonic()
                if left is not None and left <= 0:
                    self._counts["expired"] += 1
                    raise is_late(request, "there was no room in the queue")
                self._room.wait(left)
            if self._closed:
                raise ModelError(self._broken or _CLOSED)
            self._queue.append(request)
            if self._gathering:
                if len(self._queue) >= self._max_batch or request.start_by < self._start_by:
                    self._ready.notify()
            else:
                self._work.notify()
        return request

    def _checked(self, tasks: tuple[str, ...]) -> tuple[str, ...]:
        """``tasks`` in the usual order; a mistake is the caller's, not the batch's."""
        known = self._known_tasks.get(tasks)
        if known is None:
            known = self._known_tasks[tasks] = check_tasks(self._session, tasks)
        return known

    def _give_up(self, request: Request, why: str) -> None:
        with self._lock:
            request.given_up = True
            self._counts[why] += 1
        request.future.cancel()

    def _serve(self) -> None:
        """A worker's life."""
        batch: list[Request] = []
        try:
            while batch := self._next_batch():
                try:
                    self._run(batch)
                finally:
                    with self._lock:
                        self._running -= 1
                        if not self._running:
                            self._ready.notify()
        except BaseException as error:  # whatever it is, nobody may wait for ever
            logger.exception("A worker of the MicroBatcher stopped")
            why = f"A worker of the MicroBatcher stopped: {type(error).__name__}: {error}. Make a new one."
            self._stop(why, broken=True)
            fail(batch, ModelError(why))

    def _next_batch(self) -> list[Request]:
        """The next requests to run; none when it is time to end."""
        with self._lock:
            while self._gathering or not self._queue:
                if self._closed and not self._queue:
                    return []
                self._work.wait()
            self._gathering = True
            try:
                while (
                    len(self._queue) < self._max_batch
                    and (self._running or self._wait_when_idle)
                    and not self._closed
                ):
                    # The oldest is not always the first that must be read: a later one may have less time.
                    self._start_by = min(request.start_by for request in self._queue)
                    if (left := self._start_by - monotonic()) <= 0:
                        break
                    self._ready.wait(left)
            finally:
                self._gathering = False
            batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
            if batch:
                self._running += 1
                self._room.notify(len(batch))
            if self._queue or self._closed:
                self._work.notify_all()
            return batch

    def _run(self, batch: Sequence[Request]) -> None:
        groups: dict[tuple[str, ...], list[Request]] = {}
        for request in batch:
            if self._is_due(request):
                groups.setdefault(request.tasks, []).append(request)
        for tasks, requests in groups.items():
            try:
                texts = [request.text for request in requests]
                answers = answers_of(read_texts(self._session, texts, tasks))
            except Exception as error:  # every caller hears of it, and the next batch is another matter
                self._count(requests, "failed")
                fail(requests, error)
                continue
            self._count(requests, "answered")
            for request, answer in zip(requests, answers, strict=True):
                request.future.set_result(answer)

    def _is_due(self, request: Request) -> bool:
        """Whether somebody still wants the answer; from now on the future cannot be cancelled."""
        if not request.future.set_running_or_notify_cancel():
            if not request.given_up:
                self._count([request], "cancelled")
            return False
        if request.deadline is not None and monotonic() >= request.deadline:
            self._count([request], "expired")
            request.future.set_exception(is_late(request))
            return False
        return True

    def _count(self, requests: Sequence[Request], what: str) -> None:
        now = monotonic()
        with self._lock:
            self._counts[what] += sum(not request.given_up for request in requests)
            if what in ("answered", "failed"):
                self._batch_sizes[len(requests)] += 1
            if what == "answered":
                self._latencies.extend(now - request.arrived for request in requests)

    def _stop(self, why: str | None, *, broken: bool = False) -> None:
        """Take no more requests; with ``why``, fail those that wait."""
        dropped: list[Request] = []
        with self._lock:
            self._closed = True
            if broken:
                self._broken = why
            if why is not None:
                dropped = [*self._queue]
                self._queue.clear()
                self._counts["failed" if broken else "cancelled"] += sum(not request.given_up for request in dropped)
            for condition in (self._work, self._ready, self._room):
                condition.notify_all()
        if why is not None:
            fail(dropped, ModelError(why))

    def _exit(self) -> None:
        self._stop("Python ends. Close the MicroBatcher before.")
        for worker in self._workers:
            worker.join(_EXIT_S)


def _checked_text(text: str | None) -> str | None:
    if text is not None and not isinstance(text, str):
        raise ParameterError(f"{text!r} ({type(text).__name__}) is not a text. Convert it to text first.")
    return text
