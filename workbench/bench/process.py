"""One peer, one process: requests and answers are lines of JSON on its standard input and output.

A request is {"do": "read" | "each" | "logits" | "end", "texts": [...]}. The answer to "read" is {"seconds": s} for
all texts in one call, to "each" {"seconds": [...]} for one call a text, to "logits" {"logits": [[...], ...]}, to
"end" {"peak_mb": m}. The first line a peer writes is {"about": "..."}. This module needs nothing but Python, so that
it runs under an interpreter that has no workbench.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["Peer", "PeerError", "peak_mb", "serve"]


def serve(
    read: Callable[[Sequence[str]], Any],
    logits: Callable[[Sequence[str]], Sequence[Sequence[float]]],
    *,
    about: str,
) -> None:
    """Answer requests on standard input until "end". What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    def timed(texts: Sequence[str]) -> float:
        start = time.perf_counter()
        read(texts)
        return time.perf_counter() - start

    answer(about=about)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "read":
            answer(seconds=timed(request["texts"]))
        elif request["do"] == "each":
            answer(seconds=[timed([text]) for text in request["texts"]])
        elif request["do"] == "logits":
            answer(logits=[list(row) for row in logits(request["texts"])])
        else:
            answer(peak_mb=peak_mb())
            return


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
    """A peer ended before its answer; the message is the end of what it wrote to standard error."""


class Peer:
    """A peer's process, started with little in its environment, so that nothing is tuned for one of them."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "SYSTEMROOT") if key in os.environ}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter the user named, and our own script
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**kept, "LANG": "C.UTF-8", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"},
            )
        except OSError:
            self._errors.close()
            raise
        try:
            self.about = str(self._answer()["about"])
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, texts: Sequence[str] = ()) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises PeerError."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for above
        with contextlib.suppress(BrokenPipeError):  # the answer that does not come says why
            self._process.stdin.write((json.dumps({"do": do, "texts": list(texts)}) + "\n").encode())
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for above
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            raise PeerError("\n".join(lines[-8:]) or f"it ended with code {self._process.returncode}")
        return dict(json.loads(line))

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
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
