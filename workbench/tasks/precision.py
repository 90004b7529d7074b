"""What quantized engines do unless told otherwise."""

from __future__ import annotations

from typing import Final

__all__ = ["DEFAULT_RANGE_METHOD"]

DEFAULT_RANGE_METHOD: Final = "percentile-99.99"
"""How the ranges of INT8 are found; workbench/engine/graphs/int8.py says why this one."""
