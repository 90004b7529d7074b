"""The workbench as a peer of ``workbench bench gpu``.

    python -m workbench.bench.peer_gpu_ours MODEL TEXTS ENGINE

ENGINE is the folder of a built engine; "-" is the model itself in onnxruntime on the CPU. What it answers:
workbench.bench.peer_work.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.bench.peer_work import MOST_TOKENS, closure_of, read_texts_file, serve_work
from workbench.runtime import Session, open_engine, open_session
from workbench.runtime.batching import PackedTexts
from workbench.runtime.read import make_encoders, read_chunks, read_texts, share_texts
from workbench.runtime.workers import Encoders

__all__: list[str] = []

_RUNTIME = ("numpy", "tokenizers", "pycuda")
_START_S = 10.0  # how long the processes that tokenize are waited for; fourteen take 1.3 s
_STEP = 32  # between the sizes of single texts that are recorded
_BESIDE = ("tensorrt", "tensorrt-bindings", "tensorrt-libs", "tensorrt-rtx", "onnxruntime", "polars")


class _Work:
    def __init__(self, folder: str, texts: Sequence[str], engine: str) -> None:
        self.folder, self.engine = folder, engine
        self.texts = list(texts)
        self.session: Session | None = None
        self.encoders: Encoders | None = None
        self.ids = np.empty(0, np.int32)
        self.starts = np.zeros(1, np.int64)

    @property
    def opened(self) -> Session:
        if self.session is None:
            raise RuntimeError("it is not loaded")
        return self.session

    @property
    def kept(self) -> Encoders:
        """What tokenizes, as a service keeps it from one reading to the next."""
        if self.encoders is None:
            raise RuntimeError("it is not loaded")
        return self.encoders

    @property
    def outputs(self) -> list[str]:
        """What a pass gives where one task is asked for: tasks of a text, not tags, cost next to nothing more."""
        return [name for name, output in self.opened.spec.outputs.items() if output.kind != "tags"]

    def load(self) -> dict[str, Any]:
        if self.engine == "-":
            self.session = open_session(self.folder, backend="onnxruntime")
        else:
            self.session = open_engine(self.engine)
        # As in a service that goes on reading: what tokenizes is started once, and runs when measuring begins.
        self.encoders = make_encoders(self.session)
        self.encoders.start()
        rows = self._rows(self.texts)
        self.ids = np.concatenate(rows)
        self.starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        self.encoders.wait_until_ready(_START_S)
        return {
            "precision": self.session.precision,
            "backend": self.session.backend,
            "engine_id": self.session.engine_id,
            "memory_mb": {name: value / 1e6 for name, value in getattr(self.session, "memory", {}).items()},
        }

    def warm(self, seconds: float) -> dict[str, Any]:
        for count in (1, 64, 4096 if self.opened.backend == "tensorrt" else 64):
            self.run_network(0, min(count, len(self.texts)))
        manifest = getattr(self.opened, "manifest", None)
        if manifest is not None and manifest.layout == "packed":
            # Single texts of each size are recorded once, in 20 ms; padded engines take ten times that for each.
            for tokens in range(_STEP, min(MOST_TOKENS, self.opened.spec.max_tokens) + 1, _STEP):
                self.one_network(tokens, 0)
        batching = manifest.batching if manifest is not None else None
        kept = {key: value for key, value in (batching or {}).items() if key != "measured"}
        return {"batching": kept}

    def run_network(self, start: int, end: int) -> int:
        texts = self._packed(start, end)
        self.opened.run_packed(texts, self.outputs)
        return len(texts.input_ids)

    def read_texts(self, start: int, end: int) -> int:
        chunks = share_texts(self.texts[start:end], self.kept)
        answers = read_chunks(self.opened, chunks, self.outputs, encoders=self.kept)
        if sum(map(len, answers)) != end - start:
            raise RuntimeError("a text has no row")
        return int(self.starts[end] - self.starts[start])

    def one_network(self, tokens: int | None, turn: int) -> None:
        if tokens is None:
            self.opened.run_packed(self._packed(turn, turn + 1), self.outputs)
        else:
            row = np.concatenate([self.ids[: tokens - 1], self.ids[self.starts[1] - 1 : self.starts[1]]])
            self.opened.run_packed(PackedTexts(row, np.array([0, tokens], np.int32)), self.outputs)

    def one_text(self, turn: int) -> None:
        read_texts(self.opened, [self.texts[turn]], self.outputs)

    def logits(self, texts: Sequence[str]) -> list[list[float]]:
        rows = self._rows(texts)
        ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
        values = self.opened.run_packed(PackedTexts(np.concatenate(rows), ends), ["sentiment"])["sentiment"]
        found: list[list[float]] = values.tolist()
        return found

    def read_file(self, source: Path, out: Path, tasks: Sequence[str]) -> int:
        from workbench.scoring.api import Scorer
        from workbench.scoring.files import score_file

        # Not by the policy's choice: engines of any precision are measured, judged or not, of models that nobody
        # can judge.
        with closing(Scorer({self.opened: tuple(tasks)}, encoders={self.opened: self.kept})) as scorer:
            return score_file(source, text_column="text", out=out, scorer=scorer, progress=False).rows

    def facts(self) -> dict[str, Any]:
        return {"stats": self.stats(), "closure": closure_of(_RUNTIME)}

    def stats(self) -> dict[str, Any]:
        """What the session counted so far; empty where it does not count."""
        count = getattr(self.opened, "stats", None)
        return dict(count()) if count is not None else {}

    def micro(self, seconds: float, tasks: Sequence[str], rate: float | None) -> Mapping[str, Any]:
        """Single requests from 64 threads."""
        from workbench.bench.micro import measure_micro

        texts = self.texts[:4096]
        return measure_micro(self.opened, texts, seconds=seconds, rate=rate, tasks=tasks).as_dict()

    def _packed(self, start: int, end: int) -> PackedTexts:
        first, last = int(self.starts[start]), int(self.starts[end])
        return PackedTexts(self.ids[first:last], (self.starts[start : end + 1] - first).astype(np.int32))

    def _rows(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        encoder = self.opened.encoder
        prefix, suffix = np.array(encoder.prefix, np.int32), np.array(encoder.suffix, np.int32)
        most = min(MOST_TOKENS, self.opened.spec.max_tokens) - len(prefix) - len(suffix)
        return [np.concatenate([prefix, item.ids[:most], suffix]) for item in encoder.encode(texts, offsets=False)]


def _about(engine: str) -> str:
    names = ("onnxruntime",) if engine == "-" else ("tensorrt", "tensorrt-rtx", "pycuda")
    return ", ".join([f"Python {platform.python_version()}", *filter(None, map(_version, names))])


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def main() -> None:
    """Answer the bench's requests until it closes the pipe."""
    folder, texts, engine = sys.argv[1:4]
    work = _Work(folder, read_texts_file(Path(texts)), engine)
    serve_work(
        work,
        texts=len(work.texts),
        about=_about(engine),
        packages=[*closure_of(_RUNTIME), *closure_of(_BESIDE)],
        stats=work.stats,
        micro=work.micro,
    )


if __name__ == "__main__":
    main()
