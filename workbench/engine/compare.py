"""Engines beside FP32: accuracy with a verdict, speed, size. What `workbench engines compare` and the notebook show.

The reference is the FP32 model folder itself, run by onnxruntime on the CPU: it is there on every machine, and every
verdict in a manifest means the same thing.
"""

from __future__ import annotations

import json
import logging
import platform
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from tqdm import TqdmWarning

from workbench.engine.gate import (
    DEFAULT_METRICS,
    GateResult,
    Metric,
    ValidationSet,
    default_budget,
    judge,
    read_answers,
    read_validation,
)
from workbench.engine.gate.speed import Speed, measure_speeds
from workbench.errors import EngineError, ModelError, ParameterError
from workbench.runtime import open_engine, open_session
from workbench.runtime.host import this_host
from workbench.runtime.manifest import Manifest, find_plans, read_manifest, staleness, write_manifest
from workbench.runtime.session import Session
from workbench.settings import settings
from workbench.tasks.labels import TASKS
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import ModelSpec, load_spec
from workbench.workspace import Policies

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm shows a text bar, and a warning on import that helps nobody.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["Comparison", "EngineRow", "compare_engines", "model_home", "policy_of", "task_policy"]

logger = logging.getLogger(__name__)

REFERENCE: Final = "reference"


@dataclass(frozen=True)
class EngineRow:
    """One engine. ``gate`` by task; ``speeds`` by batch size; ``stale`` says why it should be built again; ``reason``
    why it could not be run here."""

    name: str
    precision: str
    runtime: str
    target: str
    plan_bytes: int
    gate: Mapping[str, GateResult] = field(default_factory=dict)
    speeds: tuple[Speed, ...] = ()
    stale: tuple[str, ...] = ()
    reason: str = ""
    recipe: tuple[str, ...] = ()
    method: str | None = None
    build_s: float | None = None

    @property
    def title(self) -> str:
        """What it is called in a table: precision, runtime, and the start of its id."""
        count = len(self.recipe)
        kept = f", {count} {'group' if count == 1 else 'groups'} kept" if count else ""
        where = "" if self.target == "cpu" else f" {self.target}"
        how = f" {self.method}" if self.method not in (None, DEFAULT_RANGE_METHOD) else ""
        return f"{self.precision.upper()}{how} {self.runtime}{where}{kept}"

    @property
    def single(self) -> Speed | None:
        """One text at a time."""
        return next((speed for speed in self.speeds if speed.batch == 1), None)

    @property
    def best(self) -> Speed | None:
        """The batch size with the most texts a second."""
        return max(self.speeds, key=lambda speed: speed.texts_per_s, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            **{name: getattr(self, name) for name in ("name", "precision", "runtime", "target", "plan_bytes")},
            "recipe": list(self.recipe),
            "method": self.method,
            "build_s": self.build_s,
            "gate": {task: result.to_dict() for task, result in self.gate.items()},
            "speeds": [speed.to_dict() for speed in self.speeds],
            "stale": list(self.stale),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Comparison:
    """FP32 and the engines built from it, on one machine. ``sets``: the validation set of each task."""

    model: str
    folder: Path
    host: str
    made_at: str
    tasks: tuple[str, ...]
    sets: Mapping[str, ValidationSet]
    reference: EngineRow
    engines: tuple[EngineRow, ...]

    @property
    def rows(self) -> tuple[EngineRow, ...]:
        """The reference first."""
        return (self.reference, *self.engines)

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """Every verdict that is fail."""
        return tuple(item for row in self.engines for item in row.gate.values() if item.verdict == "fail")

    def summary(self) -> str:
        """A line for each engine and task."""
        if not self.engines:
            return f"{self.model} has no engines beside FP32. Build some: workbench engines build"
        return "\n".join(
            f"{row.title} ({row.name}) {result.summary()}" for row in self.engines for result in row.gate.values()
        )

    def to_json(self) -> str:
        """Everything, for machines."""
        data = {
            "model": self.model,
            "host": self.host,
            "made_at": self.made_at,
            "tasks": list(self.tasks),
            "sets": {
                task: {"texts": len(item), "sha256": item.sha256, "file": item.path.name}
                for task, item in self.sets.items()
            },
            "engines": [row.to_dict() for row in self.rows],
        }
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def model_home(model: str | Path) -> Path:
    """The model folder called ``model``: the name of one under engines/, or a path."""
    named = settings().home / "engines" / model  # an absolute path stays what it is
    return named if named.is_dir() or not Path(model).is_dir() else Path(model)


def policy_of(policy: Policies | None, task: str, precision: str) -> tuple[Metric, float]:
    """Metric and budget (points) that an engine of ``precision`` is judged by on ``task``."""
    own = task_policy(policy, task)
    metric: Metric = own.metric or DEFAULT_METRICS[task]
    return metric, own.budget if own.budget is not None else default_budget(precision)


def task_policy(policy: Policies | None, task: str) -> Any:
    """The policy of one task; the defaults where there is none."""
    return getattr(policy or Policies(), task)


def compare_engines(
    model: str | Path = "reviews",
    tasks: Sequence[str] = TASKS,
    *,
    engines: Sequence[str] | None = None,
    validation: Mapping[str, Path | str] | None = None,
    policy: Policies | None = None,
    speed: bool = True,
    store: bool = True,
    progress: bool = True,
) -> Comparison:
    """Judge the engines of ``model`` on ``tasks``, and time them beside FP32.

    ``engines``: ids, or beginnings of them; all by default. ``validation`` names another file for a task (see
    ``read_validation``). ``policy`` says metric and budget by task. With ``store`` every verdict goes into the
    engine's manifest, where the scorer and `workbench engines list` find it; one made elsewhere is kept where an
    engine cannot run here. Raises ParameterError for a task the model does not give or an id that is not there,
    ModelError when the model cannot be loaded.
    """
    folder = model_home(model)
    spec = load_spec(folder)
    wanted = _check_tasks(tasks, spec)
    sets = {task: read_validation(task, (validation or {}).get(task)) for task in wanted}
    plans = _choose(find_plans(folder.parent, folder.name), engines, spec)
    here = this_host()
    with ExitStack() as stack:
        reference = stack.enter_context(open_session(folder, backend="onnxruntime"))
        opened: dict[str, Session] = {REFERENCE: reference}
        reasons: dict[str, str] = {}
        for path, manifest in plans:
            try:
                opened[manifest.engine_id] = stack.enter_context(open_engine(path, manifest))
            except (EngineError, ModelError) as error:  # noqa: PERF203 - one that cannot run here stops no other
                reasons[manifest.engine_id] = str(error)
        speeds: Mapping[str, tuple[Speed, ...]] = {}
        if speed and plans:
            texts = [text for item in sets.values() for text in item.texts]
            speeds = measure_speeds(opened, texts, progress=progress)
        total = sum(map(len, sets.values())) * len(opened) if plans else 0
        bar = stack.enter_context(
            tqdm(total=total, desc="Judging", unit="text", disable=not progress, delay=2, leave=False)
        )
        answers = {task: _read(reference, sets[task], bar) for task in wanted} if plans else {}
        rows = []
        for path, manifest in plans:
            session = opened.get(manifest.engine_id)
            gate = {task: _judge(session, manifest, sets[task], answers[task], policy, bar) for task in wanted}
            if session is None:
                gate = {task: _kept(manifest, result, reasons[manifest.engine_id]) for task, result in gate.items()}
            gate = _timed(gate, speeds.get(manifest.engine_id, ()), speeds.get(REFERENCE, ()))
            if store:
                _store(path, gate)
            rows.append(_row(folder, manifest, gate, speeds, here, reasons.get(manifest.engine_id, "")))
    return Comparison(
        model=spec.title,
        folder=folder,
        host=_host_name(),
        made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tasks=wanted,
        sets=sets,
        reference=EngineRow(
            REFERENCE, "fp32", "onnxruntime", "cpu", spec.onnx.stat().st_size, speeds=speeds.get(REFERENCE, ())
        ),
        engines=tuple(rows),
    )


def _check_tasks(tasks: Sequence[str], spec: ModelSpec) -> tuple[str, ...]:
    asked = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if missing := [task for task in asked if task not in spec.outputs]:
        raise ParameterError(f"{spec.title} gives {', '.join(spec.outputs)}, not {missing[0]!r}. Name one of these.")
    return tuple(task for task in TASKS if task in asked)


def _choose(
    plans: Sequence[tuple[Path, Manifest]], engines: Sequence[str] | None, spec: ModelSpec
) -> list[tuple[Path, Manifest]]:
    order = ("fp32", "fp16", "int8", "mixed")
    ordered = sorted(plans, key=lambda plan: (plan[1].runtime, order.index(plan[1].precision), plan[1].engine_id))
    if engines is None:
        return ordered
    for asked in engines:
        if not any(manifest.engine_id.startswith(asked) for _, manifest in ordered):
            raise ParameterError(f"No engine of {spec.name} has an id like {asked!r}. See: workbench engines list")
    return [plan for plan in ordered if any(plan[1].engine_id.startswith(asked) for asked in engines)]


def _read(session: Session, texts: ValidationSet, bar: Any) -> list[Any]:
    answers = read_answers(session, texts)
    bar.update(len(texts))
    return answers


def _judge(
    session: Session | None,
    manifest: Manifest,
    texts: ValidationSet,
    reference: Sequence[Any],
    policy: Policies | None,
    bar: Any,
) -> GateResult:
    metric, budget = policy_of(policy, texts.task, manifest.precision)
    if session is None:
        return GateResult.unmeasured(texts.task, metric, budget=budget, reason="")
    return judge(
        texts.task,
        texts.gold,
        reference,
        _read(session, texts, bar),
        budget=budget,
        slices=texts.slices,
        metric=metric,
        data_sha256=texts.sha256,
    )


def _kept(manifest: Manifest, unmeasured: GateResult, reason: str) -> GateResult:
    """What another machine measured, where this one cannot; else unmeasured, with the reason."""
    stored = manifest.gate.get(unmeasured.task)
    if stored is not None:
        result = GateResult.from_dict(stored)
        if result.verdict != "unmeasured":
            return result
    return replace(unmeasured, reason=reason)


def _timed(gate: dict[str, GateResult], own: Sequence[Speed], reference: Sequence[Speed]) -> dict[str, GateResult]:
    if not own or not reference:
        return gate
    ours, theirs = (max(speed.texts_per_s for speed in speeds) for speeds in (own, reference))
    return {
        task: result.with_speed(ours, theirs, measured_on=_host_name()) if result.verdict != "unmeasured" else result
        for task, result in gate.items()
    }


def _store(path: Path, gate: Mapping[str, GateResult]) -> None:
    # Read again: the manifest may have another task's verdict by now.
    manifest = read_manifest(path)
    merged = {**manifest.gate, **{task: result.to_dict() for task, result in gate.items()}}
    if merged != manifest.gate:
        write_manifest(path, replace(manifest, gate=merged))


def _row(
    folder: Path,
    manifest: Manifest,
    gate: Mapping[str, GateResult],
    speeds: Mapping[str, tuple[Speed, ...]],
    here: Any,
    reason: str,
) -> EngineRow:
    return EngineRow(
        name=manifest.engine_id,
        precision=manifest.precision,
        runtime=manifest.runtime,
        target=manifest.target,
        plan_bytes=manifest.plan_bytes,
        gate=gate,
        speeds=speeds.get(manifest.engine_id, ()),
        stale=staleness(manifest, engines=folder.parent, here=here),
        reason=reason,
        recipe=manifest.recipe,
        method=str(manifest.calibration["method"]) if manifest.calibration is not None else None,
        build_s=manifest.build_s,
    )


def _host_name() -> str:
    host = this_host()
    return host.gpu or f"{platform.machine()} CPU"
