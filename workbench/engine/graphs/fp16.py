"""FP32 to FP16: which nodes compute in which type, and the casts between them.

Linears, attention products, residuals and GELU compute in FP16; layer norm, softmax, pooling and classifiers in FP32.
The mask's -1e4 is within FP16's range. A tensor is cast once for all its users; embeddings and matrices are stored as
they are used.

Why a conversion of our own: compared on the bundled model (48 products in the layers, 5 after them) with
onnxconverter-common 1.16 and ModelOpt AutoCast 0.47. Largest difference of a logit from FP32 on random texts of 1 to
200 tokens, some padded:

    converter                                casts   difference   what else
    onnxconverter-common, default               10   0.0054       layer norm, softmax and classifiers in FP16
    the same, those blocked by hand             56   0.0046       the outputs become FP16, though told to stay FP32
    AutoCast, default                            4   0.0054       layer norm, softmax and classifiers in FP16
    the same, those excluded by hand            40   0.0046       needs torch, onnxscript and onnxslim
    this module                                 42   0.0047

By default both leave layer norm's sum over 256 squares in FP16, which holds it up to hidden states of 16 in quadratic
mean, and with lists of nodes written for one model both come to the same products in the same types. Finding these
nodes by the graph's form is what is needed here anyway, for INT8; the casts are 60 lines. No label of 456 sentiment,
1,800 shop review and 482 entity texts flips, 0.2 % of the texts get another set of topics.

onnxruntime 1.32 on an x86 CPU has no FP16 arithmetic: it moves FP16 (Gather, Reshape, Transpose) and casts around
each product, addition and GELU. An FP16 engine is right there and takes 1.2 to 1.7 times as long as FP32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from workbench.engine.graphs.graph import Graph, float_tensors
from workbench.engine.graphs.layers import find_layers
from workbench.errors import ModelError

__all__ = ["SENSITIVE", "narrow", "to_fp16", "wide_nodes"]

SENSITIVE: Final = frozenset(
    {
        "LayerNormalization",
        "Softmax",
        "LogSoftmax",
        "Exp",
        "Log",
        "CumSum",
        "Pow",
        "Sqrt",
        "Reciprocal",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "ReduceL2",
    }
)
"""Operators that stay FP32: sums over many numbers, and what grows fast."""

_LARGEST: Final = 65504.0


def to_fp16(model: ModelProto) -> ModelProto:
    """``model`` computed in FP16, layer norm, softmax and classifiers in FP32. Inputs and outputs stay as they are.

    Raises ModelError when a weight is beyond FP16's range.
    """
    graph = Graph(model)
    narrow(graph, wide_nodes(graph))
    return graph.to_model()


def wide_nodes(graph: Graph) -> set[str]:
    """Names of the nodes that compute in FP32 in an FP16 graph.

    They are the operators of ``SENSITIVE``, everything after the last layer (pooling and classifiers), what counts
    positions, and what has a constant that FP16 does not hold.
    """
    wide = {node.name for node in graph.nodes if node.op_type in SENSITIVE}
    wide |= _tail(graph)
    counting = [node for node in graph.nodes if node.op_type == "Cast" and _cast_to(node) not in _FLOATS]
    wide |= graph.ancestors([node.input[0] for node in counting])
    # A cast that the graph came with says what it wants.
    wide |= {node.name for node in graph.nodes if node.op_type == "Cast"}
    for node in graph.nodes:
        for name in node.input:
            value = graph.constants.get(name)
            if (
                value is not None
                and value.dtype == np.float32
                and value.size == 1
                and not _fits(float(value.flat[0]))
            ):
                wide.add(node.name)
    return wide


_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)


def _tail(graph: Graph) -> set[str]:
    """What follows the last layer; in a graph without layers the last linear before each output."""
    try:
        body = graph.ancestors([find_layers(graph)[-1].last])
    except ModelError:
        producers = graph.producers()
        found = set()
        for tensor in graph.outputs:
            node = producers.get(tensor)
            while node is not None:
                found.add(node.name)
                if node.op_type in ("MatMul", "Gemm"):
                    break
                dynamic = [name for name in node.input if name in producers]
                node = producers.get(dynamic[0]) if dynamic else None
        return found
    return {node.name for node in graph.nodes} - body


def _fits(value: float) -> bool:
    """Whether FP16 holds a constant: not beyond its range, and not so small that it becomes 0."""
    return value == 0 or (abs(value) <= _LARGEST and abs(value) >= 2.0**-24)


def _cast_to(node: NodeProto) -> int:
    return next(int(item.i) for item in node.attribute if item.name == "to")


def narrow(graph: Graph, wide: Iterable[str]) -> None:
    """Let all nodes of ``graph`` but ``wide`` compute in FP16, in place. Constants are converted, tensors are cast.

    A tensor is cast once for all its users. Raises ModelError when a weight is beyond FP16's range.
    """
    keep = set(wide)
    types = float_tensors(graph.to_model())
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    # What each floating-point tensor will be.
    now = {name: single for name in graph.inputs if types.get(name) == single}
    for node in graph.nodes:
        for name in node.output:
            if types.get(name) == single:
                now[name] = single if node.name in keep or node.op_type == "Cast" else half
    casts: dict[tuple[str, int], str] = {}
    added: list[NodeProto] = []

    def as_type(name: str, kind: int) -> str:
        if name in graph.constants:
            return _constant(graph, name) if kind == half and graph.constants[name].dtype == np.float32 else name
        if name not in now or now[name] == kind:
            return name
        if (name, kind) not in casts:
            label = f"{name}_as_{'fp16' if kind == half else 'fp32'}"
            casts[name, kind] = label
            added.append(helper.make_node("Cast", [name], [label], f"cast_{label}", to=kind))
        return casts[name, kind]

    for node in graph.nodes:
        if node.op_type == "Cast":
            if node.input[0] in now and now[node.input[0]] == half:
                node.input[0] = as_type(node.input[0], single)
            continue
        kind = single if node.name in keep else half
        node.input[:] = [as_type(name, kind) if name else name for name in node.input]
    outputs = {name for name in graph.outputs if now.get(name) == half}
    for node in graph.nodes:
        for index, name in enumerate(node.output):
            if name in outputs:
                node.output[index] = f"{name}_fp16"
                added.append(helper.make_node("Cast", [f"{name}_fp16"], [name], f"cast_{name}", to=single))
        node.input[:] = [f"{name}_fp16" if name in outputs else name for name in node.input]
    graph.nodes += added


def _constant(graph: Graph, name: str) -> str:
    """The FP16 twin of a constant, made once."""
    label = f"{name}_half"
    if label not in graph.constants:
        value = graph.constants[name]
        largest = float(np.abs(value).max(initial=0))
        if largest > _LARGEST:
            raise ModelError(
                f"The weight {name} is beyond FP16's range (largest {largest:.3g}). Build this model with precision "
                "fp32."
            )
        graph.constants[label] = value.astype(np.float16)
    return label
