"""The GPU backend: an engine in TensorRT 8.6, 10, 11 or TensorRT-RTX, through pycuda.

    session   TensorRtSession: plans batches, keeps the slots filled, gives rows back in the caller's order
    plan      Plan: the loaded engine, and everything in which the libraries' versions differ

Executed on TensorRT 8.6; written for the others by their documentation. No other module of the runtime imports
TensorRT.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from workbench.errors import EngineError, ModelError, WorkbenchError
from workbench.runtime.batching import PackedTexts
from workbench.runtime.cuda import OutOfDeviceMemory, open_device
from workbench.runtime.device_batches import Batch, GivenBatch, check_ids, check_texts, pack_rows
from workbench.runtime.device_plan import (
    Batching,
    buffer_bytes,
    choose_batching,
    fallbacks,
    pick_profile,
    plan_packed,
    plan_padded,
    single_text,
)
from workbench.runtime.manifest import Manifest, model_changes, read_manifest, read_plan, rebuild_command
from workbench.runtime.session import Backend, Precision, check_outputs, of_other_arithmetic
from workbench.runtime.slots import BusyClock, Slot, SlotPool, SlotSizes
from workbench.runtime.trt_plan import Plan, ProfileTaken
from workbench.tasks.encode import TextEncoder
from workbench.tasks.spec import ModelSpec, load_spec

__all__ = ["GpuStats", "TensorRtSession"]

logger = logging.getLogger(__name__)

_RUNTIMES: Final = ("tensorrt", "tensorrt-rtx")
_CLOSING_S: Final = 30.0


class GpuStats(TypedDict):
    """What a session has done since it was opened. ``busy_s``: seconds in which the GPU computed its batches;
    divided by the wall clock it is the GPU's busy share. ``tokens``: without padding."""

    batches: int
    texts: int
    tokens: int
    busy_s: float


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
        self._machine = _Machine(data, manifest, spec, {**(manifest.batching or {}), **(batching or {})})
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
        if batching.graphs and len(texts) == 1:
            single = single_text(texts, batching, profiles, layout=layout, longest=longest, pad_id=pad_id)
            if single is not None:
                return [single]
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


class _Machine:
    """What a session has on the GPU: the plan, the slots, and what was counted. Knows no session, so that it can be
    closed when the session is collected."""

    def __init__(self, data: bytes, manifest: Manifest, spec: ModelSpec, given: Mapping[str, Any]) -> None:
        self.device = open_device()
        self.again = f"Build it again: {rebuild_command(manifest)}"
        self._lock = threading.Lock()
        self._counts = {"batches": 0, "texts": 0, "tokens": 0}
        self._clock = BusyClock()
        self._plan: Plan | None = None
        self._slots: list[Slot] = []
        with self._guarded(EngineError), self.device.active():
            before = self.device.memory()[0]
            plan = self._plan = Plan(data, manifest, spec)
            loaded = self.device.memory()[0]
            self.profiles, self.longest = plan.profiles, plan.longest
            try:
                asked = choose_batching(given, layout=manifest.layout, profiles=plan.profiles, longest=plan.longest)
                self.batching, sizes = self._make_slots(plan, asked)
            except BaseException:
                self._free(plan)
                raise
            after = self.device.memory()[0]
        count = len(self._slots)
        own = count * (sizes.inputs + sizes.outputs + sizes.activations)
        self.memory = {
            "engine": max(0, before - loaded),
            "contexts": max(0, loaded - after - own),
            "activations": count * sizes.activations,
            "buffers": count * (sizes.inputs + sizes.outputs),
            "pinned": count * (sizes.inputs + sizes.outputs),
        }
        self.memory["device"] = sum(value for name, value in self.memory.items() if name != "pinned")
        self._pool = SlotPool(
            self._slots, closed=f"The session of {spec.folder} is closed. Open it again with open_engine."
        )
        self.device.users.add(self)

    def run(
        self,
        batches: Iterable[Batch],
        result: Mapping[str, NDArray[np.float32]],
        done: Callable[[int], None] | None = None,
    ) -> None:
        """Run the batches through the slots; ``result`` is filled when this returns.

        One thread keeps all slots busy: while the GPU computes, it fills the next.
        """
        wanted = list(result)
        owner = object()
        with self._guarded(ModelError), self.device.active():
            flying: list[Slot] = []
            try:
                for batch in batches:
                    slot = self._pool.take(owner, wait=not flying)
                    while slot is None:  # all are under way: the first of ours is the next that can be had
                        self._land(flying.pop(0), result, done)
                        slot = self._pool.take(owner, wait=not flying)
                    flying.append(slot)
                    slot.start(batch, wanted)
                while flying:
                    self._land(flying.pop(0), result, done)
            finally:
                with ExitStack() as stack:  # after an error or an interrupt; another interrupt loses no slot
                    for slot in self._pool.held(owner):
                        stack.callback(self._pool.give, slot)
                        stack.callback(slot.settle)

    def _land(
        self, slot: Slot, result: Mapping[str, NDArray[np.float32]], done: Callable[[int], None] | None
    ) -> None:
        batch = slot.finish(result, self._clock)
        self._pool.give(slot)
        with self._lock:
            self._counts["batches"] += 1
            self._counts["texts"] += batch.texts
            self._counts["tokens"] += batch.tokens
        if done is not None:
            done(batch.texts)

    def stats(self) -> GpuStats:
        """What was done so far."""
        with self._lock:
            return GpuStats(
                batches=self._counts["batches"],
                texts=self._counts["texts"],
                tokens=self._counts["tokens"],
                busy_s=self._clock.seconds,
            )

    def close(self) -> None:
        """Wait for what is under way and free everything; a second call does nothing."""
        with self._lock:
            plan, self._plan = self._plan, None
        if plan is None:
            return
        if not self._pool.close(timeout=_CLOSING_S):
            logger.warning("A batch did not end within %.0f seconds; its memory is not given back", _CLOSING_S)
            return
        with suppress(self.device.error), self.device.active():
            self._free(plan)
        self.device.users.discard(self)

    def _free(self, plan: Plan) -> None:
        self._clock.stop()
        while self._slots:
            self._slots.pop().free()
        plan.free()

    def _make_slots(self, plan: Plan, asked: Batching) -> tuple[Batching, SlotSizes]:
        """The slots, fewer or smaller than asked for where memory is short."""
        problem: OutOfDeviceMemory | None = None
        for batching in fallbacks(asked, longest=self.longest):
            if problem is not None:
                logger.warning(
                    "%s Trying again with slots: %d, tokens of a batch: %d.",
                    problem,
                    batching.slots,
                    batching.token_budget,
                )
            sizes = SlotSizes(
                *buffer_bytes(batching, longest=self.longest, inputs=plan.inputs, outputs=plan.outputs),
                plan.activation_bytes,
            )
            try:
                for _ in range(batching.slots):
                    self._slots.append(Slot(self.device, plan, sizes, graphs=not self._slots))
            except ProfileTaken as error:
                if self._slots:
                    logger.warning(
                        "The engine runs %d batches at once, not %d: %s. %s",
                        len(self._slots),
                        batching.slots,
                        error,
                        self.again,
                    )
                    return replace(batching, slots=len(self._slots)), sizes
                raise EngineError(f"The engine's profiles cannot be used: {error}. {self.again}") from None
            except OutOfDeviceMemory as error:
                problem = error
                while self._slots:
                    self._slots.pop().free()
            else:
                return batching, sizes
        raise problem or EngineError("The engine has no slots.")

    @contextmanager
    def _guarded(self, kind: type[WorkbenchError]) -> Iterator[None]:
        """What pycuda raises, as an error of ``kind``."""
        try:
            yield
        except self.device.error as error:
            raise kind(
                f"{self.device.name} failed: {error}. Look at it with nvidia-smi and start this process again; if it "
                f"fails again, the engine is unsound. {self.again}"
            ) from error
