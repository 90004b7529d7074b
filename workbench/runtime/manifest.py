"""Manifests: what lies beside every built engine and says what it was built from, for which machine, and how it was
judged.

    engines/<model>/plans/<engine id>/engine.plan or model.onnx
                                      manifest.json
                                      layers.json       (what the builder says of each layer, where it says it)
    engines/<model>/plans/cache/      ranges and timings that make the next build shorter

A plan is used only through here: its manifest is read first, its bytes must have the hash that the manifest states,
and its runtime and GPU must be those of this machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, cast

from workbench.errors import EngineError, ModelError
from workbench.files import write_text
from workbench.runtime.host import Host, this_host
from workbench.runtime.session import file_sha256, reading_digest
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import load_spec

__all__ = [
    "MANIFEST",
    "Manifest",
    "Profile",
    "engine_id_of",
    "file_sha256",
    "find_plans",
    "model_changes",
    "plan_folders",
    "read_manifest",
    "read_plan",
    "rebuild_command",
    "staleness",
    "verify_plan",
    "write_manifest",
]

logger = logging.getLogger(__name__)

MANIFEST: Final = "manifest.json"
_SCHEMA: Final = 2
_SEAL: Final = "seal"
_DECIDING: Final = (
    "model_sha256",
    "reading_sha256",
    "graph_sha256",
    "precision",
    "recipe",
    "layout",
    "profiles",
    "calibration",
    "options",
    "version_compatible",
    "runtime",
    "runtime_version",
    "gpu",
    "compute_capability",
)
"""The fields that the engine id is made of."""


@dataclass(frozen=True)
class Profile:
    """An optimization profile: the smallest, usual and largest [batch, tokens] an engine takes.

    In the padded layout ``tokens`` are those of each text, padding included; in the packed one those of the batch.
    """

    min: tuple[int, int]
    opt: tuple[int, int]
    max: tuple[int, int]

    def fits(self, batch: int, tokens: int) -> bool:
        """Whether an engine with this profile takes such a batch."""
        return self.min[0] <= batch <= self.max[0] and self.min[1] <= tokens <= self.max[1]

    def as_dict(self) -> dict[str, list[int]]:
        """Plain types, for JSON."""
        return {"min": list(self.min), "opt": list(self.opt), "max": list(self.max)}


@dataclass(frozen=True)
class Manifest:
    """What an engine is.

    ``model_sha256``: of the model folder's model.onnx; ``reading_sha256``: of its tokenizer and how its outputs are
    read (workbench.runtime.session.reading_digest); ``graph_sha256``: of the converted graph that was built.
    ``precision``: "fp32", "fp16", "int8", or "mixed" where the layer groups in ``recipe`` were kept back from INT8.
    ``layout``: "padded" (input_ids [B, S]) or "packed" (all tokens of a batch in one row, without padding).
    ``compute_capability``: the target's, such as "8.9"; ``gpu``, ``driver`` and ``cuda_version`` are None where the
    engine was built for a GPU that was not there. ``calibration``: method, data_sha256, n, ranges_sha256.
    ``options``: what the builder was told beyond its defaults. ``cached``: ranges or timings came from an earlier
    build. ``verified``: "inspector", "executed" or "unverified on target". ``gate``: a result for each task judged.
    ``batching``: how texts are best batched for it here, as measured by a warm-up; None before one.
    """

    engine_id: str
    model: str
    model_version: str
    model_sha256: str
    reading_sha256: str
    graph_sha256: str
    precision: str
    runtime: str
    runtime_version: str
    plan: str
    plan_sha256: str
    plan_bytes: int
    built_at: str
    build_s: float
    verified: str
    recipe: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    calibration: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cuda_version: str | None = None
    driver: str | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    device_memory_bytes: int | None = None
    cached: bool = False
    version_compatible: bool = False
    gate: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layout: str = "padded"
    batching: Mapping[str, Any] | None = None
    schema: int = _SCHEMA

    @property
    def target(self) -> str:
        """Where it runs: "cpu", or like "sm_89"."""
        return "cpu" if self.compute_capability is None else f"sm_{self.compute_capability.replace('.', '')}"

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["recipe"] = list(self.recipe)
        values["profiles"] = [profile.as_dict() for profile in self.profiles]
        values["calibration"] = dict(self.calibration) if self.calibration is not None else None
        values["options"] = dict(self.options)
        values["batching"] = dict(self.batching) if self.batching is not None else None
        values["gate"] = {task: dict(result) for task, result in self.gate.items()}
        return values


def engine_id_of(
    *,
    model_sha256: str,
    reading_sha256: str,
    graph_sha256: str,
    precision: str,
    recipe: tuple[str, ...],
    layout: str,
    profiles: tuple[Profile, ...],
    calibration: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    version_compatible: bool,
    runtime: str,
    runtime_version: str,
    gpu: str | None,
    compute_capability: str | None,
) -> str:
    """16 hex digits of SHA-256 over everything that decides what an engine answers and where it runs."""
    parts = {
        "model": model_sha256,
        "reading": reading_sha256,
        "graph": graph_sha256,
        "precision": precision,
        "recipe": sorted(recipe),
        "layout": layout,
        "profiles": [profile.as_dict() for profile in profiles],
        "calibration": dict(calibration) if calibration is not None else None,
        "options": dict(options),
        "version_compatible": version_compatible,
        "runtime": f"{runtime} {runtime_version}",
        "target": [gpu, compute_capability],
    }
    return hashlib.sha256(_canonical(parts)).hexdigest()[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``folder``/manifest.json atomically, with a seal that shows a change by hand."""
    values = manifest.to_dict()
    values[_SEAL] = _seal(values)
    write_text(folder / MANIFEST, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read ``folder``/manifest.json.

    Raises EngineError when it is missing, damaged, from another version of the workbench, or was changed by hand: the
    seal tells a mistake, not a forger, who could write a new one. Raises it too for an engine that came along when a
    model folder was copied or renamed.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError(f"{folder} has no {MANIFEST}, so it is no engine. {_again(folder)}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise EngineError(f"{path} is damaged: {error}. {_again(folder)}") from None
    if not isinstance(values, dict) or values.get("schema") != _SCHEMA:
        raise EngineError(f"{path} is not of a form that this version of the workbench reads. {_again(folder)}")
    if values.pop(_SEAL, None) != _seal(values):
        raise EngineError(f"{path} was changed after it was written, so nothing in it counts. {_again(folder)}")
    try:
        values["recipe"] = tuple(values["recipe"])
        values["profiles"] = tuple(
            Profile(**{key: cast("tuple[int, int]", tuple(shape)) for key, shape in profile.items()})
            for profile in values["profiles"]
        )
        manifest = Manifest(**values)
    except (TypeError, KeyError, AttributeError) as error:
        raise EngineError(f"{path} is damaged: {error}. {_again(folder)}") from None
    if manifest.engine_id != _own_id(manifest) or folder.resolve().name != manifest.engine_id:
        raise EngineError(
            f"{path} is of the engine {manifest.engine_id}, which is not what lies in {folder}: the folder was "
            f"renamed or put together by hand. {_again(folder)}"
        )
    plans = folder.resolve().parent
    if plans.name == "plans" and plans.parent.name != manifest.model:
        again = rebuild_command(replace(manifest, model=plans.parent.name))
        raise EngineError(
            f"{path} is of the model {manifest.model}, and lies in {plans.parent}, a folder that was copied or "
            f"renamed. Delete {folder} and build it again: {again}"
        )
    return manifest


def plan_folders(engines: Path, model: str) -> list[Path]:
    """The folders of engines of a model, sound or not, in the order of their ids."""
    return sorted(path.parent for path in (engines / model / "plans").glob(f"*/{MANIFEST}"))


def find_plans(engines: Path, model: str) -> list[tuple[Path, Manifest]]:
    """The engines of a model and their folders. One whose manifest cannot be read is left out, with a warning."""
    found = []
    for folder in plan_folders(engines, model):
        try:
            found.append((folder, read_manifest(folder)))
        except EngineError as error:  # noqa: PERF203 - one bad folder hides no other
            logger.warning("%s", error)
    return found


def staleness(
    manifest: Manifest, *, engines: Path, here: Host | None = None, calibration_sha256: str | None = None
) -> tuple[str, ...]:
    """Why the engine should be built again, a reason each; empty when it is fresh.

    ``calibration_sha256``: of the calibration data as it is now, where the caller has it. An engine built for a GPU
    that was not there is not stale because this machine has another or none.
    """
    here = here or this_host()
    reasons = [*model_changes(manifest, engines), *_machine_reasons(manifest, here)]
    if manifest.calibration is not None and calibration_sha256 not in (None, manifest.calibration["data_sha256"]):
        reasons.append("the calibration data changed")
    try:
        _check_file(engines / manifest.model / "plans" / manifest.engine_id, manifest)
    except EngineError as error:
        reasons.append(str(error).partition(". ")[0])
    return tuple(reasons)


def rebuild_command(manifest: Manifest) -> str:
    """The command that builds the engine again."""
    precision = "int8" if manifest.precision == "mixed" else manifest.precision
    words = ["workbench", "engines", "build", "--model", manifest.model, "--precision", precision]
    words += ["--runtime", manifest.runtime]
    if manifest.gpu is None and manifest.compute_capability is not None:
        words += ["--target", manifest.target]
    if manifest.recipe:
        words += ["--keep", ",".join(manifest.recipe)]
    if manifest.calibration is not None and manifest.calibration["method"] != DEFAULT_RANGE_METHOD:
        words += ["--method", str(manifest.calibration["method"])]
    if manifest.version_compatible:
        words.append("--version-compatible")
    for name, value in manifest.options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def read_plan(folder: Path, manifest: Manifest, *, here: Host | None = None) -> bytes:
    """The plan's bytes, checked: what is handed to a runtime is what was hashed.

    Raises EngineError when the plan is missing, truncated, changed, or was built with another version of its runtime
    or for another GPU, be it one of the same compute capability; the message ends with the command that builds it
    again.
    """
    data = _checked_bytes(folder, manifest)
    here = here or this_host()
    again = f"Build it again here: {rebuild_command(manifest)}"
    if problem := _version_problem(manifest, here):
        raise EngineError(f"The engine {manifest.engine_id} was {problem}. {again}")
    if manifest.compute_capability not in (None, here.compute_capability) or manifest.gpu not in (None, here.gpu):
        built_for = f"a GPU of compute capability {manifest.compute_capability}"
        built_for += f" ({manifest.gpu})" if manifest.gpu else ""
        again = (
            f"Build one for this GPU: {_for_this_gpu(manifest)}"
            if here.gpu
            else (f"Use it on its GPU, or build one for the CPU: {_for_cpu(manifest)}")
        )
        raise EngineError(f"The engine {manifest.engine_id} was built for {built_for}; here is {here}. {again}")
    return data


def verify_plan(folder: Path, manifest: Manifest, *, here: Host | None = None) -> None:
    """Check that the plan can be used here; raises EngineError as ``read_plan`` does."""
    read_plan(folder, manifest, here=here)


def _checked_bytes(folder: Path, manifest: Manifest) -> bytes:
    with _plan(folder, manifest) as path:
        data = path.read_bytes()
    _compare(path, manifest, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return data


def _check_file(folder: Path, manifest: Manifest) -> None:
    with _plan(folder, manifest) as path:
        size, sha256 = path.stat().st_size, file_sha256(path)
    _compare(path, manifest, size=size, sha256=sha256)


@contextmanager
def _plan(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """Where the plan lies, for reading: in its own folder, not where a link leads."""
    again = f"Build it again: {rebuild_command(manifest)}"
    if folder.is_symlink() or folder.parent.is_symlink():
        raise EngineError(f"{folder} is a link, or lies behind one, and could lead anywhere. {again}")
    name = manifest.plan
    path = folder / name
    if Path(name).name != name or path.is_symlink() or path.resolve().parent != folder.resolve():
        raise EngineError(f"The manifest of {folder} names a plan outside its folder ({name}). {again}")
    try:
        yield path
    except FileNotFoundError:
        raise EngineError(f"The plan {path} is missing. {again}") from None
    except OSError as error:
        raise EngineError(f"The plan {path} cannot be read: {error.strerror}. {again}") from None


def _compare(path: Path, manifest: Manifest, *, size: int, sha256: str) -> None:
    again = f"Build it again: {rebuild_command(manifest)}"
    if size < manifest.plan_bytes:
        raise EngineError(f"The plan {path} is truncated: {size} of {manifest.plan_bytes} bytes. {again}")
    if sha256 != manifest.plan_sha256:
        raise EngineError(f"The plan {path} is damaged or was changed: its SHA-256 is not the manifest's. {again}")


def model_changes(manifest: Manifest, engines: Path) -> list[str]:
    """What of the model folder is not what the engine was built from and judged with; empty: all is the same."""
    try:
        spec = load_spec(engines / manifest.model)
    except ModelError as error:
        return [str(error).partition(". ")[0].partition("\n")[0]]
    reasons = []
    if file_sha256(spec.onnx) != manifest.model_sha256:
        reasons.append("model.onnx changed")
    if reading_digest(spec) != manifest.reading_sha256:
        reasons.append("the tokenizer, or how outputs are read (model.toml), changed")
    return reasons


def _machine_reasons(manifest: Manifest, here: Host) -> list[str]:
    reasons = []
    if problem := _version_problem(manifest, here):
        reasons.append(problem)
    if manifest.gpu is not None:
        if manifest.gpu != here.gpu or manifest.compute_capability != here.compute_capability:
            reasons.append(f"built for {manifest.gpu} ({manifest.compute_capability}), here is {here}")
        elif manifest.driver != here.driver:
            reasons.append(f"built under driver {manifest.driver}, here is {here.driver}")
    return reasons


def _version_problem(manifest: Manifest, here: Host) -> str | None:
    now, then = here.versions.get(manifest.runtime), manifest.runtime_version
    built = f"built with {manifest.runtime} {then}"
    if now is None:
        return f"{built}, which is not installed here"
    if manifest.runtime == "onnxruntime":
        # Its plans are ONNX: a patch release does not make all scores stale.
        same = _numbers(now)[:2] == _numbers(then)[:2]
    elif manifest.version_compatible:
        same = _numbers(now)[:1] == _numbers(then)[:1] and _numbers(now) >= _numbers(then)
    else:
        same = now == then
    return None if same else f"{built}, here is {now}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _for_this_gpu(manifest: Manifest) -> str:
    return f"workbench engines build --model {shlex.quote(manifest.model)} --precision " + (
        f"{'int8' if manifest.precision == 'mixed' else manifest.precision} --runtime {manifest.runtime}"
    )


def _for_cpu(manifest: Manifest) -> str:
    return _for_this_gpu(manifest).replace(f"--runtime {manifest.runtime}", "--runtime onnxruntime")


def _own_id(manifest: Manifest) -> str:
    return engine_id_of(**{name: getattr(manifest, name) for name in _DECIDING})


def _again(folder: Path) -> str:
    return f"Delete {folder} and build it again: workbench engines build (or workbench engines refresh)"


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(values)).hexdigest()


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
