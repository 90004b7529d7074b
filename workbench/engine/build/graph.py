"""A model folder's network in one precision and in the form its builder reads."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

from workbench.errors import CalibrationError, EngineError, ModelError
from workbench.files import write_text
from workbench.runtime.host import runtime_version
from workbench.runtime.manifest import file_sha256
from workbench.settings import settings
from workbench.tasks.encode import EncodedText, TextEncoder
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import ModelSpec

__all__ = [
    "PRECISIONS",
    "CalibrationTexts",
    "ConvertedGraph",
    "UnpackableError",
    "calibration_folder",
    "calibration_sha256",
    "convert",
    "import_onnx",
    "text_lengths",
]

logger = logging.getLogger(__name__)

PRECISIONS: Final = ("fp32", "fp16", "int8")

_CONVERTER: Final = 1
"""Raise this when packed graphs are made or compared in another way: then what agreed before is compared again."""


class UnpackableError(ModelError):
    """The network has a form that no packed engine can have; a padded one can."""


class CalibrationTexts:
    """The calibration texts of a model, read once and tokenized once, each when it is first asked for.

    ``folder``: where they lie; default: the project's.
    """

    def __init__(self, spec: ModelSpec, folder: Path | None = None) -> None:
        self._spec = spec
        self._folder = folder

    @cached_property
    def data(self) -> Any:
        """The texts of the model's tasks (workbench.engine.quantize.CalibrationSet). Raises CalibrationError."""
        from workbench.engine.quantize import read_calibration

        return read_calibration(calibration_folder(self._folder), tuple(self._spec.outputs))

    @cached_property
    def encoded(self) -> list[EncodedText]:
        """The same as tokens."""
        return TextEncoder(self._spec).encode(self.data.texts, offsets=False)


@dataclass(frozen=True)
class ConvertedGraph:
    """``data``: the graph as ONNX. ``calibration``: method, data_sha256, n and ranges_sha256 of an INT8 one;
    ``cached``: its ranges came from an earlier build. ``width``: of the hidden states, told of a packed graph."""

    data: bytes
    precision: str
    calibration: dict[str, Any] | None = None
    cached: bool = False
    width: int | None = None

    @property
    def sha256(self) -> str:
        """Of the graph, in hex."""
        return hashlib.sha256(self.data).hexdigest()


def convert(
    spec: ModelSpec,
    *,
    precision: str,
    form: str,
    keep: Sequence[str] = (),
    method: str = DEFAULT_RANGE_METHOD,
    layout: str = "padded",
    cache: Path,
    calibration: Path | CalibrationTexts | None = None,
    progress: bool = False,
) -> ConvertedGraph:
    """The network of ``spec`` in ``precision``; INT8 in the ``form`` its builder reads (workbench.engine.graphs.Form)
    and without the layer groups in ``keep``; ``layout``: "padded", or "packed" in the form of TensorRT 8.6's plugins.

    ``calibration``: the calibration texts, or their folder; default: the project's. Ranges are read from ``cache`` or
    collected and kept there. Raises ModelError when the graph cannot be converted (UnpackableError: not packed,
    but padded it may be), CalibrationError when there are no texts that stand for what the model reads, EngineError
    for an unknown precision.
    """
    onnx = import_onnx()
    from workbench.engine.graphs import Form, check_graph, to_fp16, to_int8

    if precision not in PRECISIONS:
        raise EngineError(f"No precision is named {precision!r}. Use one of: {', '.join(PRECISIONS)}")
    if keep and precision != "int8":
        raise EngineError(f"Layer groups are kept back from INT8 only, not from {precision}. Leave --keep out.")
    model = onnx.load(str(spec.onnx))
    facts, cached, named = None, False, precision
    ranges = None
    if layout == "packed":
        _check_packable(model, spec, precision)  # before minutes of calibration
    if precision == "int8":
        from workbench.engine.quantize import collect_ranges

        texts = _texts(spec, calibration)
        ranges = collect_ranges(
            spec.folder,
            texts.data,
            method=method,
            layout=layout,
            cache=cache,
            tokens=lambda: texts.encoded,
            progress=progress,
        )
        cached = ranges.cached
        facts = {"method": method, "data_sha256": texts.data.sha256, "n": ranges.n, "ranges_sha256": ranges.sha256}
    if layout == "packed":
        data, width = _packed(model, spec, precision, ranges, cache)
        return ConvertedGraph(data, precision, facts, cached, width)
    if precision == "fp16":
        model = to_fp16(model)
    elif ranges is not None:
        model = to_int8(model, ranges, keep=keep, form=cast(Form, form))
        named = "mixed" if keep else precision
    check_graph(model, named)
    return ConvertedGraph(model.SerializeToString(deterministic=True), named, facts, cached)


def import_onnx() -> Any:
    """The module onnx. Raises EngineError when the extra ``engines`` is not installed."""
    try:
        import onnx
    except ImportError:
        raise EngineError(
            "Building engines needs onnx, which is not installed. Install the extra in the workbench's checkout: "
            "pip install -c constraints.txt -e '.[engines]'"
        ) from None
    return onnx


def _check_packable(model: Any, spec: ModelSpec, precision: str) -> None:
    from workbench.engine.graphs.packed import check_packable

    if precision not in ("fp16", "int8"):
        raise EngineError(
            f"Packed engines compute in FP16 or INT8, not in {precision}. Build it with --layout padded."
        )
    try:
        check_packable(model, precision=cast(Any, precision), max_tokens=spec.max_tokens)
    except ModelError as error:
        raise UnpackableError(str(error)) from None


def _packed(model: Any, spec: ModelSpec, precision: str, ranges: Any, cache: Path) -> tuple[bytes, int]:
    """The packed graph, found to answer as ``model``, and the width of its hidden states."""
    from workbench.engine.graphs.agree import check_agreement
    from workbench.engine.graphs.check import check_packed
    from workbench.engine.graphs.packed import DEFAULT_FORM, to_packed

    packed = to_packed(model, precision=cast(Any, precision), max_tokens=spec.max_tokens, ranges=ranges)
    check_packed(packed, precision)
    data: bytes = packed.SerializeToString(deterministic=True)
    # Embeddings of the tokens.
    vocabulary, width = next(item.dims for item in packed.graph.initializer if item.name == "tokens.table")
    stamp = _stamp(cache, file_sha256(spec.onnx), hashlib.sha256(data).hexdigest())
    if not stamp.is_file():
        check_agreement(model, form=DEFAULT_FORM, vocabulary=vocabulary)
        if runtime_version("onnxruntime") is not None:  # without it nothing was compared
            write_text(stamp, "")
    return data, width


def _stamp(cache: Path, model_sha256: str, packed_sha256: str) -> Path:
    """The file that says that a packed graph was found to answer as the padded one it is made from."""
    parts = json.dumps([_CONVERTER, model_sha256, packed_sha256])
    return cache / f"agrees-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"


def calibration_folder(given: Path | None = None) -> Path:
    """Where calibration texts are looked for: ``given``, or the project's folder calibration."""
    return given or settings().home / "calibration"


def calibration_sha256(spec: ModelSpec, calibration: Path | None = None) -> str | None:
    """Of the calibration texts of the model's tasks as they are now; None where there are none."""
    try:
        return str(CalibrationTexts(spec, calibration).data.sha256)
    except CalibrationError:
        return None


def text_lengths(spec: ModelSpec, calibration: Path | CalibrationTexts | None = None) -> list[int]:
    """Tokens of each calibration text, or of each window of a long one, marks of beginning and end included.

    Empty where there are no calibration texts: FP32 and FP16 need none.
    """
    try:
        encoded = _texts(spec, calibration).encoded
    except CalibrationError as error:
        logger.warning("Profiles are made without knowing how long texts are: %s", error)
        return []
    encoder = TextEncoder(spec)
    marks = len(encoder.prefix) + len(encoder.suffix)
    return [end - start + marks for text in encoded for start, end in text.windows]


def _texts(spec: ModelSpec, calibration: Path | CalibrationTexts | None) -> CalibrationTexts:
    return calibration if isinstance(calibration, CalibrationTexts) else CalibrationTexts(spec, calibration)
