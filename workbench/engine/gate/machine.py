"""The machine that an engine was judged on, as a manifest names it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Final

from workbench.runtime.host import this_host

__all__ = ["machine_for", "processor", "processor_name"]

_CPUINFO: Final = Path("/proc/cpuinfo")
_VNNI: Final = {"avx512_vnni", "avx_vnni"}


def machine_for(target: str) -> str:
    """What runs an engine of ``target`` here: the GPU, or for "cpu" the processor."""
    return (this_host().gpu if target != "cpu" else None) or processor()


def processor(cpuinfo: Path = _CPUINFO) -> str:
    """The name of the processor, and ", vnni" where it has these instructions: with them the products of INT8 are
    exact sums, without them onnxruntime's kernels may saturate, so that a verdict of the one is none of the other."""
    found = _first_core(cpuinfo)
    name = processor_name(cpuinfo)
    return f"{name}, vnni" if _VNNI & set(found.get("flags", "").split()) else name


def processor_name(cpuinfo: Path = _CPUINFO) -> str:
    """The name of the processor alone."""
    return _first_core(cpuinfo).get("model name") or platform.processor() or platform.machine()


@cache
def _first_core(cpuinfo: Path) -> dict[str, str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), " ".join(value.split()))
    return found
