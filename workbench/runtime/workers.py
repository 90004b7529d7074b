"""Tokenizing beside the run: in this process, and in processes of their own where a GPU would wait for one.

A GPU reads a hundred thousand reviews a second; one core cleans and tokenizes some fifteen thousand. The tokenizer's
own threads do not help, because what Python does with a text holds one lock for all threads.

A worker is a fresh interpreter that is fed through pipes: not a fork, which a CUDA context does not survive, and not
a process of multiprocessing, which would run the caller's script once more. It loads numpy and tokenizers, no more.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from workbench.errors import ModelError, WorkbenchError
from workbench.tasks.encode import EncodedTexts, TextEncoder
from workbench.tasks.spec import load_spec

__all__ = ["Encoders", "serve"]

logger = logging.getLogger(__name__)

_WORTH: Final = 20_000  # texts from which on the second it takes to start processes is won back
_CODE: Final = "import sys; sys.path[:] = {path!r}; from workbench.runtime.workers import serve; serve()"
# One core each: there are as many workers as cores.
_ONE_THREAD: Final = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class _Encodes(Protocol):
    def encode_columns(self, texts: Sequence[str | None], *, offsets: bool) -> EncodedTexts: ...


class Encoders:
    """Encodes lists of texts, several at once and off the caller's thread; for one reading or for many.

    ``workers``: how many processes help once there is enough to do for them, 0 for none: when many texts are
    announced (``expect``), or when many have come. Until the first one is ready this process encodes by itself.
    """

    def __init__(self, encoder: TextEncoder, *, workers: int = 0) -> None:
        self._encoder = encoder
        self._workers = workers if sys.executable else 0
        self._seen = 0
        self._started = self._closed = False
        self._alive = 0  # processes that are ready and did not end
        self._failed = 0  # that could not be started
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._free: queue.SimpleQueue[_Encodes] = queue.SimpleQueue()
        self._free.put(encoder)
        self._processes: list[_Process] = []
        self._threads = ThreadPoolExecutor(self._workers + 1, thread_name_prefix="encode")
        self._starters = ThreadPoolExecutor(max(1, self._workers), thread_name_prefix="encode-start")
        # Killed at the latest when this object goes, or when the interpreter ends.
        self._finalizer = weakref.finalize(self, _kill, self._processes)

    @property
    def workers(self) -> int:
        """How many processes help once there is enough to do for them."""
        return self._workers

    def wait_until_ready(self, seconds: float) -> bool:
        """Wait until all processes that were started can encode; False when one cannot be started, or when it takes
        longer than ``seconds``."""

        def is_over() -> bool:
            return not self._started or self._closed or self._alive + self._failed >= self._workers

        with self._changed:
            return self._changed.wait_for(is_over, seconds) and not self._failed

    @property
    def ahead(self) -> int:
        """How many lists should be under way so that no worker waits, and no more are kept in memory."""
        return self._workers + self._workers // 2 + 4 if self._started else 4

    def expect(self, texts: int) -> None:
        """So many texts will come: start the processes if that is worth it."""
        if texts >= _WORTH:
            self.start()

    def start(self) -> None:
        """Start the processes, if there are any."""
        with self._lock:
            if self._started or self._closed:
                return
            self._started = True
        for _ in range(self._workers):
            self._starters.submit(self._start)

    @property
    def _ready(self) -> bool:
        return self._alive > 0

    def submit(self, texts: Sequence[str | None], *, offsets: bool) -> Future[EncodedTexts]:
        """``TextEncoder.encode_columns`` of ``texts``. The future raises ModelError when a worker process ended."""
        self._seen += len(texts)
        self.expect(self._seen)
        return self._threads.submit(self._encode, texts, offsets)

    def close(self) -> None:
        """End the processes; what is under way raises ModelError. A second call does nothing."""
        with self._changed:
            self._closed = True
            _kill(self._processes)
            self._changed.notify_all()
        self._starters.shutdown(wait=True, cancel_futures=True)
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.close()
        self._processes.clear()

    def __enter__(self) -> Encoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, texts: Sequence[str | None], offsets: bool) -> EncodedTexts:
        one = self._free.get()
        try:
            return one.encode_columns(texts, offsets=offsets)
        finally:
            if isinstance(one, _Process) and not one.alive and not self._closed:
                with self._lock:
                    self._alive -= 1
                one = self._encoder  # in its place: what comes next is encoded here, or by the others
                self._free.put(one)
            elif one is not self._encoder or not self._ready:  # this one has enough to do with what the others give
                self._free.put(one)

    def _start(self) -> None:
        try:
            with self._lock:
                if self._closed:
                    return
                process = _Process(self._encoder)
                self._processes.append(process)
            process.wait_until_ready()
        except (OSError, WorkbenchError) as error:
            if not self._closed:
                logger.warning("A process that would have tokenized could not be started: %s", error)
            with self._changed:
                self._failed += 1
                self._changed.notify_all()
            return
        with self._changed:
            self._alive += 1
            self._changed.notify_all()
        self._free.put(process)


class _Process:
    """A worker, seen from here; used by one thread at a time."""

    def __init__(self, encoder: TextEncoder) -> None:
        path = [str(Path(place).resolve()) if place == "" else place for place in sys.path]
        apart: dict[str, Any] = (
            # Ctrl-C is for this process, which then ends the workers.
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined, unused-ignore]
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        self._process = subprocess.Popen(  # noqa: S603
            [
                sys.executable,
                "-c",
                _CODE.format(path=path),
                str(encoder.spec.folder.resolve()),
                str(encoder.spec.max_tokens),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "TOKENIZERS_PARALLELISM": "false"},
            **apart,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("no pipes")
        self._requests, self._answers = self._process.stdin, self._process.stdout

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Raises ModelError when the process ends instead."""
        self._receive()

    def encode_columns(self, texts: Sequence[str | None], *, offsets: bool) -> EncodedTexts:
        try:
            pickle.dump((list(texts), offsets), self._requests, protocol=5)
            self._requests.flush()
        except (OSError, ValueError):
            raise self._gone() from None
        answer = self._receive()
        if not isinstance(answer, EncodedTexts):
            raise ModelError(
                f"A process that tokenizes failed: {answer}. See that every text is a str or None and that nothing "
                "writes to the model folder meanwhile, then try again."
            )
        return answer

    def kill(self) -> None:
        """End the process; a thread that waits for it gets ModelError."""
        self._process.kill()

    def close(self) -> None:
        """Give the pipes back; the process was killed before."""
        self._process.wait()
        with suppress(OSError):  # what was not sent yet
            self._requests.close()
        self._answers.close()

    def _receive(self) -> Any:
        try:
            return pickle.load(self._answers)  # noqa: S301  # from our own process
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise self._gone() from None

    def _gone(self) -> ModelError:
        self._process.kill()
        code = self._process.wait()
        return ModelError(
            f"A process that tokenizes ended by itself (exit code {code}). The machine may be out of memory, or the "
            "process was stopped. Try again, with fewer texts at once or with more memory."
        )


def _kill(processes: Sequence[_Process]) -> None:
    for process in processes:
        process.kill()


def serve() -> None:
    """What a worker does: read lists of texts from standard input until it ends, write what becomes of them."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing that is printed gets among the answers
    folder, max_tokens = sys.argv[1], int(sys.argv[2])
    encoder = TextEncoder(replace(load_spec(folder), max_tokens=max_tokens))
    _send(answers, "ready")
    while True:
        try:
            texts, offsets = pickle.load(requests)  # noqa: S301  # from the process that started this one
        except EOFError:
            return
        try:
            answer: Any = encoder.encode_columns(texts, offsets=offsets)
        except Exception as error:  # told to the process that asked, whatever it is
            answer = f"{type(error).__name__}: {error}"
        _send(answers, answer)


def _send(stream: Any, value: Any) -> None:
    try:
        pickle.dump(value, stream, protocol=5)
        stream.flush()
    except BrokenPipeError:  # nobody waits for it any more
        os._exit(0)
