"""The CPU backend: a model folder in onnxruntime."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from workbench.errors import EngineError, ModelError, WorkbenchError
from workbench.runtime.batching import PackedTexts, bucket_length, pad_batch, plan_batches
from workbench.runtime.manifest import Manifest, model_changes, read_manifest, read_plan, rebuild_command
from workbench.runtime.session import Backend, Precision, check_outputs, engine_id, is_finite, of_other_arithmetic
from workbench.tasks.encode import TextEncoder
from workbench.tasks.spec import ModelSpec, OutputSpec, load_spec

__all__ = ["TOKEN_BUDGET", "OnnxSession", "usable_cores"]

logger = logging.getLogger(__name__)

TOKEN_BUDGET: Final = 256
"""Tokens of one batch, padding included: what stays in a core's cache on its way through the layers. Measured on two
cores with the bundled model: 256 tokens 328 texts a second, 512 to 1024 tokens 280, 2048 tokens 265."""

_CGROUPS: Final = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """The cores this process may run on: a container may have the time of fewer than it sees."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _cpu_share(_CGROUPS)
    return seen if share is None else max(1, min(seen, math.ceil(share)))


def _cpu_share(root: Path) -> float | None:
    """The cores' worth of time that the control group under ``root`` allows; None without a limit."""
    try:
        if (root / "cpu.max").is_file():  # version 2: "<quota or max> <period>"
            quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
        else:
            own = root / "cpu"
            quota, period = ((own / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        return float(quota) / float(period) if quota.strip() != "max" and float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # none is mounted, or of a form not known
        return None


class OnnxSession:
    """A model folder, loaded into onnxruntime on the CPU. Weights stored as FP16 are computed with in FP32.

    ``engine``: the folder of an engine built from the model for onnxruntime, to run in place of model.onnx; tokenizer
    and labels are the model folder's. ``threads``: cores to use; None is all this process may run on. Each run stays
    on one core, and ``slots`` runs go on at once: on two cores, small batches side by side are half as fast again as
    one batch spread over both, where the threads wait for each other between any two operators. ``token_budget``: the
    tokens, padding included, of a batch that ``run_packed`` makes.

    Raises ModelError when onnxruntime is not installed, a file is missing or damaged, or model.onnx, tokenizer.json
    and model.toml do not fit together; EngineError when the engine is damaged, of another version of onnxruntime, or
    does not fit the folder, or when the model changed since it was built.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        engine: Path | None = None,
        threads: int | None = None,
        token_budget: int = TOKEN_BUDGET,
    ) -> None:
        spec = load_spec(folder)
        manifest = read_manifest(engine) if engine is not None else None
        network: str | bytes = str(spec.onnx)
        # What is named where it fails, and what is done about that.
        self._network, self._again = spec.onnx, "Get the folder back or export the model again with the workbench."
        self._unfit: type[WorkbenchError] = ModelError
        if engine is not None and manifest is not None:
            network = _engine_bytes(engine, manifest, spec)
            self._network, self._unfit = engine / manifest.plan, EngineError
            self._again = f"Build it again: {rebuild_command(manifest)}"
            spec = spec if manifest.precision == "fp32" else of_other_arithmetic(spec)
        try:
            import onnxruntime  # type: ignore[import-untyped, unused-ignore]
        except ImportError as error:
            raise ModelError(f"onnxruntime cannot be loaded: {error}. Install it: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors come back as exceptions; warnings are about hardware it may not find
        try:
            session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's exceptions share no base of their own
            raise self._unfit(f"{self._network} cannot be loaded: {_first_line(error)}. {self._again}") from None
        self._session: Any = session
        self._spec = spec
        self._slots = threads or usable_cores()
        self._token_budget = token_budget
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        if manifest is not None:
            self._precision, self._engine_id = cast(Precision, manifest.precision), manifest.engine_id
        else:
            self._precision = "fp32"
            self._engine_id = engine_id(
                spec, precision="fp32", backend="onnxruntime", version=onnxruntime.__version__
            )
        self._encoder = TextEncoder(spec)
        self._check(self._encoder.vocabulary_size)
        name = self._precision.upper()
        logger.info("%s runs in onnxruntime %s, %s, %d cores", spec.title, onnxruntime.__version__, name, self._slots)

    @property
    def spec(self) -> ModelSpec:
        """What the model folder says."""
        return self._spec

    @property
    def encoder(self) -> TextEncoder:
        """The folder's tokenizer."""
        return self._encoder

    @property
    def backend(self) -> Backend:
        """Always onnxruntime."""
        return "onnxruntime"

    @property
    def precision(self) -> Precision:
        """The engine's; fp32 without one."""
        return self._precision

    @property
    def engine_id(self) -> str:
        """16 hex digits: the engine's, or see workbench.runtime.session.engine_id."""
        return self._engine_id

    @property
    def slots(self) -> int:
        """The cores used: one run each."""
        return self._slots

    def run(
        self, input_ids: NDArray[np.int32], attention_bias: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Logits of ``outputs``; see workbench.runtime.session.Session."""
        session = self._loaded()
        check_outputs(self._spec, outputs)
        try:
            values = session.run(list(outputs), {"input_ids": input_ids, "attention_bias": attention_bias})
        except Exception as error:  # the library's exceptions share no base of their own
            raise ModelError(
                f"{self._network} could not run a batch of {' x '.join(map(str, input_ids.shape))} tokens: "
                f"{_first_line(error)}. Compare max_tokens in model.toml ({self._spec.max_tokens}) and "
                f"tokenizer.json with the model. {self._again}"
            ) from None
        for name, given in zip(outputs, values, strict=True):
            if not is_finite(given):
                raise ModelError(
                    f"{self._network} gave values for {name} that are infinite or not numbers. {self._again}"
                )
        return dict(zip(outputs, values, strict=True))

    def run_packed(
        self, texts: PackedTexts, outputs: Sequence[str], *, done: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits of ``outputs`` for any number of texts; see workbench.runtime.session.Session.

        Texts of a bucket are padded together and run on ``slots`` cores. ``done`` is called from the caller's own
        thread; what it raises ends the run.
        """
        self._loaded()
        check_outputs(self._spec, outputs)
        lengths = texts.lengths
        specs = {name: self._spec.outputs[name] for name in outputs}
        found = {
            name: np.empty(
                (len(texts.input_ids) if spec.kind == "tags" else len(texts), len(spec.labels)), np.float32
            )
            for name, spec in specs.items()
        }

        def run(batch: NDArray[np.intp]) -> int:
            rows = [texts.input_ids[texts.cu_seqlens[place] : texts.cu_seqlens[place + 1]] for place in batch]
            length = bucket_length(len(rows[0]), self._spec.max_tokens)
            if len(rows) == 1 and 2 * length <= self._token_budget and not self._batch_invariant:
                # In most networks one row alone goes through other arithmetic than rows side by side, and its last
                # bit may differ: a text that stands alone by chance is run twice, so that it gets the very numbers it
                # always gets.
                rows *= 2
            values = self.run(*pad_batch(rows, length, pad_id=self._spec.pad_id), outputs)
            for name, spec in specs.items():
                if spec.kind == "tags":
                    for row, place in enumerate(batch):
                        start, end = texts.cu_seqlens[place], texts.cu_seqlens[place + 1]
                        found[name][start:end] = values[name][row, : end - start]
                else:
                    found[name][batch] = values[name][: len(batch)]
            return len(batch)

        batches = plan_batches(lengths, max_tokens=self._spec.max_tokens, token_budget=self._token_budget)
        if len(batches) < 2:
            for batch in batches:
                _tell(done, run(batch))
            return found
        waiting: list[Future[int]] = []
        try:
            for batch in batches:
                waiting.append(self._submit(run, batch))  # noqa: PERF401 - what an interrupt finds here is cancelled
            for future in waiting:
                _tell(done, future.result())
        except CancelledError:
            self._loaded()  # closed meanwhile: says so
            raise
        finally:
            for future in waiting:
                future.cancel()
        return found

    def prepare(self, outputs: Sequence[str]) -> None:
        """Nothing to prepare on a CPU, but for the names. Raises ModelError for outputs that the model has not."""
        check_outputs(self._spec, outputs)

    def close(self) -> None:
        """Give memory and threads back; a second call does nothing."""
        self._session = None
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> OnnxSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _batch_invariant(self) -> bool:
        """Whether the card says that a row's numbers never depend on the rows beside it."""
        network = self._spec.card.get("network")
        return isinstance(network, Mapping) and network.get("batch_invariant") is True

    def _submit(self, run: Callable[[NDArray[np.intp]], int], batch: NDArray[np.intp]) -> Future[int]:
        with self._lock:  # close() shuts no pool down that this may still submit to
            self._loaded()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._slots, thread_name_prefix="onnxruntime")
            return self._pool.submit(run, batch)

    def _loaded(self) -> Any:
        if self._session is None:
            raise ModelError(f"The session of {self._spec.folder} is closed. Open it again with open_session.")
        return self._session

    def _check(self, vocabulary_size: int) -> None:
        """That the three files fit together: names and types first, then one small run."""
        session, spec = self._loaded(), self._spec
        inputs = {item.name: item.type for item in session.get_inputs()}
        wanted = {"input_ids": "tensor(int32)", "attention_bias": "tensor(float)"}
        if inputs != wanted:
            raise self._unfit(f"{self._network} takes {_listed(inputs)}, not {_listed(wanted)}. {self._again}")
        outputs = {item.name for item in session.get_outputs()}
        if missing := sorted(set(spec.outputs) - outputs):
            raise self._unfit(
                f"{self._network} has no output {', '.join(missing)}, which model.toml names; it has "
                f"{', '.join(sorted(outputs))}. Mend model.toml. {self._again}"
            )
        if not 0 <= spec.pad_id < vocabulary_size:
            raise ModelError(
                f"pad_id {spec.pad_id} in {spec.folder / 'model.toml'} is not in tokenizer.json, which has "
                f"{vocabulary_size} tokens. Mend model.toml or export the model again."
            )
        # The largest id the tokenizer can give must have an embedding.
        ids = np.array([[vocabulary_size - 1, spec.pad_id, vocabulary_size - 1]], np.int32)
        try:
            values = session.run(
                list(spec.outputs), {"input_ids": ids, "attention_bias": np.zeros((1, 1, 1, 3), np.float32)}
            )
        except Exception as error:  # the library's exceptions share no base of their own
            raise self._unfit(
                f"{self._network} does not go with {spec.tokenizer.name}, which has {vocabulary_size} tokens: "
                f"{_first_line(error)}. {self._again}"
            ) from None
        for output, value in zip(spec.outputs.values(), values, strict=True):
            self._check_shape(output, value)

    def _check_shape(self, output: OutputSpec, value: NDArray[np.float32]) -> None:
        count = len(output.labels)
        shape = (1, 3, count) if output.kind == "tags" else (1, count)
        if value.shape != shape or value.dtype != np.float32:
            raise self._unfit(
                f"Output {output.name} of {self._network} is {value.dtype} {list(value.shape)} for a batch of one "
                f"text of three tokens; its {count} labels in model.toml need float32 {list(shape)}. "
                f"Mend model.toml. {self._again}"
            )


def _tell(done: Callable[[int], None] | None, count: int) -> None:
    if done is not None:
        done(count)


def _engine_bytes(engine: Path, manifest: Manifest, spec: ModelSpec) -> bytes:
    """The engine's graph, checked, and checked to be of the model as it is now."""
    again = f"Build it again: {rebuild_command(manifest)}"
    if manifest.runtime != "onnxruntime":
        raise EngineError(
            f"The engine {manifest.engine_id} is for {manifest.runtime}, not for onnxruntime. Build one: workbench "
            f"engines build --model {manifest.model} --precision {manifest.precision} --runtime onnxruntime"
        )
    data = read_plan(engine, manifest)
    if changes := model_changes(manifest, spec.folder.parent):
        raise EngineError(f"The engine {manifest.engine_id} is stale: {'; '.join(changes)}. {again}")
    return data


def _listed(inputs: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in inputs.items())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
