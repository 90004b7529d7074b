"""A padded encoder's graph read back as what it computes: tables, matrices, norms, and what follows the last layer.

Read are BERT's layers as the workbench's exports and its bundled network have them: word and position embeddings,
layer norm, layers with the norm after each residual, and pooling by the first token or the mean of a text's tokens.
Where the form leaves a doubt (which row of the position table is a text's first, which GELU it is), the piece of the
graph in question is computed with numbers and compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from workbench.engine.graphs.graph import Graph
from workbench.engine.graphs.layers import Layer, Linear, find_layers
from workbench.engine.graphs.parts import (
    Activation,
    Block,
    Encoder,
    Floats,
    Matrix,
    Norm,
    Tail,
    erf_gelu,
    relu,
    tanh_gelu,
)
from workbench.errors import ModelError
from workbench.runtime.batching import PADDING_BIAS

__all__ = ["Activation", "Block", "Encoder", "Matrix", "Norm", "Tail", "erf_gelu", "read_encoder", "tanh_gelu"]

_ACTIVATIONS: Final[tuple[tuple[Activation, Callable[[NDArray[Any]], NDArray[Any]]], ...]] = (
    ("erf", erf_gelu),
    ("tanh", tanh_gelu),
    ("relu", relu),
)
_SAME: Final = frozenset({"Identity", "Reshape", "Cast", "Dropout"})
_ENDS_MEAN: Final = frozenset({"Squeeze", "Div", "Mul", "Reshape", "MatMul", "ReduceSum", "ReduceMean"})
_MOST_OF_A_MEAN: Final = 24
"""Nodes of the largest piece that is tried as a mean."""

_ROWWISE: Final = frozenset(
    {"Add", "Sub", "Mul", "Div", "Erf", "Tanh", "Relu", "Sigmoid", "Pow", "Sqrt", "Gelu", "Identity", "Cast"}
)


def read_encoder(model: ModelProto) -> Encoder:
    """What the padded FP32 graph ``model`` computes. Raises ModelError where it has another form."""
    return _Reader(Graph(model)).encoder()


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.made_by = graph.producers()
        self.used_by = graph.users()

    def encoder(self) -> Encoder:
        layers = find_layers(self.graph)
        tokens, positions, norm, projection, start = self._embeddings(layers[0])
        heads, blocks, hidden = 0, [], start
        for index, layer in enumerate(layers):
            count, block = self._block(index, layer, hidden)
            if heads not in (0, count):
                raise _unlike(f"layer {index} has {count} heads, others have {heads}")
            heads, hidden = count, layer.last
            blocks.append(block)
        return Encoder(
            tokens=tokens,
            positions=positions,
            norm=norm,
            projection=projection,
            blocks=tuple(blocks),
            heads=heads,
            tail=self._tail(hidden),
            constants=self.graph.constants,
        )

    # ------------------------------------------------------------------------------------------------ embeddings

    def _embeddings(self, first: Layer) -> tuple[Floats, Floats, Norm | None, Matrix | None, str]:
        start = self._source(first.qkv[0].input)
        node, projection, norm, tensor = self.made_by.get(start), None, None, start
        linear = self._linear_giving(start)
        if linear is not None:
            projection = linear[0]
            tensor = self._source(linear[1])
            node = self.made_by.get(tensor)
        if node is not None and node.op_type == "LayerNormalization":
            norm, tensor = self._norm(node), self._source(node.input[0])
        words, places, constant = None, None, np.zeros((), np.float32)
        for term in self._terms(tensor):
            if term in self.graph.constants:
                constant = constant + np.squeeze(self._constant(term))
            elif words is None and (found := self._word_table(term)) is not None:
                words = found
            elif places is None:
                places = self._position_table(term)
            else:
                raise _unlike("its embeddings are no sum of words and positions")
        if words is None or places is None or constant.ndim > 1:
            raise _unlike("its embeddings are no sum of words and positions")
        # What every token gets is added once, to the rows of the positions.
        return words, np.asarray(places + constant, np.float32), norm, projection, start

    def _terms(self, tensor: str) -> list[str]:
        """What a tree of additions adds up."""
        node = self.made_by.get(tensor)
        if node is not None and node.op_type == "Add":
            return [term for name in node.input for term in self._terms(name)]
        return [tensor]

    def _word_table(self, tensor: str) -> Floats | None:
        node = self.made_by.get(self._source(tensor))
        if node is None or node.op_type != "Gather" or self._source(node.input[1]) != "input_ids":
            return None
        table = self.graph.constants.get(node.input[0])
        return np.asarray(table, np.float32) if table is not None and table.ndim == 2 else None

    def _position_table(self, tensor: str) -> Floats:
        """The rows that a text's tokens get, in their order, found by computing them for two lengths."""
        tables = [
            self.graph.constants[name]
            for node in self.graph.nodes
            if node.name in self.graph.ancestors([tensor])
            for name in node.input
            if name in self.graph.constants and self.graph.constants[name].ndim == 2
        ]
        if len(tables) != 1:
            raise _unlike("its positions come from no single table")
        table = np.asarray(tables[0], np.float32)
        offsets = set()
        for length in (3, 7):
            # Ids above those of any mark, so that no token counts as padding.
            given = np.arange(100, 100 + length, dtype=np.int32)[None]
            rows = np.squeeze(self._compute(tensor, {"input_ids": given}))
            matching = np.flatnonzero((table == rows[0]).all(1))
            fits = [at for at in matching if np.array_equal(table[at : at + length], rows)]
            if len(fits) != 1:
                raise _unlike("a token's position is not its place in the text")
            offsets.add(int(fits[0]))
        if len(offsets) != 1:
            raise _unlike("a token's position is not its place in the text")
        return np.asarray(table[offsets.pop() :], np.float32)

    # ---------------------------------------------------------------------------------------------------- layers

    def _block(self, index: int, layer: Layer, hidden: str) -> tuple[int, Block]:
        where = f"layer {index}"
        scores, context = self.nodes[layer.scores], self.nodes[layer.context]
        shares = 0 if layer.softmax in self.graph.ancestors([context.input[0]]) else 1
        if shares != 0:
            raise _unlike(f"{where} multiplies the values from the left")
        query, query_scale, size = self._head_side(scores.input[0], layer, where)
        key, key_scale, _ = self._head_side(scores.input[1], layer, where)
        value, value_scale, _ = self._head_side(context.input[1], layer, where)
        if len({query.node, key.node, value.node}) != 3:
            raise _unlike(f"{where} has no matrix each for query, key and value")
        scale = query_scale * key_scale * self._score_scale(layer, where)
        matrices = {
            name: self._matrix(linear) for name, linear in {"query": query, "key": key, "value": value}.items()
        }
        width = matrices["key"].weight.shape[0]
        if size <= 0 or width % size or not math.isfinite(scale) or scale <= 0:
            raise _unlike(f"{where} has heads of {size} in {width}")
        factor = scale * math.sqrt(size)
        factor = 1.0 if abs(factor - 1) < 1e-6 else factor
        output, ffn1, ffn2 = (self._only(part, where) for part in (layer.output, layer.ffn1, layer.ffn2))
        norm1 = self._norm_after(layer.attention_add, where)
        norm2 = self._norm_after(layer.ffn_add, where)
        mid, last = norm1.output[0], norm2.output[0]
        residual = {self._source(name) for name in self.nodes[layer.attention_add].input}
        straight = {self._source(name) for name in self.nodes[layer.ffn_add].input}
        inputs = {self._source(linear.input) for linear in (query, key, value)}
        if inputs != {self._source(hidden)} or self._source(hidden) not in residual:
            raise _unlike(f"{where} does not go around its attention")
        if self._source(mid) not in straight or self._source(ffn1.input) != self._source(mid) or last != layer.last:
            raise _unlike(f"{where} has its norms in other places")
        value_matrix = matrices["value"]
        block = Block(
            query=_scaled(matrices["query"], factor),
            key=matrices["key"],
            value=_scaled(value_matrix, value_scale),
            output=self._matrix(output),
            norm1=self._norm(norm1),
            up=self._matrix(ffn1),
            activation=self._activation(ffn1.output, ffn2.input, where),
            down=self._matrix(ffn2),
            norm2=self._norm(norm2),
            query_factor=factor,
            value_factor=value_scale,
            tensors={
                "x": query.input,
                "query": query.output,
                "key": key.output,
                "value": value.output,
                "context": output.input,
                "output": output.output,
                "mid": ffn1.input,
                "up": ffn1.output,
                "act": ffn2.input,
                "down": ffn2.output,
                "out": last,
            },
        )
        return width // size, block

    def _head_side(self, tensor: str, layer: Layer, where: str) -> tuple[Linear, float, int]:
        """The linear behind one side of an attention product, the factors on the way, and the head size."""
        by_output = {linear.output: linear for linear in layer.qkv}
        scale, size = 1.0, 0
        while tensor not in by_output:
            node = self.made_by.get(tensor)
            if node is None:
                raise _unlike(f"{where} has no linear behind its attention")
            if node.op_type in ("Mul", "Div"):
                factor, tensor = self._factor(node, where)
                scale *= factor
                continue
            if node.op_type == "Reshape":
                size = self._last_number(node.input[1])
            elif node.op_type not in ("Transpose", "Identity"):
                raise _unlike(f"{where} has {node.op_type} before its attention")
            tensor = node.input[0]
        return by_output[tensor], scale, size

    def _score_scale(self, layer: Layer, where: str) -> float:
        """The factors between the product of query and key and the softmax; beside them only the mask is added."""
        tensor, scale = self.nodes[layer.softmax].input[0], 1.0
        masks = 0
        while True:
            node = self.made_by.get(tensor)
            if node is None:
                raise _unlike(f"{where} has no scores")
            if node.name == layer.scores:
                break
            if node.op_type in ("Mul", "Div"):
                factor, tensor = self._factor(node, where)
                scale *= factor
            elif node.op_type == "Add":
                sides = [name for name in node.input if self._source(name) != "attention_bias"]
                if len(sides) != 1:
                    raise _unlike(f"{where} adds more than the mask to its scores")
                masks, tensor = masks + 1, sides[0]
            elif node.op_type in ("Identity", "Cast"):
                tensor = node.input[0]
            else:
                raise _unlike(f"{where} has {node.op_type} between scores and softmax")
        if masks != 1:
            raise _unlike(f"{where} adds its mask {masks} times")
        return scale

    def _factor(self, node: NodeProto, where: str) -> tuple[float, str]:
        """A multiplication by a constant number: the factor, and what is multiplied."""
        for place in (1, 0):
            value = self.graph.constants.get(node.input[place])
            if value is not None and value.size == 1 and (node.op_type == "Mul" or place == 1):
                number = float(np.reshape(value, -1)[0])
                return (number if node.op_type == "Mul" else 1 / number), node.input[1 - place]
        raise _unlike(f"{where} scales by what is no number ({node.name})")

    def _last_number(self, name: str) -> int:
        """The last element of a shape."""
        if name in self.graph.constants:
            return int(np.reshape(self.graph.constants[name], -1)[-1])
        node = self.made_by.get(name)
        if node is not None and node.op_type == "Concat":
            return self._last_number(node.input[-1])
        return 0

    def _activation(self, source: str, target: str, where: str) -> Activation:
        between = self.graph.ancestors([target]) - self.graph.ancestors([source])
        if len(between) > 12:
            raise _unlike(f"{where} has more than an activation in its middle")
        values = np.linspace(-6, 6, 49, dtype=np.float32)[None]
        got = self._compute(target, {source: values})
        for name, function in _ACTIVATIONS:
            if got.shape == values.shape and np.allclose(got, function(values), atol=2e-5):
                return name
        raise _unlike(f"{where} has an activation that is neither GELU nor ReLU")

    # ------------------------------------------------------------------------------------------------------ tail

    def _tail(self, last: str) -> Tail:
        hidden, first, mean = {last}, set[str](), set[str]()
        rows, per_token = set[str](), set[str]()
        nodes = []
        needed = self.graph.ancestors(self.graph.outputs) - self.graph.ancestors([last])
        depends = self._after(last)
        for node in self.graph.nodes:
            if node.name not in needed or not depends & set(node.output):
                continue  # shapes, and the mask as the weights of a mean
            output, moved = node.output[0], {name for name in node.input if name in hidden | rows}
            if node.input[0] in hidden and node.op_type in _SAME:
                hidden.add(output)
            elif node.input[0] in hidden and self._is_first(node):
                first.add(output)
            elif self._is_mean(node, last, hidden):
                mean.add(output)
            elif self._feeds_mean(node, last, hidden):
                continue
            elif not moved:
                nodes.append(node)
            elif self._is_rowwise(node):
                rows.add(output)
                per_token.add(node.name)
                nodes.append(node)
            else:
                raise _unlike(f"after the last layer stands {node.op_type} over a text's tokens ({node.name})")
        return Tail(tuple(nodes), frozenset(hidden), frozenset(first), frozenset(mean), frozenset(per_token))

    def _after(self, tensor: str) -> set[str]:
        """All tensors that depend on ``tensor``."""
        found, todo = set(), [tensor]
        while todo:
            for node, _ in self.used_by.get(todo.pop(), []):
                new = [name for name in node.output if name not in found]
                found.update(new)
                todo += new
        return found

    def _is_first(self, node: NodeProto) -> bool:
        """Whether a node takes the first token of each text."""
        if node.op_type != "Gather" or _axis(node, 0) != 1:
            return False
        index = self.graph.constants.get(node.input[1])
        return index is not None and index.ndim == 0 and int(index) == 0

    def _is_rowwise(self, node: NodeProto) -> bool:
        """Whether a node computes each token by itself, with constants alone beside it."""
        others = [name for name in node.input[1:] if name]
        if node.op_type == "MatMul":
            weight = self.graph.constants.get(node.input[1])
            return weight is not None and weight.ndim == 2
        if node.op_type == "LayerNormalization":
            return _axis(node, -1) in (-1, 2)
        if node.op_type not in _ROWWISE:
            return False
        for name in node.input:
            value = self.graph.constants.get(name)
            if value is not None and value.ndim > 1 and value.size != value.shape[-1]:
                return False
        return node.op_type in ("Add", "Sub", "Mul", "Div", "Pow") or not others

    def _is_mean(self, node: NodeProto, last: str, hidden: Set[str]) -> bool:
        """Whether a node gives the mean of a text's tokens [B, E]: computed for two texts, one of them padded."""
        if node.op_type not in _ENDS_MEAN:
            return False
        names = self.graph.ancestors([node.output[0]]) - self.graph.ancestors([last])
        inputs = {name for item in self.graph.nodes if item.name in names for name in item.input}
        if len(names) > _MOST_OF_A_MEAN or "attention_bias" not in inputs or not hidden & inputs:
            return False
        values = np.random.default_rng(5).standard_normal((2, 4, 6)).astype(np.float32)
        bias = np.zeros((2, 1, 1, 4), np.float32)
        bias[1, ..., 2:] = PADDING_BIAS
        wanted = np.stack([values[0].mean(0), values[1, :2].mean(0)])
        # The state as [B, S, E], under each name it has.
        feeds: dict[str, NDArray[Any]] = dict.fromkeys(hidden & inputs, values)
        try:
            got = self._compute(node.output[0], {**feeds, "attention_bias": bias})
        except ModelError:
            return False
        return got.shape == wanted.shape and bool(np.allclose(got, wanted, atol=1e-4))

    def _feeds_mean(self, node: NodeProto, last: str, hidden: Set[str]) -> bool:
        """Whether all that comes of a node goes into a mean."""
        output = node.output[0]
        users = [user for user, _ in self.used_by.get(output, [])]
        return (
            output not in self.graph.outputs
            and bool(users)
            and all(self._is_mean(user, last, hidden) or self._feeds_mean(user, last, hidden) for user in users)
        )

    # --------------------------------------------------------------------------------------------------- helpers

    def _source(self, tensor: str) -> str:
        """The tensor that ``tensor`` is, in another shape perhaps."""
        while True:
            node = self.made_by.get(tensor)
            if node is None or node.op_type not in _SAME:
                return tensor
            tensor = node.input[0]

    def _constant(self, name: str) -> Floats:
        return np.asarray(self.graph.constants[name], np.float32)

    def _only(self, linears: tuple[Linear, ...], where: str) -> Linear:
        if len(linears) != 1:
            raise _unlike(f"{where} has {len(linears)} matrices where BERT has one")
        return linears[0]

    def _matrix(self, linear: Linear) -> Matrix:
        node = self.nodes[linear.node]
        if node.input[1] not in self.graph.constants:
            raise _unlike(f"the matrix of {linear.node} is computed")
        scales = {item.name: item.f for item in node.attribute if item.name in ("alpha", "beta")}
        if any(value != 1 for value in scales.values()) or any(a.name == "transA" and a.i for a in node.attribute):
            raise _unlike(f"{linear.node} scales or turns what it takes")
        weight = self._constant(node.input[1])
        weight = weight if linear.axis == 0 else weight.T
        bias = np.zeros(weight.shape[0], np.float32)
        if node.op_type == "Gemm" and len(node.input) > 2:
            bias = self._constant(node.input[2])
        elif linear.output != node.output[0]:
            added = self.made_by[linear.output]
            bias = self._constant(next(name for name in added.input if name in self.graph.constants))
        return Matrix(np.ascontiguousarray(weight), np.broadcast_to(bias.reshape(-1), weight.shape[:1]).copy())

    def _linear_giving(self, tensor: str) -> tuple[Matrix, str] | None:
        """The linear whose output, bias added, is ``tensor``."""
        node = self.made_by.get(tensor)
        if node is None:
            return None
        product: NodeProto | None = node
        if node.op_type == "Add":
            dynamic = [name for name in node.input if name not in self.graph.constants]
            product = self.made_by.get(dynamic[0]) if len(dynamic) == 1 else None
        if product is None or product.op_type not in ("MatMul", "Gemm"):
            return None
        if product.input[1] not in self.graph.constants:
            return None
        axis = 0 if any(item.name == "transB" and item.i for item in product.attribute) else 1
        found = Linear(product.name, product.input[0], product.input[1], axis, tensor)
        return self._matrix(found), product.input[0]

    def _norm_after(self, name: str, where: str) -> NodeProto:
        users = [node for node, _ in self.used_by.get(self.nodes[name].output[0], [])]
        if len(users) != 1 or users[0].op_type != "LayerNormalization":
            raise _unlike(f"{where} has no layer norm after a residual")
        return users[0]

    def _norm(self, node: NodeProto) -> Norm:
        epsilon = next((float(item.f) for item in node.attribute if item.name == "epsilon"), 1e-5)
        if _axis(node, -1) not in (-1, 1, 2):
            raise _unlike(f"{node.name} is not over the last axis")
        gamma = self._constant(node.input[1])
        beta = self._constant(node.input[2]) if len(node.input) > 2 else np.zeros_like(gamma)
        return Norm(gamma, beta, epsilon)

    def _compute(self, tensor: str, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """``tensor`` from ``feeds`` by ONNX's reference implementation. Raises ModelError when it cannot be."""
        from onnx.reference import ReferenceEvaluator

        names, todo = set(), [tensor]
        while todo:
            name = todo.pop()
            node = self.made_by.get(name)
            if name not in feeds and node is not None and node.name not in names:
                names.add(node.name)
                todo += [item for item in node.input if item]
        nodes = [node for node in self.graph.nodes if node.name in names]
        used = {name for node in nodes for name in node.input}
        kinds = {np.dtype(np.int32): TensorProto.INT32, np.dtype(np.float32): TensorProto.FLOAT}
        graph = helper.make_graph(
            nodes,
            "piece",
            [helper.make_tensor_value_info(name, kinds[value.dtype], None) for name, value in feeds.items()],
            [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)],
            initializer=[
                numpy_helper.from_array(np.asarray(value), name)
                for name, value in self.graph.constants.items()
                if name in used
            ],
        )
        piece = helper.make_model(graph, opset_imports=list(self.graph.source.opset_import))
        try:
            (got,) = ReferenceEvaluator(piece).run(None, dict(feeds))
        except Exception as error:  # whatever a piece of another form makes of these numbers
            raise _unlike(f"{tensor} cannot be computed: {error}") from None
        return np.asarray(got)


def _scaled(matrix: Matrix, factor: float) -> Matrix:
    if factor == 1:
        return matrix
    number = np.float32(factor)
    return Matrix(matrix.weight * number, matrix.bias * number)


def _axis(node: NodeProto, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "axis"), default)


def _unlike(what: str) -> ModelError:
    return ModelError(f"The graph cannot be packed: {what}. Build it with --layout padded.")
