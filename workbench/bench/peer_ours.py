"""The workbench as a peer: ``python -m workbench.bench.peer_ours MODEL TASKS [ENGINE]``; see workbench.bench.process.

ENGINE is the folder of an engine to read with; without it the FP32 model reads.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from workbench.bench.process import serve
from workbench.runtime import open_engine, open_session
from workbench.runtime.batching import pad_batch
from workbench.runtime.read import read_texts

__all__: list[str] = []


def main() -> None:
    """Answer the bench's requests until it closes the pipe."""
    folder, tasks = sys.argv[1], sys.argv[2].split(",")
    session = open_engine(sys.argv[3]) if len(sys.argv) > 3 else open_session(folder, backend="onnxruntime")
    encoder = session.encoder

    def read(texts: Sequence[str]) -> None:
        if len(read_texts(session, texts, tasks)) != len(texts):
            raise RuntimeError("a text has no row")

    def logits(texts: Sequence[str]) -> list[list[float]]:
        found = []
        for item in encoder.encode(texts, offsets=False):
            row = np.array([*encoder.prefix, *item.ids, *encoder.suffix], np.int32)
            values = session.run(*pad_batch([row], len(row), pad_id=session.spec.pad_id), ["sentiment"])
            found.append([float(value) for value in values["sentiment"][0]])
        return found

    about = f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, {session.precision}"
    serve(read, logits, about=about)


if __name__ == "__main__":
    main()
