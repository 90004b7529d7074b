"""Processes that tokenize."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields

import numpy as np
import pytest

from workbench.errors import ModelError
from workbench.runtime.workers import Encoders
from workbench.tasks.encode import TextEncoder
from workbench.tasks.spec import load_spec

TEXTS = ["good price", None, "质量很好 DHP486", "👍", "", "the bad phone " * 60, "good price", "\ud83d bad"]
MANY = 10**6


@pytest.fixture
def encoder(tiny):
    return TextEncoder(load_spec(tiny))


def process_of(encoders):
    """The first worker, once it is the one that encodes."""
    deadline = time.monotonic() + 30
    while not encoders._ready:
        encoders.submit(["good"], offsets=False).result()
        assert time.monotonic() < deadline, "no worker became ready"
        time.sleep(0.02)
    encoders.submit(["good"], offsets=False).result()
    return encoders._processes[0]


def same(left, right):
    for item in fields(left):
        one, two = getattr(left, item.name), getattr(right, item.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == two.dtype
            assert one.tolist() == two.tolist()
        elif one is not None:
            same(one, two)


@pytest.mark.parametrize("offsets", [False, True])
def test_a_process_gives_what_this_one_gives(encoder, offsets):
    with Encoders(encoder, workers=1) as encoders:
        encoders.expect(MANY)
        process_of(encoders)
        assert encoders._free.get_nowait() is encoders._processes[0]
        encoders._free.put(encoders._processes[0])
        found = [encoders.submit(TEXTS, offsets=offsets) for _ in range(3)]
        for future in found:
            same(future.result(), encoder.encode_columns(TEXTS, offsets=offsets))


def test_processes_are_waited_for(encoder):
    with Encoders(encoder, workers=2) as encoders:
        assert encoders.workers == 2
        assert encoders.wait_until_ready(0), "none was started"
        encoders.expect(MANY)
        assert not encoders.wait_until_ready(0)
        assert encoders.wait_until_ready(30)
        assert len(encoders._processes) == 2


def test_an_interrupted_request_leaves_nothing_for_the_next(encoder):
    other = ["bad phone", "很好", "price"]
    with Encoders(encoder, workers=1) as encoders:
        encoders.start()
        process = process_of(encoders)
        number = process._process.pid
        os.kill(number, signal.SIGSTOP)  # so that the interrupt comes while its answer is waited for
        threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            encoders.submit(["good"], offsets=False).result()
        os.kill(number, signal.SIGCONT)
        same(encoders.submit(other, offsets=False).result(10), encoder.encode_columns(other, offsets=False))
        same(encoders.submit(TEXTS, offsets=False).result(10), encoder.encode_columns(TEXTS, offsets=False))


def test_a_process_that_cannot_be_started_is_not_waited_for(encoder, monkeypatch, caplog):
    with Encoders(encoder, workers=1) as encoders:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        encoders.start()
        started = time.monotonic()
        assert not encoders.wait_until_ready(30)
        assert time.monotonic() - started < 20
    assert "could not be started" in caplog.text


def test_few_texts_start_no_process(encoder):
    with Encoders(encoder, workers=2) as encoders:
        assert len(encoders.submit(TEXTS, offsets=False).result()) == len(TEXTS)
        assert encoders.ahead == 4
        assert not encoders._processes
        encoders.submit(["good"] * 20_000, offsets=False).result()
        process_of(encoders)
        assert encoders.ahead > 4


def test_without_workers_there_are_no_processes(encoder):
    with Encoders(encoder) as encoders:
        encoders.expect(MANY)
        encoders.submit(TEXTS, offsets=False).result()
        assert not encoders._processes


def test_a_process_that_ends_by_itself_is_told(encoder):
    with Encoders(encoder, workers=1) as encoders:
        encoders.expect(MANY)
        process = process_of(encoders)
        process.kill()
        with pytest.raises(ModelError, match=r"ended by itself \(exit code -?\d+\).*out of memory"):
            encoders.submit(TEXTS, offsets=False).result()


def test_what_fails_in_a_process_is_told(encoder):
    with Encoders(encoder, workers=1) as encoders:
        encoders.expect(MANY)
        process_of(encoders)
        with pytest.raises(ModelError, match="A process that tokenizes failed: TypeError"):
            encoders.submit([7], offsets=False).result()
        same(encoders.submit(TEXTS, offsets=False).result(), encoder.encode_columns(TEXTS, offsets=False))


def test_a_process_that_does_not_start_is_done_without(tiny, tmp_path, caplog):
    for name in ("model.onnx", "model.toml", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    encoder = TextEncoder(load_spec(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with Encoders(encoder, workers=1) as encoders:
        encoders.expect(MANY)
        encoders.submit(TEXTS, offsets=False).result()
        encoders._starters.shutdown(wait=True)
        assert "could not be started" in caplog.text
        same(encoders.submit(TEXTS, offsets=False).result(), encoder.encode_columns(TEXTS, offsets=False))


def test_closing_ends_the_processes(encoder):
    encoders = Encoders(encoder, workers=2)
    encoders.expect(MANY)
    process = process_of(encoders)
    late = encoders.submit(["good price"] * 50_000, offsets=True)
    encoders.close()
    encoders.close()
    assert process._process.returncode is not None
    assert late.cancelled() or late.exception() is None or isinstance(late.exception(), ModelError)


def test_closing_at_once(encoder):
    for _ in range(3):
        with Encoders(encoder, workers=2) as encoders:
            encoders.expect(MANY)
            encoders.submit(["good"], offsets=False)


def test_a_worker_imports_nothing_heavy(tiny):
    code = """
import sys
from workbench.runtime.workers import serve
serve()
heavy = {"polars", "pydantic", "torch", "onnx", "onnxruntime", "tensorrt", "pycuda", "tqdm"} & {*sys.modules}
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny), "64"],
        input=pickle.dumps((TEXTS, True)),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(pickle.dumps("ready", protocol=5))


SCRIPT = """
import signal, sys
from workbench.runtime.onnx import OnnxSession
from workbench.runtime.read import read_chunks
from workbench.runtime.workers import Encoders

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
# No guard of __main__: the script must not be run again in the workers.
with OnnxSession(sys.argv[1], threads=1) as session, Encoders(session.encoder, workers=2) as encoders:
    encoders.expect(10**6)
    chunks = (["good price", "bad phone"] * 500 for _ in range(100_000))
    for at, _ in enumerate(read_chunks(session, chunks, encoders=encoders)):
        if encoders._ready and at % 10 == 0:
            print("pids", *(process._process.pid for process in encoders._processes), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_a_reading_and_its_processes(tiny):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tiny)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as script:
        try:
            line = script.stdout.readline()
            assert line.startswith("pids"), script.stderr.read()
            script.send_signal(signal.SIGINT)
            _, said = script.communicate(timeout=20)
        finally:
            script.kill()
    assert "KeyboardInterrupt" in said
    assert script.returncode not in (0, -signal.SIGKILL)
    for pid in map(int, line.split()[1:]):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_after_processes_ended_this_one_encodes(encoder):
    with Encoders(encoder, workers=2) as encoders:
        encoders.expect(MANY)
        process_of(encoders)
        encoders._starters.shutdown(wait=True)
        for process in encoders._processes:
            process.kill()
        for _ in range(2):
            with pytest.raises(ModelError, match="ended by itself"):
                encoders.submit(TEXTS, offsets=False).result(20)
        for _ in range(3):
            found = encoders.submit(TEXTS, offsets=True).result(20)
            same(found, encoder.encode_columns(TEXTS, offsets=True))


def test_one_process_that_ends_leaves_the_others(encoder):
    with Encoders(encoder, workers=2) as encoders:
        encoders.expect(MANY)
        process_of(encoders)
        encoders._starters.shutdown(wait=True)
        encoders._processes[0].kill()
        errors = [encoders.submit(TEXTS, offsets=False).exception(20) for _ in range(6)]
        assert sum(error is not None for error in errors) == 1
        assert encoders._free.get_nowait() is encoders._processes[1]
        encoders._free.put(encoders._processes[1])
