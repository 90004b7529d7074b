"""The gate: is a smaller engine as good as FP32? Statistics, a verdict, and how fast it is."""

from workbench.engine.gate.answers import read_answers
from workbench.engine.gate.judging import judge
from workbench.engine.gate.machine import machine_for, processor
from workbench.engine.gate.result import DEFAULT_METRICS, METRICS, Flips, GateResult, Metric, Slice, default_budget
from workbench.engine.gate.statistics import Verdict
from workbench.engine.gate.store import store_gate
from workbench.engine.gate.validation import ValidationSet, is_another_set, read_validation

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "Flips",
    "GateResult",
    "Metric",
    "Slice",
    "ValidationSet",
    "Verdict",
    "default_budget",
    "is_another_set",
    "judge",
    "machine_for",
    "processor",
    "read_answers",
    "read_validation",
    "store_gate",
]
