"""What the gate found about one engine and one task: kept in the engine's manifest, shown wherever it is used.

Light on purpose: the scorer reads it every time it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from workbench.engine.gate.statistics import Verdict, verdict
from workbench.errors import ParameterError

__all__ = ["DEFAULT_METRICS", "METRICS", "Flips", "GateResult", "Metric", "Slice", "default_budget"]

Metric = Literal["accuracy", "macro_f1", "entity_f1"]

METRICS: Final[Mapping[str, tuple[Metric, ...]]] = {
    "sentiment": ("accuracy", "macro_f1"),
    "topics": ("macro_f1", "accuracy"),
    "entities": ("entity_f1",),
}
"""What each task can be judged by, the default first."""

DEFAULT_METRICS: Final[Mapping[str, Metric]] = {task: metrics[0] for task, metrics in METRICS.items()}

_VERDICTS: Final = ("pass", "fail", "inconclusive", "unmeasured")


def default_budget(precision: str) -> float:
    """Points an engine of ``precision`` may lose against FP32 when nobody says otherwise."""
    return 0.3 if precision in ("fp32", "fp16") else 1.0


@dataclass(frozen=True)
class Flips:
    """Texts the engine answers differently from the reference, right or wrong. ``rate`` in points of all texts."""

    n: int
    rate: float


@dataclass(frozen=True)
class Slice:
    """A part of the texts, in points. ``n``: texts; for a label, how often it is there."""

    n: int
    reference: float
    candidate: float
    delta: float


@dataclass(frozen=True)
class GateResult:
    """One engine judged on one task. All values, differences, rates and the budget are in points (0 to 100).

    ``interval`` is the one the verdict rests on, at 95 %: Tango's score interval for accuracy, for F1 the paired
    bootstrap (where few texts differ, widened to what ``n`` texts can tell); ``bootstrap`` is the plain one. ``lost``
    and ``gained`` count texts that only the reference, or only the engine, has wholly right; ``mcnemar_p`` compares
    them.
    ``slices`` by name, such as "language=zh". ``needed``: texts that would decide an inconclusive verdict. ``reason``
    says why nothing was measured. ``measured_on``: the machine that it was judged on; ``texts_per_s`` and
    ``reference_texts_per_s`` were taken there side by side.
    """

    task: str
    metric: Metric
    n: int
    reference: float
    candidate: float
    delta: float
    interval: tuple[float, float]
    bootstrap: tuple[float, float]
    flips: Flips
    lost: int
    gained: int
    mcnemar_p: float
    budget: float
    verdict: Verdict
    needed: int | None = None
    data_sha256: str = ""
    slices: Mapping[str, Slice] = field(default_factory=dict)
    reason: str = ""
    texts_per_s: float | None = None
    reference_texts_per_s: float | None = None
    measured_on: str = ""

    @classmethod
    def unmeasured(cls, task: str, metric: Metric, *, budget: float, reason: str) -> GateResult:
        """What stands for an engine that could not be run."""
        nothing, none = (0.0, 0.0), Flips(0, 0.0)
        return cls(
            task, metric, 0, 0.0, 0.0, 0.0, nothing, nothing, none, 0, 0, 1.0, budget, "unmeasured", reason=reason
        )

    @property
    def speed_ratio(self) -> float | None:
        """How many times as fast as FP32 where both were measured; None when that was not measured."""
        if not self.texts_per_s or not self.reference_texts_per_s:
            return None
        return self.texts_per_s / self.reference_texts_per_s

    def verdict_at(self, budget: float) -> Verdict:
        """The verdict, had ``budget`` (points) been the budget."""
        if self.verdict == "unmeasured":
            return "unmeasured"
        return verdict(self.delta, self.interval, budget)

    def with_speed(self, texts_per_s: float, reference_texts_per_s: float, *, measured_on: str) -> GateResult:
        """The same with the speeds that were measured side by side."""
        return replace(
            self,
            texts_per_s=round(texts_per_s, 2),
            reference_texts_per_s=round(reference_texts_per_s, 2),
            measured_on=measured_on,
        )

    def summary(self) -> str:
        """One line for a person."""
        if self.verdict == "unmeasured":
            return f"{self.task}: unmeasured. {self.reason}".rstrip()
        more = f"; about {self.needed:,} texts would decide" if self.needed else ""
        return (
            f"{self.task}: {self.verdict}. {self.metric} {self.candidate:.2f}, FP32 {self.reference:.2f}: "
            f"{self.delta:+.2f} points [{self.interval[0]:+.2f}, {self.interval[1]:+.2f}], budget {self.budget:g}, "
            f"{self.flips.n:,} of {self.n:,} answers differ{more}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a manifest: plain types."""
        data = asdict(self)
        data["interval"], data["bootstrap"] = list(self.interval), list(self.bootstrap)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GateResult:
        """Read back what ``to_dict`` wrote. Raises ParameterError when it is something else."""
        try:
            values = dict(data)
            if values["verdict"] not in _VERDICTS or values["metric"] not in METRICS[values["task"]]:
                raise ValueError(f"{values['verdict']!r} on {values['metric']!r}")
            values["interval"] = (float(values["interval"][0]), float(values["interval"][1]))
            values["bootstrap"] = (float(values["bootstrap"][0]), float(values["bootstrap"][1]))
            values["flips"] = Flips(**values["flips"])
            values["slices"] = {name: Slice(**item) for name, item in values.get("slices", {}).items()}
            return cls(**values)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ParameterError(
                f"A gate result cannot be read: {type(error).__name__} {error}. Measure again: "
                "workbench engines compare"
            ) from None
