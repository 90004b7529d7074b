"""Peers side by side, one process each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.bench.cpu import CpuBench
    from workbench.bench.cpu import run as run_cpu
    from workbench.bench.gpu import run as run_gpu
    from workbench.bench.gpu_result import GpuBench

__all__ = ["CpuBench", "GpuBench", "run_cpu", "run_gpu"]


def __getattr__(name: str) -> Any:
    """Loaded when it is used: a peer's process needs none of it, and its memory is measured."""
    if name in ("CpuBench", "run_cpu"):
        from workbench.bench import cpu

        return cpu.CpuBench if name == "CpuBench" else cpu.run
    if name == "GpuBench":
        from workbench.bench.gpu_result import GpuBench

        return GpuBench
    if name == "run_gpu":
        from workbench.bench.gpu import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
