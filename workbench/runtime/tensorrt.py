"""The GPU backend: an engine in TensorRT 8.6, 10, 11 or TensorRT-RTX, through pycuda.

    session   TensorRtSession: plans batches, keeps the slots filled, gives rows back in the caller's order
    plan      Plan: the loaded engine, and everything in which the libraries' versions differ

Executed on TensorRT 8.6; written for the others by their documentation. No other module of the runtime imports
TensorRT.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from workbench.errors import EngineError, ModelError
from workbench.runtime.batching import PackedTexts
from workbench.runtime.device_batches import Batch, GivenBatch, check_ids, check_texts, pack_rows
from workbench.runtime.device_plan import (
    Batching,
    few_texts,
    pick_profile,
    plan_packed,
    plan_padded,
    single_text,
)
from workbench.runtime.machine import GpuStats, Machine
from workbench.runtime.manifest import Manifest, model_changes, read_manifest, read_plan, rebuild_command
from workbench.runtime.session import Backend, Precision, check_outputs, of_other_arithmetic
from workbench.tasks.encode import TextEncoder
from workbench.tasks.spec import ModelSpec, load_spec

__all__ = ["GpuStats", "TensorRtSession"]

logger = logging.getLogger(__name__)

_RUNTIMES: Final = ("tensorrt", "tensorrt-rtx")


class TensorRtSession:
    """The engine in ``engine`` (a folder under the model folder's plans) on the first GPU.

    ``batching`` goes over what the manifest says (keys token_budget, max_texts, slots, graphs). May be used from
    several threads at once. What lives on the GPU is given back by ``close``, when the session is collected, or when
    the process ends.

    Raises EngineError when the engine is damaged, of another GPU or version, stale, or cannot be loaded, and when
    TensorRT or pycuda is not installed; ModelError when the model folder is incomplete or does not fit the engine.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        engine: Path,
        manifest: Manifest | None = None,
        batching: Mapping[str, Any] | None = None,
    ) -> None:
        spec = load_spec(folder)
        manifest = manifest or read_manifest(engine)
        again = f"Build it again: {rebuild_command(manifest)}"
        if manifest.runtime not in _RUNTIMES:
            raise EngineError(f"The engine {manifest.engine_id} is for {manifest.runtime}. Open it with open_engine.")
        data = read_plan(engine, manifest)
        if changes := model_changes(manifest, spec.folder.parent):
            raise EngineError(f"The engine {manifest.engine_id} is stale: {'; '.join(changes)}. {again}")
        spec = of_other_arithmetic(spec)
        self._spec, self._manifest = spec, manifest
        self._encoder = TextEncoder(spec)
        self._machine = Machine(data, manifest, spec, {**(manifest.batching or {}), **(batching or {})})
        self._finalizer = weakref.finalize(self, self._machine.close)
        try:
            self._check()
        except BaseException:
            self.close()
            raise
        logger.info(
            "%s runs on %s in %s %s, %s, %d slots, %.0f MB of device memory",
            spec.title,
            self._machine.device.name,
            manifest.runtime,
            manifest.runtime_version,
            manifest.precision.upper(),
            self.slots,
            self.memory["device"] / 2**20,
        )

    @property
    def spec(self) -> ModelSpec:
        """What the model folder says."""
        return self._spec

    @property
    def encoder(self) -> TextEncoder:
        """The folder's tokenizer."""
        return self._encoder

    @property
    def backend(self) -> Backend:
        """Always tensorrt."""
        return "tensorrt"

    @property
    def precision(self) -> Precision:
        """The engine's."""
        return cast(Precision, self._manifest.precision)

    @property
    def engine_id(self) -> str:
        """The engine's 16 hex digits."""
        return self._manifest.engine_id

    @property
    def manifest(self) -> Manifest:
        """The engine's."""
        return self._manifest

    @property
    def slots(self) -> int:
        """Batches that are under way at once."""
        return self._machine.batching.slots

    @property
    def batching(self) -> Batching:
        """How texts are batched: the manifest's way within what engine and memory allow."""
        return self._machine.batching

    @property
    def memory(self) -> dict[str, int]:
        """Bytes taken: engine (weights), contexts, activations and buffers on the device, their sum as device, and
        pinned on the host. Engine and contexts are by the device's own account and include what its driver loads for
        them."""
        return dict(self._machine.memory)

    def stats(self) -> GpuStats:
        """What was done so far."""
        return self._machine.stats()

    def run(
        self, input_ids: NDArray[np.int32], attention_bias: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Logits of ``outputs``; see workbench.runtime.session.Session. A packed engine gives 0 for padding."""
        packed, own = pack_rows(input_ids, attention_bias)
        self._check_request(packed, outputs)
        rows, length = input_ids.shape
        if self._manifest.layout == "packed":
            values = self._run(packed, outputs, None)
            for name in outputs:
                if self._spec.outputs[name].kind == "tags":
                    spread = np.zeros((*own.shape, values[name].shape[1]), np.float32)
                    spread[own] = values[name]
                    values[name] = spread
            return values
        check_ids(input_ids, self._encoder.vocabulary_size)  # the engine looks up those of padding too
        result = self._empty(outputs, rows, (rows, length))
        self._machine.run(self._given(input_ids, attention_bias), result)
        return result

    def run_packed(
        self, texts: PackedTexts, outputs: Sequence[str], *, done: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits of ``outputs`` for any number of texts; see workbench.runtime.session.Session."""
        self._check_request(texts, outputs)
        return self._run(texts, outputs, done)

    def prepare(self, outputs: Sequence[str]) -> None:
        """Get ready for single texts and batches of a few; see workbench.runtime.session.Session.

        A packed engine whose single texts run as CUDA graphs gets a graph of each of some forty shapes in every slot,
        which takes some three seconds and device memory. Others need nothing.
        """
        self._check_request(PackedTexts(np.empty(0, np.int32), np.zeros(1, np.int32)), outputs)
        machine = self._machine
        if machine.batching.graphs:
            machine.prepare(list(outputs), layout=self._manifest.layout, pad_id=self._spec.pad_id)

    def close(self) -> None:
        """Wait for what is under way and give everything back; a second call does nothing."""
        self._finalizer()

    def __enter__(self) -> TensorRtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self, texts: PackedTexts, outputs: Sequence[str], done: Callable[[int], None] | None
    ) -> dict[str, NDArray[np.float32]]:
        result = self._empty(outputs, len(texts), (len(texts.input_ids),))
        self._machine.run(self._batches(texts), result, done)
        return result

    def _batches(self, texts: PackedTexts) -> Iterable[Batch]:
        machine, layout, pad_id = self._machine, self._manifest.layout, self._spec.pad_id
        batching, profiles, longest = machine.batching, machine.profiles, machine.longest
        small: Batch | None = None
        if batching.graphs and len(texts) == 1:
            small = single_text(texts, batching, profiles, layout=layout, longest=longest, pad_id=pad_id)
        elif machine.few:
            small = few_texts(texts, machine.few, pad_id=pad_id)
        if small is not None:
            return [small]
        if layout == "packed":
            return plan_packed(texts, batching, profiles)
        return plan_padded(texts, batching, profiles, longest=longest, pad_id=pad_id)

    def _given(self, ids: NDArray[np.int32], bias: NDArray[np.float32]) -> Iterator[Batch]:
        """A batch that the caller padded, in as many parts as the engine needs."""
        total, length = ids.shape
        machine = self._machine
        fitting = [profile.max[0] for profile in machine.profiles if profile.min[1] <= length <= profile.max[1]]
        if not fitting:
            raise ModelError(
                f"The batch is {length} tokens wide, and the engine takes at most {machine.longest}. Pad it to less."
            )
        rows = max(1, min(max(fitting), machine.batching.max_texts, machine.batching.token_budget // length))
        for start in range(0, total, rows):
            end = min(start + rows, total)
            profile = pick_profile(machine.profiles, end - start, length)
            if profile is None:
                raise ModelError(f"No profile of the engine takes {end - start} x {length} tokens. {machine.again}")
            yield GivenBatch(ids, bias, start, end, profile=profile)

    def _empty(self, outputs: Sequence[str], texts: int, places: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
        specs = self._spec.outputs
        return {
            name: np.empty(
                (*(places if specs[name].kind == "tags" else (texts,)), len(specs[name].labels)), np.float32
            )
            for name in outputs
        }

    def _check_request(self, texts: PackedTexts, outputs: Sequence[str]) -> None:
        if not self._finalizer.alive:
            raise ModelError(f"The session of {self._spec.folder} is closed. Open it again with open_engine.")
        check_outputs(self._spec, outputs)
        check_texts(texts, longest=self._machine.longest, vocabulary=self._encoder.vocabulary_size)

    def _check(self) -> None:
        """That engine and tokenizer fit together: one small run, which also loads the kernels."""
        if not 0 <= self._spec.pad_id < self._encoder.vocabulary_size:
            raise ModelError(
                f"pad_id {self._spec.pad_id} in {self._spec.folder / 'model.toml'} is not in tokenizer.json, which "
                f"has {self._encoder.vocabulary_size} tokens. Mend model.toml or export the model again."
            )
        last = self._encoder.vocabulary_size - 1
        ids = np.array([last, self._spec.pad_id, last], np.int32)
        self.run_packed(PackedTexts(ids, np.array([0, 3], np.int32)), list(self._spec.outputs))
