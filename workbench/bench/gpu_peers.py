"""Who takes part in ``workbench bench gpu``: commands, environments, and what each can be asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workbench.bench.gpu_result import COMPILED, FP32, PIPELINE
from workbench.bench.process import clean_environment
from workbench.errors import ParameterError, WorkbenchError
from workbench.runtime.host import Host, this_host
from workbench.runtime.manifest import Manifest, find_plans, staleness

__all__ = ["ABSENT_ORT", "KINDS", "PeerPlan", "check_kinds", "engines_of", "plan_peers"]

KINDS: Final = ("ours", "torch", "compile", "torch-fp32", "pipeline", "onnxruntime")
"""What --peers names."""

ABSENT_ORT: Final = "onnxruntime-gpu"

_HERE: Final = Path(__file__).resolve().parent
_PRECISIONS: Final = ("fp16", "int8")
_ASK_ORT: Final = (
    "import onnxruntime as o; raise SystemExit('CUDAExecutionProvider' not in o.get_available_providers())"
)


@dataclass(frozen=True)
class PeerPlan:
    """A peer before it is started. ``facts``: what its record says of it from the start.

    ``network``, ``file``: whether it takes tokens, and files. ``compiles``: its warm-up takes long.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    facts: Mapping[str, Any]
    network: bool = True
    file: bool = True
    compiles: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is the workbench."""
        return self.kind == "ours"


def check_kinds(names: Sequence[str]) -> tuple[str, ...]:
    """``names`` in the order of KINDS. Raises ParameterError for one that is none, or when there are none."""
    if unknown := [name for name in names if name not in KINDS]:
        raise ParameterError(f"No peer is named {unknown[0]!r}. Use any of: --peers {','.join(KINDS)}")
    if not names:
        raise ParameterError(f"No peer was named. Use any of: --peers {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in names)


def engines_of(folder: Path, here: Host | None = None) -> list[tuple[Path, Manifest]]:
    """The engines that are measured: fresh ones for this GPU in FP16 and INT8, the newest of each layout."""
    here = here or this_host()
    newest: dict[tuple[str, str], tuple[Path, Manifest]] = {}
    for path, manifest in find_plans(folder.parent, folder.name):
        fits = manifest.runtime in ("tensorrt", "tensorrt-rtx") and manifest.precision in (*_PRECISIONS, "mixed")
        if not fits or staleness(manifest, engines=folder.parent, here=here):
            continue
        key = (manifest.precision, manifest.layout)
        if key not in newest or newest[key][1].built_at < manifest.built_at:
            newest[key] = (path, manifest)
    return [newest[key] for key in sorted(newest)]


def plan_peers(
    folder: Path,
    kinds: Sequence[str],
    *,
    texts: Path,
    work: Path,
    device: str,
    torch_python: Path | None,
    torch_environment: Mapping[str, str],
) -> tuple[list[PeerPlan], dict[str, str]]:
    """The peers that can be started for the model in ``folder``, and why others cannot (name to reason).

    Ours get this process's environment, which TensorRT may need; the others a clean one, so that nothing of it
    reaches them.
    """
    plans: list[PeerPlan] = []
    absent: dict[str, str] = {}
    if "ours" in kinds:
        plans += _ours(folder, texts, device)
        if not plans:
            absent["workbench"] = (
                f"no fresh TensorRT engine of {folder.name} is built. Build some: workbench engines build --model "
                f"{folder} --precision fp16,int8 --runtime tensorrt, or give --build"
            )
    clean = clean_environment(TORCHINDUCTOR_CACHE_DIR=str(work / "inductor"), **torch_environment)
    python = str(torch_python or sys.executable)
    plans += _torch(folder, kinds, texts, device, python, clean)
    if "onnxruntime" in kinds:
        plan = _onnxruntime(folder, texts, work, device, [(python, clean), (sys.executable, _own_environment())])
        if isinstance(plan, PeerPlan):
            plans.append(plan)
        else:
            absent[ABSENT_ORT] = plan
    return plans, absent


def _ours(folder: Path, texts: Path, device: str) -> Iterator[PeerPlan]:
    command = (sys.executable, "-m", "workbench.bench.peer_gpu_ours", str(folder), str(texts))
    if device == "cpu":
        facts = {"ours": True, "precision": "fp32", "layout": "padded"}
        yield PeerPlan("workbench FP32, onnxruntime", "ours", (*command, "-"), _own_environment(), facts)
        return
    for path, manifest in engines_of(folder):
        facts = {
            "ours": True,
            "precision": manifest.precision,
            "layout": manifest.layout,
            "engine_id": manifest.engine_id,
            "plan_mb": manifest.plan_bytes / 1e6,
        }
        name = f"workbench {manifest.precision.upper()} {manifest.layout}"
        yield PeerPlan(name, "ours", (*command, str(path)), _own_environment(), facts)


def _torch(
    folder: Path, kinds: Sequence[str], texts: Path, device: str, python: str, environment: Mapping[str, str]
) -> Iterator[PeerPlan]:
    def plan(kind: str, name: str, way: str, **more: bool) -> PeerPlan:
        script = str(_HERE / "peer_gpu_torch.py")
        facts = {"precision": "fp32" if "fp16" not in way else "fp16"}
        return PeerPlan(
            name, kind, (python, script, str(folder), str(texts), way, device), environment, facts, **more
        )

    if "torch" in kinds:
        yield plan("torch", "torch FP16 eager", "eager-fp16")
    if "compile" in kinds:
        yield plan("compile", COMPILED, "compile-fp16", compiles=True)
    if "torch-fp32" in kinds:
        yield plan("torch-fp32", FP32, "eager-fp32")
    if "pipeline" in kinds:
        yield plan("pipeline", PIPELINE, "pipeline", network=False, file=False)
        yield plan("pipeline", f"{PIPELINE}, batch_size=32", "pipeline-32", network=False, file=False)


def _onnxruntime(
    folder: Path, texts: Path, work: Path, device: str, interpreters: Sequence[tuple[str, Mapping[str, str]]]
) -> PeerPlan | str:
    for python, environment in interpreters:
        if device == "cpu" or _has_cuda(python, environment):
            try:
                graph = folder / "model.onnx" if device == "cpu" else _half(folder, work)
            except WorkbenchError as error:
                return str(error)
            script = str(_HERE / "peer_gpu_ort.py")
            command = (python, script, str(folder), str(texts), str(graph), device)
            facts = {"precision": "fp16" if device == "cuda" else "fp32"}
            return PeerPlan("onnxruntime-gpu FP16", "onnxruntime", command, environment, facts)
    return "neither interpreter has an onnxruntime that is built for CUDA (pip install onnxruntime-gpu)"


def _has_cuda(python: str, environment: Mapping[str, str]) -> bool:
    try:
        done = subprocess.run([python, "-c", _ASK_ORT], env=dict(environment), capture_output=True, timeout=60)  # noqa: S603 - an interpreter the user named
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _half(folder: Path, work: Path) -> Path:
    """The model's network in FP16."""
    import onnx

    from workbench.engine.graphs import to_fp16
    from workbench.files import write_bytes

    path = work / f"{folder.name}.fp16.onnx"
    write_bytes(path, to_fp16(onnx.load(str(folder / "model.onnx"))).SerializeToString())
    return path


def _own_environment() -> dict[str, str]:
    """This process's environment; the package is found in it as it is here."""
    path = os.pathsep.join([str(_HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
