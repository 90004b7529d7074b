"""What layers of a built engine really compute in, from what the engine inspector says of them.

TensorRT 8.6 and 10 put the type of a tensor into words ("Row major linear FP16 format" under "Format/Datatype"), 11
has "Format" and "DataType" apart. The kernel's name says what a matrix product reads and sums in
("sm90_xmma_gemm_f16f16_f16f32_f32_..."). Where TensorRT compiled a part of the network as one piece ("Myelin"), 8.6
says nothing of what is inside; then the names of the kernels in the plan itself are the witness.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from workbench.errors import EngineError

__all__ = ["layer_precisions", "prove_precision"]

_TYPES: Final = (
    ("INT8", re.compile(r"\bint8\b|\bi8i8|_i8_|_i8i32|_s8_|imma", re.IGNORECASE)),
    ("FP16", re.compile(r"\bfp16\b|\bhalf\b|f16f16|_h16|h884|h1688|h16816|_fp16_|hmma", re.IGNORECASE)),
    ("FP32", re.compile(r"\bfp32\b|\bfloat\b|f32f32|sgemm|_fp32_|tf32", re.IGNORECASE)),
)
_KERNEL: Final = re.compile(rb"sm\d{2,3}_xmma_(?:gemm|fprop)_\w{8,200}")
_PRODUCT: Final = re.compile(r"gemm|matmul|matrix.?multiply|\bfc|convolution|mha|fully.?connected", re.IGNORECASE)


def layer_precisions(information: str, plan: bytes = b"") -> dict[str, int]:
    """How many layers compute in INT8, FP16 and FP32, from the inspector's JSON for a whole engine.

    Matrix products alone are counted where any layer can be told to be one; a layer counts under the narrowest type
    among its inputs, weights and kernel. Where the products are inside a piece that the inspector does not open, the
    different kernels named in ``plan`` are counted; empty where there are none. Raises EngineError when the text is
    not the inspector's.
    """
    try:
        # 8.6 writes control characters into the names of fused layers.
        layers = json.loads(information, strict=False)["Layers"]
        known = [layer for layer in layers if isinstance(layer, Mapping)]
        found = [(_is_product(layer), _narrowest(layer)) for layer in known if not _is_closed(layer)]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"What TensorRT says of the engine's layers cannot be read ({error}). Build it again with a TensorRT "
            "version named in engines/README.md."
        ) from None
    products = [kind for is_product, kind in found if is_product and kind is not None]
    if products:
        chosen = products
    elif any(map(_is_closed, known)):
        names = {name.decode() for name in _KERNEL.findall(plan)}
        chosen = [kind for name in names if (kind := _narrowest({"TacticName": name})) is not None]
    else:
        chosen = [kind for _, kind in found if kind is not None]
    return dict(Counter(chosen))


def prove_precision(counts: Mapping[str, int], precision: str) -> None:
    """Refuse an engine that is not what it is called.

    fp32: no layer narrower. fp16: most layers in FP16. int8: most in INT8; mixed: some. Raises EngineError.
    """
    total = sum(counts.values())
    share = {kind: counts.get(kind, 0) / total if total else 0.0 for kind in ("INT8", "FP16", "FP32")}
    holds = {
        "fp32": total > 0 and share["FP32"] == 1,
        "fp16": share["FP16"] > 0.5,
        "int8": share["INT8"] > 0.5,
        "mixed": share["INT8"] > 0,
    }[precision]
    if not holds:
        listed = ", ".join(f"{counts[kind]} in {kind}" for kind in share if counts.get(kind)) or "none that it tells"
        raise EngineError(
            f"The engine is called {precision}, but the inspector finds these layers: {listed}. It is not kept. "
            "Build it in another layout or with another TensorRT version, or use precision fp32."
        )


def _is_closed(layer: Mapping[str, Any]) -> bool:
    return layer.get("LayerType") == "Myelin" or str(layer.get("Name", "")).startswith("{ForeignNode")


def _is_product(layer: Mapping[str, Any]) -> bool:
    return any(_PRODUCT.search(str(layer.get(key, ""))) for key in ("LayerType", "TacticName", "ParameterType"))


def _narrowest(layer: Mapping[str, Any]) -> str | None:
    said = " ".join(_said(layer))
    return next((name for name, pattern in _TYPES if pattern.search(said)), None)


def _said(layer: Mapping[str, Any]) -> Iterator[str]:
    yield str(layer.get("TacticName", ""))
    weights = layer.get("Weights")
    if isinstance(weights, Mapping):
        yield str(weights.get("Type", ""))
    for tensor in layer.get("Inputs") or ():
        if isinstance(tensor, Mapping):
            for key in ("Format/Datatype", "Format", "DataType", "Datatype"):
                yield str(tensor.get(key, ""))
