"""What `workbench engines` does: build several, list, check, prune, refresh."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from workbench.engine.build import build, parse_profile
from workbench.engine.build.graph import PRECISIONS, calibration_sha256
from workbench.engine.gate import is_another_set
from workbench.engine.recipe import read_recipe, recipe_task
from workbench.errors import EngineError, WorkbenchError
from workbench.runtime.host import Host, this_host
from workbench.runtime.manifest import (
    Manifest,
    file_sha256,
    plan_folders,
    read_manifest,
    rebuild_command,
    staleness,
)
from workbench.settings import settings
from workbench.tasks.labels import TASKS
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import MODEL_FILES, ModelSpec, load_spec

__all__ = [
    "EngineState",
    "Refreshed",
    "build_engines",
    "default_runtime",
    "engines_home",
    "list_engines",
    "model_folders",
    "prune_engines",
    "refresh_engines",
]

logger = logging.getLogger(__name__)

_CACHE: Final = "cache"
_MIXED: Final = "mixed"
_SUPERSEDED: Final = "superseded by"


@dataclass(frozen=True)
class EngineState:
    """An engine that lies in ``folder``. ``reasons``: why it is stale; empty when fresh. Without a ``manifest`` that
    can be read, the reason says what is wrong with it."""

    folder: Path
    manifest: Manifest | None
    reasons: tuple[str, ...]

    @property
    def engine_id(self) -> str:
        """16 hex digits."""
        return self.manifest.engine_id if self.manifest is not None else self.folder.name

    @property
    def model(self) -> str:
        """The name of its model folder."""
        return self.folder.parent.parent.name

    @property
    def is_fresh(self) -> bool:
        """Whether it can stay as it is."""
        return not self.reasons

    @property
    def verdicts(self) -> str:
        """The gate's verdict by task; "not judged" without one."""
        gate = self.manifest.gate if self.manifest is not None else {}
        return (
            ", ".join(
                f"{task} {result.get('verdict')}"
                + (" (on another set)" if is_another_set(task, str(result.get("data_sha256") or "")) else "")
                for task, result in sorted(gate.items())
            )
            or "not judged"
        )

    @property
    def command(self) -> str:
        """What builds it again."""
        if self.manifest is None:
            return f"workbench engines prune, then workbench engines build --model {self.model}"
        return rebuild_command(self.manifest)


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did: engines built again (old id, new manifest), and those it could not, with the reason."""

    built: tuple[tuple[str, Manifest], ...]
    failed: tuple[tuple[str, str], ...]
    fresh: int

    def summary(self) -> str:
        """A line for each engine that was stale, and what is left to do."""
        lines = [
            f"{old} is now {new.engine_id} ({new.model}, {new.precision}, {new.target})" for old, new in self.built
        ]
        lines += [f"{engine_id} could not be built again: {reason}" for engine_id, reason in self.failed]
        lines.append(f"{len(self.built)} built again, {self.fresh} were fresh, {len(self.failed)} failed.")
        if self.built:
            lines.append("None of the new ones is judged yet. Next: workbench engines compare")
        return "\n".join(lines)


def engines_home() -> Path:
    """The folder of model folders."""
    return settings().home / "engines"


def model_folders(
    *, model: str | None = None, task: str | None = None, every: bool = False, engines: Path | None = None
) -> list[Path]:
    """The model folders that are meant: one by name or path, those that give ``task``, or every one.

    Raises EngineError when none is meant, or nothing fits; ModelError when a folder is incomplete.
    """
    home = engines or engines_home()
    if model is not None:
        named = home / model
        return [load_spec(named if named.is_dir() or not Path(model).is_dir() else Path(model)).folder]
    if task is not None and task not in TASKS:
        raise EngineError(f"No task is named {task!r}. Tasks: {', '.join(TASKS)}")
    if task is None and not every:
        raise EngineError("Say what to build for: --task sentiment, --model reviews, or --all")
    found = [
        path
        for path in sorted(home.iterdir() if home.is_dir() else ())
        if all((path / name).is_file() for name in MODEL_FILES)
    ]
    if task is not None:
        found = [path for path in found if task in load_spec(path).outputs]
    if not found:
        raise EngineError(
            f"{home} has no model folder{f' that gives {task}' if task else ''}. Get the bundled one back with: git "
            "checkout -- engines"
        )
    return found


def default_runtime(here: Host | None = None) -> str:
    """The runtime to build with where none is named: TensorRT where it is there with a GPU, else onnxruntime."""
    here = here or this_host()
    return "tensorrt" if here.gpu is not None and "tensorrt" in here.versions else "onnxruntime"


def build_engines(
    folders: Iterable[Path],
    precisions: Sequence[str] = PRECISIONS,
    *,
    task: str | None = None,
    runtime: str | None = None,
    profiles: str | None = None,
    keep: Sequence[str] = (),
    method: str = DEFAULT_RANGE_METHOD,
    calibration: Path | None = None,
    progress: bool = True,
    **options: Any,
) -> list[Manifest]:
    """Build every model folder in every precision; ``options`` go to workbench.engine.build.build.

    The precision "mixed" is INT8 with the layer groups kept back that a search found for ``task``, or for each task
    that was searched. ``profiles``: several in the form of ``parse_profile``, with commas between. ``keep`` and
    ``method`` count for INT8 alone. ``calibration``: the folder with calibration texts; default: for "mixed" the one
    that was searched with, else the project's. Stops at the first that fails: what was built before stays. Raises as
    ``build`` does.
    """
    wanted = list(dict.fromkeys(precisions))
    if unknown := [name for name in wanted if name not in (*PRECISIONS, _MIXED)]:
        raise EngineError(f"No precision is named {unknown[0]!r}. Use any of: {', '.join((*PRECISIONS, _MIXED))}")
    chosen = runtime or default_runtime()
    made = []
    for folder in folders:
        spec = load_spec(folder)
        own = [parse_profile(text) for text in profiles.split(",")] if profiles else None
        made += [
            build(
                folder,
                runtime=chosen,
                profiles=own,
                precision=form.precision,
                keep=form.keep,
                method=form.method,
                calibration=form.calibration,
                progress=progress,
                **options,
            )
            for precision in wanted
            for form in _forms(spec, precision, task, _Form(precision, tuple(keep), method, calibration))
        ]
    return made


class _Form(NamedTuple):
    """What an engine is converted to: ``method`` of the ranges, ``calibration`` the folder of their texts."""

    precision: str
    keep: tuple[str, ...]
    method: str
    calibration: Path | None


def _forms(spec: ModelSpec, precision: str, task: str | None, asked: _Form) -> list[_Form]:
    """Each engine that ``precision`` means, where ``asked`` is what the user said."""
    if precision != _MIXED:
        return [asked if precision == "int8" else asked._replace(keep=())]
    tasks = [task] if task is not None else list(spec.outputs)
    recipes = [recipe for name in tasks if (recipe := read_recipe(spec.folder, name)) is not None]
    if not recipes:
        raise EngineError(
            f"No search says which layer groups of {spec.name} to keep back for {' or '.join(tasks)}. Search first: "
            f"workbench engines search --task {tasks[0]}"
        )
    folders = [Path(recipe.calibration) if recipe.calibration is not None else None for recipe in recipes]
    return list(
        dict.fromkeys(
            _Form("int8", recipe.keep, recipe.method, asked.calibration or folder)
            for recipe, folder in zip(recipes, folders, strict=True)
        )
    )


def list_engines(engines: Path | None = None, *, model: str | None = None) -> list[EngineState]:
    """Every engine of every model (or one), with why it is stale. Damaged ones are listed too; none raises.

    Of several that the same command builds, the newest that is fresh counts, and the others are stale.
    """
    home, here = engines or engines_home(), this_host()
    names = [model] if model is not None else sorted({path.parent.name for path in home.glob("*/plans")})
    states = []
    for name in names:
        data = _calibration_of(home / name)
        states += _superseded([_state(folder, home, here, data) for folder in plan_folders(home, name)])
    return states


def prune_engines(
    engines: Path | None = None, *, model: str | None = None, caches: bool = False
) -> list[EngineState]:
    """Delete the engines that are stale or damaged, and with ``caches`` the kept ranges and timings.

    Gives the engines that are gone. What an interrupted build left behind goes too.
    """
    home = engines or engines_home()
    gone = [state for state in list_engines(home, model=model) if not state.is_fresh]
    for state in gone:
        shutil.rmtree(state.folder)
    for plans in home.glob(f"{model or '*'}/plans"):
        for left in plans.glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)
        if caches:
            shutil.rmtree(plans / _CACHE, ignore_errors=True)
    return gone


def refresh_engines(
    engines: Path | None = None, *, model: str | None = None, progress: bool = True, **options: Any
) -> Refreshed:
    """Build again what is stale, with the same precision, recipe and options.

    The old engine goes when the new one is there; one that a newer of its kind supersedes just goes. One that fails
    does not stop the others. ``options`` go to workbench.engine.build.build.
    """
    home = engines or engines_home()
    built, failed, fresh = [], [], 0
    for state in list_engines(home, model=model):
        if state.is_fresh:
            fresh += 1
            continue
        if state.reasons[-1].startswith(_SUPERSEDED):
            shutil.rmtree(state.folder)
            continue
        try:
            manifest = _rebuild(state, home, progress=progress, **options)
        except WorkbenchError as error:
            failed.append((state.engine_id, str(error)))
            continue
        if manifest.engine_id != state.engine_id:
            shutil.rmtree(state.folder)
        built.append((state.engine_id, manifest))
    return Refreshed(tuple(built), tuple(failed), fresh)


def _rebuild(state: EngineState, home: Path, *, progress: bool, **options: Any) -> Manifest:
    old = state.manifest
    if old is None:
        raise EngineError(f"{state.reasons[0]}. Delete it with: workbench engines prune")
    kept = dict(old.options)
    profiles = kept.pop("profile", None)
    if "calibration" in kept:
        kept["calibration"] = Path(kept["calibration"])
    folder = home / old.model
    if old.recipe and file_sha256(folder / "model.onnx") != old.model_sha256:
        task = recipe_task(folder, old.recipe) or next(iter(load_spec(folder).outputs))
        raise EngineError(
            f"the layer groups that it keeps back ({', '.join(old.recipe)}) were chosen for another model.onnx than "
            f"the one in {folder}. Search again: workbench engines search --task {task} --model {old.model}"
        )
    [manifest] = build_engines(
        [folder],
        ["int8" if old.precision == "mixed" else old.precision],
        runtime=old.runtime,
        target=old.target if old.gpu is None and old.compute_capability is not None else None,
        keep=old.recipe,
        profiles=profiles,
        method=old.calibration["method"] if old.calibration is not None else DEFAULT_RANGE_METHOD,
        version_compatible=old.version_compatible,
        force=True,
        progress=progress,
        **{**kept, **options},
    )
    return manifest


def _calibration_of(folder: Path) -> Callable[[str | None], str | None]:
    """What the hash of a model's calibration texts is now, by their folder; each is read once."""

    @cache
    def sha256(named: str | None) -> str | None:
        try:
            return calibration_sha256(load_spec(folder), Path(named) if named is not None else None)
        except WorkbenchError:
            return None

    return sha256


def _superseded(states: list[EngineState]) -> list[EngineState]:
    """``states``, where an engine that is not the one to keep of its kind has that as a reason."""
    best: dict[str, EngineState] = {}
    for state in states:
        if state.manifest is not None:
            best[state.command] = max(state, best.get(state.command, state), key=_worth)
    return [
        replace(state, reasons=(*state.reasons, f"{_SUPERSEDED} {best[state.command].engine_id}"))
        if state.manifest is not None and best[state.command] is not state
        else state
        for state in states
    ]


def _worth(state: EngineState) -> tuple[bool, str, str]:
    """A newer engine is the one to keep, unless it is damaged, or of another model or machine."""
    return state.is_fresh, state.manifest.built_at if state.manifest is not None else "", state.engine_id


def _state(folder: Path, home: Path, here: Host, data: Callable[[str | None], str | None]) -> EngineState:
    try:
        manifest = read_manifest(folder)
    except EngineError as error:
        return EngineState(folder, None, (str(error).partition(". ")[0],))
    now = data(manifest.options.get("calibration")) if manifest.calibration is not None else None
    reasons = staleness(manifest, engines=home, here=here, calibration_sha256=now)
    return EngineState(folder, manifest, reasons)
