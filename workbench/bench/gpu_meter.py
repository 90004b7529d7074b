"""How busy a GPU is and how much of its memory is taken, as its driver's management library (NVML) says."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["GpuMeter", "Watched"]

_INTERVAL_S: Final = 0.05
_SETTLING_S: Final = 0.5
"""NVML's figure is an average over up to a second: what it says at first is of the time before."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@dataclass
class Watched:
    """What was seen while something ran. ``samples``: seconds since the start, share of time with a kernel."""

    samples: list[tuple[float, float]] = field(default_factory=list)
    before_mb: float = 0.0
    after_mb: float = 0.0
    most_mb: float = 0.0

    @property
    def grown_mb(self) -> float:
        """How much more memory is taken than before."""
        return self.after_mb - self.before_mb

    @property
    def busy(self) -> float | None:
        """Mean share of time in which a kernel ran; None where it was too short to tell."""
        settled = [share for at, share in self.samples if at >= _SETTLING_S]
        return sum(settled) / len(settled) if len(settled) >= 3 else None


class GpuMeter:
    """The GPU that CUDA shows first to this process. Raises OSError where there is no NVML, or no GPU."""

    def __init__(self) -> None:
        cuda: Any = ctypes.CDLL("libcuda.so.1")
        self._nvml: Any = ctypes.CDLL("libnvidia-ml.so.1")
        self._handle = ctypes.c_void_p()
        device, address = ctypes.c_int(), ctypes.create_string_buffer(64)
        # CUDA and NVML count differently: CUDA_VISIBLE_DEVICES is CUDA's alone. The bus address is the same for both.
        if (
            cuda.cuInit(0)
            or cuda.cuDeviceGet(ctypes.byref(device), 0)
            or cuda.cuDeviceGetPCIBusId(address, len(address), device)
            or self._nvml.nvmlInit_v2()
            or self._nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(self._handle))
        ):
            raise OSError("the driver shows no GPU")

    def used_mb(self) -> float:
        """Memory that is taken, by whomever, in MB."""
        memory = _Memory()
        if self._nvml.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory)):
            return 0.0
        return int(memory.used) / 1e6

    def utilization(self) -> float | None:
        """Share of the last moments in which a kernel ran."""
        found = _Utilization()
        if self._nvml.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(found)):
            return None
        return int(found.gpu) / 100

    @contextmanager
    def watch(self) -> Iterator[Watched]:
        """Sample while the block runs; what it gives is complete after the block."""
        seen = Watched(before_mb=self.used_mb())
        seen.most_mb = seen.before_mb
        stop, start = threading.Event(), time.perf_counter()

        def sample() -> None:
            while not stop.wait(_INTERVAL_S):
                share = self.utilization()
                if share is not None:
                    seen.samples.append((time.perf_counter() - start, share))
                seen.most_mb = max(seen.most_mb, self.used_mb())

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()
            seen.after_mb = self.used_mb()
            seen.most_mb = max(seen.most_mb, seen.after_mb)
