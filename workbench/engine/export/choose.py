"""Which model folder serves a task."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Final

from workbench.engine.export.checkpoint import export_checkpoint, model_name
from workbench.engine.export.source import hash_checkpoint, is_checkpoint
from workbench.errors import ModelError
from workbench.settings import settings
from workbench.tasks.spec import MODEL_FILES
from workbench.workspace import ModelChoice, Workspace

__all__ = ["model_folder"]

_LOG = logging.getLogger(__name__)

_FORMAT: Final = 1
"""Raised when an export comes out differently, so that kept ones are made again."""


def model_folder(choice: ModelChoice, task: str, workspace: Workspace) -> Path:
    """The folder with model.onnx, tokenizer.json and model.toml that ``choice`` names for ``task``.

    A checkpoint is exported once and kept under ``models/`` in the workspace: a folder for as long as its files and
    the labels stay the same, one from the hub for good (model.toml says its commit; delete the kept folder to fetch
    it again). Raises ModelError when the folder is missing or incomplete, or as ``export_checkpoint`` does.
    """
    if choice.huggingface is not None:
        return _exported(choice.huggingface, "hub", choice, task, workspace)
    if choice.path is not None:
        folder = (workspace.root / Path(choice.path).expanduser()).resolve()
        if is_checkpoint(folder) and not (folder / "model.toml").is_file():
            return _exported(folder, hash_checkpoint(folder), choice, task, workspace)
        where = f'[models.{task}] path = "{choice.path}"'
    else:
        folder = settings().home / "engines" / str(choice.bundled)
        where = f'[models.{task}] bundled = "{choice.bundled}"'
    absent = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if absent:
        raise ModelError(
            f"{where} in workspace.toml means {folder}, which has no {', '.join(absent)}. Name a folder "
            f"with {', '.join(MODEL_FILES)}, or a Hugging Face checkpoint (config.json, weights, tokenizer.json)."
        )
    if choice.labels:
        raise ModelError(
            f"{where} in workspace.toml is a finished model; its labels stand in {folder / 'model.toml'}. Take "
            "labels out of workspace.toml."
        )
    return folder


def _exported(source: str | Path, version: str, choice: ModelChoice, task: str, workspace: Workspace) -> Path:
    key = json.dumps([_FORMAT, str(source) if version == "hub" else "", version, task, sorted(choice.labels.items())])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    folder = workspace.root / "models" / f"{model_name(str(source))}-{digest}"
    if _complete(folder):
        return folder
    _LOG.info("Exporting %s for %s to %s; this is done once", source, task, folder)
    try:
        return export_checkpoint(source, folder, task=task, labels=choice.labels)
    except (ModelError, OSError):
        # Another process may have finished the same export meanwhile; then its folder is as good.
        if _complete(folder):
            return folder
        raise


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in MODEL_FILES)
