"""The load test of the MicroBatcher counts what it says it counts."""

from __future__ import annotations

import json
from time import sleep

import pytest

from tests.runtime.tiny_model import make_tiny_model
from workbench.bench.micro import MicroBench, measure_micro
from workbench.errors import ModelError, ParameterError
from workbench.runtime import open_session

TEXTS = [f"good phone {number}" for number in range(50)]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with open_session(make_tiny_model(tmp_path_factory.mktemp("micro") / "tiny"), backend="onnxruntime") as opened:
        yield opened


def test_requests_on_a_timetable(session):
    found = measure_micro(session, TEXTS, threads=8, seconds=0.5, rate=100, tasks=["sentiment"])
    assert 45 <= found.requests <= 55
    assert found.requests_per_s == pytest.approx(
        found.requests / 0.5, rel=0.2
    )  # what is answered after the end is late
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms <= found.max_ms
    assert found.mean_batch >= 1
    assert not found.passed, "100 requests a second are below the bar, however quick"
    assert "8 threads, 100 a second sent: " in found.summary()
    assert json.loads(json.dumps(found.as_dict()))["bars"] == {"requests_per_s": 1000.0, "p99_ms": 10.0}


def test_as_fast_as_answers_come(session):
    found = measure_micro(session, TEXTS, threads=16, seconds=0.4, max_batch=8)
    assert found.offered is None
    assert 1 < found.mean_batch <= 8
    assert "as fast as answers come" in found.summary()


class Slow:
    """The session, 50 ms a run later."""

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run(self, *args, **kwargs):
        sleep(0.05)
        return self._session.run(*args, **kwargs)

    def run_packed(self, *args, **kwargs):
        sleep(0.05)
        return self._session.run_packed(*args, **kwargs)


def test_being_late_counts_from_when_a_request_was_due(session):
    # One thread, due every 10 ms, and 50 ms an answer: after half a second it is some 400 ms behind.
    found = measure_micro(Slow(session), TEXTS, threads=1, seconds=0.5, rate=100)
    assert found.p50_ms > 100
    assert found.max_ms > 300


def test_both_bars_count():
    numbers = {"threads": 64, "offered": None, "seconds": 1.0, "p50_ms": 1.0, "p95_ms": 1.0, "mean_batch": 2.0}

    def bench(rate, p99):
        return MicroBench(**numbers, requests=int(rate), requests_per_s=rate, p99_ms=p99, max_ms=p99)

    assert bench(1000.0, 10.0).passed
    assert not bench(999.0, 10.0).passed
    assert not bench(1000.0, 10.1).passed


def test_errors_reach_the_caller(tmp_path):
    opened = open_session(make_tiny_model(tmp_path / "tiny"), backend="onnxruntime")
    with pytest.raises(ParameterError, match="no texts"):
        measure_micro(opened, [])
    opened.close()
    with pytest.raises(ModelError, match="is closed"):
        measure_micro(opened, TEXTS, threads=4, seconds=0.2)
