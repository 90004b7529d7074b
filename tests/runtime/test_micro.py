"""Scattered requests in batches: everybody gets the own answer, or a clear error, and nobody waits for ever."""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from time import monotonic, sleep

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import BusyError, DeadlineError, ModelError, ParameterError
from workbench.runtime import micro, open_session
from workbench.runtime.micro import Answer, MicroBatcher
from workbench.runtime.read import read_texts
from workbench.runtime.requests import Reply
from workbench.tasks.labels import SENTIMENTS, TASKS

TEXTS = [
    "good phone",
    "bad price",
    "很好",
    "差 屏",
    "the price, the price",
    "👍",
    "!!!",
    "",
    None,
    "good 相机 ü",
    "x" * 90,
    "bad. " * 60,
    "快递 很 慢 的 手机 价格 很好 " * 9,
]


@pytest.fixture(scope="module")
def session(tiny):
    with open_session(tiny, backend="onnxruntime", threads=2) as opened:
        yield opened


class Gate:
    """A real session with a gate before it, which counts and can fail."""

    def __init__(self, session, *, error=None):
        self._session = session
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.runs = 0
        self.error = error

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run(self, *args, **kwargs):
        self._pass()
        return self._session.run(*args, **kwargs)

    def run_packed(self, *args, **kwargs):
        self._pass()
        return self._session.run_packed(*args, **kwargs)

    def _pass(self):
        self.runs += 1
        self.entered.release()
        assert self.open.wait(20)
        if self.error is not None:
            raise self.error

    def await_run(self):
        assert self.entered.acquire(timeout=10)


@pytest.fixture
def gate(session):
    made = Gate(session)
    yield made
    made.open.set()


def expected(session, text, tasks=TASKS):
    return row(read_texts(session, [text], tasks), 0)


def row(reading, at):
    """A row of a reading as an answer, written down independently."""
    answer = {"language": reading.language[at], "reason": reading.reason[at]}
    if "sentiment" in reading.tasks:
        answer["sentiment"] = reading.sentiment[at]
        if answer["sentiment"] is not None:
            answer["p_sentiment"] = {name: float(reading.p_sentiment[at, n]) for n, name in enumerate(SENTIMENTS)}
    if "topics" in reading.tasks:
        answer["topics"] = reading.topics[at]
        if answer["topics"] is not None:
            answer["p_topics"] = {name: float(reading.p_topics[at, n]) for n, name in enumerate(reading.topic_names)}
    if "entities" in reading.tasks and reading.entities[at] is not None:
        answer["entities"] = tuple(reading.entities[at])
    return Answer(**answer)


def assert_same(found, wanted):
    for name in ("sentiment", "topics", "language", "reason"):
        assert getattr(found, name) == getattr(wanted, name)
    for name in ("p_sentiment", "p_topics"):
        mine, theirs = getattr(found, name), getattr(wanted, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine == pytest.approx(theirs, abs=1e-5)
    spans = [
        None if item.entities is None else [(e.start, e.end, e.label, e.text) for e in item.entities]
        for item in (found, wanted)
    ]
    assert spans[0] == spans[1]


def test_64_threads_get_the_answers_of_their_own_texts(session):
    texts = [f"{text} {number}" if text else text for number in range(40) for text in TEXTS]
    reading = read_texts(session, texts)
    with MicroBatcher(session, max_wait_ms=1, max_batch=16, max_queue=32) as batcher:
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(batcher.read, texts))
        stats = batcher.stats()
    for number, answer in enumerate(answers):
        assert_same(answer, row(reading, number))
    assert stats.answered == len(texts)
    assert sum(size * count for size, count in stats.batch_sizes.items()) == len(texts)
    assert max(stats.batch_sizes) <= 16
    assert stats.mean_batch > 2, "64 threads share batches"
    assert (stats.queued, stats.running, stats.failed, stats.expired, stats.refused) == (0, 0, 0, 0, 0)
    assert 0 < stats.p50_ms <= stats.p95_ms <= stats.p99_ms


@pytest.fixture
def one_worker(monkeypatch):
    """As on a GPU."""
    monkeypatch.setitem(micro._WORKERS, "onnxruntime", 1)


def test_one_worker_answers_all(session, one_worker):
    texts = [f"{text} {number}" if text else text for number in range(8) for text in TEXTS]
    reading = read_texts(session, texts)
    with MicroBatcher(session, max_wait_ms=1, max_batch=16) as batcher:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(batcher.read, texts))
        assert batcher.stats().answered == len(texts)
    for number, answer in enumerate(answers):
        assert_same(answer, row(reading, number))


def test_a_callback_may_close_a_batcher_that_has_more_to_answer(session, one_worker):
    batcher = MicroBatcher(session, max_batch=1)
    closed = threading.Event()
    first = batcher.submit("good phone " * 100)
    first.add_done_callback(lambda _: (batcher.close(), closed.set()))
    others = [batcher.submit(text) for text in ("good", "bad price", "很好")]
    assert closed.wait(30)
    reading = read_texts(session, ["good", "bad price", "很好"])
    for number, future in enumerate(others):
        assert_same(future.result(30), row(reading, number))
    batcher.close()


def test_a_callback_may_read_but_not_wait_for_room(session, one_worker):
    reading = read_texts(session, ["bad price"])
    said, done = [], threading.Event()
    with MicroBatcher(session, max_batch=1, max_queue=2) as batcher:

        def call(_):
            try:
                said.append(batcher.read("bad price"))
                with pytest.raises(ParameterError, match="not a text"):
                    batcher.read(5)
                for _ in range(3):
                    batcher.submit("good")
            except BusyError as error:
                said.append(error)
            finally:
                done.set()

        batcher.submit("good phone").add_done_callback(call)
        assert done.wait(30)
    assert_same(said[0], row(reading, 0))
    assert isinstance(said[1], BusyError)


def test_a_callback_that_closed_the_batcher_reads_no_more(session, one_worker):
    said, done = [], threading.Event()
    batcher = MicroBatcher(session)

    def call(_):
        batcher.close()
        with pytest.raises(ModelError, match="is closed"):
            batcher.read("good")
        said.append("closed")
        done.set()

    batcher.submit("good").add_done_callback(call)
    assert done.wait(30)
    assert said == ["closed"]


def test_a_batcher_whose_threads_cannot_start_leaves_nothing(session, monkeypatch):
    started, at_exit = [], []

    def start(thread):
        if thread.name == "micro-batch-1":
            raise RuntimeError("can't start new thread")
        started.append(thread)
        own(thread)

    own = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(atexit, "unregister", at_exit.remove)
    with pytest.raises(RuntimeError, match="new thread"):
        MicroBatcher(session)
    assert not at_exit
    [thread] = started
    thread.join(30)
    assert not thread.is_alive()


def test_a_reply_is_what_a_thread_needs_of_a_future():
    answer, reply = Answer(sentiment="positive"), Reply()
    assert not reply.done()
    assert not reply.running()
    with pytest.raises(FutureTimeoutError):
        reply.result(0.01)
    assert reply.set_running_or_notify_cancel()
    assert reply.running()
    assert not reply.cancel(), "too late: it runs"
    threading.Timer(0.05, reply.set_result, [answer]).start()
    assert reply.result() is answer
    assert reply.done()
    assert not reply.running()
    assert reply.result(0) is answer

    failed = Reply()
    failed.set_exception(ModelError("gone"))
    failed.set_exception(ModelError("gone twice"))
    for _ in range(2):
        with pytest.raises(ModelError, match="gone"):
            failed.result(0)

    cancelled = Reply()
    assert cancelled.cancel()
    assert cancelled.done()
    assert not cancelled.set_running_or_notify_cancel()


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.one_of(st.none(), st.sampled_from(TEXTS), st.text(alphabet="ab !很好😀\ud800\u0301", max_size=90)),
            st.sets(st.sampled_from(TASKS), min_size=1),
        ),
        max_size=12,
    ),
    max_batch=st.integers(1, 5),
    max_wait_ms=st.sampled_from([0, 1]),
    wait_when_idle=st.booleans(),
)
def test_any_requests_in_any_batches_give_what_reading_alone_gives(
    session, requests, max_batch, max_wait_ms, wait_when_idle
):
    with MicroBatcher(
        session, max_wait_ms=max_wait_ms, max_batch=max_batch, max_queue=4, wait_when_idle=wait_when_idle
    ) as batcher:
        futures = [batcher.submit(text, sorted(tasks)) for text, tasks in requests]
        answers = [future.result(20) for future in futures]
    for (text, tasks), answer in zip(requests, answers, strict=True):
        assert_same(answer, expected(session, text, tuple(tasks)))


def test_tasks_not_asked_for_stay_none_and_the_batchers_own_are_the_default(session):
    with MicroBatcher(session, tasks=["topics"]) as batcher:
        own = batcher.read("good phone")
        other = batcher.read("good phone", ["sentiment", "entities"])
    assert own.topics
    assert set(own.p_topics) == set(session.spec.outputs["topics"].labels)
    assert (own.sentiment, own.p_sentiment, own.entities) == (None, None, None)
    assert other.sentiment in SENTIMENTS
    assert isinstance(other.entities, tuple)
    assert (other.topics, other.p_topics) == (None, None)


def test_a_lone_request_does_not_wait_unless_told_to(session):
    with MicroBatcher(session, max_wait_ms=5000) as batcher:
        start = monotonic()
        batcher.read("good phone")
        assert monotonic() - start < 2
    with MicroBatcher(session, max_wait_ms=300, wait_when_idle=True) as batcher:
        start = monotonic()
        batcher.read("good phone")
        assert monotonic() - start >= 0.3


def test_what_comes_while_a_batch_runs_is_the_next_batch(session, gate):
    with MicroBatcher(gate, max_wait_ms=60_000, max_batch=8, tasks=["sentiment"]) as batcher:
        first = batcher.submit("good")
        gate.await_run()
        others = [batcher.submit("bad phone") for _ in range(5)]
        sleep(0.05)
        stats = batcher.stats()
        assert (stats.queued, stats.running, gate.runs) == (5, 1, 1), "they gather, for the wait is long"
        gate.open.set()
        assert {future.result(10).sentiment for future in others} == {expected(session, "bad phone").sentiment}
        assert first.result(10).sentiment
        assert batcher.stats().batch_sizes == {1: 1, 5: 1}


def test_a_full_batch_starts_while_another_runs(gate):
    with MicroBatcher(gate, max_wait_ms=60_000, max_batch=3, tasks=["sentiment"]) as batcher:
        futures = [batcher.submit("good")]
        gate.await_run()
        futures += [batcher.submit("bad") for _ in range(3)]
        gate.await_run()
        assert batcher.stats().running == 2
        gate.open.set()
        assert all(future.result(10).sentiment for future in futures)


def test_the_oldest_waits_no_longer_than_the_limit_or_half_its_deadline(gate):
    for options in ({"max_wait_ms": 30}, {"max_wait_ms": 60_000, "deadline_ms": 2000}):
        deadline = options.pop("deadline_ms", None)
        gate.open.clear()
        with MicroBatcher(gate, **options, tasks=["sentiment"]) as batcher:
            batcher.submit("good")
            gate.await_run()
            batcher.submit("bad", deadline_ms=deadline)
            gate.await_run()  # though the first one still runs
            assert batcher.stats().running == 2
            gate.open.set()


def busy(gate, batcher):
    """Both workers run something; what is submitted now waits. The futures of what runs."""
    futures = []
    for _ in range(2):
        futures.append(batcher.submit("good"))
        gate.await_run()
    return futures


def test_a_request_whose_deadline_passes_in_the_queue_is_not_run(gate):
    with MicroBatcher(gate, max_wait_ms=0, max_batch=1, tasks=["sentiment"]) as batcher:
        running = busy(gate, batcher)
        late = batcher.submit("bad", deadline_ms=20)
        with pytest.raises(DeadlineError, match=r"The deadline of 20 ms passed: .*\. Give it more time"):
            batcher.read("bad", deadline_ms=20)
        waiting = batcher.submit("bad", deadline_ms=20_000)
        sleep(0.05)
        gate.open.set()
        with pytest.raises(DeadlineError, match="20 ms"):
            late.result(10)
        assert waiting.result(10).sentiment
        assert all(future.result(10).sentiment for future in running)
    assert gate.runs == 3, "two that ran and the one with time enough"
    stats = batcher.stats()
    assert (stats.answered, stats.expired, stats.cancelled) == (3, 2, 0)


def test_a_caller_does_not_wait_past_the_deadline_for_what_runs(gate):
    with MicroBatcher(gate, tasks=["sentiment"]) as batcher:
        start = monotonic()
        with pytest.raises(DeadlineError):
            batcher.read("good", deadline_ms=50)
        assert monotonic() - start < 5
        gate.open.set()
    stats = batcher.stats()
    assert (stats.answered, stats.expired) == (0, 1)


def test_a_full_queue_holds_callers_back(gate):
    with MicroBatcher(gate, max_wait_ms=0, max_batch=1, max_queue=2, tasks=["sentiment"]) as batcher:
        busy(gate, batcher)
        waiting = [batcher.submit("bad") for _ in range(2)]
        with pytest.raises(BusyError, match=r"2 texts wait already, max_queue is 2\. .*block=True") as raised:
            batcher.submit("bad", block=False)
        assert not isinstance(raised.value, DeadlineError)
        start = monotonic()
        with pytest.raises(DeadlineError, match="no room"):
            batcher.submit("bad", deadline_ms=50)
        assert 0.05 <= monotonic() - start < 5
        with ThreadPoolExecutor(8) as pool:
            held = [pool.submit(batcher.read, "bad") for _ in range(8)]
            sleep(0.05)
            assert batcher.stats().queued == 2
            gate.open.set()
            assert all(future.result(10).sentiment for future in [*held, *waiting])
        stats = batcher.stats()
    assert (stats.refused, stats.expired, stats.answered) == (1, 1, 12)


def test_a_cancelled_future_is_not_run(gate):
    with MicroBatcher(gate, max_wait_ms=0, max_batch=4, tasks=["sentiment"]) as batcher:
        busy(gate, batcher)
        kept, dropped = batcher.submit("bad"), batcher.submit("good phone")
        assert dropped.cancel()
        gate.open.set()
        assert kept.result(10).sentiment
        with pytest.raises(CancelledError):
            dropped.result(10)
    assert batcher.stats().cancelled == 1
    assert batcher.stats().batch_sizes == {1: 3}


def test_closing_answers_what_waits(gate):
    batcher = MicroBatcher(gate, max_wait_ms=60_000, max_batch=2, tasks=["sentiment"])
    futures = [batcher.submit("good") for _ in range(7)]
    gate.await_run()
    threading.Timer(0.05, gate.open.set).start()
    batcher.close()
    assert all(future.done() and future.result().sentiment for future in futures)
    batcher.close()
    for call in (batcher.read, batcher.submit):
        with pytest.raises(ModelError, match=r"is closed\. Make a new one\."):
            call("good")


def test_closing_without_answering_fails_what_waits_and_what_is_held_back(gate):
    batcher = MicroBatcher(gate, max_wait_ms=0, max_batch=1, max_queue=2, tasks=["sentiment"])
    running = busy(gate, batcher)
    waiting = [batcher.submit("bad") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(batcher.read, "bad") for _ in range(2)]
        sleep(0.05)
        closing = threading.Thread(target=batcher.close, kwargs={"drain": False})
        closing.start()
        for future in waiting:
            with pytest.raises(ModelError, match="closed before this text was read"):
                future.result(10)
        for future in held:
            with pytest.raises(ModelError, match="is closed"):
                future.result(10)
    assert closing.is_alive(), "it waits for what runs"
    gate.open.set()
    closing.join(10)
    assert not closing.is_alive()
    assert all(future.result(1).sentiment for future in running)
    assert gate.runs == 2
    assert batcher.stats().cancelled == 2


def test_leaving_with_an_error_does_not_read_what_waits(gate):
    waiting = []

    def fail():
        with MicroBatcher(gate, max_wait_ms=0, max_batch=1) as batcher:
            busy(gate, batcher)
            waiting.append(batcher.submit("bad"))
            threading.Timer(0.05, gate.open.set).start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(ModelError, match="closed before"):
        waiting[0].result(0)


@pytest.mark.parametrize("error", [ModelError("No memory."), ValueError("odd"), TimeoutError("slow")])
def test_a_batch_that_fails_fails_for_its_callers_and_for_nobody_else(session, error):
    broken = Gate(session, error=error)
    with MicroBatcher(broken, max_wait_ms=60_000, max_batch=64, tasks=["sentiment"]) as batcher:
        first = batcher.submit("good")
        broken.await_run()
        with ThreadPoolExecutor(6) as pool:
            others = [pool.submit(batcher.read, "bad", deadline_ms=20_000) for _ in range(6)]
            while batcher.stats().queued < 6:
                sleep(0.01)
            broken.open.set()
            for future in [first, *others]:
                with pytest.raises(type(error), match=str(error)):
                    future.result(10)
        broken.error = None
        assert batcher.read("good").sentiment
    stats = batcher.stats()
    assert (stats.failed, stats.answered, stats.batch_sizes) == (7, 1, {1: 2, 6: 1})


def test_a_closed_session_is_told_to_every_caller(tiny):
    opened = open_session(tiny, backend="onnxruntime", threads=1)
    with MicroBatcher(opened) as batcher:
        assert batcher.read("good").sentiment
        opened.close()
        for _ in range(2):
            with pytest.raises(ModelError, match="is closed"):
                batcher.read("good")


def test_a_worker_that_dies_is_reported_to_all_who_wait_and_who_come(session, caplog):
    broken = Gate(session, error=SystemExit("killed"))
    batcher = MicroBatcher(broken, max_wait_ms=0, max_batch=1, max_queue=2, tasks=["sentiment"])
    running = busy(broken, batcher)
    waiting = [batcher.submit("bad") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(batcher.read, "bad") for _ in range(2)]
        sleep(0.05)
        broken.open.set()
        for future in [*running, *waiting, *held]:
            with pytest.raises(ModelError, match=r"worker of the MicroBatcher stopped: SystemExit: killed\. Make"):
                future.result(10)
    with pytest.raises(ModelError, match="stopped: SystemExit"):
        batcher.read("good")
    assert "A worker of the MicroBatcher stopped" in caplog.text
    batcher.close()


def test_ctrl_c_ends_a_wait_and_the_batcher_lives_on(gate):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with MicroBatcher(gate, max_wait_ms=0, max_batch=1, tasks=["sentiment"]) as batcher:
            busy(gate, batcher)
            main = threading.get_ident()
            threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                batcher.read("bad")
            gate.open.set()
            assert batcher.read("good").sentiment
        assert batcher.stats().cancelled == 1
        assert gate.runs == 3
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_callback_may_close_the_batcher(session):
    batcher = MicroBatcher(session, tasks=["sentiment"])
    done = threading.Event()

    def end(_):
        batcher.close()
        done.set()

    batcher.submit("good").add_done_callback(end)
    assert done.wait(10)
    batcher.close()


EXIT = """
import sys, threading
from time import sleep
from workbench.runtime import open_session
from workbench.runtime.micro import MicroBatcher

session = open_session(sys.argv[1], backend="onnxruntime", threads=1)
batcher = MicroBatcher(session, max_wait_ms=3_600_000, wait_when_idle=True)
if sys.argv[2] == "used":
    few = MicroBatcher(session)
    assert few.read("good").sentiment
batcher.submit("never run")
sleep(0.1)
print("end")
"""


@pytest.mark.parametrize("how", ["unused", "used"])
def test_python_ends_though_nobody_closed_it(tiny, how):
    start = monotonic()
    done = subprocess.run(
        [sys.executable, "-c", EXIT, str(tiny), how], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
    assert monotonic() - start < 30


def test_mistakes_are_told_to_the_caller_at_once(session):
    for options in ({"max_batch": 0}, {"max_queue": 0}, {"max_wait_ms": -1}, {"max_wait_ms": float("nan")}):
        with pytest.raises(ParameterError, match="room for at least one text"):
            MicroBatcher(session, **options)
    with pytest.raises(ModelError, match="No task is named 'mood'"):
        MicroBatcher(session, tasks=["mood"])
    with MicroBatcher(session) as batcher:
        with pytest.raises(ModelError, match="No task is named 'mood'"):
            batcher.read("good", ["mood"])
        with pytest.raises(ParameterError, match=r"7 \(int\) is not a text"):
            batcher.read(7)
        assert batcher.stats().batches == 0
        assert str(batcher.stats().mean_batch) == str(batcher.stats().p99_ms) == "nan"


def test_a_later_request_with_less_time_is_read_in_time(session):
    with MicroBatcher(session, max_wait_ms=20_000, wait_when_idle=True) as batcher:
        first = batcher.submit("good phone")
        sleep(0.05)
        assert_same(batcher.read("bad price", deadline_ms=2000), expected(session, "bad price"))
        assert_same(first.result(5), expected(session, "good phone"))
        assert batcher.stats().expired == 0
