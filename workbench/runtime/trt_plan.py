"""A plan in its library: loading it, what it takes and gives, contexts that run it, and everything in which TensorRT
8.6, 10, 11 and TensorRT-RTX differ when an engine runs.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from types import ModuleType
from typing import Any, Final

import numpy as np

from workbench.errors import EngineError, ModelError
from workbench.runtime.cuda import DeviceMemory, OutOfDeviceMemory
from workbench.runtime.host import import_runtime
from workbench.runtime.manifest import Manifest, Profile, rebuild_command
from workbench.tasks.spec import ModelSpec, OutputKind

__all__ = ["Plan", "ProfileTaken", "library_logger", "load_plugins"]

logger = logging.getLogger(__name__)

_TYPES: Final = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "INT64": np.int64}
_INPUTS: Final = {
    "padded": {"input_ids", "attention_bias"},
    "packed": {"input_ids", "position_ids", "cu_seqlens", "longest", "segment_ids"},
}


class ProfileTaken(Exception):  # noqa: N818 - it says what happened
    """TensorRT 8 gives an optimization profile to one context only, unless the engine was built for sharing."""


class Plan:
    """A plan in its library: what it takes and gives, and contexts that run it."""

    def __init__(self, data: bytes, manifest: Manifest, spec: ModelSpec) -> None:
        again = self.again = f"Build it again: {rebuild_command(manifest)}"
        trt = import_runtime(manifest.runtime)
        if trt is None:
            raise EngineError(
                f"{manifest.runtime} is not installed or does not load; the engine {manifest.engine_id} needs it. "
                f"Install it: pip install {manifest.runtime}, or use backend onnxruntime."
            )
        self._trt = trt
        self._log = library_logger(manifest.runtime)
        load_plugins(manifest.runtime)
        self._log.take()
        self._runtime = trt.Runtime(self._log)
        if manifest.version_compatible and hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # such a plan carries its own lean runtime
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(
                f"{manifest.runtime} {trt.__version__} cannot load the engine {manifest.engine_id}: "
                f"{self._log.take() or 'it does not say why'}. {again}"
            )
        self._engine: Any = engine
        self.inputs, self.outputs = self._tensors(spec, manifest.layout, again)
        self.profiles = self._profiles(manifest.layout)
        self.longest = self._longest(spec, manifest.layout)
        sizes = (getattr(engine, name, 0) for name in ("device_memory_size_v2", "device_memory_size"))
        self.activation_bytes = max(256, next((int(size) for size in sizes if size), 0))

    def new_context(self, profile: int, memory: DeviceMemory, stream: Any) -> Any:
        """An execution context for ``profile`` that works in ``memory``.

        Raises OutOfDeviceMemory, or ProfileTaken.
        """
        trt, engine = self._trt, self._engine
        self._log.take()
        if hasattr(trt, "ExecutionContextAllocationStrategy"):
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:
            context = engine.create_execution_context_without_device_memory()
        if context is None:
            raise OutOfDeviceMemory(
                f"TensorRT makes no execution context: {self.complaint() or 'it does not say why'}. See with "
                "nvidia-smi what else uses the GPU."
            )
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(memory.address, memory.size)
        else:
            context.device_memory = memory.address
        if context.active_optimization_profile != profile:
            try:
                taken = not context.set_optimization_profile_async(profile, stream.handle)
            except RuntimeError:  # how the library's binding refuses
                taken = True
            if taken:
                raise ProfileTaken(self.complaint() or f"profile {profile} is taken")
            stream.synchronize()
        return context

    def complaint(self) -> str:
        """What the library said last, "" if nothing."""
        said: str = self._log.take()
        return said

    def free(self) -> None:
        """Give the weights back; the contexts must be gone."""
        self._engine = None
        self._runtime = None

    def _tensors(
        self, spec: ModelSpec, layout: str, again: str
    ) -> tuple[dict[str, Any], dict[str, tuple[OutputKind, int, Any]]]:
        """The engine's inputs and outputs, checked against layout and model."""
        engine, inputs = self._engine, {}
        outputs: dict[str, tuple[OutputKind, int, Any]] = {}
        for index in range(engine.num_io_tensors):
            name = str(engine.get_tensor_name(index))
            kind = _TYPES.get(engine.get_tensor_dtype(name).name)
            if kind is None:
                raise EngineError(f"{name} of the engine is of a type that the session does not handle. {again}")
            if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
                inputs[name] = kind
            elif name in spec.outputs:
                output = spec.outputs[name]
                width = int(tuple(engine.get_tensor_shape(name))[-1])
                if width not in (-1, len(output.labels)):
                    raise ModelError(
                        f"Output {name} of the engine has {width} labels, and model.toml has "
                        f"{len(output.labels)}. {again}"
                    )
                if kind is not np.float32:
                    raise EngineError(f"The engine gives {name} as {kind.__name__}, not as float32. {again}")
                outputs[name] = (output.kind, len(output.labels), kind)
            else:
                raise ModelError(f"The engine gives {name}, which model.toml does not name. {again}")
        if missing := sorted(set(spec.outputs) - set(outputs)):
            raise ModelError(f"The engine does not give {', '.join(missing)}, which model.toml names. {again}")
        known = _INPUTS.get(layout, set())
        needed = {"input_ids", "cu_seqlens"} if layout == "packed" else known
        if not needed <= set(inputs) <= known:
            raise EngineError(
                f"The engine takes {', '.join(inputs)}, and a {layout} one takes {', '.join(sorted(known))}. {again}"
            )
        return inputs, outputs

    def _profiles(self, layout: str) -> tuple[Profile, ...]:
        """The optimization profiles as the plan itself has them."""
        found = []
        for index in range(int(self._engine.num_optimization_profiles)):
            ids = self._shapes("input_ids", index)
            if layout == "packed":
                ends = self._shapes("cu_seqlens", index)
                shapes = [(max(end[0] - 1, 1), tokens[0]) for end, tokens in zip(ends, ids, strict=True)]
            else:
                shapes = [(shape[0], shape[1]) for shape in ids]
            found.append(Profile(*shapes))
        return tuple(found)

    def _longest(self, spec: ModelSpec, layout: str) -> int:
        if layout != "packed":
            return min(spec.max_tokens, max(profile.max[1] for profile in self.profiles))
        most = min(spec.max_tokens, max(profile.max[1] for profile in self.profiles))
        if "longest" not in self.inputs:
            return most
        return min(most, max(self._shapes("longest", index)[2][0] for index in range(len(self.profiles))))

    def _shapes(self, name: str, profile: int) -> list[tuple[int, ...]]:
        """The smallest, usual and largest shape of an input."""
        return [tuple(int(size) for size in shape) for shape in self._engine.get_tensor_profile_shape(name, profile)]


class _Said:
    """Errors of a library, kept until taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: list[str] = []

    def note(self, message: str) -> None:
        with self._lock:
            self._errors = [*self._errors[-7:], message.strip()]

    def take(self) -> str:
        """The first error since the last call, "" if there was none."""
        with self._lock:
            first = self._errors[0] if self._errors else ""
            self._errors = []
        return first.rstrip(".")


@cache
def library_logger(runtime: str) -> Any:
    """The logger that TensorRT is given: errors are kept for the next exception (``take``), all goes to logging.

    One for each library: TensorRT 8 keeps the first that it is given.
    """
    trt: ModuleType | None = import_runtime(runtime)
    if trt is None:
        raise EngineError(f"{runtime} is not installed or does not load. Install it: pip install {runtime}")
    base: Any = trt.ILogger
    severity = base.Severity
    said = _Said()

    class Logger(base):  # type: ignore[misc]  # a class of a library without types
        def __init__(self) -> None:
            base.__init__(self)
            self.take = said.take

        def log(self, level: Any, message: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                said.note(message)
            logger.log(logging.INFO if level == severity.WARNING else logging.DEBUG, "%s: %s", runtime, message)

    return Logger()


@cache
def load_plugins(runtime: str) -> None:
    """Register the plugins that come with the library of ``runtime``, once."""
    load = getattr(import_runtime(runtime), "init_libnvinfer_plugins", None)
    if load is not None and not load(library_logger(runtime), ""):
        logger.warning("%s could not register its plugins", runtime)
