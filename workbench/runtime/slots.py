"""Slots: what one batch needs to be under way on a GPU.

A slot holds execution contexts (one for each optimization profile), a stream, events, and pinned and device buffers.
A batch is copied in, computed and copied out in the order of the slot's stream; while the GPU works on one slot, the
host fills the next. Nothing waits on more than the slot's own event.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ModelError
from workbench.runtime.cuda import Device, DeviceMemory, Graph, PinnedMemory
from workbench.runtime.device_batches import UNREAD, Batch, Region, lay_out
from workbench.runtime.session import is_finite
from workbench.tasks.spec import OutputKind

__all__ = ["BusyClock", "Slot", "SlotSizes"]

logger = logging.getLogger(__name__)

_GRAPHS: Final = 128
"""Graphs kept in a slot. A single text has 16 lengths where each is a multiple of 32, up to 512, and batches of few
have some thirty shapes; each again for other outputs."""


class ContextMaker(Protocol):
    """A loaded plan, as a slot sees it. ``inputs`` and ``outputs`` by name: type; kind, number of labels, type.
    ``again``: how it is built again."""

    @property
    def again(self) -> str: ...

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    @property
    def outputs(self) -> Mapping[str, tuple[OutputKind, int, Any]]: ...

    @property
    def profiles(self) -> Sequence[Any]: ...

    def new_context(self, profile: int, memory: DeviceMemory, stream: Any) -> Any:
        """An execution context that works in ``memory``."""

    def complaint(self) -> str:
        """What the library said last, "" if nothing."""


class BusyClock:
    """The time in which at least one batch computed, from the events of each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Any = None
        self.seconds = 0.0

    def add(self, start: Any, end: Any) -> None:
        """Add the time from ``start`` to ``end`` (events that are done), but for what was counted before.

        An event may be recorded again only after the batch after its own was added: slots have two pairs.
        """
        with self._lock:
            taken = end.time_since(start)
            if self._last is not None:
                # After a batch that failed, the last event may be under way again: then there is nothing to compare.
                with contextlib.suppress(Exception):
                    taken = min(taken, end.time_since(self._last))
                if taken <= 0:
                    return  # all of it lay within a batch that ended later
            self._last = end
            self.seconds += taken / 1000

    def stop(self) -> None:
        """Let go of the last event; the device must be active."""
        with self._lock:
            self._last = None


@dataclass(frozen=True)
class SlotSizes:
    """Bytes of a slot's buffers."""

    inputs: int
    outputs: int
    activations: int


@dataclass
class _Flight:
    """A batch under way."""

    batch: Batch
    outputs: dict[str, Region]
    events: tuple[Any, Any, Any]


@dataclass
class _Context:
    """An execution context, and the shapes and addresses that it was given last: it keeps them."""

    own: Any
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Give it everything again next time."""
        self.shapes.clear()
        self.addresses.clear()


@dataclass
class _Recorded:
    """A graph and what it was recorded from: its own context, whose state must not change any more."""

    graph: Graph
    context: _Context


class Slot:
    """One batch at a time. The device must be active in every call. Raises OutOfDeviceMemory when it has no room.

    ``graphs``: whether it records single texts as they come. Recording one takes 20 ms and more, a graph saves a
    tenth of a millisecond: one slot of a session is enough, the one that is taken first. ``record`` is for all.
    """

    def __init__(self, device: Device, plan: ContextMaker, sizes: SlotSizes, *, graphs: bool = True) -> None:
        self._device, self._plan = device, plan
        self._memory: list[DeviceMemory | PinnedMemory] = []
        self._flight: _Flight | None = None
        self._graphs: OrderedDict[tuple[Any, ...], _Recorded] = OrderedDict()
        self._keeps_graphs = graphs
        self._can_record = True
        self._turn = 0
        self._contexts: list[_Context] = []
        # What is not copied comes last.
        self._inputs = {
            name: np.dtype(plan.inputs[name]) for name in sorted(plan.inputs, key=lambda name: name == UNREAD)
        }
        self._outputs = {
            name: (kind == "tags", labels, np.dtype(dtype)) for name, (kind, labels, dtype) in plan.outputs.items()
        }
        try:
            self._host_in = self._pinned(sizes.inputs)
            self._host_out = self._pinned(sizes.outputs)
            self._in = self._on_device(sizes.inputs)
            self._out = self._on_device(sizes.outputs)
            self._activations = self._on_device(sizes.activations)
            self.stream = device.stream()
            # Two sets, in turn: the clock may still need the last batch's.
            self._events = [tuple(device.event() for _ in range(3)) for _ in range(2)]
            self._contexts = [
                _Context(plan.new_context(index, self._activations, self.stream))
                for index in range(len(plan.profiles))
            ]
        except BaseException:
            self.free()
            raise

    def record(self, batch: Batch, wanted: Sequence[str]) -> bool:
        """Have a graph for batches of this shape; whether that worked."""
        self.start(batch, wanted, record=True)
        if self._flight is not None:
            self._flight.events[-1].synchronize()
        self._flight = None
        return _graph_key(batch, wanted) in self._graphs

    def start(self, batch: Batch, wanted: Sequence[str], *, record: bool = False) -> None:
        """Fill the buffers and queue everything. Raises ModelError when the engine does not take the batch.

        ``record``: make a graph of it where there is none, as is done with single texts anyway.
        """
        if self._flight is not None:  # an interrupt cut short the wait for it
            self.settle()
        inputs, outputs, taken = self._regions(batch)
        host = self._host_in.array
        batch.fill({name: region.view(host) for name, region in inputs.items() if name != UNREAD})
        begun, computed, done = self._events[self._turn]
        self._turn = 1 - self._turn
        self._flight = _Flight(batch, {name: outputs[name] for name in wanted}, (begun, computed, done))
        recorded = None
        if batch.key is not None:
            record = record or (self._keeps_graphs and batch.texts == 1)
            recorded = self._recorded(batch, inputs, outputs, taken, wanted, record=record)
        if recorded is not None:
            begun.record(self.stream)
            recorded.graph.launch(self.stream)
            computed.record(self.stream)
        else:
            context = self._contexts[batch.profile]
            self._bind(context, inputs, outputs)
            self._device.copy_in(self._in.address, host[:taken], self.stream)
            begun.record(self.stream)
            self._compute(context, batch)
            computed.record(self.stream)
            self._copy_out(outputs, wanted)
        done.record(self.stream)

    def finish(self, result: Mapping[str, NDArray[np.float32]], clock: BusyClock) -> Batch:
        """Wait for the batch that was started, put its values into ``result``, and give the batch.

        Raises ModelError when a value is infinite or not a number.
        """
        flight = self._flight
        if flight is None:
            raise ModelError("No batch is under way in this slot.")
        begun, computed, done = flight.events
        done.synchronize()
        clock.add(begun, computed)
        for name, region in flight.outputs.items():
            values = region.view(self._host_out.array)
            if not is_finite(values):
                raise ModelError(
                    f"The engine gave values for {name} that are infinite or not numbers. Its precision may overflow "
                    "with this model: build it in fp32, or compare the engines: workbench engines compare"
                )
            flight.batch.place(values, result[name], tags=self._outputs[name][0])
        self._flight = None
        return flight.batch

    def settle(self) -> None:
        """Wait for whatever is queued and forget it; never raises."""
        for context in self._contexts:
            context.forget()  # what it has after an error is not known
        with contextlib.suppress(self._device.error):
            self.stream.synchronize()
        self._flight = None

    def free(self) -> None:
        """Give everything back; a second call does nothing."""
        if hasattr(self, "stream"):
            self.settle()
        while self._graphs:
            self._graphs.popitem()[1].graph.free()
        self._contexts = []
        self._events = []
        if hasattr(self, "stream"):
            del self.stream
        while self._memory:
            self._memory.pop().free()

    def _regions(self, batch: Batch) -> tuple[dict[str, Region], dict[str, Region], int]:
        """Where inputs and outputs lie, and the bytes to copy in."""
        inputs, given = lay_out({name: (batch.shapes[name], dtype) for name, dtype in self._inputs.items()})
        outputs, made = lay_out(
            {
                name: ((*(batch.places if tags else (batch.rows,)), labels), dtype)
                for name, (tags, labels, dtype) in self._outputs.items()
            }
        )
        taken = max(region.end for name, region in inputs.items() if name != UNREAD)
        if given > self._in.size or made > self._out.size:
            raise ModelError(
                f"A batch of {batch.rows} texts and {' x '.join(map(str, batch.places))} places is larger than "
                "the buffers of the session. Send fewer texts at once."
            )
        return inputs, outputs, taken

    def _bind(self, context: _Context, inputs: Mapping[str, Region], outputs: Mapping[str, Region]) -> None:
        """Give the context its shapes and addresses, but for those that it has."""
        for name, region in inputs.items():
            if context.shapes.get(name) == region.shape:
                continue
            context.shapes.pop(name, None)
            if not context.own.set_input_shape(name, region.shape):
                raise ModelError(
                    f"The engine does not take {name} of {' x '.join(map(str, region.shape))}: "
                    f"{self._plan.complaint() or 'it does not say why'}. {self._plan.again}"
                )
            context.shapes[name] = region.shape
        places = [(name, self._in.address + region.offset) for name, region in inputs.items()]
        places += [(name, self._out.address + region.offset) for name, region in outputs.items()]
        for name, address in places:
            if context.addresses.get(name) == address:
                continue
            context.addresses.pop(name, None)
            if not context.own.set_tensor_address(name, address):
                raise ModelError(
                    f"The engine takes no address for {name}: {self._plan.complaint() or 'it does not say why'}. "
                    f"{self._plan.again}"
                )
            context.addresses[name] = address

    def _compute(self, context: _Context, batch: Batch) -> None:
        if not context.own.execute_async_v3(self.stream.handle):
            raise ModelError(
                f"The engine could not run a batch of {batch.rows} texts and {' x '.join(map(str, batch.places))} "
                f"places: {self._plan.complaint() or 'it does not say why'}. Look at the GPU with nvidia-smi. "
                f"{self._plan.again}"
            )

    def _copy_out(self, outputs: Mapping[str, Region], wanted: Sequence[str]) -> None:
        for name in wanted:
            region = outputs[name]
            target = self._host_out.array[region.offset : region.end]
            self._device.copy_out(target, self._out.address + region.offset, self.stream)

    def _recorded(
        self,
        batch: Batch,
        inputs: Mapping[str, Region],
        outputs: Mapping[str, Region],
        taken: int,
        wanted: Sequence[str],
        *,
        record: bool,
    ) -> _Recorded | None:
        """The graph for batches of this shape; where there is none it is made now, with ``record``, if it can be."""
        key = _graph_key(batch, wanted)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if not (record and self._can_record):
            return None

        def work() -> None:
            self._device.copy_in(self._in.address, self._host_in.array[:taken], self.stream)
            self._compute(context, batch)
            self._copy_out(outputs, wanted)

        try:
            context = _Context(self._plan.new_context(batch.profile, self._activations, self.stream))
            self._bind(context, inputs, outputs)
            work()  # once as it is: what the library sets up on a first run cannot be recorded
            self.stream.synchronize()
            made = _Recorded(self._device.capture(self.stream, work), context)
        except Exception as error:  # whatever the library cannot do in a graph, it can do without
            logger.warning("Single texts run without CUDA graphs: %s", error)
            self._can_record = False
            return None
        while len(self._graphs) >= _GRAPHS:
            self._graphs.popitem(last=False)[1].graph.free()
        self._graphs[key] = made
        return made

    def _pinned(self, size: int) -> PinnedMemory:
        memory = self._device.pin(size)
        self._memory.append(memory)
        return memory

    def _on_device(self, size: int) -> DeviceMemory:
        memory = self._device.allocate(size)
        self._memory.append(memory)
        return memory


def _graph_key(batch: Batch, wanted: Sequence[str]) -> tuple[Any, ...]:
    """Equal for batches that one graph computes: the same outputs are copied back in whatever order."""
    return batch.key, tuple(sorted(wanted))
