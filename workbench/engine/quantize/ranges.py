"""Calibrated ranges: how far from 0 each quantized tensor goes on texts like those the engine will read."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from workbench.engine.graphs import quantized_inputs
from workbench.engine.graphs.packed_ranges import packed_tensors
from workbench.engine.quantize.calibration import CalibrationSet, check_representative
from workbench.engine.quantize.histogram import METHODS, Histogram, Method
from workbench.errors import CalibrationError, ModelError
from workbench.files import write_text
from workbench.runtime.session import file_sha256
from workbench.tasks.encode import EncodedText, TextEncoder
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import ModelSpec, load_spec

__all__ = ["Ranges", "collect_ranges", "ranges_path"]

logger = logging.getLogger(__name__)

_COLLECTOR: Final = 2
"""Raise this when the same texts would give other ranges: what is cached then counts no more."""

_CELLS: Final = 2**18
"""Tokens times (tokens a text, at least 256) of one batch: bounds what a run gives back. BERT-base at 512 tokens
gives 0.4 GB of activations a text, and is then read one by one."""


@dataclass(frozen=True)
class Ranges:
    """``amax``: largest absolute value that counts, by tensor of the FP32 graph. All ranges are symmetric.

    ``n`` texts were read; ``model_sha256`` is of model.onnx, ``data_sha256`` of the texts. ``cached``: they were not
    collected now, but come from an earlier build.
    """

    method: Method
    model_sha256: str
    data_sha256: str
    n: int
    amax: Mapping[str, float]
    cached: bool = field(default=False, compare=False)

    @property
    def sha256(self) -> str:
        """Of everything in here, for a manifest."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """One object; the same ranges give the same text."""
        return json.dumps(self._as_dict(), sort_keys=True, ensure_ascii=False)

    def _as_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
            "n": self.n,
            "amax": dict(self.amax),
        }

    @classmethod
    def from_json(cls, text: str) -> Ranges:
        """Raises CalibrationError when ``text`` is not what ``to_json`` writes."""
        try:
            return cls._from_dict(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(f"These are no ranges: {error}. Collect them again.") from None

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> Ranges:
        amax = {str(name): float(value) for name, value in data["amax"].items()}
        if data["method"] not in METHODS or not all(math.isfinite(v) and v >= 0 for v in amax.values()):
            raise ValueError(f"the method is {data['method']!r}, or a range is no number")
        return cls(
            method=cast(Method, data["method"]),
            model_sha256=str(data["model_sha256"]),
            data_sha256=str(data["data_sha256"]),
            n=int(data["n"]),
            amax=MappingProxyType(amax),
        )


def collect_ranges(
    model_folder: Path | str,
    calibration_set: CalibrationSet,
    *,
    method: str = DEFAULT_RANGE_METHOD,
    layout: str = "padded",
    cache: Path | None = None,
    languages: Sequence[str] = ("en", "zh"),
    tokens: Callable[[], Sequence[EncodedText]] | None = None,
    progress: bool = False,
) -> Ranges:
    """Ranges of all tensors that an INT8 graph of the model quantizes, by reading ``calibration_set`` in onnxruntime.
    A graph of ``layout`` "packed" quantizes others than a padded one.

    One reading serves all methods: with ``cache`` (a folder), another method or a second build reads nothing. Long
    texts are read in windows, as they are when scored; no batch is padded, so padding counts nowhere. ``tokens``
    gives the set tokenized, where the caller needs that too.

    Raises CalibrationError when the set is not representative or the method unknown, ModelError when the model has no
    transformer layers or cannot be run.
    """
    if method not in METHODS:
        raise CalibrationError(f"No calibration method is named {method!r}. Use one of: {', '.join(METHODS)}")
    check_representative(calibration_set, languages=languages)
    spec = load_spec(model_folder)
    model_sha256 = file_sha256(spec.onnx)
    path = ranges_path(cache, spec, model_sha256, calibration_set, layout) if cache is not None else None
    model = onnx.load(str(spec.onnx))
    tensors = _needed(model, layout)
    known = _read_cache(path, tensors) if path is not None else None
    if known is not None:
        logger.info("Ranges of %s come from %s", spec.title, path)
        return replace(known[method], cached=True)
    encoded = tokens() if tokens is not None else TextEncoder(spec).encode(calibration_set.texts, offsets=False)
    histograms = _read(spec, model, tensors, _token_rows(spec, encoded), progress=progress)
    found = {
        name: Ranges(
            method=name,
            model_sha256=model_sha256,
            data_sha256=calibration_set.sha256,
            n=len(calibration_set),
            amax=MappingProxyType({tensor: item.amax(name) for tensor, item in histograms.items()}),
        )
        for name in METHODS
    }
    if path is not None:
        write_text(path, json.dumps([found[name]._as_dict() for name in METHODS], ensure_ascii=False))
    return found[method]


def ranges_path(
    cache: Path, spec: ModelSpec, model_sha256: str, data: CalibrationSet, layout: str = "padded"
) -> Path:
    """The file in ``cache`` for a model, its calibration texts and a layout, whatever the method."""
    parts = [_COLLECTOR, model_sha256, file_sha256(spec.tokenizer), data.sha256]
    digest = hashlib.sha256(json.dumps([*parts, spec.max_tokens]).encode()).hexdigest()
    return cache / f"ranges-{'' if layout == 'padded' else f'{layout}-'}{digest[:16]}.json"


def _needed(model: onnx.ModelProto, layout: str) -> list[str]:
    """The tensors that a graph of ``layout`` quantizes."""
    if layout == "packed":
        return list(packed_tensors(model))
    return list(dict.fromkeys(item.tensor for item in quantized_inputs(model) if item.bound is None))


def _read_cache(path: Path, tensors: Collection[str]) -> dict[str, Ranges] | None:
    """What is kept in ``path``, by method; None unless it is whole and has a range for each of ``tensors``."""
    try:
        found = [Ranges._from_dict(item) for item in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s cannot be read and is collected again: %s", path, error)
        return None
    missing = {name for item in found for name in tensors if name not in item.amax}
    if missing or {item.method for item in found} != set(METHODS):
        logger.warning("%s does not have all the ranges that are needed and is collected again", path)
        return None
    return {item.method: item for item in found}


def _read(
    spec: ModelSpec,
    model: onnx.ModelProto,
    tensors: Sequence[str],
    rows: Sequence[NDArray[np.int32]],
    *,
    progress: bool,
) -> dict[str, Histogram]:
    from workbench.progress import tqdm

    session = _session(model, tensors)
    histograms = {name: Histogram() for name in tensors}
    with tqdm(total=len(rows), unit="text", desc="Calibrating", disable=not progress, leave=False) as bar:
        for batch in _batches(rows):
            ids = np.stack(batch)
            bias = np.zeros((len(batch), 1, 1, ids.shape[1]), np.float32)
            try:
                values = session.run(tensors, {"input_ids": ids, "attention_bias": bias})
            except Exception as error:  # the library's exceptions share no base of their own
                raise ModelError(f"{spec.onnx} cannot be run: {error}. Export the model again.") from None
            for name, value in zip(tensors, values, strict=True):
                if not histograms[name].add(value):
                    raise ModelError(
                        f"{spec.onnx} gives {name} values that are no finite numbers. Export the model again."
                    )
            bar.update(len(batch))
    return histograms


def _session(model: onnx.ModelProto, tensors: Sequence[str]) -> Any:
    """The FP32 graph with its inner ``tensors`` as outputs."""
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    known = {item.name for item in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # each length is seen once; a plan for it is of no use
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exceptions share no base of their own
        raise ModelError(f"The model cannot be loaded with inner outputs: {error}. Export it again.") from None


def _token_rows(spec: ModelSpec, encoded: Sequence[EncodedText]) -> list[NDArray[np.int32]]:
    """Token ids of every window of every text, with the marks of beginning and end."""
    encoder = TextEncoder(spec)
    return [
        np.concatenate([encoder.prefix, item.ids[slice(*window)], encoder.suffix]).astype(np.int32)
        for item in encoded
        for window in item.windows
        if len(item.ids)
    ]


def _batches(rows: Sequence[NDArray[np.int32]]) -> Iterator[list[NDArray[np.int32]]]:
    """Rows of one length together, the longest first."""
    by_length: dict[int, list[NDArray[np.int32]]] = {}
    for row in rows:
        by_length.setdefault(len(row), []).append(row)
    for length in sorted(by_length, reverse=True):
        same, size = by_length[length], max(1, _CELLS // (length * max(length, 256)))
        for start in range(0, len(same), size):
            yield same[start : start + size]
