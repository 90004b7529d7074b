"""The layers of a transformer, found by the form of its graph, whatever the nodes are called.

Each softmax is the middle of an attention: before it the product of query and key, after it the product with the
values. From there the linears are reached over operators that only move or scale numbers. Gemm (the bundled network)
and MatMul with an addition (exported checkpoints) are both linears; layer norm may stand after the residual (BERT) or
before the sublayers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from onnx import ModelProto, NodeProto

from workbench.engine.graphs.graph import Graph
from workbench.errors import ModelError

__all__ = ["GROUPS", "Layer", "LayerGroup", "Linear", "find_layers", "layer_groups"]

GROUPS: Final = ("qkv", "attention", "output", "ffn1", "ffn2")
"""The parts of a layer that are quantized, or kept back, together."""

_MOVES: Final = frozenset(
    {
        "Reshape",
        "Transpose",
        "Identity",
        "Cast",
        "Dropout",
        "Unsqueeze",
        "Squeeze",
        "Split",
        "Slice",
        "Flatten",
        "QuantizeLinear",
        "DequantizeLinear",
    }
)
_SCALES: Final = frozenset({"Mul", "Div"})
_ACTIVATIONS: Final = frozenset(
    {"Add", "Mul", "Div", "Sub", "Erf", "Tanh", "Sigmoid", "Relu", "Gelu", "Pow", "Sqrt", "Clip", "HardSigmoid"}
)


@dataclass(frozen=True)
class Linear:
    """A product with a constant matrix. ``axis``: the matrix's axis of output channels; ``output``: with the bias."""

    node: str
    input: str
    weight: str
    axis: int
    output: str


@dataclass(frozen=True)
class Layer:
    """Names of a layer's nodes; ``last`` is the tensor that it hands on, after the layer norm."""

    qkv: tuple[Linear, ...]
    scores: str
    softmax: str
    context: str
    output: tuple[Linear, ...]
    attention_add: str
    ffn1: tuple[Linear, ...]
    ffn2: tuple[Linear, ...]
    ffn_add: str
    last: str


@dataclass(frozen=True)
class LayerGroup:
    """One group of a layer, such as "layer0.qkv", and the names of its matrix products."""

    name: str
    nodes: tuple[str, ...]


def layer_groups(model: ModelProto) -> tuple[LayerGroup, ...]:
    """All groups in the order they are computed: layer0.qkv, layer0.attention, ..., layer1.qkv, ...

    Raises ModelError when the graph has no transformer layers.
    """
    groups = []
    for index, layer in enumerate(find_layers(Graph(model))):
        parts = {
            "qkv": tuple(item.node for item in layer.qkv),
            "attention": (layer.scores, layer.context),
            "output": tuple(item.node for item in layer.output),
            "ffn1": tuple(item.node for item in layer.ffn1),
            "ffn2": tuple(item.node for item in layer.ffn2),
        }
        groups += [LayerGroup(f"layer{index}.{name}", nodes) for name, nodes in parts.items()]
    return tuple(groups)


def find_layers(graph: Graph) -> tuple[Layer, ...]:
    """The layers, first to last.

    Raises ModelError when there are none, or one has not the parts of a transformer's layer.
    """
    finder = _Finder(graph)
    layers = tuple(finder.layer(node) for node in graph.nodes if node.op_type == "Softmax" and finder.is_inner(node))
    if not layers:
        raise ModelError(
            "The graph has no transformer layers (a softmax between two matrix products), so there is nothing to "
            "quantize. Build it with precision fp32 or fp16."
        )
    return layers


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made_by = graph.producers()
        self.used_by = graph.users()

    def is_inner(self, softmax: NodeProto) -> bool:
        """Whether a product follows: a softmax over the labels at the end is no attention."""
        return any(node.op_type == "MatMul" for node in self._after(softmax.output[0], _MOVES))

    def layer(self, softmax: NodeProto) -> Layer:
        where = softmax.name
        scores = self._one(self._products_before(softmax.input[0]), "product of query and key", where)
        context = self._one(
            [node for node in self._after(softmax.output[0], _MOVES) if node.op_type == "MatMul"],
            "product with the values",
            where,
        )
        mixed = {name for name in context.input if softmax.name not in self.graph.ancestors([name])}
        ends = [*scores.input, *mixed]
        qkv = self._unique([linear for name in ends for linear in self._linears_before(name)])
        output = self._some(self._linears_after(context.output[0], _MOVES), "output matrix", where)
        attention_add = self._residual(output, where)
        ffn1 = self._some(
            self._linears_after(attention_add.output[0], _MOVES | {"LayerNormalization"}), "first FFN matrix", where
        )
        ffn2 = self._some(
            self._unique(
                [linear for item in ffn1 for linear in self._linears_after(item.output, _MOVES | _ACTIVATIONS)]
            ),
            "second FFN matrix",
            where,
        )
        ffn_add = self._residual(ffn2, where)
        norms = [node for node, _ in self.used_by.get(ffn_add.output[0], []) if node.op_type == "LayerNormalization"]
        return Layer(
            qkv=self._some(qkv, "matrices of query, key and value", where),
            scores=scores.name,
            softmax=softmax.name,
            context=context.name,
            output=output,
            attention_add=attention_add.name,
            ffn1=ffn1,
            ffn2=ffn2,
            ffn_add=ffn_add.name,
            last=(norms[0] if norms else ffn_add).output[0],
        )

    def _linear(self, node: NodeProto) -> Linear | None:
        """``node`` as a linear, if it is one."""
        if node.op_type not in ("MatMul", "Gemm") or not self._is_dynamic(node.input[0]):
            return None
        weight = self._constant(node.input[1])
        if weight is None or self.graph.constants[weight].ndim != 2:
            return None
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        output = node.output[0]
        if node.op_type == "MatMul" or len(node.input) < 3:
            for user, _ in self.used_by.get(output, []):
                if user.op_type == "Add" and not all(map(self._is_dynamic, user.input)):
                    output = user.output[0]
        return Linear(node.name, node.input[0], node.input[1], 0 if transposed else 1, output)

    def _constant(self, name: str) -> str | None:
        """The constant behind a tensor that is one, perhaps quantized or cast."""
        while not self.graph.is_constant(name):
            node = self.made_by.get(name)
            if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast", "Transpose"):
                return None
            name = node.input[0]
        return name

    def _is_dynamic(self, name: str) -> bool:
        return bool(name) and self._constant(name) is None

    def _products_before(self, tensor: str) -> list[NodeProto]:
        """The nearest products of two tensors that ``tensor`` comes from, over moves, scales and the mask."""
        node = self.made_by.get(tensor)
        if node is None:
            return []
        if node.op_type == "MatMul" and all(map(self._is_dynamic, node.input)):
            return [node]
        if node.op_type in _MOVES or node.op_type in _SCALES or node.op_type in ("Add", "Where", "Sub"):
            inputs = node.input[:1] if node.op_type in _MOVES else node.input
            return [found for name in inputs for found in self._products_before(name)]
        return []

    def _linears_before(self, tensor: str) -> list[Linear]:
        """The nearest linears that ``tensor`` comes from, over moves, scales and the bias."""
        node = self.made_by.get(tensor)
        if node is None:
            return []
        if (linear := self._linear(node)) is not None:
            return [linear]
        if node.op_type in _MOVES:
            return self._linears_before(node.input[0])
        if node.op_type in _SCALES or node.op_type == "Add":
            dynamic = [name for name in node.input if self._is_dynamic(name)]
            return self._linears_before(dynamic[0]) if len(dynamic) == 1 else []
        return []

    def _after(self, tensor: str, through: frozenset[str]) -> Iterator[NodeProto]:
        """The nearest nodes after ``tensor`` that are not in ``through``."""
        seen, todo = set(), [tensor]
        while todo:
            for node, index in self.used_by.get(todo.pop(0), []):
                if node.name in seen:
                    continue
                seen.add(node.name)
                if node.op_type in through and not (node.op_type in _MOVES and index):
                    todo += node.output
                else:
                    yield node

    def _linears_after(self, tensor: str, through: frozenset[str]) -> list[Linear]:
        found = [self._linear(node) for node in self._after(tensor, through)]
        return self._unique([linear for linear in found if linear is not None])

    def _residual(self, linears: tuple[Linear, ...], where: str) -> NodeProto:
        """The addition of a linear's output to what went around it."""
        nodes = [
            node
            for linear in linears
            for node in self._after(linear.output, _MOVES)
            if node.op_type == "Add" and all(map(self._is_dynamic, node.input))
        ]
        return self._one(nodes, "residual addition", where)

    @staticmethod
    def _unique(linears: list[Linear]) -> list[Linear]:
        return list(dict.fromkeys(linears))

    @staticmethod
    def _some(linears: list[Linear], what: str, where: str) -> tuple[Linear, ...]:
        if not linears:
            raise ModelError(_unlike(what, where, 0))
        return tuple(linears)

    @staticmethod
    def _one(nodes: list[NodeProto], what: str, where: str) -> NodeProto:
        by_name = {node.name: node for node in nodes}
        if len(by_name) != 1:
            raise ModelError(_unlike(what, where, len(by_name)))
        return next(iter(by_name.values()))


def _unlike(what: str, where: str, count: int) -> str:
    return (
        f"The graph is unlike a BERT: beside {where} there is {'no' if not count else 'more than one'} {what}. Build "
        "it with precision fp32 or fp16, or export the model with the workbench."
    )
