"""What every backend offers: a model that is ready to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ModelError
from workbench.runtime.batching import PackedTexts
from workbench.tasks.decode import READING
from workbench.tasks.encode import TextEncoder
from workbench.tasks.spec import ModelSpec

__all__ = [
    "Backend",
    "Precision",
    "Session",
    "check_outputs",
    "engine_id",
    "file_sha256",
    "is_finite",
    "of_other_arithmetic",
    "reading_digest",
]

Backend = Literal["onnxruntime", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8", "mixed"]
"""mixed: INT8, with the most sensitive layer groups kept in FP16 (FP32 on the CPU)."""


@runtime_checkable
class Session(Protocol):
    """A loaded model. ``run`` may be called from several threads at once; ``close`` gives everything back."""

    @property
    def spec(self) -> ModelSpec:
        """What the model folder says."""

    @property
    def encoder(self) -> TextEncoder:
        """The folder's tokenizer, loaded once."""

    @property
    def backend(self) -> Backend:
        """What runs it."""

    @property
    def precision(self) -> Precision:
        """What it computes in."""

    @property
    def engine_id(self) -> str:
        """16 hex digits: the same weights, labels, precision and backend version give the same id."""

    @property
    def slots(self) -> int:
        """How many runs at once make full use of the device."""

    def run(
        self, input_ids: NDArray[np.int32], attention_bias: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Logits of ``outputs`` for ``input_ids`` [B, S] and ``attention_bias`` [B, 1, 1, S] (padding: -1e4).

        Raises ModelError when the session is closed or the backend cannot run the batch.
        """

    def run_packed(
        self, texts: PackedTexts, outputs: Sequence[str], *, done: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits of ``outputs`` for any number of texts, in their order; the session makes the batches.

        One row a text [N, labels] for outputs of kind "classes" and "labels", one row a token [T, labels] for
        "tags". ``done`` is called, from any thread, with the number of texts finished since its last call. The same
        text gets the same label whatever stands beside it. Raises ModelError as ``run`` does.
        """

    def prepare(self, outputs: Sequence[str]) -> None:
        """Get ready to answer single texts and batches of a few with ``outputs`` quickly from the first one on.

        Takes a second or two where it helps, no time elsewhere. Raises ModelError as ``run`` does.
        """

    def close(self) -> None:
        """Give memory and threads back; a second call does nothing."""

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_outputs(spec: ModelSpec, outputs: Sequence[str]) -> None:
    """That the model gives all ``outputs``. Raises ModelError."""
    if unknown := [name for name in outputs if name not in spec.outputs]:
        raise ModelError(
            f"The model {spec.title} gives {', '.join(spec.outputs)}, not {unknown[0]}. Ask for one of these."
        )


def is_finite(values: NDArray[np.float32]) -> bool:
    """Whether all are numbers and none is infinite: what is not would be read as the first label."""
    with np.errstate(invalid="ignore"):
        return not values.size or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def of_other_arithmetic(spec: ModelSpec) -> ModelSpec:
    """``spec`` for an engine: without what its card says of the last bits of the FP32 network in onnxruntime."""
    network = spec.card.get("network")
    if not isinstance(network, Mapping):
        return spec
    kept = {key: value for key, value in network.items() if key != "batch_invariant"}
    card: dict[str, Any] = {**spec.card, "network": kept}
    return replace(spec, card=card)


def engine_id(spec: ModelSpec, *, precision: Precision, backend: Backend, version: str) -> str:
    """16 hex digits from everything that decides a score: files, how outputs and long texts are read, precision,
    backend.

    Of the backend's ``version`` the first two numbers count: a patch release does not make all scores stale.
    """
    parts = {
        "model.onnx": file_sha256(spec.onnx),
        **_reading(spec),
        "precision": precision,
        "backend": f"{backend} {'.'.join(version.split('.')[:2])}",
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def reading_digest(spec: ModelSpec) -> str:
    """SHA-256, in hex, over what decides a score beside the network: the tokenizer and how outputs are read."""
    return hashlib.sha256(json.dumps(_reading(spec), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _reading(spec: ModelSpec) -> dict[str, object]:
    return {
        "tokenizer.json": file_sha256(spec.tokenizer),
        "outputs": [spec.outputs[name].as_dict() for name in sorted(spec.outputs)],
        "max_tokens": spec.max_tokens,
        "pad_id": spec.pad_id,
        "reading": READING,
    }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex. It is read again only when it was written since."""
    state = path.stat()
    return _sha256(path.resolve(), (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=256)
def _sha256(path: Path, state: tuple[int, ...]) -> str:  # a file in another state is another entry
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
