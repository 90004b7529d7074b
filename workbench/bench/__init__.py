"""Peers side by side, one process each."""

from __future__ import annotations

from workbench.bench.cpu import CpuBench
from workbench.bench.cpu import run as run_cpu

__all__ = ["CpuBench", "run_cpu"]
