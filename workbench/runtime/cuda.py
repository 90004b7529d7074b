"""One GPU, through pycuda: its primary context, memory, streams, events and graphs.

The context is the device's primary one, the same that TensorRT uses: it is retained once in a process, pushed where a
thread needs it (``Device.active``) and popped at the end of the same block, and given back when the process ends,
after everything that still lives on the device. No other module imports pycuda.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from time import monotonic, sleep
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.errors import EngineError, ModelError
from workbench.runtime.host import load_kernels_lazily

__all__ = ["Device", "DeviceMemory", "Graph", "OutOfDeviceMemory", "PinnedMemory", "open_device"]

logger = logging.getLogger(__name__)

_NON_BLOCKING: Final = 1  # CU_STREAM_NON_BLOCKING: no stream waits for the default one
_CAPTURE_THREAD_LOCAL: Final = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile
_LEAVING_S: Final = 5.0  # what the process's end waits for other threads that use the device


class OutOfDeviceMemory(EngineError):  # noqa: N818 - it says what it is
    """The GPU, or memory that it can read directly, has no room for a buffer."""


class DeviceMemory:
    """Bytes on the device, at ``address``; aligned to 256 bytes, as TensorRT wants it."""

    def __init__(self, allocation: Any, size: int) -> None:
        self._allocation = allocation
        self.address = int(allocation)
        self.size = size

    def free(self) -> None:
        """Give it back; a second call does nothing. The device must be active."""
        if self._allocation is not None:
            self._allocation.free()
            self._allocation = None


class PinnedMemory:
    """Host memory that the device copies from and to by itself: ``array``, uint8 [size]."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self._allocation: Any = array.base
        self.array = array
        self.size = array.nbytes

    def free(self) -> None:
        """Give it back; a second call does nothing, and no view of ``array`` may be used any more."""
        if self._allocation is not None:
            self.array = np.empty(0, np.uint8)
            self._allocation.free()
            self._allocation = None


class Device:
    """A GPU. ``users``: what must be closed before its context is given back; see ``open_device``."""

    def __init__(self, driver: Any, ordinal: int) -> None:
        self._driver = driver
        device = driver.Device(ordinal)
        self.name = str(device.name())
        self._context = device.retain_primary_context()
        self._depths: dict[int, int] = {}  # how often the context was pushed, by thread
        self._released_by: int | None = None  # the thread that ends the process
        self._process = os.getpid()
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def error(self) -> type[Exception]:
        """The base of what pycuda raises."""
        kind: type[Exception] = self._driver.Error
        return kind

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make the device current in this thread. May be nested; always leaves the thread as it was.

        Raises ModelError once the process ends.
        """
        me = threading.get_ident()
        depth = self._depths.get(me, 0)
        # Before the push, and not taken back when an interrupt comes between it and the block: release() then pops.
        self._depths[me] = depth + 1
        if not depth and self._released_by not in (
            None,
            me,
        ):  # release() waits for this thread by now
            self._leave(me, depth)
            raise ModelError(f"The process ends, and {self.name} was given back. End this thread before.")
        try:
            self._context.push()
        except self.error:
            self._leave(me, depth)
            raise
        try:
            yield
        finally:
            try:
                self._driver.Context.pop()
            finally:
                self._leave(me, depth)

    def _leave(self, thread: int, depth: int) -> None:
        if depth:
            self._depths[thread] = depth
        else:
            self._depths.pop(thread, None)

    def stream(self) -> Any:
        """A stream of its own order; ``handle`` is what TensorRT takes."""
        return self._driver.Stream(_NON_BLOCKING)

    def event(self) -> Any:
        """An event with a time: record(stream), synchronize(), and ``end.time_since(start)`` in milliseconds."""
        return self._driver.Event()

    def allocate(self, size: int) -> DeviceMemory:
        """``size`` bytes (at least 256). Raises OutOfDeviceMemory."""
        size = max(size, 256)
        try:
            return DeviceMemory(self._driver.mem_alloc(size), size)
        except self._driver.MemoryError:
            free, total = self.memory()
            raise OutOfDeviceMemory(
                f"{self.name} has no room for {size / 2**20:,.0f} MB: {free / 2**20:,.0f} of {total / 2**20:,.0f} MB "
                "are free. See with nvidia-smi what else uses it."
            ) from None

    def pin(self, size: int) -> PinnedMemory:
        """``size`` bytes of pinned host memory (at least 256). Raises OutOfDeviceMemory."""
        size = max(size, 256)
        try:
            return PinnedMemory(self._driver.pagelocked_empty(size, np.uint8))
        except self._driver.MemoryError:
            raise OutOfDeviceMemory(
                f"The host has no room for {size / 2**20:,.0f} MB of pinned memory. Raise the limit of locked memory "
                "(ulimit -l), or use fewer slots."
            ) from None

    def memory(self) -> tuple[int, int]:
        """Bytes free and in all."""
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def copy_in(self, address: int, source: NDArray[Any], stream: Any) -> None:
        """Queue a copy of pinned ``source`` to the device."""
        self._driver.memcpy_htod_async(address, source, stream)

    def copy_out(self, target: NDArray[Any], address: int, stream: Any) -> None:
        """Queue a copy from the device into pinned ``target``."""
        self._driver.memcpy_dtoh_async(target, address, stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Graph:
        """What ``work`` queues on ``stream``, as a graph. Raises ModelError when it cannot be captured."""
        library = _libcuda()
        handle = ctypes.c_void_p(stream.handle)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        _check(library.cuStreamBeginCapture_v2(handle, _CAPTURE_THREAD_LOCAL), "cuStreamBeginCapture")
        try:
            work()
        finally:
            # Also after an error: a stream that is left capturing takes no other work.
            result = library.cuStreamEndCapture(handle, ctypes.byref(graph))
        _check(result, "cuStreamEndCapture")
        try:
            made = library.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
            _check(made, "cuGraphInstantiate")
        finally:
            library.cuGraphDestroy(graph)
        return Graph(executable)

    def release(self) -> None:
        """Close all users and give the context back; for the end of the process."""
        if os.getpid() != self._process:
            return  # a fork: the context is the parent's
        try:
            self._close_users()
            self._released_by = threading.get_ident()
            self._wait_for_others()
            self._close_users()  # what another thread had not finished to load
        finally:  # also after Ctrl-C: a context that is left behind brings the process down
            with contextlib.suppress(Exception):
                # An interrupt between a push and its block leaves one behind.
                for _ in range(self._depths.get(threading.get_ident(), 0)):
                    if self._driver.Context.get_current() is not None:
                        self._driver.Context.pop()
            with contextlib.suppress(Exception):
                self._context.detach()

    def _close_users(self) -> None:
        for user in list(self.users):
            with contextlib.suppress(Exception):
                user.close()

    def _wait_for_others(self) -> None:
        """Until no other thread has the context: one that Python ends with it brings the whole process down."""
        end = monotonic() + _LEAVING_S
        while self._depths.keys() - {threading.get_ident()} and monotonic() < end:
            sleep(0.001)


class Graph:
    """Work on a stream that is queued with one call."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        self._executable = executable

    def launch(self, stream: Any) -> None:
        """Queue it. Raises ModelError when the driver refuses."""
        _check(_libcuda().cuGraphLaunch(self._executable, ctypes.c_void_p(stream.handle)), "cuGraphLaunch")

    def free(self) -> None:
        """Give it back; a second call does nothing. The device must be active, the graph not running."""
        if self._executable.value is not None:
            _libcuda().cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()


_lock = threading.Lock()
_devices: dict[int, Device] = {}


def open_device(ordinal: int = 0) -> Device:
    """The GPU with that number, opened once in a process.

    Raises EngineError when pycuda is not installed or CUDA does not start.
    """
    with _lock:
        if ordinal not in _devices:
            driver = _import_driver()
            load_kernels_lazily()
            try:
                driver.init()
                device = Device(driver, ordinal)
            except driver.Error as error:
                raise EngineError(
                    f"CUDA does not start: {error}. Check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES."
                ) from None
            _devices[ordinal] = device
            atexit.register(device.release)
            logger.debug("%s is open", device.name)
        return _devices[ordinal]


def _import_driver() -> Any:
    """pycuda.driver; what is missing is told as an EngineError."""
    try:
        return importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        raise EngineError(
            f"pycuda cannot be loaded: {error}. Install it: pip install pycuda (on a machine with an NVIDIA driver), "
            "or use backend onnxruntime, which runs on the CPU."
        ) from None


@cache
def _libcuda() -> Any:
    """The driver's library, for what pycuda does not offer: graphs."""
    return ctypes.CDLL("libcuda.so.1")


def _check(result: int, call: str) -> None:
    if result != 0:
        raise ModelError(
            f"{call} failed with CUDA error {result}. Measure again whether graphs pay: workbench engines warm-up"
        )
