"""The gate: is a smaller engine as good as FP32? Statistics, a verdict, and how fast it is."""

from workbench.engine.gate.answers import read_answers
from workbench.engine.gate.judging import judge
from workbench.engine.gate.result import DEFAULT_METRICS, METRICS, Flips, GateResult, Metric, Slice, default_budget
from workbench.engine.gate.statistics import Verdict
from workbench.engine.gate.validation import ValidationSet, read_validation

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
    "judge",
    "read_answers",
    "read_validation",
]
