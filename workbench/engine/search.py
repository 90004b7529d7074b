"""Mixed precision: which groups of layers stay in FP16, so that INT8 costs no more than the budget.

1. Sensitivity: each group alone is quantized, and the answers are compared with FP32 on calibration texts (mean KL
   divergence of the task's probabilities). No label is looked at, so that the validation set stays fresh for step 2.
2. Return: the most sensitive group goes back to FP16, then the next, and each graph is judged on one half of the
   validation set, until the budget holds.
3. Confirmation: the engine is built with these groups kept back and judged on the other half, by which nothing was
   chosen. Where the set is too small for halves, both steps read all of it, and the recipe says so.

Steps 1 and 2 run the Q/DQ graph in onnxruntime, which computes what the pairs say; what a GPU makes of it is for
step 3 to tell.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workbench.engine.build import build
from workbench.engine.build.graph import calibration_folder, convert
from workbench.engine.compare import compare_engines, model_home, policy_of
from workbench.engine.export.extra import import_onnx
from workbench.engine.gate import GateResult, judge, read_answers, read_validation
from workbench.engine.gate.speed import padded_batches
from workbench.engine.recipe import Recipe, write_recipe
from workbench.errors import ParameterError
from workbench.progress import tqdm
from workbench.runtime import open_session
from workbench.runtime.batching import PADDING_BIAS
from workbench.runtime.manifest import file_sha256
from workbench.runtime.session import Session
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import ModelSpec, load_spec
from workbench.workspace import Policies

__all__ = ["SearchResult", "Sensitivity", "Step", "search"]

logger = logging.getLogger(__name__)

_TEXTS: Final = 192  # calibration texts that sensitivity rests on
_BATCH: Final = 8
_TOKENS: Final = 64  # a usual review, for the attention's part of the work
_INT8: Final = 0.5  # of FP16's time for the same product: twice the operations a second on every GPU with both


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one group alone does: mean KL divergence from FP32 (nats a text, or a token). ``work``: the
    group's part of all products in the layers."""

    group: str
    divergence: float
    work: float


@dataclass(frozen=True)
class Step:
    """An engine with some groups kept back. ``cost``: its estimated time for the products, all in FP16 being 1."""

    keep: tuple[str, ...]
    result: GateResult
    cost: float


@dataclass(frozen=True)
class SearchResult:
    """What was tried and what was chosen; ``chosen`` is None when no choice holds the budget (points).

    ``confirmed``: the verdict on the engine that was built; ``held_out``: on other texts than the groups were chosen
    by. ``recipe`` is None when the engine does not hold the budget.
    """

    task: str
    model: str
    budget: float
    sensitivities: tuple[Sensitivity, ...]
    steps: tuple[Step, ...]
    chosen: Step | None
    confirmed: GateResult | None = None
    engine_id: str | None = None
    recipe: Path | None = None
    held_out: bool = False
    strict: bool = False

    @property
    def holds(self) -> bool:
        """Whether a choice holds the budget, and the engine too where it could be run."""
        if self.chosen is None:
            return False
        if self.confirmed is None or self.confirmed.verdict == "unmeasured":
            return True
        return _holds(self.confirmed, self.budget, strict=self.strict)

    def summary(self) -> str:
        """A few lines for a person."""
        if self.chosen is None:
            last = self.steps[-1].result
            return (
                f"No choice of groups holds {self.task} within {self.budget:g} points (the last one tried: "
                f"{last.delta:+.2f}). Use fp16, or raise the budget in workspace.toml."
            )
        kept = ", ".join(self.chosen.keep) or "none"
        lines = [
            f"Groups kept in FP16: {kept} ({len(self.chosen.keep)} of {len(self.sensitivities)}); estimated time "
            f"{self.chosen.cost:.2f} of FP16's.",
            self.chosen.result.summary(),
        ]
        if self.confirmed is not None:
            said = "Confirmed on" if self.holds else "Not confirmed by"
            lines.append(f"{said} the engine {self.engine_id}: {self.confirmed.summary()}")
            if self.confirmed.verdict == "unmeasured":
                lines.append("Judge it where it runs: workbench engines compare")
            elif self.held_out:
                lines.append(f"It was judged on {self.confirmed.n:,} texts by which nothing was chosen.")
            else:
                lines.append(
                    "It was judged on the texts by which the groups were chosen, for there are too few to keep some "
                    "back: its verdict is rather too good. More texts: --validation FILE"
                )
        if not self.holds:
            lines.append(
                f"{self.task} is not held within {self.budget:g} points{' beyond doubt' if self.strict else ''}, so "
                "nothing is kept. Use fp16, or raise the budget: --budget"
            )
        if self.recipe is not None:
            lines.append(f"Kept in {self.recipe}; the next build with --precision mixed repeats it.")
        return "\n".join(lines)


def search(
    task: str,
    model: str | Path = "reviews",
    *,
    budget: float | None = None,
    policy: Policies | None = None,
    strict: bool = False,
    runtime: str = "onnxruntime",
    target: str | None = None,
    method: str = DEFAULT_RANGE_METHOD,
    validation: Path | None = None,
    calibration: Path | None = None,
    confirm: bool = True,
    progress: bool = True,
) -> SearchResult:
    """Find the layer groups of ``model`` to keep out of INT8 so that ``task`` loses at most ``budget`` points.

    The budget holds when the estimate does not fall below it; with ``strict``, when the verdict is pass, which small
    validation sets may never give. With ``confirm`` the engine is built for ``runtime`` and ``target`` and judged
    where it can run, and the recipe is saved for later builds unless the engine does not hold the budget. Raises
    ParameterError for a task the model does not give, ModelError or CalibrationError when the model cannot be
    quantized, EngineError when the engine cannot be built.
    """
    folder = model_home(model)
    spec = load_spec(folder)
    if task not in spec.outputs:
        raise ParameterError(f"{spec.title} gives {', '.join(spec.outputs)}, not {task!r}. Name one of these.")
    metric, allowed = policy_of(policy, task, "mixed")
    allowed = budget if budget is not None else allowed
    whole = read_validation(task, validation)
    texts, others = whole.halves() or (whole, whole)
    with open_session(folder, backend="onnxruntime") as reference:
        known = read_answers(reference, texts)
        sensitivities = _sensitivities(spec, reference, task, method, calibration, progress=progress)
        ranked = sorted(sensitivities, key=lambda item: -item.divergence)
        steps: list[Step] = []
        chosen = None
        # One group at least stays in INT8: with none the engine is an FP16 one.
        with tqdm(
            total=len(ranked), desc="Returning", unit="group", disable=not progress, delay=2, leave=False
        ) as bar:
            for count in range(len(ranked)):
                keep = tuple(item.group for item in ranked[:count])
                with _quantized(spec, keep, method, calibration) as session:
                    answers = read_answers(session, texts)
                result = judge(
                    task,
                    texts.gold,
                    known,
                    answers,
                    budget=allowed,
                    slices=texts.slices,
                    metric=metric,
                    data_sha256=texts.sha256,
                )
                steps.append(Step(keep, result, _cost(sensitivities, keep)))
                bar.update()
                if _holds(result, allowed, strict=strict):
                    chosen = steps[-1]
                    break
    found = SearchResult(task, spec.title, allowed, tuple(ranked), tuple(steps), chosen, strict=strict)
    if chosen is None or not confirm:
        return found
    manifest = build(
        folder,
        precision="int8",
        runtime=runtime,
        target=target,
        keep=chosen.keep,
        method=method,
        calibration=calibration,
        progress=progress,
    )
    compared = compare_engines(
        folder,
        (task,),
        engines=(manifest.engine_id,),
        validation={task: others},
        policy=_with_budget(policy, task, allowed),
        progress=progress,
    )
    confirmed = compared.engines[0].gate[task]
    measured = confirmed.verdict != "unmeasured"
    found = replace(
        found,
        confirmed=confirmed,
        engine_id=manifest.engine_id,
        held_out=others is not whole and confirmed.data_sha256 == others.sha256,
    )
    if not found.holds:
        return found
    result = confirmed if measured else chosen.result
    path = write_recipe(
        folder,
        Recipe(
            task=task,
            model=spec.title,
            model_sha256=file_sha256(spec.onnx),
            metric=metric,
            budget=allowed,
            method=method,
            keep=chosen.keep,
            delta=result.delta,
            verdict=result.verdict,
            made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            engine_id=manifest.engine_id,
            calibration=manifest.options.get("calibration"),
            held_out=found.held_out,
        ),
    )
    return replace(found, recipe=path)


def _holds(result: GateResult, budget: float, *, strict: bool) -> bool:
    return result.verdict == "pass" if strict else result.delta >= -budget


def _with_budget(policy: Policies | None, task: str, budget: float) -> Policies:
    base = policy or Policies()
    return base.model_copy(update={task: getattr(base, task).model_copy(update={"budget": budget})})


def _sensitivities(
    spec: ModelSpec,
    reference: Session,
    task: str,
    method: str,
    calibration: Path | None,
    *,
    progress: bool,
) -> list[Sensitivity]:
    from workbench.engine.quantize import read_calibration

    work = _work(spec)
    data = read_calibration(calibration_folder(calibration), (task,))
    drawn = np.random.default_rng(7).permutation(len(data))[:_TEXTS]
    batches = padded_batches(reference, [data.texts[at] for at in drawn], _BATCH)
    truth = [_log_shares(reference, batch, task) for batch in batches]
    found = []
    for group in tqdm(work, desc="Sensitivity", unit="group", disable=not progress, delay=2, leave=False):
        others = tuple(name for name in work if name != group)
        with _quantized(spec, others, method, calibration) as session:
            own = [_log_shares(session, batch, task) for batch in batches]
        parts = [_divergence(old, new) for old, new in zip(truth, own, strict=True)]
        found.append(Sensitivity(group, float(np.concatenate(parts).mean()), work[group]))
    return found


@contextmanager
def _quantized(spec: ModelSpec, keep: Collection[str], method: str, calibration: Path | None) -> Iterator[Session]:
    """A session on the Q/DQ graph with some groups kept back. Ranges come from the cache after the first time."""
    graph = convert(
        spec,
        precision="int8",
        form="ort",
        keep=sorted(keep),
        method=method,
        cache=spec.folder / "plans" / "cache",
        calibration=calibration,
    )
    with tempfile.TemporaryDirectory(prefix="workbench-search-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(graph.data)
        for file in ("tokenizer.json", "model.toml"):
            shutil.copyfile(spec.folder / file, folder / file)
        with open_session(folder, backend="onnxruntime") as session:
            yield session


def _log_shares(
    session: Session, batch: tuple[NDArray[np.int32], NDArray[np.float32]], task: str
) -> NDArray[np.float64]:
    """Log probabilities [rows, ..., labels]: of texts, of topics each by itself, or of tokens without padding."""
    ids, bias = batch
    logits = session.run(ids, bias, (task,))[task].astype(np.float64)
    if session.spec.outputs[task].kind == "labels":
        logits = np.stack([logits, np.zeros_like(logits)], axis=-1)  # each label against its absence
    elif logits.ndim == 3:
        logits = logits[bias[:, 0, 0, :] > PADDING_BIAS / 2]
    top = logits.max(axis=-1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))


def _divergence(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL divergence of each row, in nats; summed over topics."""
    values = (np.exp(old) * (old - new)).sum(axis=-1)
    return np.asarray(values.reshape(len(values), -1).sum(axis=1))


def _work(spec: ModelSpec) -> dict[str, float]:
    """Each group's part of the multiplications in the layers, for a text of 64 tokens."""
    onnx = import_onnx()
    from workbench.engine.graphs.graph import Graph
    from workbench.engine.graphs.layers import GROUPS, find_layers

    graph = Graph(onnx.load(str(spec.onnx)))
    sizes: dict[str, float] = {}
    for number, layer in enumerate(find_layers(graph)):
        own = {
            name: float(sum(graph.constants[linear.weight].size for linear in getattr(layer, name)))
            for name in ("qkv", "output", "ffn1", "ffn2")
        }
        # Scores and values: each token with all tokens, twice tokens times width for each; width squared is what the
        # output's matrix has.
        own["attention"] = 2 * _TOKENS * own["output"] ** 0.5
        sizes |= {f"layer{number}.{name}": own[name] for name in GROUPS}
    total = sum(sizes.values())
    return {name: size / total for name, size in sizes.items()}


def _cost(sensitivities: Sequence[Sensitivity], keep: Collection[str]) -> float:
    return sum(item.work * (1 if item.group in keep else _INT8) for item in sensitivities)
