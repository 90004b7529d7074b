"""What this machine offers to engines: its GPU, driver, CUDA, and the versions of the runtimes installed."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, Final, Literal

__all__ = [
    "RUNTIMES",
    "Host",
    "RuntimeName",
    "import_runtime",
    "load_kernels_lazily",
    "runtime_version",
    "this_host",
]

RuntimeName = Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
"""The libraries that run engines."""

RUNTIMES: Final[tuple[RuntimeName, ...]] = ("onnxruntime", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Host:
    """A machine. ``compute_capability`` is like "8.9", ``cuda_version`` the newest CUDA that the driver runs; all of
    the GPU are None without one. ``versions`` has an entry for each runtime that is installed.
    """

    gpu: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    cuda_version: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.gpu is None:
            return "no GPU"
        return f"{self.gpu} (compute capability {self.compute_capability}, driver {self.driver})"


def this_host() -> Host:
    """This machine, with its first GPU. Never raises: what cannot be found out is None."""
    gpu = _gpu()
    versions: dict[str, str] = {name: version for name in RUNTIMES if (version := runtime_version(name)) is not None}
    return Host(**gpu, versions=versions)


@cache
def runtime_version(name: str) -> str | None:
    """The version of a runtime, as it states it itself; None where it is not installed or does not load."""
    module = import_runtime(name)
    return str(module.__version__) if module is not None else None


def import_runtime(name: str) -> ModuleType | None:
    """The module of a runtime; None where it is not installed or its libraries do not load."""
    module = name.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError):  # a library that is not there is an OSError in some packages
        return None


def load_kernels_lazily() -> None:
    """Have CUDA load a kernel when it is first used, which is the default of newer drivers: an engine uses few of
    those that its libraries bring. To be said before CUDA is first called in this process."""
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")


@cache
def _gpu() -> dict[str, Any]:
    """Name, compute capability and driver of the first GPU that CUDA shows to this process."""
    try:
        cuda: Any = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {}
    load_kernels_lazily()
    device, version = ctypes.c_int(), ctypes.c_int()
    major, minor = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    calls: tuple[Callable[[], int], ...] = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDeviceGetName(name, len(name), device),
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device),
        lambda: cuda.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(call() != 0 for call in calls):  # each needs the one before it
        return {}
    return {
        "gpu": name.value.decode("utf-8", "replace"),
        "compute_capability": f"{major.value}.{minor.value}",
        "driver": _driver(),
        "cuda_version": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }


def _driver() -> str | None:
    """The driver's version, such as "535.104.05"; only NVML tells it."""
    with contextlib.suppress(OSError):
        nvml: Any = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0:
            return None
        try:
            text = ctypes.create_string_buffer(96)
            if nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0:
                return text.value.decode("ascii", "replace")
        finally:
            nvml.nvmlShutdown()
    return None
