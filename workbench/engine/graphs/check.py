"""What must hold in a graph of each precision, whoever made it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
import onnx.checker
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from workbench.engine.graphs.fp16 import SENSITIVE
from workbench.engine.graphs.graph import Graph, float_tensors
from workbench.engine.graphs.layers import Layer, find_layers
from workbench.engine.graphs.plugins import ATTENTION, DOMAIN
from workbench.errors import ModelError

__all__ = ["PRECISIONS", "check_graph", "check_packed"]

PRECISIONS: Final = ("fp32", "fp16", "int8", "mixed")

_PLAIN: Final = SENSITIVE | {"Erf", "Gelu", "Tanh"}
"""Operators that never take what was quantized."""


_INT8: Final = 2
"""TensorRT's number for INT8."""

_MIDDLE: Final = {"int8": 0, "uint8": 128, "int32": 0}


def check_graph(model: ModelProto, precision: str) -> None:
    """Check a graph before it is built.

    For all: valid ONNX, ids int32, other inputs and all outputs float32, no cast without use or of a cast. fp32: no
    product in FP16. fp16: all products of the layers in FP16, layer norm and softmax in FP32. int8: all inputs of the
    layers' products quantized, those of the attention products alone may be left out; mixed: some, not all. Every
    Q/DQ symmetric, with the constant zero point 0 (of unsigned bytes 128, the same numbers) and scales above 0;
    softmax, layer norm, GELU and classifiers never take a quantized tensor.

    Raises ModelError naming each difference.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"No precision is named {precision!r}. Use one of: {', '.join(PRECISIONS)}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the library's exceptions share no base of their own
        raise ModelError(f"The graph is not valid ONNX: {error}. Convert or export the model again.") from None
    checker = _Checker(model)
    problems = [*checker.ends(), *checker.casts(), *checker.pairs(), *getattr(checker, precision)()]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:12])
        more = f"\n  and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ModelError(
            f"The {precision} graph is not what it is called:\n{listed}{more}\nConvert the FP32 model again: "
            "workbench engines build"
        )


def check_packed(model: ModelProto, precision: str) -> None:
    """Check a packed graph before it is built: valid ONNX, ids int32, outputs float32, and its products and plugins
    in ``precision``. Raises ModelError naming each difference."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the library's exceptions share no base of their own
        raise ModelError(f"The packed graph is not valid ONNX: {error}. Build it with --layout padded.") from None
    checker = _Checker(model)
    problems = [*checker.packed_ends(), *checker.casts(), *checker.plugins(precision)]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:12])
        raise ModelError(f"The packed {precision} graph is not what it is called:\n{listed}\nUse --layout padded.")


class _Checker:
    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.graph = Graph(model)
        self.types = float_tensors(model)
        self.made_by = self.graph.producers()
        self.used_by = self.graph.users()

    def ends(self) -> Iterator[str]:
        constants = {item.name for item in self.model.graph.initializer}
        for value in self.model.graph.input:
            if value.name not in constants:
                kind = value.type.tensor_type.elem_type
                wanted = TensorProto.INT32 if value.name == "input_ids" else TensorProto.FLOAT
                if kind != wanted:
                    yield f"input {value.name} is {_name(kind)}, not {_name(wanted)}"
        for value in self.model.graph.output:
            if value.type.tensor_type.elem_type != TensorProto.FLOAT:
                yield f"output {value.name} is {_name(value.type.tensor_type.elem_type)}, not FLOAT"

    def packed_ends(self) -> Iterator[str]:
        for value, wanted in (
            *((item, TensorProto.INT32) for item in self.model.graph.input),
            *((item, TensorProto.FLOAT) for item in self.model.graph.output),
        ):
            kind = value.type.tensor_type.elem_type
            if kind != wanted:
                yield f"{value.name} is {_name(kind)}, not {_name(wanted)}"

    def plugins(self, precision: str) -> Iterator[str]:
        """Plugins and convolutions of the layers in the one type that ``precision`` means."""
        wanted = TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16
        if not any(node.op_type == ATTENTION for node in self.graph.nodes):
            yield "it has no attention operator"
        for node in self.graph.nodes:
            if node.domain == DOMAIN or node.op_type == "Conv":
                kinds = {self.types.get(node.input[0]), self.types.get(node.output[0])}
                if kinds != {wanted}:
                    yield f"{node.name} computes in {', '.join(_name(kind or 0) for kind in sorted(kinds, key=str))}"
        if precision == "int8":
            yield from self._packed_pairs()
        else:
            yield from self._no_pairs()

    def _packed_pairs(self) -> Iterator[str]:
        """Attention of the layers in INT8, operators in INT8 between pairs, and most matrices read as INT8."""
        yield from self.pairs()
        convolutions, counted = 0, 0
        for node in self.graph.nodes:
            if node.op_type == "Conv":
                convolutions += 1
                counted += all(self._is_quantized(name) for name in node.input[:2])
            if node.domain != DOMAIN:
                continue
            kind = next((item.i for item in node.attribute if item.name == "type_id"), None)
            if kind != _INT8:
                if node.op_type == ATTENTION and node.name.startswith("layer"):
                    yield f"{node.name} is not in INT8"
                continue
            tensors = node.input[:1] if node.op_type == ATTENTION else node.input[:2]
            users = self.used_by.get(node.output[0], [])
            if not all(self._is_quantized(name) for name in tensors):
                yield f"{node.name} is in INT8 and takes what is not quantized"
            if any(user.op_type != "QuantizeLinear" for user, _ in users):
                yield f"{node.name} is in INT8 and gives what is not quantized"
        if counted * 2 <= convolutions:
            yield f"{counted} of {convolutions} matrices are read as INT8"

    def casts(self) -> Iterator[str]:
        for node in self.graph.nodes:
            if node.op_type != "Cast":
                continue
            source, target = node.input[0], node.output[0]
            if target not in self.used_by and target not in self.graph.outputs:
                yield f"{node.name} casts for nobody"
            before = self.made_by.get(source)
            if before is not None and before.op_type == "Cast":
                yield f"{node.name} casts what {before.name} has cast"
            if self.types.get(source) is not None and self.types.get(source) == self.types.get(target):
                yield f"{node.name} casts {_name(self.types[source])} to itself"

    def pairs(self) -> Iterator[str]:
        for node in self.graph.nodes:
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                continue
            scale = self.graph.constants.get(node.input[1])
            if scale is None or not bool(np.all(np.isfinite(scale) & (scale > 0))):
                yield f"{node.name}: its scale is not a constant above 0"
            zero = self.graph.constants.get(node.input[2]) if len(node.input) > 2 else None
            if zero is None or not (zero == _MIDDLE.get(zero.dtype.name, -1)).all():
                yield f"{node.name} is not symmetric (a constant zero point: 0 of int8, or 128 of uint8)"
            if node.op_type == "QuantizeLinear":
                users = self.used_by.get(node.output[0], [])
                if not users or any(user.op_type != "DequantizeLinear" for user, _ in users):
                    yield f"{node.name}: what it gives does not go into a DequantizeLinear alone"
            elif node.input[0] not in self.graph.constants:
                before = self.made_by.get(node.input[0])
                if before is None or before.op_type != "QuantizeLinear":
                    yield f"{node.name} takes what no QuantizeLinear gave"
                elif not _same(self.graph.constants.get(before.input[1]), scale):
                    yield f"{node.name}: its scale is not that of {before.name}"
        for node in self.graph.nodes:
            if node.op_type in _PLAIN and any(self._is_quantized(name) for name in node.input):
                yield f"{node.name} ({node.op_type}) takes a quantized tensor"

    def fp32(self) -> Iterator[str]:
        yield from self._no_pairs()
        for node in self._products():
            if self.types.get(node.output[0]) != TensorProto.FLOAT:
                yield f"{node.name} computes in {_name(self.types.get(node.output[0], 0))}, not FLOAT"

    def fp16(self) -> Iterator[str]:
        yield from self._no_pairs()
        yield from self._sensitive()
        inner = {name for layer in self._layers() for name in _products_of(layer)}
        for node in self._products():
            # Without layers, one product in FP16 is all that can be asked for.
            if node.name in inner and self.types.get(node.output[0]) != TensorProto.FLOAT16:
                yield f"{node.name} computes in {_name(self.types.get(node.output[0], 0))}, not FLOAT16"
        if not inner and all(self.types.get(node.output[0]) != TensorProto.FLOAT16 for node in self._products()):
            yield "no product computes in FLOAT16"

    def int8(self) -> Iterator[str]:
        yield from self._placed()
        products = [(node.name, quantized) for node, quantized in self._inner_products()]
        attention = {name for layer in self._layers() for name in (layer.scores, layer.context)}
        without = not any(quantized for name, quantized in products if name in attention)
        for name, quantized in products:
            if not quantized and not (without and name in attention):
                yield f"{name} is not quantized"

    def mixed(self) -> Iterator[str]:
        yield from self._placed()
        shares = [quantized for _, quantized in self._inner_products()]
        if all(shares) or not any(shares):
            yield f"{'all' if all(shares) else 'none'} of its products are quantized"

    def _placed(self) -> Iterator[str]:
        """What a quantized graph must not quantize."""
        yield from self._sensitive()
        layers = self._layers()
        if not layers:
            yield "no transformer layers are found in it"
            return
        body = self.graph.ancestors([layers[-1].last])
        for node in self.graph.nodes:
            if node.name not in body and any(self._is_quantized(name) for name in node.input):
                yield f"{node.name} stands after the last layer and takes a quantized tensor"

    def _inner_products(self) -> Iterator[tuple[NodeProto, bool]]:
        nodes = {node.name: node for node in self.graph.nodes}
        for layer in self._layers():
            for name in _products_of(layer):
                node = nodes[name]
                yield node, all(self._is_quantized(tensor) for tensor in node.input[:2])

    def _no_pairs(self) -> Iterator[str]:
        for node in self.graph.nodes:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                yield f"{node.name} quantizes"

    def _sensitive(self) -> Iterator[str]:
        for node in self.graph.nodes:
            if node.op_type in SENSITIVE and self.types.get(node.output[0]) == TensorProto.FLOAT16:
                yield f"{node.name} ({node.op_type}) computes in FLOAT16"

    def _products(self) -> list[NodeProto]:
        return [node for node in self.graph.nodes if node.op_type in ("MatMul", "Gemm")]

    def _layers(self) -> tuple[Layer, ...]:
        try:
            return find_layers(self.graph)
        except ModelError:
            return ()

    def _is_quantized(self, name: str) -> bool:
        node = self.made_by.get(name)
        return node is not None and node.op_type == "DequantizeLinear"


def _products_of(layer: Layer) -> Iterator[str]:
    yield layer.scores
    yield layer.context
    for linears in (layer.qkv, layer.output, layer.ffn1, layer.ffn2):
        yield from (linear.node for linear in linears)


def _same(left: NDArray[Any] | None, right: NDArray[Any] | None) -> bool:
    return left is not None and right is not None and np.array_equal(left, right)


def _name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind))
