"""Which engine reads for a task: the fastest that passed the gate, or the FP32 model itself.

An engine may read when the task's policy allows its precision, it is fresh, it can run here, it was judged by the
policy's metric, the verdict at the policy's budget is pass, and it was timed beside FP32. Where the verdict is
inconclusive, for want of texts, it may read when the estimate holds the budget and the model's card shows that
engines converted like it pass on thousands of texts (workbench.engine.gate.card), or when the policy says that
inconclusive is enough. Of these the choice is the one with the least time for all tasks together: tasks that share an
engine share one pass, so that one FP16 pass may beat an INT8 pass and an FP16 pass. Nothing is served by accident:
where no engine qualifies, the FP32 model reads, and the reasons are told.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from workbench.engine.gate.card import Evidence, find_evidence
from workbench.engine.gate.machine import machine_for
from workbench.engine.gate.result import DEFAULT_METRICS, GateResult, default_budget
from workbench.errors import EngineError, ModelError, ParameterError
from workbench.runtime import Session, open_engine, open_session
from workbench.runtime.host import this_host
from workbench.runtime.manifest import Manifest, find_plans, staleness
from workbench.tasks.labels import TASKS
from workbench.tasks.spec import load_spec
from workbench.workspace import Policies, TaskPolicy

__all__ = ["Choice", "Reader", "choose_engines", "explain", "find_readers", "open_readers"]

logger = logging.getLogger(__name__)

_WORTH: Final = 0.95  # of FP32's time: less than that gained is within the noise of a clock
_RUNTIMES: Final = {"onnxruntime": ("onnxruntime",), "tensorrt": ("tensorrt", "tensorrt-rtx")}


@dataclass(frozen=True)
class Choice:
    """Who reads for ``task``: an engine (its folder and manifest), or with neither the FP32 model."""

    task: str
    model: Path
    why: str
    engine: Path | None = None
    manifest: Manifest | None = None


@dataclass(frozen=True)
class Reader:
    """A loaded engine or model and the tasks it reads for."""

    session: Session
    tasks: tuple[str, ...]
    choices: tuple[Choice, ...]


@contextmanager
def open_readers(
    models: Mapping[str, Path], *, backend: str = "auto", policy: Policies | None = None
) -> Iterator[tuple[Reader, ...]]:
    """Load what reads for each task of ``models`` (task to model folder), each engine once, in the tasks' order.

    Raises ModelError when a model cannot be loaded, or with backend "tensorrt" when no engine may read: it never
    falls back. With "auto" and "onnxruntime" the FP32 model reads where no engine may.
    """
    folders: dict[Path, list[str]] = {}
    for task in (task for task in TASKS if task in models):
        folders.setdefault(models[task].resolve(), []).append(task)
    with ExitStack() as stack:
        readers: list[Reader] = []
        for folder, tasks in folders.items():
            opened, choices = _open(stack, folder, tasks, backend, policy)
            by_engine: dict[Path | None, list[Choice]] = {}
            for choice in choices:
                logger.info("%s: %s", choice.task, choice.why)
                by_engine.setdefault(choice.engine, []).append(choice)
            readers += [
                Reader(opened[engine], tuple(choice.task for choice in own), tuple(own))
                for engine, own in by_engine.items()
            ]
        yield tuple(readers)


def _open(
    stack: ExitStack, folder: Path, tasks: Sequence[str], backend: str, policy: Policies | None
) -> tuple[dict[Path | None, Session], tuple[Choice, ...]]:
    """Choose and load; an engine that does not load is out, and the choice is made again without it."""
    broken: dict[str, str] = {}
    while True:
        choices = choose_engines(folder, tasks, backend=backend, policy=policy, broken=broken)
        opened: dict[Path | None, Session] = {}
        with ExitStack() as trial:
            try:
                for choice in choices:
                    if choice.engine in opened:
                        continue
                    if choice.engine is None:
                        session = open_session(folder, backend=backend)
                    else:
                        session = open_engine(choice.engine, choice.manifest)
                    opened[choice.engine] = trial.enter_context(session)
            except (EngineError, ModelError) as error:
                if choice.manifest is None:
                    raise
                logger.warning("%s", error)
                broken[choice.manifest.engine_id] = str(error)
                continue
            stack.push(trial.pop_all())
            return opened, choices


def choose_engines(
    folder: Path,
    tasks: Sequence[str],
    *,
    backend: str = "auto",
    policy: Policies | None = None,
    broken: Mapping[str, str] | None = None,
) -> tuple[Choice, ...]:
    """Who reads for each of ``tasks`` with the model in ``folder``; ``broken``: ids of engines that do not load.

    Raises ModelError with backend "tensorrt" when no engine may read for a task.
    """
    rules = policy or Policies()
    plans, reasons, card = _qualified(folder, tasks, backend, rules, broken or {})
    options: list[list[tuple[Path, Manifest] | None]] = []
    for task in tasks:
        qualified: list[tuple[Path, Manifest] | None] = [*plans[task]]
        if backend != "tensorrt":
            qualified.insert(0, None)
        elif not qualified:
            raise ModelError(
                f"No TensorRT engine of {folder.name} may read for {task}"
                + (f": {'; '.join(reasons[task])}" if reasons[task] else ": none is built")
                + f". Build and judge one: workbench engines build --model {folder.name} --runtime tensorrt, then "
                f"workbench engines compare --model {folder.name}. Or use backend onnxruntime."
            )
        options.append(qualified)
    best = min(product(*options), key=lambda picked: (round(_time(tasks, picked), 6), len(set(map(_id, picked)))))
    if backend != "tensorrt" and _time(tasks, best) > _WORTH:
        best = (None,) * len(tasks)
    for task, picked in zip(tasks, best, strict=True):
        if picked is None:
            reasons[task] += [
                f"{manifest.precision} {manifest.engine_id}: may read, but a pass of its own saves no time"
                for _, manifest in plans[task]
            ]
    return tuple(
        _choice(task, folder, picked, reasons[task], getattr(rules, task), card)
        for task, picked in zip(tasks, best, strict=True)
    )


def find_readers(
    folder: Path, tasks: Sequence[str], *, backend: str = "auto", policy: Policies | None = None
) -> list[tuple[Path, Manifest]]:
    """The engines of the model in ``folder`` that may read for each of ``tasks``, fast or not."""
    plans, *_ = _qualified(folder, tasks, backend, policy or Policies(), {})
    first, *others = plans.values()
    return [plan for plan in first if all(plan in other for other in others)]


def _qualified(
    folder: Path, tasks: Sequence[str], backend: str, rules: Policies, broken: Mapping[str, str]
) -> tuple[dict[str, list[tuple[Path, Manifest]]], dict[str, list[str]], Mapping[str, Any]]:
    """By task, the engines that may read and why others may not; and the model's card."""
    plans: dict[str, list[tuple[Path, Manifest]]] = {task: [] for task in tasks}
    reasons: dict[str, list[str]] = {task: [] for task in tasks}
    found = find_plans(folder.parent, folder.name) if (folder / "plans").is_dir() else []
    card = load_spec(folder).card if found else {}
    runtimes = _RUNTIMES.get(backend)
    for path, manifest in found:
        if runtimes is not None and manifest.runtime not in runtimes:
            continue
        refusals = {task: _refusal(manifest, task, getattr(rules, task), card) for task in tasks}
        problem = broken.get(manifest.engine_id, "")
        if not problem and not all(refusals.values()):  # its files are looked at only where that can matter
            problem = "; ".join(staleness(manifest, engines=folder.parent))
        for task in tasks:
            own = problem or refusals[task]
            if own:
                reasons[task].append(f"{manifest.precision} {manifest.engine_id}: {own}")
            else:
                plans[task].append((path, manifest))
    return plans, reasons, card


def _refusal(manifest: Manifest, task: str, policy: TaskPolicy, card: Mapping[str, Any]) -> str:
    """Why the engine may not read for the task; empty when it may."""
    if not policy.allows(manifest.precision):
        return f"the policy of {task} does not allow {manifest.precision}"
    stored = manifest.gate.get(task)
    if stored is None:
        return "not judged; run: workbench engines compare"
    try:
        result = GateResult.from_dict(stored)
    except ParameterError as error:
        return str(error)
    metric = policy.metric or DEFAULT_METRICS[task]
    if result.metric != metric:
        return f"judged by {result.metric}, not by {metric}; run: workbench engines compare with -w"
    verdict = result.verdict_at(_budget(manifest, policy))
    if verdict != "pass" and not (
        verdict == "inconclusive"
        and (policy.allow_inconclusive or _shown(manifest, result, policy, card) is not None)
    ):
        return verdict
    # With other instructions a CPU's INT8 products may saturate: a verdict of one is none of another.
    if manifest.runtime == "onnxruntime" and manifest.precision in ("int8", "mixed"):
        here = machine_for("cpu")
        if result.measured_on != here:
            return (
                f"judged on {result.measured_on or 'another machine'}, not on {here}; run: workbench engines compare"
            )
    return "" if result.speed_ratio else "its speed was not measured; run: workbench engines compare"


def _budget(manifest: Manifest, policy: TaskPolicy) -> float:
    return policy.budget if policy.budget is not None else default_budget(manifest.precision)


def _shown(manifest: Manifest, result: GateResult, policy: TaskPolicy, card: Mapping[str, Any]) -> Evidence | None:
    """What the card has where the texts here were too few, unless what was seen of them speaks against it."""
    budget = _budget(manifest, policy)
    if result.delta < -budget:
        return None
    return find_evidence(card, manifest, result.task, metric=result.metric, budget=budget)


def _time(tasks: Sequence[str], picked: Sequence[tuple[Path, Manifest] | None]) -> float:
    """Time of one pass by each engine that is used, FP32's being 1."""
    used: dict[str, float] = {}
    for task, item in zip(tasks, picked, strict=True):
        if item is None:
            used[""] = 1.0
        else:
            ratio = GateResult.from_dict(item[1].gate[task]).speed_ratio or 1.0
            used[item[1].engine_id] = max(used.get(item[1].engine_id, 0.0), 1 / ratio)
    return sum(used.values())


def _id(item: tuple[Path, Manifest] | None) -> str:
    return item[1].engine_id if item is not None else ""


def _choice(
    task: str,
    folder: Path,
    picked: tuple[Path, Manifest] | None,
    reasons: Sequence[str],
    policy: TaskPolicy,
    card: Mapping[str, Any],
) -> Choice:
    if picked is None:
        # On a CPU, INT8 alone is faster.
        which = "" if this_host().gpu else " --precision int8"
        why = "; ".join(reasons) or (
            "no engine that is faster has passed the gate; to build and judge one: "
            f"workbench engines build --model {folder.name}{which} --compare"
        )
        return Choice(task, folder, f"the FP32 model of {folder.name} reads ({why})")
    path, manifest = picked
    why = f"the {manifest.precision} engine {manifest.engine_id} reads: {_findings(manifest, task, policy, card)}"
    return Choice(task, folder, why, path, manifest)


def explain(folder: Path, manifest: Manifest, task: str, policy: Policies | None = None) -> str:
    """What an engine of the model in ``folder`` costs and gains on ``task``, and what lets it read."""
    return _findings(manifest, task, getattr(policy or Policies(), task), load_spec(folder).card)


def _findings(manifest: Manifest, task: str, policy: TaskPolicy, card: Mapping[str, Any]) -> str:
    result = GateResult.from_dict(manifest.gate[task])
    found = (
        f"{result.delta:+.2f} points of {result.metric} "
        f"against FP32 [{result.interval[0]:+.2f}, {result.interval[1]:+.2f}], {result.flips.n:,} of {result.n:,} "
        f"answers differ, {result.speed_ratio or 1.0:.1f} times as fast"
    )
    if result.verdict_at(_budget(manifest, policy)) != "pass":
        shown = _shown(manifest, result, policy, card)
        found += f"; too few texts to tell, {f'the model card has {shown}' if shown else 'which the policy allows'}"
    return found
