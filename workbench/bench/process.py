"""One peer, one process: requests and answers are lines of JSON on its standard input and output.

The first line a peer writes is {"about": "..."}. A request is {"do": <name>, ...}, and what else it holds goes to the
peer's function of that name; the answer is what that gives, or {"error": "..."} where it failed. To "end" every peer
answers {"peak_mb": m} and ends. This module needs nothing but Python, so that it runs under an interpreter that has
no workbench.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["Peer", "PeerError", "clean_environment", "peak_mb", "serve", "serve_requests"]

_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SYSTEMROOT", "CUDA_VISIBLE_DEVICES")
"""What of this process's environment a peer gets. Not among them: PYTHONHOME, PYTHONPATH, LD_LIBRARY_PATH and
LD_PRELOAD, by which the libraries of one interpreter would reach another's."""


def clean_environment(**more: str) -> dict[str, str]:
    """Little of this process's environment, so that nothing is tuned for one peer, and ``more``."""
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    return {**kept, "LANG": "C.UTF-8", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", **more}


def serve_requests(handlers: Mapping[str, Callable[..., Mapping[str, Any]]], *, about: str) -> None:
    """Answer requests on standard input until "end". What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(values: Mapping[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    answer({"about": about})
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        if do == "end":
            answer({"peak_mb": peak_mb()})
            return
        try:
            answer(handlers[do](**request))
        except Exception as error:  # whatever it was, the others go on, and the next request too
            traceback.print_exc()
            answer({"error": f"{type(error).__name__}: {error}"})


def serve(
    read: Callable[[Sequence[str]], Any],
    logits: Callable[[Sequence[str]], Sequence[Sequence[float]]],
    *,
    about: str,
) -> None:
    """Answer what ``workbench.bench.cpu`` asks: "read" (all ``texts`` in one call) and "each" (one call a text) with
    {"seconds": ...}, "logits" with {"logits": [[...], ...]}.
    """

    def timed(texts: Sequence[str]) -> float:
        start = time.perf_counter()
        read(texts)
        return time.perf_counter() - start

    serve_requests(
        {
            "read": lambda texts: {"seconds": timed(texts)},
            "each": lambda texts: {"seconds": [timed([text]) for text in texts]},
            "logits": lambda texts: {"logits": [list(row) for row in logits(texts)]},
        },
        about=about,
    )


def peak_mb() -> float:
    """The most memory this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands a new process the peak of the one that started it; this line is its own.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


class PeerError(Exception):
    """A peer ended before its answer, or answered with an error; the message is the end of what it said."""


class Peer:
    """A peer's process. ``environment``: all it gets; default: ``clean_environment()``.

    With ``wait`` False it starts in the background; ``ready`` waits for it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        self.name = name
        self.about = ""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter the user named, and our own script
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=dict(clean_environment() if environment is None else environment),
            )
        except OSError:
            self._errors.close()
            raise
        if wait:
            try:
                self.ready()
            except BaseException:
                self.close()
                raise

    def ready(self, timeout: float | None = None) -> str:
        """Wait until the peer has started; gives what it says about itself. Raises PeerError."""
        self.about = self.about or str(self._answer(timeout)["about"])
        return self.about

    def send(self, do: str, **request: Any) -> None:
        """Send a request; ``receive`` gives its answer."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for above
        with contextlib.suppress(BrokenPipeError):  # the answer that does not come says why
            self._process.stdin.write((json.dumps({"do": do, **request}) + "\n").encode())
            self._process.stdin.flush()

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The answer to the request that was sent. Raises PeerError, also when ``timeout`` seconds passed: then the
        peer is ended.
        """
        answer = self._answer(timeout)
        if "error" in answer:
            raise PeerError(str(answer["error"]))
        return answer

    def ask(
        self, do: str, texts: Sequence[str] | None = None, *, timeout: float | None = None, **request: Any
    ) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises PeerError as ``receive`` does."""
        self.send(do, **({} if texts is None else {"texts": list(texts)}), **request)
        return self.receive(timeout)

    @property
    def lives(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    @property
    def said(self) -> str:
        """The end of what it wrote to standard error."""
        self._errors.seek(0)
        return "\n".join(self._errors.read().decode("utf-8", "replace").strip().splitlines()[-8:])

    def _answer(self, timeout: float | None) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for above
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout, stop) if timeout is not None else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            if timer is not None:
                timer.cancel()
        if line:
            return dict(json.loads(line))
        self._process.wait()
        if late.is_set():
            raise PeerError(f"it gave no answer in {timeout:.0f} s and was ended")
        raise PeerError(self.said or f"it ended with code {self._process.returncode}")

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
        self._errors.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
