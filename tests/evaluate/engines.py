"""Every engine that is present beside FP32, on the test parts and the project's validation sets.

    python -m tests.evaluate engines --data ../shared/data

Reading and judging are two steps. ``--answers DIR`` keeps what each engine said in a small file, made where the
engine runs (``--only-read``); the tables are made from such files anywhere (``--only-judge``). ``--pack FILE`` writes
the texts and labels for a machine without the data folder, ``--sets FILE`` reads them there. ``--card`` writes the
verdicts into the model's card.

The reference is the FP32 model folder in onnxruntime, as in `workbench engines compare`; the statistics and the
budgets (FP16 0.3 points, INT8 1.0) are the gate's. Of sets with one topic a text the likeliest topic is the answer
and accuracy the metric; all else is judged by the gate's default metric of its task. ``all entities`` puts the public
entity sets together, each with the types that it annotates.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.evaluate.engine_answers import Answers, read_engine
from tests.evaluate.model_sets import LabelledSet, fingerprint
from workbench.engine.gate import GateResult, default_budget, judge, machine_for, processor
from workbench.engine.gate.card import DECIDING, conversion
from workbench.errors import EngineError, ModelError
from workbench.runtime import open_engine, open_session
from workbench.runtime.manifest import Manifest, file_sha256, find_plans
from workbench.runtime.onnx import usable_cores
from workbench.runtime.session import Session, reading_digest

__all__ = ["Judged", "judge_engines", "read_engines", "report", "split_reference", "stored"]

_REFERENCE = "reference"
_POOLED = "all entities"
_MODEL = ("model_sha256", "reading_sha256")
"""What says that two answers are of the same model: its network, and its tokenizer, thresholds and temperatures."""


@dataclass(frozen=True)
class Judged:
    """An engine and its verdicts by set; ``abouts`` says which part of its data each set is."""

    about: Mapping[str, Any]
    results: Mapping[str, GateResult]
    abouts: Mapping[str, str]

    @property
    def title(self) -> str:
        """Precision, runtime, target, and what was kept back."""
        about = self.about
        kept = f", {len(about['recipe'])} groups kept back" if about["recipe"] else ""
        how = f" ({about['method']})" if about["method"] else ""
        layout = "" if about["layout"] == "padded" else f" {about['layout']}"
        where = f"{about['runtime']} {about['runtime_version']}, {about['target']}{layout}"
        return f"{about['precision'].upper()}{how}{kept}, {where}, read on {about['machine']}"


def read_engines(
    folder: Path,
    sets: Sequence[LabelledSet],
    *,
    precisions: Sequence[str] | None = None,
    runtime: str | None = None,
    engines: Sequence[str] | None = None,
    keep: Path | None = None,
    progress: bool = True,
) -> tuple[Answers, list[Answers]]:
    """The answers of the FP32 model in ``folder`` and of its engines, as far as they run here.

    With ``keep``, what a file there says of the same texts is not read again, and what is read is written there.
    """
    known = {answers.about["engine_id"]: answers for answers in stored(keep)} if keep is not None else {}
    prints = {each.name: fingerprint(each) for each in sets}
    tasks = {each.name: each.task for each in sets}

    def answers(engine_id: str, about: Mapping[str, Any], session: Session) -> Answers:
        old = known.get(engine_id)
        wanted = {name: p for name, p in prints.items() if tasks[name] in session.spec.outputs}
        if old is not None and _same_model(old.about, about) and old.prints == wanted:
            return old
        new = read_engine(session, sets, about, progress=progress)
        if keep is not None:
            new.write(keep / f"{engine_id}.npz", tasks)
        return new

    with open_session(folder, backend="onnxruntime") as session:
        first = answers(_REFERENCE, _about_reference(folder, session), session)
    found = []
    for path, manifest in find_plans(folder.parent, folder.name):
        if precisions is not None and manifest.precision not in precisions:
            continue
        if runtime is not None and manifest.runtime != runtime:
            continue
        if engines is not None and not any(manifest.engine_id.startswith(asked) for asked in engines):
            continue
        try:
            with open_engine(path, manifest) as session:
                found.append(answers(manifest.engine_id, _about_engine(manifest), session))
        except (EngineError, ModelError) as error:
            warnings.warn(f"{manifest.precision} {manifest.engine_id} is left out: {error}", stacklevel=2)
    return first, found


def stored(folder: Path) -> list[Answers]:
    """All answers kept in ``folder``. Raises ValueError when one cannot be read."""
    return [Answers.read(file) for file in sorted(folder.glob("*.npz")) if not file.name.endswith(".part.npz")]


def split_reference(answers: Iterable[Answers]) -> tuple[Answers, list[Answers]]:
    """The reference and the others. Raises ValueError when it is missing."""
    several = list(answers)
    for item in several:
        if item.about["engine_id"] == _REFERENCE:
            return item, [other for other in several if other is not item]
    raise ValueError(
        "The answers of the FP32 model, reference.npz, are missing: every run with --answers writes them"
    )


def judge_engines(reference: Answers, engines: Sequence[Answers], sets: Sequence[LabelledSet]) -> list[Judged]:
    """The gate's verdict on each engine and set. Raises ValueError when answers belong to other texts or models."""
    judged = []
    for item in engines:
        if not _same_model(item.about, reference.about):
            raise ValueError(
                f"The engine {item.about['engine_id']} is of another model than the reference, or one with another "
                "tokenizer or other thresholds. Read both again: --only-read"
            )
        own = [each for each in sets if each.name in item.sets and each.name in reference.sets]
        for each in own:
            if not fingerprint(each) == item.prints[each.name] == reference.prints[each.name]:
                raise ValueError(f"{each.name}: the answers of {item.about['engine_id']} belong to other texts")
        budget = default_budget(item.about["precision"])
        results = {each.name: _judge(each, reference, item, budget) for each in own}
        together = [each for each in own if each.task == "entities" and not each.name.startswith("own_")]
        if len(together) > 1:
            results[_POOLED] = _judge_together(together, reference, item, budget)
        abouts = {each.name: each.about for each in own} | {_POOLED: "the four above"}
        judged.append(Judged(item.about, results, abouts))
    order = ("fp32", "fp16", "int8", "mixed")
    return sorted(judged, key=lambda each: (each.about["runtime"], order.index(each.about["precision"])))


def _same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in _MODEL)


def _judge(each: LabelledSet, reference: Answers, item: Answers, budget: float) -> GateResult:
    slices = {
        name: values
        for name, values in (
            ("language", [text.language for text in each.texts]),
            ("stratum", [text.stratum for text in each.texts]),
        )
        if all(values)
    }
    return judge(
        each.task,
        [text.label for text in each.texts],
        reference.sets[each.name],
        item.sets[each.name],
        budget=budget,
        metric="accuracy" if each.single else None,
        slices=slices,
        data_sha256=each.sha256,
    )


def _judge_together(sets: Sequence[LabelledSet], reference: Answers, item: Answers, budget: float) -> GateResult:
    def known(each: LabelledSet, answers: Sequence[Any]) -> list[Any]:
        return [tuple(span for span in found or () if span[2] in each.labels) for found in answers]

    return judge(
        "entities",
        [text.label for each in sets for text in each.texts],
        [answer for each in sets for answer in known(each, reference.sets[each.name])],
        [answer for each in sets for answer in known(each, item.sets[each.name])],
        budget=budget,
        slices={"set": [each.name for each in sets for _ in each.texts]},
    )


def _about_reference(folder: Path, session: Session) -> dict[str, Any]:
    return {
        "engine_id": _REFERENCE,
        "model": session.spec.title,
        "model_sha256": file_sha256(folder / "model.onnx"),
        "reading_sha256": reading_digest(session.spec),
        "precision": "fp32",
        "runtime": "onnxruntime",
        "target": "cpu",
        **_here("cpu"),
    }


def _about_engine(manifest: Manifest) -> dict[str, Any]:
    return {
        "engine_id": manifest.engine_id,
        "model": f"{manifest.model} {manifest.model_version}",
        "runtime_version": manifest.runtime_version,
        "target": manifest.target,
        **conversion(manifest),
        **_here(manifest.target),
    }


def _here(target: str) -> dict[str, Any]:
    machine = machine_for(target)
    if machine == processor():
        machine += f", {usable_cores()} cores"
    return {"machine": machine, "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat()}


# --- Markdown ----------------------------------------------------------------------------------------------------


def report(judged: Sequence[Judged]) -> str:
    """A table for each engine, and what in it misses the budget."""
    return "\n\n".join(_table(each) for each in judged) if judged else "No engine was read. Build some first."


def _table(each: Judged) -> str:
    lines = [
        f"### {each.title}",
        "",
        "| task | set | n | metric | FP32 | engine | delta, points | 95 % interval | answers that differ "
        "| lost / gained | McNemar p | verdict | texts needed | data SHA-256 |",
        "|---" * 14 + "|",
    ]
    for name, item in each.results.items():
        needed = f"{item.needed:,}" if item.needed else "–"
        part = each.abouts[name]
        verdict = item.verdict if item.verdict == "pass" else f"**{item.verdict}**"
        lines.append(
            f"| {item.task} | {name} ({part}) | {item.n:,} | {item.metric.replace('_', ' ')} | {item.reference:.2f} "
            f"| {item.candidate:.2f} | {item.delta:+.2f} | {item.interval[0]:+.2f} to {item.interval[1]:+.2f} "
            f"| {item.flips.n:,} ({item.flips.rate:.2f} %) | {item.lost} / {item.gained} | {item.mcnemar_p:.2g} "
            f"| {verdict} | {needed} | {item.data_sha256[:12] or '–'} |"
        )
    return "\n".join([*lines, "", _said(each)])


def _said(each: Judged) -> str:
    """Where the budget is missed, by the estimate or for want of texts."""
    budget = default_budget(each.about["precision"])
    over = [name for name, item in each.results.items() if item.delta < -budget]
    large = [name for name, item in each.results.items() if item.n >= DECIDING]
    open_ = [name for name in large if each.results[name].verdict != "pass"]
    told = f"Budget {budget:g} points: "
    told += f"missed by the estimate on {', '.join(over)}; " if over else "held by every estimate; "
    if not large:
        return f"{told}no set has {DECIDING:,} texts or more."
    return told + (
        f"without a pass on {', '.join(open_)} of {DECIDING:,} texts or more."
        if open_
        else f"passed on every set of {DECIDING:,} texts or more."
    )
