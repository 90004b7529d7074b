"""FP32 to INT8: pairs of QuantizeLinear and DequantizeLinear (Q/DQ) where a builder is to compute in INT8.

Quantized are the inputs of the layers' linears and of both attention products, and what goes around a sublayer to the
residual addition; never what enters softmax, layer norm, GELU or a classifier, and not the sublayer's own output: its
outliers make the logits' error an eighth larger (min-max: a third). Scales are symmetric: one for each output channel
of a matrix, one for an activation. The shares that a softmax gives get 1/127 whatever the calibration: entropy would
cut them at 0.18, and sentiment then loses 1.8 points and entities 13.

One placement, three forms that compute the same (but for attention), because scales are numbers that FP16 holds:

    tensorrt-8   opset 17, FP32; matrices in FP32 through both halves of a pair, which is what 8.6 reads; the
                 attention products stay in FP16
    tensorrt-10  opset 19, all else as in an FP16 graph (strongly typed: a DQ gives its scale's type); INT8 matrices
    ort          opset 17, FP32; INT8 matrices; activations as unsigned bytes around 128; biases as INT32

Quantized attention products come out wrong on 8.6 (8.6.0, H100): the bundled model's answers were noise for texts of
65 or 97 tokens and more, depending on the optimization profiles, and with a single profile for all. Without them the
logits are off by 0.02 to 0.04 of their spread at every length, as much as in onnxruntime.

Unsigned activations and INT32 biases make onnxruntime compute all products in INT8 on x86: 12.6 ms for 8 texts of 32
tokens on one core, FP32 22.8 ms, with signed activations 98 ms, all with biases as additions of their own, which take
a seventh more. On a CPU without VNNI its kernels may saturate; the gate measures on the CPU that will serve.

Measured in onnxruntime with the bundled model against FP32: accuracy (456 texts), macro F1 (490) and entity F1 (482)
on the validation sets, in points; flips of 1,800 reviews of three shops:

    ranges             sentiment   topics   entities   flips
    entropy                  0.0     -1.1       -0.7   0.9 %
    percentile 99.9          0.0     -2.4       -0.4   0.9 %
    percentile 99.99        -0.7     -0.8        0.0   0.6 %
    min-max                  0.0      0.0       -0.3   0.6 %

Of the logits' error percentile 99.99 has the least (0.06, 0.07 and 0.04 of their spread; min-max 0.07, 0.07, 0.05;
entropy 0.10, 0.12, 0.06), which counts for more than differences of three texts: it is the default. Most of the error
comes from the second FFN matrix and the attention products.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from workbench.engine.graphs.fp16 import narrow, wide_nodes
from workbench.engine.graphs.graph import Graph
from workbench.engine.graphs.layers import Layer, Linear, find_layers, layer_groups
from workbench.errors import ModelError

__all__ = ["FORMS", "Form", "HasAmax", "QuantizedInput", "quantized_inputs", "scales_of", "to_int8"]

Form = Literal["ort", "tensorrt-8", "tensorrt-10"]
FORMS: Final = ("ort", "tensorrt-8", "tensorrt-10")

_STRONGLY_TYPED_OPSET: Final = 19
"""The first in which scales may be FP16."""


class HasAmax(Protocol):
    """Calibrated ranges: the largest absolute value of each tensor that counts."""

    @property
    def amax(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class QuantizedInput:
    """One input of a node that is to be INT8: which tensor, and the group it belongs to.

    ``bound`` is the largest value it can have: 1 for the shares that a softmax gives, whose range is not calibrated.
    """

    group: str
    node: str
    index: int
    tensor: str
    bound: float | None = None


def quantized_inputs(model: ModelProto) -> tuple[QuantizedInput, ...]:
    """The activations that an INT8 graph quantizes, in the order they are computed.

    Inputs of all linears of the layers and of both attention products, and what goes around a sublayer to the
    residual addition.
    """
    graph = Graph(model)
    return tuple(_activations(graph, find_layers(graph)))


def to_int8(model: ModelProto, ranges: HasAmax, *, keep: Collection[str] = (), form: Form = "ort") -> ModelProto:
    """``model`` with Q/DQ pairs, scales from ``ranges``; groups in ``keep`` (see layer_groups) stay as they are, and
    in the form tensorrt-8 those of attention.

    Raises ModelError when a group is unknown, or ``ranges`` were collected on another graph.
    """
    if form not in FORMS:
        raise ModelError(f"No INT8 form is named {form!r}. Use one of: {', '.join(FORMS)}")
    groups = [group.name for group in layer_groups(model)]
    if unknown := sorted(set(keep) - set(groups)):
        raise ModelError(f"The model has no group {unknown[0]!r}. Groups: {', '.join(groups)}")
    graph = Graph(model)
    layers = find_layers(graph)
    wide = wide_nodes(graph)
    left = {*keep, *(name for name in groups if form == "tensorrt-8" and name.endswith(".attention"))}
    inputs = [item for item in _activations(graph, layers) if item.group not in left]
    amax = {item.tensor: item.bound or ranges.amax.get(item.tensor, 0) for item in inputs}
    if missing := [name for name, value in amax.items() if not value > 0]:
        raise ModelError(
            f"The ranges say nothing of {missing[0]}: they were collected on another graph. Collect them again: "
            "workbench engines build --precision int8 does so when the cached ranges do not fit."
        )
    half = form == "tensorrt-10"
    pairs = _Pairs(graph, unsigned=form == "ort")
    nodes = {node.name: node for node in graph.nodes}
    for item in inputs:
        nodes[item.node].input[item.index] = pairs.activation(item.tensor, amax[item.tensor])
    for group, linear in _linears(layers):
        if group not in keep:
            nodes[linear.node].input[1] = pairs.weight(linear, folded=form != "tensorrt-8")
            if form == "ort":
                _quantize_bias(graph, linear)
    if half:
        narrow(graph, wide)
        return graph.to_model(opset=_STRONGLY_TYPED_OPSET)
    return graph.to_model()


def _linears(layers: Collection[Layer]) -> Iterator[tuple[str, Linear]]:
    for index, layer in enumerate(layers):
        for name in ("qkv", "output", "ffn1", "ffn2"):
            for linear in getattr(layer, name):
                yield f"layer{index}.{name}", linear


def _activations(graph: Graph, layers: Collection[Layer]) -> Iterator[QuantizedInput]:
    nodes = {node.name: node for node in graph.nodes}

    def both(group: str, name: str, softmax: str) -> Iterator[QuantizedInput]:
        for index, tensor in enumerate(nodes[name].input):
            bound = 1.0 if softmax in graph.ancestors([tensor]) else None
            yield QuantizedInput(group, name, index, tensor, bound)

    def around(group: str, name: str, linears: Collection[Linear]) -> Iterator[QuantizedInput]:
        inside = {linear.node for linear in linears}
        for index, tensor in enumerate(nodes[name].input):
            if not inside & graph.ancestors([tensor]):
                yield QuantizedInput(group, name, index, tensor)

    for number, layer in enumerate(layers):
        at = f"layer{number}"
        for linear in layer.qkv:
            yield QuantizedInput(f"{at}.qkv", linear.node, 0, linear.input)
        yield from both(f"{at}.attention", layer.scores, layer.softmax)
        yield from both(f"{at}.attention", layer.context, layer.softmax)
        for linear in layer.output:
            yield QuantizedInput(f"{at}.output", linear.node, 0, linear.input)
        yield from around(f"{at}.output", layer.attention_add, layer.output)
        for linear in layer.ffn1:
            yield QuantizedInput(f"{at}.ffn1", linear.node, 0, linear.input)
        for linear in layer.ffn2:
            yield QuantizedInput(f"{at}.ffn2", linear.node, 0, linear.input)
        yield from around(f"{at}.ffn2", layer.ffn_add, layer.ffn2)


def _quantize_bias(graph: Graph, linear: Linear) -> None:
    """A Gemm's bias as INT32 in steps of the product's, in place: with a bias in FP32 onnxruntime computes a Gemm in
    FP32. A bias too large for that becomes an addition of its own.

    256 x 256 by 256 x 1024 on one core: 0.65 ms, with an FP32 bias 1.8 ms, FP32 1.6 ms. As additions the biases take
    a tenth of the time and hinder the quick GELU: the bundled network is slower by a seventh.
    """
    node = next(node for node in graph.nodes if node.name == linear.node)
    if node.op_type != "Gemm" or len(node.input) < 3 or node.input[2] not in graph.constants:
        return
    if any(item.name in ("alpha", "beta") and item.f != 1 for item in node.attribute):
        return
    producers = graph.producers()
    values, name = graph.constants[node.input[2]], f"{node.name}_bias"
    matrix, rows = (graph.constants[producers[node.input[at]].input[1]].astype(np.float64) for at in (1, 0))
    scales = np.broadcast_to((matrix * rows).astype(np.float32), values.shape)
    steps = np.rint(values / scales.astype(np.float64))
    if np.abs(steps).max() >= 2**31:
        bias, output = node.input.pop(), node.output[0]
        node.output[0] = f"{output}_product"
        graph.nodes.append(helper.make_node("Add", [node.output[0], bias], [output], name))
        return
    graph.constants[f"{name}_int32"] = steps.astype(np.int32)
    graph.constants[f"{name}_scale"] = scales
    graph.constants[f"{name}_zero"] = np.zeros(scales.shape, np.int32)
    graph.nodes.append(_node("DequantizeLinear", name, f"{name}_int32", f"{name}_dequantized", 0))
    node.input[2] = f"{name}_dequantized"


class _Pairs:
    """Makes Q/DQ pairs in a graph, one for each tensor, whatever the number of its users.

    ``unsigned``: activations count from 0 to 255 around 128 rather than from -128 to 127 around 0. The numbers they
    stand for are the same; onnxruntime's kernels for x86 want the first (its signed ones took 4 times as long).
    """

    def __init__(self, graph: Graph, *, unsigned: bool) -> None:
        self.graph = graph
        self.unsigned = unsigned
        self.made: dict[str, str] = {}

    def activation(self, tensor: str, amax: float) -> str:
        """``tensor`` through a pair with one scale; the name of what comes out."""
        if tensor not in self.made:
            self._constants(tensor, scales_of(np.array(amax)))
            if self.unsigned:
                self.graph.constants[f"{tensor}_zero"] = np.array(128, np.uint8)
            self._quantize(tensor, None)
            self._dequantize(tensor, None)
        return self.made[tensor]

    def weight(self, linear: Linear, *, folded: bool) -> str:
        """A matrix through a pair with one scale a channel; ``folded``: stored as INT8, the second half alone."""
        name, axis = linear.weight, linear.axis
        if name not in self.made:
            values = self.graph.constants[name]
            scales = scales_of(np.abs(values).max(axis=1 - axis))
            self.graph.stored_half.discard(name)
            self._constants(name, scales)
            if folded:
                shape = (-1, 1) if axis == 0 else (1, -1)
                whole = np.clip(np.rint(values / scales.reshape(shape)), -127, 127).astype(np.int8)
                self.graph.constants[f"{name}_int8"] = whole
            else:
                self._quantize(name, axis)
            self._dequantize(name, axis)
        return self.made[name]

    def _constants(self, name: str, scales: NDArray[np.float32]) -> None:
        self.graph.constants[f"{name}_scale"] = scales
        self.graph.constants[f"{name}_zero"] = np.zeros(scales.shape, np.int8)

    def _quantize(self, name: str, axis: int | None) -> None:
        self.graph.nodes.append(_node("QuantizeLinear", name, name, f"{name}_int8", axis))

    def _dequantize(self, name: str, axis: int | None) -> None:
        self.made[name] = f"{name}_dequantized"
        self.graph.nodes.append(_node("DequantizeLinear", name, f"{name}_int8", self.made[name], axis))


def _node(kind: str, name: str, source: str, output: str, axis: int | None) -> NodeProto:
    inputs = [source, f"{name}_scale", f"{name}_zero"]
    node: NodeProto = helper.make_node(kind, inputs, [output], f"{kind}_{output}")
    if axis is not None:
        node.attribute.append(helper.make_attribute("axis", axis))
    return node


def scales_of(amax: NDArray[np.floating]) -> NDArray[np.float32]:
    """amax / 127, rounded up to a number that FP16 holds, so that every form of the graph computes the same.

    A channel of zeros gets the smallest scale that FP16 holds to four bits.
    """
    wanted = np.maximum(np.asarray(amax, np.float64) / 127, 2.0**-20)
    half = wanted.astype(np.float16)
    low = half.astype(np.float64) < wanted
    half = np.where(low, np.nextafter(half, np.float16(np.inf)), half)
    return half.astype(np.float32)
