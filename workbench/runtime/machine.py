"""What a session has on the GPU: the loaded plan, the slots, and the counts of what was done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from workbench.errors import EngineError, ModelError, WorkbenchError
from workbench.runtime.cuda import OutOfDeviceMemory, open_device
from workbench.runtime.device_batches import Batch
from workbench.runtime.device_plan import (
    Batching,
    FewShape,
    buffer_bytes,
    choose_batching,
    fallbacks,
    few_shapes,
    small_batches,
)
from workbench.runtime.manifest import Manifest, rebuild_command
from workbench.runtime.slot_pool import SlotPool
from workbench.runtime.slots import BusyClock, Slot, SlotSizes
from workbench.runtime.trt_plan import Plan, ProfileTaken
from workbench.tasks.spec import ModelSpec

__all__ = ["GpuStats", "Machine"]

logger = logging.getLogger(__name__)

_CLOSING_S: Final = 30.0


class GpuStats(TypedDict):
    """What a session has done since it was opened. ``busy_s``: seconds in which the GPU computed its batches;
    divided by the wall clock it is the GPU's busy share. ``tokens``: without padding."""

    batches: int
    texts: int
    tokens: int
    busy_s: float


class Machine:
    """What a session has on the GPU: the plan, the slots, and what was counted. Knows no session, so that it can be
    closed when the session is collected."""

    def __init__(self, data: bytes, manifest: Manifest, spec: ModelSpec, given: Mapping[str, Any]) -> None:
        self.device = open_device()
        self.again = f"Build it again: {rebuild_command(manifest)}"
        self._lock = threading.Lock()
        self._preparing = threading.Lock()  # two that want all slots would wait for each other
        self.few: tuple[FewShape, ...] = ()
        """Shapes that batches of few texts are filled up to: those that have graphs."""
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
                self._give_back(owner)

    def _give_back(self, owner: object) -> None:
        """What ``owner`` has, after an error or an interrupt; another interrupt loses no slot."""
        with ExitStack() as stack:
            for slot in self._pool.held(owner):
                stack.callback(self._pool.give, slot)
                stack.callback(slot.settle)

    def prepare(self, wanted: Sequence[str], *, layout: str, pad_id: int) -> None:
        """Have a graph of each shape of small batches in every slot, which are all taken meanwhile."""
        batches = small_batches(self.batching, self.profiles, layout=layout, longest=self.longest, pad_id=pad_id)
        if not batches:
            return
        owner = object()
        with self._preparing, self._guarded(ModelError), self.device.active():
            try:
                for _ in range(self.batching.slots):  # raises where the session is closed
                    self._pool.take(owner)
                self._clock.stop()  # its last event is recorded again now
                recorded = [slot.record(batch, wanted) for slot in self._slots for batch in batches]
            finally:
                self._give_back(owner)
        if all(recorded):
            self.few = few_shapes(self.batching, self.profiles, longest=self.longest)

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
