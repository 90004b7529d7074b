"""One engine: a model folder in, a plan with its manifest out."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from workbench.engine.build.graph import (
    CalibrationTexts,
    ConvertedGraph,
    calibration_folder,
    import_onnx,
    text_lengths,
)
from workbench.engine.build.layout import convert_in_layout
from workbench.engine.build.ort import execute
from workbench.engine.build.profiles import (
    check_coverage,
    check_profile,
    make_packed_profiles,
    make_profiles,
    profile_text,
)
from workbench.errors import EngineError
from workbench.files import write_bytes, write_text
from workbench.progress import tqdm
from workbench.runtime.host import RUNTIMES, Host, runtime_version, this_host
from workbench.runtime.manifest import (
    MANIFEST,
    Manifest,
    Profile,
    engine_id_of,
    file_sha256,
    read_manifest,
    staleness,
    write_manifest,
)
from workbench.runtime.session import reading_digest
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import ModelSpec, load_spec

__all__ = ["build", "host", "model_target"]

logger = logging.getLogger(__name__)

_PHASES: Final = ("convert", "build", "check", "keep")


def host() -> Host:
    """This machine: its GPU, driver, CUDA, and the runtimes installed."""
    return this_host()


def model_target(text: str | None) -> str | None:
    """The compute capability of a target: "sm_89", "89" and "8.9" are "8.9". Raises EngineError for another form."""
    if text is None:
        return None
    found = re.fullmatch(r"(?:sm_?)?(\d+?)\.?(\d)", text.strip().lower())
    if found is None:
        raise EngineError(f"{text!r} is no target. Write a compute capability, such as sm_89 or 8.9.")
    return f"{found[1]}.{found[2]}"


def build(
    model_folder: Path | str,
    *,
    precision: str,
    runtime: str,
    target: str | None = None,
    profiles: Sequence[Profile] | None = None,
    keep: Sequence[str] = (),
    method: str = DEFAULT_RANGE_METHOD,
    layout: str = "auto",
    version_compatible: bool = False,
    workspace_gb: float = 4,
    optimization_level: int | None = None,
    tactic_sources: str | None = None,
    calibration: Path | None = None,
    force: bool = False,
    progress: bool = True,
) -> Manifest:
    """Build the model in ``precision`` ("fp32", "fp16", "int8") for ``runtime``; give the manifest.

    ``target``: the GPU to build for, like "sm_89"; None is the one here. ``profiles``: None makes them from the
    lengths of the calibration texts. ``keep``: layer groups that stay out of INT8. ``layout``: "padded", "packed"
    (all tokens of a batch in one row, TensorRT 8.6), or "auto": packed where runtime, precision, network and profiles
    can. ``calibration``: the folder with calibration texts, default the project's. An engine that is there already,
    fresh and with the same id, is not built again unless ``force``. The engine lands in
    ``model_folder``/plans/<engine id> only when it passed its checks: run once (onnxruntime), its layers inspected (a
    GPU that is here), or its graph's types and its header (a GPU that is not).

    Raises ModelError, CalibrationError, or EngineError when the runtime is not installed or cannot build it.
    """
    started = time.monotonic()
    if runtime not in RUNTIMES:
        raise EngineError(f"No runtime is named {runtime!r}. Use one of: {', '.join(RUNTIMES)}")
    import_onnx()  # the first to be missing on a machine that has TensorRT alone, and told as such
    spec, here = load_spec(model_folder), this_host()
    capability = _capability(runtime, model_target(target), here)
    native = capability is not None and capability == here.compute_capability
    if version_compatible and runtime != "tensorrt":
        raise EngineError(
            f"Only plans of tensorrt can be version-compatible, not of {runtime}. Leave that option out."
        )
    options = _options(profiles, workspace_gb, optimization_level, tactic_sources, layout, calibration)
    texts = CalibrationTexts(spec, calibration)
    plans = spec.folder / "plans"
    with tqdm(total=len(_PHASES), desc=f"{spec.name} {precision}", unit="step", disable=not progress) as bar:
        chosen, graph = convert_in_layout(
            spec,
            layout=layout,
            runtime=runtime,
            precision=precision,
            profiles=profiles,
            keep=sorted(keep),
            method=method,
            cache=plans / "cache",
            calibration=texts,
            progress=progress,
        )
        if profiles is None:
            lengths = text_lengths(spec, texts)
            if chosen == "packed":
                profiles = make_packed_profiles(lengths, max_tokens=spec.max_tokens, width=graph.width)
            else:
                profiles = make_profiles(lengths, max_tokens=spec.max_tokens)
        for profile in profiles:
            check_profile(profile, layout=chosen, max_tokens=spec.max_tokens)
        if chosen == "padded" and runtime != "onnxruntime":  # that one takes every shape
            check_coverage(profiles, max_tokens=spec.max_tokens)
        manifest = _unbuilt(
            spec,
            graph,
            runtime=runtime,
            layout=chosen,
            recipe=tuple(sorted(keep)),
            profiles=tuple(profiles),
            options=options,
            version_compatible=version_compatible,
            capability=capability,
            here=here if native else None,
        )
        bar.update()
        if not force and (kept := _existing(plans / manifest.engine_id, here)) is not None:
            logger.info("The engine %s is built already", kept.engine_id)
            bar.update(len(_PHASES) - 1)
            return kept
        return _finish(spec, graph, manifest, native=native, plans=plans, started=started, bar=bar)


def _capability(runtime: str, target: str | None, here: Host) -> str | None:
    if runtime == "onnxruntime":
        if target is not None:
            raise EngineError("onnxruntime's engines run on the CPU, not on a GPU. Leave the target out.")
        if runtime_version(runtime) is None:
            raise EngineError("onnxruntime cannot be loaded. Install it: pip install onnxruntime")
        return None
    from workbench.engine.build.trt import check_target

    return check_target(runtime, target, here)


def _options(
    profiles: Sequence[Profile] | None,
    workspace_gb: float,
    level: int | None,
    tactic_sources: str | None,
    layout: str,
    calibration: Path | None,
) -> dict[str, Any]:
    """What differs from the defaults, under the names of the command's options."""
    options: dict[str, Any] = {}
    if profiles is not None:
        options["profile"] = ",".join(profile_text(profile) for profile in profiles)
    if workspace_gb != 4:
        options["workspace_gb"] = workspace_gb
    if level is not None:
        options["optimization_level"] = level
    if tactic_sources is not None:
        options["tactic_sources"] = tactic_sources
    if layout != "auto":
        options["layout"] = layout
    if calibration is not None and calibration.resolve() != calibration_folder().resolve():
        options["calibration"] = str(calibration.resolve())
    return options


def _unbuilt(
    spec: ModelSpec,
    graph: ConvertedGraph,
    *,
    runtime: str,
    layout: str,
    recipe: tuple[str, ...],
    profiles: tuple[Profile, ...],
    options: dict[str, Any],
    version_compatible: bool,
    capability: str | None,
    here: Host | None,
) -> Manifest:
    """The manifest before there is a plan; ``here``: the machine, where the engine is built for its GPU."""
    deciding: dict[str, Any] = {
        "model_sha256": file_sha256(spec.onnx),
        "reading_sha256": reading_digest(spec),
        "graph_sha256": graph.sha256,
        "precision": graph.precision,
        "recipe": recipe,
        "layout": layout,
        "profiles": profiles,
        "calibration": graph.calibration,
        "options": options,
        "version_compatible": version_compatible,
        "runtime": runtime,
        "runtime_version": str(runtime_version(runtime)),
        "gpu": here.gpu if here is not None else None,
        "compute_capability": capability,
    }
    return Manifest(
        **deciding,
        engine_id=engine_id_of(**deciding),
        model=spec.folder.resolve().name,
        model_version=spec.version,
        cuda_version=here.cuda_version if here is not None else None,
        driver=here.driver if here is not None else None,
        plan="model.onnx" if runtime == "onnxruntime" else "engine.plan",
        plan_sha256="",
        plan_bytes=0,
        built_at="",
        build_s=0,
        verified="unverified on target",
    )


def _finish(
    spec: ModelSpec, graph: ConvertedGraph, manifest: Manifest, *, native: bool, plans: Path, started: float, bar: Any
) -> Manifest:
    """Build, check and keep; ``bar`` has three steps left."""
    information, memory, cached = None, None, graph.cached
    if manifest.runtime == "onnxruntime":
        plan = graph.data
        bar.update()
        execute(plan, spec, manifest.profiles)
        verified = "executed"
    else:
        from workbench.engine.build import trt
        from workbench.engine.build.layers import prove_precision

        timings = _timings_file(plans / "cache", manifest)
        built = trt.build_plan(
            graph.data,
            runtime=manifest.runtime,
            precision=manifest.precision,
            compute_capability=str(manifest.compute_capability),
            profiles=manifest.profiles,
            options=trt.BuildOptions(
                workspace_gb=manifest.options.get("workspace_gb", 4),
                optimization_level=manifest.options.get("optimization_level"),
                version_compatible=manifest.version_compatible,
                tactic_sources=manifest.options.get("tactic_sources"),
            ),
            longest=spec.max_tokens,
            timings=lambda: timings.read_bytes() if timings.is_file() else None,
            progress=not bar.disable,
        )
        plan, verified = built.plan, "unverified on target"
        cached = cached or built.reused
        if built.timings is not None:
            write_bytes(timings, built.timings)
        bar.update()
        _check_products(built.products, manifest)
        trt.check_header(plan, runtime=manifest.runtime)
        if native:
            found = trt.inspect_plan(plan, runtime=manifest.runtime)
            information, memory = found.information, found.device_memory_bytes
            if found.layers:
                prove_precision(found.layers, manifest.precision)
                verified = "inspector"
            else:
                logger.warning("The inspector does not say what the layers of %s compute in", manifest.engine_id)
    bar.update()
    manifest = replace(
        manifest,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        device_memory_bytes=memory,
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_s=round(time.monotonic() - started, 2),
        cached=cached,
        verified=verified,
    )
    kept_manifest = _keep(plans, plan, manifest, information)
    bar.update()
    return kept_manifest


def _check_products(products: dict[str, int], manifest: Manifest) -> None:
    """The types of the network as the library read it, for weakly typed TensorRT 8.6 no proof, so not asked."""
    wanted = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8", "mixed": "INT8"}[manifest.precision]
    if manifest.runtime == "tensorrt" and manifest.runtime_version.startswith("8."):
        return
    if products.get(wanted, 0) == 0 or (
        manifest.precision != "mixed" and products[wanted] * 2 < sum(products.values())
    ):
        listed = ", ".join(f"{count} in {kind}" for kind, count in products.items()) or "none"
        raise EngineError(
            f"{manifest.runtime} {manifest.runtime_version} read the {manifest.precision} graph with these matrix "
            f"products: {listed}. The engine is not kept. Use another precision or runtime."
        )


def _keep(plans: Path, plan: bytes, manifest: Manifest, information: str | None) -> Manifest:
    """Put the engine in its place in one step; one that lies there is replaced."""
    folder = plans / manifest.engine_id
    plans.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=plans, prefix=f".{manifest.engine_id}.", suffix=".part"))
    try:
        work.chmod(0o755)
        write_bytes(work / manifest.plan, plan)
        if information is not None:
            write_text(work / "layers.json", information)
        write_manifest(work, manifest)
        if folder.exists():
            folder.rename(work / "replaced")
        try:
            work.rename(folder)
        except OSError:
            # Another process kept the same engine meanwhile; then its folder is as good.
            return read_manifest(folder)
        shutil.rmtree(folder / "replaced", ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    logger.info("%s %s for %s in %s", manifest.model, manifest.precision, manifest.target, folder)
    return manifest


def _existing(folder: Path, here: Host) -> Manifest | None:
    """The manifest of an engine that is there, whole and fresh: the id does not hold the driver, for one."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except EngineError as error:
        logger.warning("%s", error)
        return None
    reasons = staleness(manifest, engines=folder.resolve().parents[2], here=here)
    if reasons:
        logger.warning("The engine %s is built again: %s", manifest.engine_id, "; ".join(reasons))
        return None
    return manifest


def _timings_file(cache: Path, manifest: Manifest) -> Path:
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", manifest.gpu or manifest.target).strip("-").lower()
    return cache / f"timing-{manifest.runtime}-{manifest.runtime_version}-{gpu}.cache"
