"""A model folder's network in one precision and in the form its builder reads."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from workbench.errors import CalibrationError, EngineError
from workbench.runtime.manifest import file_sha256
from workbench.settings import settings
from workbench.tasks.encode import TextEncoder
from workbench.tasks.precision import DEFAULT_RANGE_METHOD
from workbench.tasks.spec import ModelSpec

__all__ = ["PRECISIONS", "ConvertedGraph", "calibration_folder", "calibration_sha256", "convert", "text_lengths"]

logger = logging.getLogger(__name__)

PRECISIONS: Final = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class ConvertedGraph:
    """``data``: the graph as ONNX. ``calibration``: method, data_sha256, n and ranges_sha256 of an INT8 one;
    ``cached``: its ranges came from an earlier build."""

    data: bytes
    precision: str
    calibration: dict[str, Any] | None = None
    cached: bool = False

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
    calibration: Path | None = None,
    progress: bool = False,
) -> ConvertedGraph:
    """The network of ``spec`` in ``precision``; INT8 in the ``form`` its builder reads (workbench.engine.graphs.Form)
    and without the layer groups in ``keep``; ``layout``: "padded", or "packed" in the form of TensorRT 8.6's plugins.

    ``calibration``: the folder with calibration texts; default: the project's. Ranges are read from ``cache`` or
    collected and kept there. Raises ModelError when the graph cannot be converted, CalibrationError when there are no
    texts that stand for what the model reads, EngineError for an unknown precision.
    """
    try:
        import onnx
    except ImportError:
        raise EngineError(
            "Building engines needs onnx, which is not installed. Install the extra in the workbench's checkout: "
            "pip install -c constraints.txt -e '.[engines]'"
        ) from None
    from workbench.engine.graphs import Form, check_graph, to_fp16, to_int8

    if precision not in PRECISIONS:
        raise EngineError(f"No precision is named {precision!r}. Use one of: {', '.join(PRECISIONS)}")
    if keep and precision != "int8":
        raise EngineError(f"Layer groups are kept back from INT8 only, not from {precision}. Leave --keep out.")
    model = onnx.load(str(spec.onnx))
    facts, cached, named = None, False, precision
    ranges = None
    if precision == "int8":
        from workbench.engine.quantize import collect_ranges
        from workbench.engine.quantize.ranges import ranges_path

        if layout == "packed":
            from workbench.engine.graphs.packed import check_packable

            check_packable(model, precision="int8", max_tokens=spec.max_tokens)  # before minutes of calibration
        data = _calibration_set(spec, calibration)
        cached = ranges_path(cache, spec, file_sha256(spec.onnx), data, layout).is_file()
        ranges = collect_ranges(spec.folder, data, method=method, layout=layout, cache=cache, progress=progress)
        facts = {"method": method, "data_sha256": data.sha256, "n": ranges.n, "ranges_sha256": ranges.sha256}
    if layout == "packed":
        model = _packed(model, spec, precision, ranges)
        return ConvertedGraph(model.SerializeToString(deterministic=True), precision, facts, cached)
    if precision == "fp16":
        model = to_fp16(model)
    elif ranges is not None:
        model = to_int8(model, ranges, keep=keep, form=cast(Form, form))
        named = "mixed" if keep else precision
    check_graph(model, named)
    return ConvertedGraph(model.SerializeToString(deterministic=True), named, facts, cached)


def _packed(model: Any, spec: ModelSpec, precision: str, ranges: Any) -> Any:
    from workbench.engine.graphs.agree import check_agreement
    from workbench.engine.graphs.check import check_packed
    from workbench.engine.graphs.packed import DEFAULT_FORM, to_packed

    if precision not in ("fp16", "int8"):
        raise EngineError(
            f"Packed engines compute in FP16 or INT8, not in {precision}. Build it with --layout padded."
        )
    packed = to_packed(model, precision=cast(Any, precision), max_tokens=spec.max_tokens, ranges=ranges)
    check_packed(packed, precision)
    check_agreement(model, form=DEFAULT_FORM, vocabulary=_vocabulary(packed))
    return packed


def _vocabulary(packed: Any) -> int:
    return int(next(item.dims[0] for item in packed.graph.initializer if item.name == "tokens.table"))


def calibration_folder(given: Path | None = None) -> Path:
    """Where calibration texts are looked for: ``given``, or the project's folder calibration."""
    return given or settings().home / "calibration"


def calibration_sha256(spec: ModelSpec, calibration: Path | None = None) -> str | None:
    """Of the calibration texts of the model's tasks as they are now; None where there are none."""
    try:
        return str(_calibration_set(spec, calibration).sha256)
    except CalibrationError:
        return None


def text_lengths(spec: ModelSpec, calibration: Path | None = None) -> list[int]:
    """Tokens of each calibration text, or of each window of a long one, marks of beginning and end included.

    Empty where there are no calibration texts: FP32 and FP16 need none.
    """
    try:
        data = _calibration_set(spec, calibration)
    except CalibrationError as error:
        logger.warning("Profiles are made without knowing how long texts are: %s", error)
        return []
    encoder = TextEncoder(spec)
    marks = len(encoder.prefix) + len(encoder.suffix)
    return [end - start + marks for text in encoder.encode(data.texts, offsets=False) for start, end in text.windows]


def _calibration_set(spec: ModelSpec, calibration: Path | None) -> Any:
    from workbench.engine.quantize import read_calibration

    return read_calibration(calibration_folder(calibration), tuple(spec.outputs))
