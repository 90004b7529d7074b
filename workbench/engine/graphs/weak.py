"""A packed graph as TensorRT 8.6 wants to read it: in FP32, with what the graph says of types beside it.

8.6 chooses types by itself where its flags permit. The networks measured to be fast were FP32 throughout: a matrix
with bias and GELU becomes one kernel when the matrix may be FP16 and the GELU is held in FP32, and plugins run in
INT8 when the tensors around them have ranges. With pairs of QuantizeLinear and DequantizeLinear in the network the
GELU is a kernel of its own again. So the graph remains the record, and this is what the builder is told of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from workbench.engine.graphs.graph import float_tensors
from workbench.errors import ModelError

__all__ = ["WeakGraph", "loosen"]

_OPSET: Final = 17
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)
_ACTIVATION: Final = ("Pow", "Mul", "Add", "Div", "Tanh", "Erf")


@dataclass(frozen=True)
class WeakGraph:
    """``model``: all floats FP32, no casts between them, no pairs. ``ranges``: largest absolute value of each tensor
    that is INT8. ``wide``: tensors to be computed in FP32; ``half``: of products that stay out of INT8. ``named``:
    every tensor that a node gives."""

    model: ModelProto
    ranges: Mapping[str, float]
    wide: frozenset[str]
    half: frozenset[str]
    named: frozenset[str]


def loosen(model: ModelProto) -> WeakGraph:
    """What a packed graph says, for a builder that chooses types by itself. Raises ModelError for a pair that no
    range can stand for."""
    types = float_tensors(model)
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    same: dict[str, str] = {}
    ranges: dict[str, float] = {}
    nodes: list[NodeProto] = []
    wide, half, folded = set[str](), set[str](), set[str]()
    quantizers = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        source, output = (node.input[0] if node.input else ""), node.output[0]
        if node.op_type == "QuantizeLinear":
            tensor = same.get(source, source)
            ranges[tensor] = 127 * float(constants[node.input[1]])
        elif node.op_type == "DequantizeLinear" and source in constants:
            constants[output] = _dequantized(constants[source], constants[node.input[1]], node)
            folded.add(output)
        elif node.op_type == "DequantizeLinear":
            if source not in quantizers:
                raise ModelError(f"{node.name} takes what no QuantizeLinear gave. Build it with --layout padded.")
            before = quantizers[source].input[0]
            same[output] = same.get(before, before)
        elif node.op_type == "Cast" and {types.get(source), types.get(output)} <= set(_FLOATS):
            same[output] = same.get(source, source)
        else:
            if node.op_type == "Conv" and node.input[1] not in folded:
                half.add(output)
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [same.get(name, name) for name in node.input]
            for item in copy.attribute:
                if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT16:
                    item.i = TensorProto.FLOAT
            nodes.append(copy)
            if types.get(output) == TensorProto.FLOAT or _is_activation(node):
                wide.add(output)
    nodes += [
        helper.make_node("Identity", [same[value.name]], [value.name], value.name)
        for value in model.graph.output
        if value.name in same
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        model.graph.input,
        model.graph.output,
        initializer=[
            numpy_helper.from_array(_wide(value), name) for name, value in constants.items() if name in used
        ],
    )
    opsets = [item for item in model.opset_import if item.domain]
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET), *opsets], ir_version=8)
    given = frozenset(name for node in nodes for name in node.output)
    return WeakGraph(made, ranges, frozenset(wide), frozenset(half if ranges else ()), given)


def _is_activation(node: NodeProto) -> bool:
    """Whether a node is a part of the GELU between a layer's matrices."""
    name = node.output[0]
    return node.op_type in _ACTIVATION and name.startswith("layer") and (name.endswith(".act") or ".act." in name)


def _dequantized(values: NDArray[Any], scales: NDArray[Any], node: NodeProto) -> NDArray[np.float32]:
    axis = next((int(item.i) for item in node.attribute if item.name == "axis"), 0)
    shape = [1] * values.ndim
    if scales.ndim:
        shape[axis] = -1
    return np.asarray(values.astype(np.float32) * scales.astype(np.float32).reshape(shape), np.float32)


def _wide(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else np.asarray(value, order="C")
