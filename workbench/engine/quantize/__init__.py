"""Ranges for INT8 engines, from representative texts.

calibration  the texts, and why some sets are refused
histogram    entropy (KL), percentile and min-max
ranges       all of it through onnxruntime, cached by data and model
sample       a calibration set drawn from a lake
"""

from __future__ import annotations

from workbench.engine.quantize.calibration import CalibrationSet, check_representative, read_calibration
from workbench.engine.quantize.histogram import METHODS, Method
from workbench.engine.quantize.ranges import Ranges, collect_ranges

__all__ = [
    "METHODS",
    "CalibrationSet",
    "Method",
    "Ranges",
    "check_representative",
    "collect_ranges",
    "read_calibration",
]
