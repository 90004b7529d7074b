# mypy: ignore-errors
"""onnxruntime on a GPU as a peer of ``workbench bench gpu``.

    PYTHON peer_gpu_ort.py MODEL TEXTS GRAPH DEVICE

GRAPH is the model's network as ONNX, in FP16. Runs under any interpreter that has onnxruntime-gpu and tokenizers; it
needs no workbench. What it answers: peer_work.py.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

# Run as a file, not as a module of the package: what stands beside it is imported by its bare name.
from peer_texts import TextsPeer, padded_batches, sweep
from peer_work import closure_of, read_texts_file, serve_work

__all__: list[str] = []

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
PADDING_BIAS = -1e4


class Network(TextsPeer):
    """The graph in onnxruntime, on ``device``."""

    def __init__(self, folder: Path, texts: list[str], graph: Path, device: str) -> None:
        super().__init__(folder, texts)
        self.graph, self.device = graph, device
        self.session = None

    def load(self) -> dict:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        provider = PROVIDERS[self.device]
        self.session = onnxruntime.InferenceSession(str(self.graph), options, providers=[provider])
        if provider not in self.session.get_providers():
            raise RuntimeError(f"onnxruntime {onnxruntime.__version__} fell back to the CPU")
        given = [output.name for output in self.session.get_outputs()]
        self.tasks = tuple(task for task in ("sentiment", "topics") if task in given)
        return {}

    def warm(self, seconds: float) -> dict:
        self.run_rows(self.ids[:64])
        speeds = sweep(self, seconds, least=2048 if self.device == "cuda" else 64, full=MemoryError)
        return {"batch": self.batch, "sweep": speeds}

    def run_rows(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of each task [N, labels], in the rows' order."""
        places, parts = [], []
        for picked, ids, lengths in padded_batches(rows, self.batch):
            outside = np.arange(ids.shape[1]) >= lengths[:, None]
            bias = np.where(outside, PADDING_BIAS, 0).astype(np.float32)[:, None, None]
            inputs = {"input_ids": ids.astype(np.int32), "attention_bias": bias}
            parts.append(self.session.run(list(self.tasks), inputs))
            places.append(picked)
        back = np.argsort(np.concatenate(places))
        return [np.concatenate(values)[back] for values in zip(*parts, strict=True)]

    def facts(self) -> dict:
        return {"closure": closure_of(("onnxruntime-gpu", "onnxruntime"))}


def main() -> None:
    """Answer the bench's requests until it closes the pipe."""
    folder, texts, graph, device = sys.argv[1:5]
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise SystemExit(f"onnxruntime {onnxruntime.__version__} here is not built for CUDA (onnxruntime-gpu is)")
    work = Network(Path(folder), read_texts_file(Path(texts)), Path(graph), device)
    about = f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"
    packages = closure_of(("onnxruntime-gpu", "onnxruntime", "tokenizers", "numpy"))
    serve_work(work, texts=len(work.texts), about=about, packages=packages)


if __name__ == "__main__":
    main()
