"""The light half: runs model folders. Needs numpy, tokenizers and one backend."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from workbench.errors import EngineError, ModelError
from workbench.runtime.manifest import Manifest, read_manifest
from workbench.runtime.session import Session

__all__ = ["BACKENDS", "BackendChoice", "Session", "open_engine", "open_session"]

logger = logging.getLogger(__name__)

BackendChoice = Literal["auto", "onnxruntime", "tensorrt"]
BACKENDS = ("auto", "onnxruntime", "tensorrt")


def open_session(folder: Path | str, *, backend: str = "auto", threads: int | None = None) -> Session:
    """Load the model folder for ``backend``; "auto" takes the best one that can run it here and logs why.

    Raises ModelError when the folder is incomplete, or the backend is unknown or cannot run here: nothing else is
    chosen behind the caller's back.
    """
    if backend not in BACKENDS:
        raise ModelError(f"No backend is named {backend!r}. Use one of: {', '.join(BACKENDS)}")
    if backend == "tensorrt":
        raise ModelError(
            "The backend tensorrt needs an engine built for this GPU, and building engines is not part of this "
            "version yet. Use backend onnxruntime, which runs the same model on the CPU."
        )
    if backend == "auto":
        logger.info("Backend auto: onnxruntime on the CPU, because no engine is built for %s", folder)
    from workbench.runtime.onnx import OnnxSession

    return OnnxSession(folder, threads=threads)


def open_engine(folder: Path | str, manifest: Manifest | None = None, *, threads: int | None = None) -> Session:
    """Load the engine in ``folder`` (a model folder's plans/<engine id>) for the runtime that it was built for.

    ``manifest``: what ``read_manifest`` gave for it, where the caller has it. Raises EngineError when the engine is
    damaged, was built for another machine or version, its model changed, or its runtime cannot be used here.
    """
    path = Path(folder)
    found = manifest or read_manifest(path)
    if found.runtime != "onnxruntime":
        raise EngineError(
            f"The engine {found.engine_id} is for {found.runtime}, which this version of the workbench builds for "
            f"but does not run. Build one for the CPU: workbench engines build --model {found.model} --precision "
            f"{'int8' if found.precision == 'mixed' else found.precision} --runtime onnxruntime"
        )
    from workbench.runtime.onnx import OnnxSession

    return OnnxSession(path.resolve().parent.parent, engine=path, threads=threads)
