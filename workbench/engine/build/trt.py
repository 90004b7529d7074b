"""Everything in which TensorRT 8.6, 10, 11 and TensorRT-RTX differ, behind one way to build and to inspect.

Precision lives in the graph. On 8.6 the flags FP16 and INT8 only permit what the graph says, and layer norm and
softmax are told to stay in FP32; from 10 on, and on RTX, the network is strongly typed and nothing is permitted.
TF32 is off everywhere: an FP32 engine is FP32.

TensorRT-RTX builds for a compute capability that need not be here, and compiles the kernels on the user's machine; it
knows no timing cache. The others build for the GPU in this machine.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from workbench.engine.build.layers import layer_precisions
from workbench.engine.build.progress import make_monitor
from workbench.engine.build.timings import merged_timings, read_timings
from workbench.errors import EngineError
from workbench.progress import tqdm
from workbench.runtime.host import Host, import_runtime
from workbench.runtime.manifest import Profile
from workbench.runtime.trt_plan import library_logger, load_plugins

if TYPE_CHECKING:
    from workbench.engine.graphs.weak import WeakGraph

__all__ = [
    "BuildOptions",
    "Built",
    "Inspection",
    "build_plan",
    "check_header",
    "inspect_plan",
    "int8_form",
    "packed_problem",
    "targets",
]

logger = logging.getLogger(__name__)

PACKED_PRECISIONS: Final = ("fp16", "int8")
_WITHOUT_PLUGINS: Final = 9
"""The first major version whose plugins packed engines do not use."""

_INSTALL: Final = {
    "tensorrt": "pip install tensorrt (on a machine with an NVIDIA GPU)",
    "tensorrt-rtx": "pip install tensorrt-rtx",
}


@dataclass(frozen=True)
class BuildOptions:
    """What a builder is told. ``tactic_sources``: names such as "cublas,cudnn", or "none"; None is the default."""

    workspace_gb: float = 4
    optimization_level: int | None = None
    version_compatible: bool = False
    tactic_sources: str | None = None


@dataclass(frozen=True)
class Built:
    """A serialized plan. ``products``: matrix products of the parsed network by the type they read, INT8, FP16 or
    FP32. ``timings``: the timing cache to keep, None where there is none; ``reused``: the one that was given counted.
    """

    plan: bytes
    products: dict[str, int] = field(default_factory=dict)
    timings: bytes | None = None
    reused: bool = False


@dataclass(frozen=True)
class Inspection:
    """A plan that was loaded: layers by precision (empty where nothing can be told), the inspector's JSON, and the
    memory that a run needs."""

    layers: dict[str, int]
    information: str
    device_memory_bytes: int | None


def load_library(runtime: str) -> ModuleType:
    """The library of ``runtime``. Raises EngineError when it is not installed."""
    module = import_runtime(runtime)
    if module is None:
        raise EngineError(f"{runtime} is not installed or does not load. Install it: {_INSTALL[runtime]}")
    return module


def int8_form(runtime: str) -> str:
    """The form of an INT8 graph that the installed ``runtime`` reads (workbench.engine.graphs.FORMS)."""
    if runtime == "onnxruntime":
        return "ort"
    return "tensorrt-10" if _strongly_typed(load_library(runtime)) else "tensorrt-8"


def packed_problem(runtime: str, precision: str) -> str | None:
    """Why the installed ``runtime`` cannot run packed engines in ``precision``; None where it can."""
    if runtime != "tensorrt":
        return f"{runtime} has no attention over packed texts"
    trt = load_library(runtime)
    if precision not in PACKED_PRECISIONS:
        return f"the attention operator does not compute in {precision}"
    if _major(trt) >= _WITHOUT_PLUGINS:
        return f"TensorRT {trt.__version__} has another attention operator than 8.6"
    from workbench.engine.graphs.plugins import NEEDED

    load_plugins(runtime)
    registry = trt.get_plugin_registry()
    for name, version in NEEDED:
        if registry.get_plugin_creator(name, version, "") is None:
            return f"TensorRT {trt.__version__} has no plugin {name} {version}"
    return None


def targets(runtime: str) -> tuple[str, ...]:
    """Compute capabilities that ``runtime`` builds for without such a GPU, like "8.9"; none for TensorRT itself."""
    known = getattr(load_library(runtime), "ComputeCapability", None)
    names = re.findall(r"\bSM(\d+)(\d)\b", " ".join(getattr(known, "__members__", ())))
    return tuple(f"{major}.{minor}" for major, minor in names)


def build_plan(
    graph: bytes,
    *,
    runtime: str,
    precision: str,
    compute_capability: str,
    profiles: Sequence[Profile],
    options: BuildOptions,
    longest: int = 512,
    timings: Callable[[], bytes | None] = lambda: None,
    progress: bool = False,
) -> Built:
    """Build ``graph`` (ONNX) with ``runtime`` for a GPU of ``compute_capability``.

    ``longest``: tokens of the longest text. ``timings`` gives the timing cache that is kept: asked for at the
    beginning, and at the end, since another build may have kept its own meanwhile. Raises EngineError
    when the library is not installed, cannot read the graph, or gives no plan; the message carries what the library
    said first.
    """
    trt = load_library(runtime)
    log = library_logger(runtime)
    log.take()
    load_plugins(runtime)
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    weak = None if _strongly_typed(trt) else _loosened(graph)
    if not parser.parse(graph if weak is None else weak.model.SerializeToString()):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineError(
            f"{runtime} {trt.__version__} cannot read the graph: {'; '.join(errors[:2]) or log.take()}. Use another "
            "precision or runtime."
        )
    config = builder.create_builder_config()
    _configure(trt, config, network, precision=precision, compute_capability=compute_capability, options=options)
    if weak is not None:
        _say_types(trt, network, weak)
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, network, profile, longest))
    timing_cache, reused = read_timings(trt, config, log, timings())
    with tqdm(total=100, desc=f"Building for {runtime}", unit="%", disable=not progress, leave=False) as bar:
        monitor = make_monitor(trt, bar)
        if monitor is not None and hasattr(config, "progress_monitor"):
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineError(
            f"{runtime} {trt.__version__} gave no plan: {log.take() or 'it does not say why'}. Give it more memory "
            "(--workspace-gb), or use another precision."
        )
    kept = None
    if timing_cache is not None:
        kept = merged_timings(config, log, timing_cache, timings())
    return Built(bytes(memoryview(plan)), _products(trt, network), kept, reused)


def check_header(plan: bytes, *, runtime: str) -> None:
    """Let the runtime's own check look at the header of a plan, where it has one (TensorRT-RTX does).

    On a machine without a GPU it tells a header that is none; on one with a GPU also another version, another compute
    capability, and a driver that is too old. Raises EngineError.
    """
    trt = load_library(runtime)
    library = trt.Runtime(library_logger(runtime))
    if not hasattr(library, "get_engine_validity"):
        return
    validity, bits = library.get_engine_validity(plan[: library.engine_header_size])
    if validity != trt.EngineValidity.INVALID:
        return
    said = [item for item in trt.EngineInvalidityDiagnostics.__members__.values() if int(item) & int(bits)]
    # Without a GPU it cannot compare what the header says with this machine, and sets CUDA's bit or none.
    said = [item for item in said if item != trt.EngineInvalidityDiagnostics.CUDA_ERROR]
    if said:
        reasons = ", ".join(item.name.lower().replace("_", " ") for item in said)
        raise EngineError(f"{runtime} says of the plan's header: {reasons}. Build the engine again.")


def inspect_plan(plan: bytes, *, runtime: str) -> Inspection:
    """Load a plan on the GPU of this machine and ask the engine inspector about its layers.

    Raises EngineError when it cannot be loaded.
    """
    trt = load_library(runtime)
    log = library_logger(runtime)
    log.take()
    load_plugins(runtime)
    library = trt.Runtime(log)
    if hasattr(library, "engine_host_code_allowed"):
        library.engine_host_code_allowed = True  # a version-compatible plan carries its own lean runtime
    engine = library.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{runtime} {trt.__version__} cannot load the plan it just built: {log.take() or 'it does not say why'}. "
            "Look at the GPU's memory with nvidia-smi and build it again."
        )
    inspector = engine.create_engine_inspector()
    information = str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    memory = next(
        (
            int(getattr(engine, name))
            for name in ("device_memory_size_v2", "device_memory_size")
            if hasattr(engine, name)
        ),
        None,
    )
    return Inspection(layer_precisions(information, plan), information, memory)


def check_target(runtime: str, compute_capability: str | None, here: Host) -> str:
    """The compute capability to build for: the one asked for, or that of the GPU here.

    Raises EngineError when ``runtime`` cannot build for it on this machine.
    """
    library = load_library(runtime)
    wanted = compute_capability or here.compute_capability
    others = targets(runtime)
    named = ", ".join(f"sm_{item.replace('.', '')}" for item in others)
    if wanted is None:
        how = f"Name the GPU to build for with --target: {named}" if others else "Build it on a machine with the GPU"
        raise EngineError(f"There is no GPU here to build a {runtime} engine for. {how}.")
    if wanted in others or (not others and wanted == here.compute_capability):
        return wanted
    if not others:
        raise EngineError(
            f"TensorRT {library.__version__} builds for the GPU it runs on; here is {here}. Build on that machine, "
            "or use --runtime tensorrt-rtx."
        )
    raise EngineError(
        f"{runtime} {library.__version__} builds for {named}, not for sm_{wanted.replace('.', '')}. Use --runtime "
        "tensorrt on a machine with that GPU."
    )


def _strongly_typed(trt: ModuleType) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") and (
        trt.__name__ == "tensorrt_rtx" or _major(trt) >= 10
    )


def _major(trt: ModuleType) -> int:
    return int(str(trt.__version__).partition(".")[0])


def _network_flags(trt: ModuleType) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if _strongly_typed(trt):
        return 1 << int(flags.STRONGLY_TYPED)
    return 1 << int(flags.EXPLICIT_BATCH)


def _configure(
    trt: ModuleType, config: Any, network: Any, *, precision: str, compute_capability: str, options: BuildOptions
) -> None:
    flags = trt.BuilderFlag
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace_gb * 2**30))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(flags, "TF32"):
        config.clear_flag(flags.TF32)
    if not _strongly_typed(trt) and precision != "fp32":
        config.set_flag(flags.FP16)
        if precision in ("int8", "mixed"):
            config.set_flag(flags.INT8)
        config.set_flag(flags.PREFER_PRECISION_CONSTRAINTS)
        _hold_in_fp32(trt, network)
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if hasattr(getattr(trt, "PreviewFeature", None), "PROFILE_SHARING_0806"):
        # Without it 8.6 gives a profile to one context alone, and batches could not overlap; later it is the rule.
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.tactic_sources is not None:
        config.set_tactic_sources(_tactic_sources(trt, options.tactic_sources))
    if targets(trt.__name__.replace("_", "-")):
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{compute_capability.replace('.', '')}"), 0)


def _hold_in_fp32(trt: ModuleType, network: Any) -> None:
    """Tell a weakly typed network what the graph's casts say: layer norm and softmax in FP32."""
    kinds = {trt.LayerType.SOFTMAX, trt.LayerType.REDUCE}
    if hasattr(trt.LayerType, "NORMALIZATION"):
        kinds.add(trt.LayerType.NORMALIZATION)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type in kinds and layer.get_input(0).dtype in (trt.DataType.FLOAT, trt.DataType.HALF):
            layer.precision = trt.DataType.FLOAT


def _loosened(graph: bytes) -> WeakGraph | None:
    """A packed graph in the form that a weakly typed TensorRT reads best; None for a padded one."""
    import onnx

    from workbench.engine.graphs.plugins import plugins_of
    from workbench.engine.graphs.weak import loosen

    model = onnx.load_from_string(graph)
    return loosen(model) if plugins_of(model) else None


def _say_types(trt: ModuleType, network: Any, weak: WeakGraph) -> None:
    """Tell a network what the graph's types and pairs were."""
    left, waiting = set(weak.ranges), []
    floats = (trt.DataType.FLOAT, trt.DataType.HALF)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        waiting.append(layer)
        names = {layer.get_output(place).name for place in range(layer.num_outputs)}
        for place in range(layer.num_outputs):
            tensor = layer.get_output(place)
            if tensor.name in weak.ranges:
                tensor.set_dynamic_range(-weak.ranges[tensor.name], weak.ranges[tensor.name])
                left.discard(tensor.name)
        given = names & weak.named
        if not given:
            continue  # a node may be several layers; the last has its name
        kind = trt.DataType.FLOAT if given & weak.wide else trt.DataType.HALF if given & weak.half else None
        for item in waiting if kind is not None else ():
            if item.type != trt.LayerType.PLUGIN_V2 and item.get_output(0).dtype in floats:
                item.precision = kind
        waiting.clear()
    if left:
        raise EngineError(
            f"TensorRT {trt.__version__} reads the packed graph without its tensor {min(left)}, so that it has no "
            "range. Build it with --layout padded."
        )


def _tactic_sources(trt: ModuleType, names: str) -> int:
    bits, known = 0, trt.TacticSource.__members__
    for name in (part.strip().upper() for part in names.split(",") if part.strip()):
        if name == "NONE":
            continue
        if name not in known:
            raise EngineError(
                f"No tactic source is named {name.lower()}. Use none, or any of {', '.join(known).lower()}."
            )
        bits |= 1 << int(known[name])
    return bits


def _profile(builder: Any, network: Any, profile: Profile, longest: int) -> Any:
    """The shapes of each input that the network has, padded (two dimensions and more) or packed (one)."""
    made = builder.create_optimization_profile()
    names = {network.get_input(index).name for index in range(network.num_inputs)}
    shapes = (profile.min, profile.opt, profile.max)
    row = [(tokens,) for _, tokens in shapes]
    packed = {
        "input_ids": row,
        "position_ids": row,
        "segment_ids": row,
        "cu_seqlens": [(texts + 1,) for texts, _ in shapes],
        "longest": [(1,), (max(1, longest // 2),), (longest,)],
    }
    padded = {"input_ids": shapes, "attention_bias": [(batch, 1, 1, tokens) for batch, tokens in shapes]}
    for name, own in (packed if "cu_seqlens" in names else padded).items():
        if name in names:
            made.set_shape(name, *own)
    return made


def _products(trt: ModuleType, network: Any) -> dict[str, int]:
    """Matrix products of the network by the type they read: INT8 where a DequantizeLinear of INT8 feeds them."""
    made_by, counts = {}, {"INT8": 0, "FP16": 0, "FP32": 0}
    names = {trt.DataType.HALF: "FP16", trt.DataType.FLOAT: "FP32"}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            made_by[layer.get_output(place).name] = layer
        if layer.type != trt.LayerType.MATRIX_MULTIPLY:
            continue
        source, tensor = made_by.get(layer.get_input(0).name), layer.get_input(0)
        while source is not None and source.type == trt.LayerType.SHUFFLE:
            tensor = source.get_input(0)
            source = made_by.get(tensor.name)
        if source is not None and source.type == trt.LayerType.DEQUANTIZE:
            counts["INT8"] += 1
        elif layer.get_input(0).dtype in names:
            counts[names[layer.get_input(0).dtype]] += 1
    return {name: count for name, count in counts.items() if count}
