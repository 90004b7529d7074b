"""The light half: runs model folders. Needs numpy, tokenizers and one backend."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from workbench.errors import ModelError
from workbench.runtime.host import this_host
from workbench.runtime.manifest import Manifest, find_plans, read_manifest, staleness
from workbench.runtime.session import Session
from workbench.tasks.spec import load_spec

__all__ = ["BACKENDS", "BackendChoice", "Session", "open_engine", "open_session"]

logger = logging.getLogger(__name__)

BackendChoice = Literal["auto", "onnxruntime", "tensorrt"]
BACKENDS = ("auto", "onnxruntime", "tensorrt")


def open_session(folder: Path | str, *, backend: str = "auto", threads: int | None = None) -> Session:
    """Load the model folder for ``backend``; "auto" takes the best one that can run it here and logs why.

    "tensorrt" takes the newest fresh engine that was built for the GPU here, FP16 before FP32 before INT8; which one
    may read for a task is for the policies of workbench.scoring. Raises ModelError when the folder is incomplete, or
    the backend is unknown or cannot run here: nothing else is chosen behind the caller's back.
    """
    if backend not in BACKENDS:
        raise ModelError(f"No backend is named {backend!r}. Use one of: {', '.join(BACKENDS)}")
    if backend == "tensorrt":
        path, manifest = _gpu_engine(Path(folder))
        logger.info("The %s engine %s runs for %s", manifest.precision, manifest.engine_id, folder)
        return open_engine(path, manifest, threads=threads)
    if backend == "auto":
        logger.info("Backend auto: onnxruntime on the CPU, because it needs no engine for %s", folder)
    from workbench.runtime.onnx import OnnxSession

    return OnnxSession(folder, threads=threads)


def open_engine(folder: Path | str, manifest: Manifest | None = None, *, threads: int | None = None) -> Session:
    """Load the engine in ``folder`` (a model folder's plans/<engine id>) for the runtime that it was built for.

    ``manifest``: what ``read_manifest`` gave for it, where the caller has it. Raises EngineError when the engine is
    damaged, was built for another machine or version, its model changed, or its runtime cannot be used here.
    """
    path = Path(folder)
    found = manifest or read_manifest(path)
    model = path.resolve().parent.parent
    if found.runtime == "onnxruntime":
        from workbench.runtime.onnx import OnnxSession

        return OnnxSession(model, engine=path, threads=threads)
    from workbench.runtime.tensorrt import TensorRtSession

    return TensorRtSession(model, engine=path, manifest=found)


def _gpu_engine(folder: Path) -> tuple[Path, Manifest]:
    """The engine that stands for the model on this machine's GPU. Raises ModelError where there is none."""
    spec, here = load_spec(folder), this_host()
    root = spec.folder.resolve()
    reasons = []
    fresh = []
    for path, manifest in find_plans(root.parent, root.name):
        if manifest.runtime == "onnxruntime":
            continue
        problems = staleness(manifest, engines=root.parent, here=here)
        if manifest.compute_capability != here.compute_capability:
            problems = (*problems, f"built for {manifest.target}, here is {here}")
        if problems:
            reasons.append(f"{manifest.precision} {manifest.engine_id}: {problems[0]}")
        else:
            fresh.append((path, manifest))
    if not fresh:
        why = f"every one is stale or of another GPU ({'; '.join(reasons)})" if reasons else "none is built"
        raise ModelError(
            f"The backend tensorrt needs an engine of {root.name} that was built for this GPU, and {why}. Build one "
            f"on this machine: workbench engines build --model {root.name} --precision fp16 --runtime tensorrt. Use "
            "backend onnxruntime to run the same model on the CPU."
        )
    order = {"fp16": 0, "fp32": 1, "mixed": 2, "int8": 3}
    newest = sorted(fresh, key=lambda item: item[1].built_at, reverse=True)
    return min(newest, key=lambda item: (order.get(item[1].precision, 4), item[1].layout != "packed"))
