"""What the peers of ``workbench bench gpu`` are asked, and how it is timed. Needs nothing but Python.

A peer fills in ``Work``. It is asked, in this order: "load" (its network onto the device), "compile" where it has
that, "warm" (everything that happens once: kernels, the search for its best batch size), then any of "logits",
"network" (tokens in, logits out), "read" (texts in, labels out), "single" (one text a call) and "file" (Parquet in,
Parquet out), and at last "facts" and "end". All peers read the same texts, a list of JSON in the file that they are
started with.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

# Under an interpreter without a workbench this is a file beside others.
try:
    from workbench.bench.process import peak_mb, serve_requests
except ImportError:
    from process import peak_mb, serve_requests  # type: ignore[import-not-found, no-redef, unused-ignore]

__all__ = ["MOST_TOKENS", "Work", "closure_of", "package_mb", "read_texts_file", "serve_work"]

MOST_TOKENS = 512
"""Longer texts are cut, on all sides alike."""

_SLICES = (32768, 16384, 8192, 4096, 2048, 1024, 512, 256, 128, 64)
"""How many texts are read at a time, where not all of them."""
_FEWEST_SINGLES, _MOST_SINGLES = 20, 5000

Run = Callable[[int, int], int]


class Work(Protocol):
    """A peer. ``run_network`` and ``read_texts`` do the texts ``start`` to ``end`` of its list, and give how many
    tokens they have.
    """

    def run_network(self, start: int, end: int) -> int:
        """From tokens to logits. Raises NotImplementedError where the library takes texts only."""

    def read_texts(self, start: int, end: int) -> int:
        """From texts to labels."""

    def load(self) -> Mapping[str, Any]:
        """Bring the network to the device. Gives what there is to tell, such as "reserved_mb"."""

    def warm(self, seconds: float) -> Mapping[str, Any]:
        """Get everything done that happens once; try each way about ``seconds`` long. Gives what was chosen."""

    def logits(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Of the first task."""

    def one_network(self, tokens: int | None, turn: int) -> None:
        """One text through the network: of just so many tokens, or None: the list's text ``turn``."""

    def one_text(self, turn: int) -> None:
        """One text to its label."""

    def read_file(self, source: Path, out: Path, tasks: Sequence[str]) -> int:
        """Score the column "text" of ``source`` into ``out``; gives the rows."""

    def facts(self) -> Mapping[str, Any]:
        """What there is to tell at the end."""


def serve_work(work: Work, *, texts: int, about: str, packages: Iterable[str], **more: Callable[..., Any]) -> None:
    """Answer the bench until it closes the pipe. ``texts``: how many there are; ``more``: further requests."""
    pace = {"network": _Pace(texts), "read": _Pace(texts)}
    sizes = package_mb(packages)  # now, while other peers start

    def settle(kind: str, seconds: float, patience: float) -> dict[str, Any]:
        run = work.run_network if kind == "network" else work.read_texts
        return {"texts": pace[kind].settle(run, seconds, patience)}

    def single(kind: str, seconds: float, tokens: int | None = None) -> dict[str, Any]:
        def one(turn: int) -> None:
            if kind == "text":
                work.one_text(turn % texts)
            else:
                work.one_network(tokens, turn % texts)

        for turn in range(5):
            one(turn)
        return {"ms": _latencies(one, seconds)}

    def load() -> Mapping[str, Any]:
        told = work.load()
        # What it took to get the weights from a file of another library is no part of the work.
        gc.collect()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return told

    def file(source: str, out: str, tasks: Sequence[str]) -> dict[str, Any]:
        start = time.perf_counter()
        rows = work.read_file(Path(source), Path(out), tasks)
        return {"rows": rows, "seconds": time.perf_counter() - start}

    serve_requests(
        {
            "load": load,
            "warm": work.warm,
            "logits": lambda texts: {"logits": [list(map(float, row)) for row in work.logits(texts)]},
            "settle": settle,
            "network": lambda seconds: pace["network"].measure(work.run_network, seconds),
            "read": lambda seconds: pace["read"].measure(work.read_texts, seconds),
            "single": single,
            "file": file,
            "facts": lambda: {**work.facts(), "peak_mb": peak_mb(), "packages": sizes},
            **more,
        },
        about=about,
    )


def read_texts_file(path: Path) -> list[str]:
    """The texts that all peers read."""
    return [str(text) for text in json.loads(path.read_text(encoding="utf-8"))]


class _Pace:
    """Reads the same texts again and again, as many as fit into the time that is given."""

    def __init__(self, texts: int) -> None:
        self.texts = texts
        self.size = 0

    def settle(self, run: Run, seconds: float, patience: float) -> int:
        """Find how many texts take at most ``seconds``, and read them until that takes no longer any less: then every
        shape was met. Ends after ``patience`` seconds in any case; gives the number of texts.
        """
        end = time.perf_counter() + patience
        rate = 0.0
        while True:
            fitting = (size for size in (self.texts, *_SLICES) if size <= min(self.texts, rate * seconds))
            before, size = (rate if self.size else 0.0), next(fitting, min(self.texts, _SLICES[-1]))
            start = time.perf_counter()
            run(0, size)
            rate = size / (time.perf_counter() - start)
            settled = size == self.size and rate < 1.05 * before
            self.size = size
            if settled or time.perf_counter() >= end:
                return size

    def measure(self, run: Run, seconds: float) -> dict[str, Any]:
        """Run for about ``seconds``: {"texts", "tokens", "seconds"}."""
        size = self.size or self.settle(run, seconds, 0)
        done = tokens = 0
        start = time.perf_counter()
        while not done or time.perf_counter() - start < 0.9 * seconds:
            tokens += run(0, size)
            done += size
        return {"texts": done, "tokens": tokens, "seconds": time.perf_counter() - start}


def _latencies(one: Callable[[int], None], seconds: float) -> list[float]:
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < _FEWEST_SINGLES or (time.perf_counter() < end and len(found) < _MOST_SINGLES):
        start = time.perf_counter()
        one(len(found))
        found.append((time.perf_counter() - start) * 1000)
        if time.perf_counter() > end + 5 * seconds:
            break
    return found


def package_mb(names: Iterable[str]) -> dict[str, float]:
    """Installed size of each distribution that is there, in MB (10^6 bytes), compiled Python files left out."""
    found = {}
    for name in names:
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        sizes = (_size(Path(str(file.locate()))) for file in files if not file.name.endswith(".pyc"))
        found[_normal(name)] = round(sum(sizes) / 1e6, 2)
    return found


def closure_of(names: Iterable[str]) -> list[str]:
    """Distributions ``names`` and what they require, as far as it is installed; extras left out."""
    found: list[str] = []
    todo = list(names)
    while todo:
        name = _normal(todo.pop(0))
        if name in found:
            continue
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
        for requirement in wanted:
            needed, _, marker = requirement.partition(";")
            match = re.match(r"[A-Za-z0-9._-]+", needed.strip())
            if match and "extra" not in marker:
                todo.append(match[0])
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
