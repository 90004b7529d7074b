"""Engines beside FP32: accuracy with a verdict, speed, size. What `workbench engines compare` and the notebook show.

The reference is the FP32 model folder itself, run by onnxruntime on the CPU: it is there on every machine, and every
verdict in a manifest means the same thing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from workbench.engine.gate import (
    DEFAULT_METRICS,
    GateResult,
    Metric,
    ValidationSet,
    default_budget,
    is_another_set,
    judge,
    machine_for,
    processor,
    read_answers,
    read_validation,
    store_gate,
)
from workbench.engine.gate.speed import Speed, measure_speeds
from workbench.errors import EngineError, ModelError, ParameterError
from workbench.progress import tqdm
from workbench.runtime import open_engine, open_session
from workbench.runtime.host import this_host
from workbench.runtime.manifest import Manifest, find_plans, staleness
from workbench.runtime.session import Session
from workbench.settings import settings
from workbench.tasks.labels import TASKS
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import ModelSpec, load_spec
from workbench.workspace import Policies

__all__ = ["Comparison", "EngineRow", "choose_plans", "compare_engines", "model_home", "policy_of"]

logger = logging.getLogger(__name__)

REFERENCE: Final = "reference"


@dataclass(frozen=True)
class EngineRow:
    """One engine. ``gate`` by task; ``speeds`` by batch size, and ``beside`` those of FP32, taken in turn with them;
    ``stale`` says why it should be built again; ``reason`` why it could not be run here."""

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
    beside: tuple[Speed, ...] = ()

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
        return _fastest(self.speeds)

    @property
    def times(self) -> float | None:
        """How many times as fast as FP32, each with its best batch size; None where it was not timed."""
        own, base = _fastest(self.speeds), _fastest(self.beside)
        return own.texts_per_s / base.texts_per_s if own and base else None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            **{name: getattr(self, name) for name in ("name", "precision", "runtime", "target", "plan_bytes")},
            "recipe": list(self.recipe),
            "method": self.method,
            "build_s": self.build_s,
            "gate": {task: result.to_dict() for task, result in self.gate.items()},
            "speeds": [speed.to_dict() for speed in self.speeds],
            "times": self.times,
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
            f"{row.title} ({row.name}) {result.summary()}{said_of_set(result)}"
            for row in self.engines
            for result in row.gate.values()
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


def said_of_set(result: GateResult) -> str:
    """ " (on another set)" where a verdict rests on other texts than the project's."""
    return " (on another set)" if is_another_set(result.task, result.data_sha256) else ""


def model_home(model: str | Path) -> Path:
    """The model folder called ``model``: the name of one under engines/, or a path."""
    named = settings().home / "engines" / model  # an absolute path stays what it is
    return named if named.is_dir() or not Path(model).is_dir() else Path(model)


def policy_of(policy: Policies | None, task: str, precision: str) -> tuple[Metric, float]:
    """Metric and budget (points) that an engine of ``precision`` is judged by on ``task``."""
    own: Any = getattr(policy or Policies(), task)
    metric: Metric = own.metric or DEFAULT_METRICS[task]
    return metric, own.budget if own.budget is not None else default_budget(precision)


def compare_engines(
    model: str | Path = "reviews",
    tasks: Sequence[str] = TASKS,
    *,
    engines: Sequence[str] | None = None,
    validation: Mapping[str, Path | str | ValidationSet] | None = None,
    policy: Policies | None = None,
    speed: bool = True,
    store: bool = True,
    progress: bool = True,
) -> Comparison:
    """Judge the engines of ``model`` on ``tasks``, and time them beside FP32.

    ``engines``: ids, or beginnings of them; all by default. ``validation`` names another file for a task (see
    ``read_validation``), or is the set. ``policy`` says metric and budget by task. With ``store`` every verdict goes
    into the engine's manifest (see ``store_gate``); one made elsewhere is kept where an engine cannot run here. One
    that fails while it reads is unmeasured, and the others go on. Raises ParameterError for a task the model does not
    give or an id that is not there, ModelError when the model cannot be loaded.
    """
    folder = model_home(model)
    spec = load_spec(folder)
    wanted = _check_tasks(tasks, spec)
    given = validation or {}
    sets = {
        task: own if isinstance(own := given.get(task), ValidationSet) else read_validation(task, own)
        for task in wanted
    }
    plans = choose_plans(find_plans(folder.parent, folder.name), engines, spec)
    rows: list[EngineRow] = []
    with ExitStack() as stack:
        reference = stack.enter_context(open_session(folder, backend="onnxruntime"))
        bar = stack.enter_context(
            tqdm(
                total=len(_all_texts(sets)) * (len(plans) + 1) if plans else 0,
                desc="Judging",
                unit="text",
                disable=not progress,
                delay=2,
                leave=False,
            )
        )
        answers = {task: _read(reference, sets[task], bar) for task in wanted} if plans else {}
        # One engine at a time: all of them at once may not fit into memory.
        for path, manifest in plans:
            row = _measure(path, manifest, reference, sets, answers=answers, policy=policy, speed=speed, bar=bar)
            if store:
                store_gate(path, row.gate)
            rows.append(row)
        timed = [row.beside for row in rows if row.beside]
        if speed and plans and not timed:
            timed = [measure_speeds({REFERENCE: reference}, _all_texts(sets), progress=progress)[REFERENCE]]
    base = _middle(timed)
    return Comparison(
        model=spec.title,
        folder=folder,
        host=this_host().gpu or processor(),
        made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tasks=wanted,
        sets=sets,
        reference=EngineRow(
            REFERENCE, "fp32", "onnxruntime", "cpu", spec.onnx.stat().st_size, speeds=base, beside=base
        ),
        engines=tuple(rows),
    )


def _check_tasks(tasks: Sequence[str], spec: ModelSpec) -> tuple[str, ...]:
    asked = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if missing := [task for task in asked if task not in spec.outputs]:
        raise ParameterError(f"{spec.title} gives {', '.join(spec.outputs)}, not {missing[0]!r}. Name one of these.")
    return tuple(task for task in TASKS if task in asked)


def choose_plans(
    plans: Sequence[tuple[Path, Manifest]], engines: Sequence[str] | None, spec: ModelSpec
) -> list[tuple[Path, Manifest]]:
    """The plans that ``engines`` means (ids, or beginnings of them; None: all), by runtime and precision.

    Raises ParameterError for an id that is not there.
    """
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


def _measure(
    path: Path,
    manifest: Manifest,
    reference: Session,
    sets: Mapping[str, ValidationSet],
    *,
    answers: Mapping[str, Sequence[Any]],
    policy: Policies | None,
    speed: bool,
    bar: Any,
) -> EngineRow:
    """One engine beside FP32, whose ``answers`` on ``sets`` are given."""
    own: tuple[Speed, ...] = ()
    beside: tuple[Speed, ...] = ()
    reason = ""
    gate: dict[str, GateResult] = {}
    try:
        session = open_engine(path, manifest)
    except (EngineError, ModelError) as error:
        reason = str(error)
        gate = {task: _kept(manifest, texts, policy, reason) for task, texts in sets.items()}
        bar.update(sum(map(len, sets.values())))
    else:
        with session:
            try:
                for task, texts in sets.items():
                    gate[task] = _judge(session, manifest, texts, answers[task], policy, bar)
                if speed:
                    both = {REFERENCE: reference, manifest.engine_id: session}
                    speeds = measure_speeds(both, _all_texts(sets), progress=not bar.disable)
                    own, beside = speeds[manifest.engine_id], speeds[REFERENCE]
                    gate = _timed(gate, own, beside, machine_for(manifest.target))
            except (EngineError, ModelError) as error:
                reason = str(error)
                missing = [texts for task, texts in sets.items() if task not in gate]
                gate |= {texts.task: _unmeasured(manifest, texts, policy, reason) for texts in missing}
                bar.update(sum(map(len, missing)))
    return EngineRow(
        name=manifest.engine_id,
        precision=manifest.precision,
        runtime=manifest.runtime,
        target=manifest.target,
        plan_bytes=manifest.plan_bytes,
        gate=gate,
        speeds=own,
        beside=beside,
        stale=staleness(manifest, engines=reference.spec.folder.parent),
        reason=reason,
        recipe=manifest.recipe,
        method=str(manifest.calibration["method"]) if manifest.calibration is not None else None,
        build_s=manifest.build_s,
    )


def _judge(
    session: Session,
    manifest: Manifest,
    texts: ValidationSet,
    reference: Sequence[Any],
    policy: Policies | None,
    bar: Any,
) -> GateResult:
    metric, budget = policy_of(policy, texts.task, manifest.precision)
    result = judge(
        texts.task,
        texts.gold,
        reference,
        _read(session, texts, bar),
        budget=budget,
        slices=texts.slices,
        metric=metric,
        data_sha256=texts.sha256,
    )
    return replace(result, measured_on=machine_for(manifest.target))


def _kept(manifest: Manifest, texts: ValidationSet, policy: Policies | None, reason: str) -> GateResult:
    """What another machine measured, where this one cannot; else unmeasured, with the reason."""
    stored = manifest.gate.get(texts.task)
    if stored is not None:
        result = GateResult.from_dict(stored)
        if result.verdict != "unmeasured":
            return result
    return _unmeasured(manifest, texts, policy, reason)


def _unmeasured(manifest: Manifest, texts: ValidationSet, policy: Policies | None, reason: str) -> GateResult:
    metric, budget = policy_of(policy, texts.task, manifest.precision)
    return GateResult.unmeasured(texts.task, metric, budget=budget, reason=reason)


def _timed(
    gate: dict[str, GateResult], own: Sequence[Speed], beside: Sequence[Speed], machine: str
) -> dict[str, GateResult]:
    ours, theirs = _fastest(own), _fastest(beside)
    if ours is None or theirs is None:
        return gate
    return {
        task: result.with_speed(ours.texts_per_s, theirs.texts_per_s, measured_on=machine)
        for task, result in gate.items()
    }


def _fastest(speeds: Sequence[Speed]) -> Speed | None:
    return max(speeds, key=lambda speed: speed.texts_per_s, default=None)


def _middle(timed: Sequence[Sequence[Speed]]) -> tuple[Speed, ...]:
    """FP32 was timed with each engine; of each batch size the middle one of those timings."""
    by_size: dict[int, list[Speed]] = {}
    for speeds in timed:
        for speed in speeds:
            by_size.setdefault(speed.batch, []).append(speed)
    return tuple(
        sorted(own, key=lambda speed: speed.texts_per_s)[len(own) // 2] for _, own in sorted(by_size.items())
    )


def _all_texts(sets: Mapping[str, ValidationSet]) -> list[str]:
    return [text for item in sets.values() for text in item.texts]
