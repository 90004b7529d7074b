"""What a search found, kept beside the engines: engines/<model>/plans/recipe-<task>.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from workbench.errors import EngineError
from workbench.files import write_text
from workbench.runtime.manifest import file_sha256

__all__ = ["Recipe", "read_recipe", "recipe_path", "recipe_task", "write_recipe"]

_SCHEMA: Final = 1


@dataclass(frozen=True)
class Recipe:
    """The layer groups that stay out of INT8 so that ``task`` loses at most ``budget`` points by ``metric``.

    ``delta`` and ``verdict`` are those of the engine with them, or where it could not be run, of its graph;
    ``held_out``: on other texts than the groups were chosen by. ``method`` is that of the ranges, ``calibration`` the
    folder of their texts where it is not the project's; ``engine_id`` names the engine that confirmed it, where one
    was built. It holds for the network with ``model_sha256`` alone.
    """

    task: str
    model: str
    model_sha256: str
    metric: str
    budget: float
    method: str
    keep: tuple[str, ...]
    delta: float
    verdict: str
    made_at: str
    engine_id: str | None = None
    calibration: str | None = None
    held_out: bool = False


def recipe_path(folder: Path, task: str) -> Path:
    """Where the recipe of a model folder and a task lies."""
    return folder / "plans" / f"recipe-{task}.json"


def write_recipe(folder: Path, recipe: Recipe) -> Path:
    """Keep ``recipe``; the one before it is replaced."""
    path = recipe_path(folder, recipe.task)
    data: Mapping[str, Any] = {"schema": _SCHEMA, **asdict(recipe)}
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    return path


def read_recipe(folder: Path, task: str) -> Recipe | None:
    """The recipe of a task; None where no search was made.

    Raises EngineError when the file is damaged, or when the model is another one than was searched.
    """
    path = recipe_path(folder, task)
    again = f"Search again: workbench engines search --task {task} --model {folder.name}"
    try:
        recipe = _read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineError(f"{path} cannot be read: {error}. {again}") from None
    if recipe.model_sha256 != file_sha256(folder / "model.onnx"):
        raise EngineError(f"{path} was found for another model.onnx than the one in {folder}. {again}")
    return recipe


def recipe_task(folder: Path, keep: Sequence[str]) -> str | None:
    """The task that the layer groups ``keep`` were found for, be it for another model.onnx; None where none says."""
    for path in sorted((folder / "plans").glob("recipe-*.json")):
        try:
            recipe = _read(path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
        if sorted(recipe.keep) == sorted(keep):
            return recipe.task
    return None


def _read(path: Path) -> Recipe:
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.pop("schema") != _SCHEMA:
        raise ValueError("another form")
    return Recipe(**{**data, "keep": tuple(data["keep"])})
