"""A padded FP32 graph as a packed one: all tokens of a batch in one row, and no padding.

    inputs   input_ids int32 [T], position_ids int32 [T] (each token's place in its text, from 0), cu_seqlens int32
             [N + 1] (where each text starts, T at the end), longest int32 [L] (only its length counts: the longest
             text of the batch), and segment_ids int32 [T] (which text a token belongs to) in forms that need it
    outputs  as the padded graph's: float32 [N, K] for a text, [T, K] for its tokens

Embeddings, linears and norms work on a row of tokens as it is. Attention alone has to know where a text ends: it is
an operator of TensorRT 8.6's plugin library (workbench.engine.graphs.plugins). Query, key and value are one matrix.
Where only first tokens are read after the last layer, that layer is computed for them alone behind its attention.

The graph's types are what is computed: in FP16 all is FP16 but what follows pooling, and the norm's sums where the
norm is a standard one. Matrices are 1 x 1 convolutions over [T, E, 1, 1], the form for which TensorRT 8.6 has kernels
with the bias and GELU in them.

In INT8 every tensor between the parts of a layer goes through a pair of QuantizeLinear and DequantizeLinear, for
matrices, attention and norms read and write INT8; GELU alone is computed as it was. Behind the last attention, where
first tokens alone are left, and after the last layer, all is as in FP16. The operators' INT8 kernels are for widths
of 768 and 1024 with heads of 64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from workbench.engine.graphs.encoder import Activation, Block, Encoder, Matrix, Norm, read_encoder
from workbench.engine.graphs.int8 import HasAmax, scales_of
from workbench.engine.graphs.packed_ranges import balanced, packed_tensors
from workbench.engine.graphs.plugins import (
    DOMAIN,
    HEAD_SIZES,
    INT8_HEAD_SIZE,
    INT8_WIDTHS,
    MOST_TOKENS,
    attention_node,
    skip_norm_node,
)
from workbench.errors import ModelError

__all__ = ["DEFAULT_FORM", "PackedForm", "check_packable", "packed_tensors", "to_packed"]

_OPSET: Final = 17
_PAIRS_OPSET: Final = 19
"""The first in which a pair may stand between tensors of FP16."""
_SHARE_STEP: Final = 1 / 127
"""Of a softmax's shares, which go up to 1."""
_LARGEST: Final = 65504.0

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class PackedForm:
    """The ways to write the same thing. ``linear``: convolutions over [T, E, 1, 1] or products over [T, E];
    ``norm``: the plugin that adds and norms, or standard operators; ``gelu``: the tanh form (at most 0.0005 from the
    other, and the one that kernels have inside) or as the model has it; ``mean``: of a text's tokens, by an attention
    that looks at all alike, or by a product with a [N, T] matrix of ones."""

    linear: Literal["conv", "product"] = "conv"
    norm: Literal["plugin", "standard"] = "plugin"
    gelu: Literal["tanh", "own"] = "tanh"
    mean: Literal["attention", "product"] = "attention"


DEFAULT_FORM: Final = PackedForm()


def to_packed(
    model: ModelProto,
    *,
    precision: Precision = "fp16",
    max_tokens: int = MOST_TOKENS,
    form: PackedForm = DEFAULT_FORM,
    ranges: HasAmax | None = None,
) -> ModelProto:
    """The padded FP32 graph ``model`` as a packed one in ``precision``.

    ``max_tokens``: of the longest text. ``ranges``: for INT8, of the ``packed_tensors``. FP32 serves to compare on a
    CPU (``expand_plugins``): the attention operator itself knows FP16 and INT8. Raises ModelError when the graph is
    not a BERT's, or the operators do not know its form.
    """
    if precision == "int8" and (form.linear != "conv" or form.norm != "plugin"):
        raise ModelError("Packed INT8 is convolutions and the norm operator. Use that form.")
    encoder = check_packable(model, precision=precision, max_tokens=max_tokens)
    kind = TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16
    amax: Sequence[Mapping[str, float]] = ()
    if precision == "int8":
        evened = [balanced(block, ranges.amax if ranges is not None else {}) for block in encoder.blocks]
        encoder = replace(encoder, blocks=tuple(block for block, _ in evened))
        amax = [own for _, own in evened]
    return _Writer(encoder, model, kind, form, amax).model()


def check_packable(model: ModelProto, *, precision: Precision, max_tokens: int) -> Encoder:
    """What the padded FP32 graph ``model`` computes, if it can be packed in ``precision``; otherwise ModelError."""
    encoder = read_encoder(model)
    width, size = encoder.width, encoder.width // encoder.heads
    if size not in HEAD_SIZES:
        raise _unfit(f"the attention operator knows heads of {_either(HEAD_SIZES)}, not of {size}")
    if max_tokens > MOST_TOKENS:
        raise _unfit(f"the attention operator reads at most {MOST_TOKENS} tokens a text, not {max_tokens}")
    if max_tokens > len(encoder.positions):
        raise _unfit(f"its table of positions has {len(encoder.positions)} rows for {max_tokens} tokens")
    if precision == "int8" and (width not in INT8_WIDTHS or size != INT8_HEAD_SIZE):
        raise _unfit(
            f"in INT8 the operators know widths of {_either(INT8_WIDTHS)} with heads of {INT8_HEAD_SIZE}, not "
            f"{width} with heads of {size}"
        )
    return encoder


class _Writer:
    def __init__(
        self,
        encoder: Encoder,
        source: ModelProto,
        kind: int,
        form: PackedForm,
        amax: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self.encoder, self.source, self.kind, self.form, self.amax = encoder, source, kind, form, amax
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.inputs = ["input_ids", "position_ids", "cu_seqlens", "longest"]
        self.typed: dict[str, tuple[int, list[Any]]] = {}
        """Type and shape of what plugins give, which ONNX cannot infer."""
        self.wide: dict[str, str] = {}
        """The FP32 tensor that a tensor was cast from."""

    def model(self) -> ModelProto:
        encoder = self.encoder
        hidden = self._embeddings()
        if self.amax:
            hidden = self._pair(hidden, self.amax[0]["x"])
        alone = self._needs_first_alone()
        self._starts()
        for index, block in enumerate(encoder.blocks):
            hidden = self._block(index, block, hidden, alone=alone and index == len(encoder.blocks) - 1)
        self._tail(hidden, alone=alone)
        return self._assembled()

    # ------------------------------------------------------------------------------------------------------ parts

    def _embeddings(self) -> str:
        encoder = self.encoder
        scale = np.float32(1)
        if encoder.norm is not None and self.form.norm == "plugin":
            scale = _unit_scale(encoder.tokens, encoder.positions)
        tables = {"tokens": encoder.tokens * scale, "positions": encoder.positions * scale}
        names = {name: self.weight(f"{name}.table", value) for name, value in tables.items()}
        words = self.node("Gather", [names["tokens"], "input_ids"], "words")
        places = self.node("Gather", [names["positions"], "position_ids"], "places")
        width = encoder.tokens.shape[1]
        conv = self.form.linear == "conv"
        if conv:
            words, places = self._four(words, width, "words"), self._four(places, width, "places")
        if encoder.norm is None:
            hidden = self.node("Add", [words, places], "embedded")
        elif self.form.norm == "plugin":
            hidden = self._skip_norm(
                words, places, encoder.norm, "embedded", shape=["tokens", width, *([1, 1] if conv else [])]
            )
        else:
            hidden = self._norm(self.node("Add", [words, places], "sum"), encoder.norm, "embedded", flat=not conv)
        if encoder.projection is not None:
            hidden = self._linear(hidden, encoder.projection, "projected")
        return hidden

    def _block(self, index: int, block: Block, hidden: str, *, alone: bool) -> str:
        at = f"layer{index}"
        int8 = bool(self.amax)

        def ranged(tensor: str, name: str) -> str:
            return self._pair(tensor, self.amax[index][name]) if int8 else tensor

        qkv = ranged(self._linear(hidden, self._merged(block), f"{at}.qkv", int8=int8), "qkv")
        context = ranged(self._attention(qkv, f"{at}.context", int8=int8), "context")
        if alone:
            context, hidden = (
                self.node("Gather", [name, "starts"], f"{at}.{label}.first", axis=0)
                for name, label in ((context, "context"), (hidden, "hidden"))
            )
            int8 = False
        rows = "texts" if alone else "tokens"
        out = ranged(self._linear(context, block.output, f"{at}.output", int8=int8), "output")
        mid = ranged(self._add_norm(out, hidden, block.norm1, f"{at}.mid", rows, int8=int8), "mid")
        up = self._linear(mid, block.up, f"{at}.up", int8=int8)
        act = ranged(self._activation(up, block.activation, f"{at}.act"), "act")
        down = ranged(self._linear(act, block.down, f"{at}.down", int8=int8), "down")
        if index == len(self.encoder.blocks) - 1:
            int8 = False  # what heads read is never quantized
        return ranged(self._add_norm(down, mid, block.norm2, f"{at}.out", rows, int8=int8), "out")

    def _pair(self, tensor: str, amax: float) -> str:
        """``tensor`` through a pair; the name of what comes out."""
        self.constants[f"{tensor}.scale"] = scales_of(np.array(amax)).astype(self.dtype)
        self.constants["zero"] = np.zeros((), np.int8)
        self.node("QuantizeLinear", [tensor, f"{tensor}.scale", "zero"], f"{tensor}.int8")
        return self.node("DequantizeLinear", [f"{tensor}.int8", f"{tensor}.scale", "zero"], f"{tensor}.dequantized")

    def _merged(self, block: Block) -> Matrix:
        """Query, key and value in one matrix, its rows ordered head x {q, k, v} x place in the head."""
        heads, width = self.encoder.heads, self.encoder.width

        def merge(parts: Sequence[NDArray[np.float32]], tail: tuple[int, ...]) -> NDArray[np.float32]:
            split = [part.reshape(heads, width // heads, *tail) for part in parts]
            return np.stack(split, axis=1).reshape(3 * width, *tail)

        sides = (block.query, block.key, block.value)
        return Matrix(merge([side.weight for side in sides], (width,)), merge([side.bias for side in sides], ()))

    def _attention(self, qkv: str, output: str, *, int8: bool = False) -> str:
        width = self.encoder.width
        if self.form.linear != "conv":
            qkv = self._four(qkv, 3 * width, f"{output}.qkv")
        made = output if self.form.linear == "conv" else f"{output}.four"
        self.nodes.append(
            attention_node(
                [qkv, "cu_seqlens", "cu_seqlens", "longest"],
                made,
                width=width,
                heads=self.encoder.heads,
                kind=TensorProto.INT8 if int8 else self.kind,
                share_step=_SHARE_STEP if int8 else None,
            )
        )
        self.typed[made] = self.kind, ["tokens", width, 1, 1]
        if self.form.linear != "conv":
            self.node("Reshape", [made, self.number("flat", [-1, width])], output)
        return output

    def _linear(self, source: str, matrix: Matrix, output: str, *, int8: bool = False) -> str:
        if self.form.linear == "conv":
            four = matrix.weight[:, :, None, None]
            weight = self._int8_weight(f"{output}.weight", four) if int8 else self.weight(f"{output}.weight", four)
            bias = self.weight(f"{output}.bias", matrix.bias)
            return self.node("Conv", [source, weight, bias], output, kernel_shape=[1, 1])
        weight = self.weight(f"{output}.weight", np.ascontiguousarray(matrix.weight.T))
        product = self.node("MatMul", [source, weight], f"{output}.product")
        return self.node("Add", [product, self.weight(f"{output}.bias", matrix.bias)], output)

    def _int8_weight(self, name: str, value: NDArray[np.float32]) -> str:
        """A matrix [out, in, 1, 1] in INT8, with one scale an output channel."""
        scales = scales_of(np.abs(value).max(axis=(1, 2, 3)))
        self.constants[f"{name}.int8"] = np.clip(np.rint(value / scales.reshape(-1, 1, 1, 1)), -127, 127).astype(
            np.int8
        )
        self.constants[f"{name}.scale"] = scales.astype(self.dtype)
        self.constants[f"{name}.zero"] = np.zeros(scales.shape, np.int8)
        return self.node("DequantizeLinear", [f"{name}.int8", f"{name}.scale", f"{name}.zero"], name, axis=0)

    def _add_norm(self, source: str, residual: str, norm: Norm, output: str, rows: str, *, int8: bool = False) -> str:
        if self.form.norm == "plugin":
            ones = [1, 1] if self.form.linear == "conv" else []
            return self._skip_norm(source, residual, norm, output, shape=[rows, self.encoder.width, *ones], int8=int8)
        added = self.node("Add", [source, residual], f"{output}.sum")
        return self._norm(added, norm, output, flat=self.form.linear != "conv")

    def _skip_norm(
        self, source: str, residual: str, norm: Norm, output: str, *, shape: list[Any], int8: bool = False
    ) -> str:
        parameters = {"gamma": norm.gamma, "beta": norm.beta}
        kind = TensorProto.INT8 if int8 else self.kind
        self.nodes.append(skip_norm_node([source, residual], output, kind=kind, **parameters))
        self.typed[output] = self.kind, shape
        return output

    def _norm(self, source: str, norm: Norm, output: str, *, flat: bool) -> str:
        """A standard layer norm, computed in FP32."""
        shape = (-1,) if flat else (-1, 1, 1)
        wide = self.cast(source, TensorProto.FLOAT)
        parameters = []
        for name, value in (("gamma", norm.gamma), ("beta", norm.beta)):
            self.constants[f"{output}.{name}"] = value.reshape(shape)
            parameters.append(f"{output}.{name}")
        normed = self.node(
            "LayerNormalization",
            [wide, *parameters],
            output if self.kind == TensorProto.FLOAT else f"{output}.wide",
            axis=-1 if flat else 1,
            epsilon=norm.epsilon,
        )
        if normed == output:
            return output
        self.wide[output] = normed
        return self.node("Cast", [normed], output, to=self.kind)

    def _activation(self, source: str, activation: Activation, output: str) -> str:
        if activation == "relu":
            return self.node("Relu", [source], output)

        def number(value: float) -> str:
            # Of the tensor's rank: a reader adds a reshape to others, which can stand in a fusion's way.
            name = f"number.{value:.9g}"
            shape = (1, 1, 1, 1) if self.form.linear == "conv" else (1, 1)
            self.constants[name] = np.full(shape, value, self.dtype)
            return name

        def step(kind: str, left: str, right: str, label: str) -> str:
            return self.node(kind, [left, right], f"{output}.{label}")

        if activation == "erf" and self.form.gelu == "own":
            inside = step("Div", source, number(math.sqrt(2)), "inside")
            whole = step("Add", self.node("Erf", [inside], f"{output}.erf"), number(1), "whole")
            return self.node("Mul", [step("Mul", source, whole, "twice"), number(0.5)], output)
        cubed = step("Pow", source, number(3), "cubed")
        inside = step("Add", source, step("Mul", cubed, number(0.044715), "small"), "inside")
        scaled = step("Mul", inside, number(math.sqrt(2 / math.pi)), "scaled")
        whole = step("Add", self.node("Tanh", [scaled], f"{output}.tanh"), number(1), "whole")
        return self.node("Mul", [step("Mul", whole, number(0.5), "share"), source], output)

    # ------------------------------------------------------------------------------------------------------- tail

    def _needs_first_alone(self) -> bool:
        """Whether all that is read of the last hidden state is each text's first token."""
        tail = self.encoder.tail
        return bool(tail.first) and not tail.mean and not tail.per_token

    def _starts(self) -> None:
        """Where each text starts: int32 [N]."""
        self.node("Slice", ["cu_seqlens", self.number("zero", [0]), self.number("minus_one", [-1])], "starts")

    def _tail(self, hidden: str, *, alone: bool) -> None:
        tail, width = self.encoder.tail, self.encoder.width
        names: dict[str, str] = {}
        if tail.first:
            first = hidden if alone else self.node("Gather", [hidden, "starts"], "first", axis=0)
            flat = self._flat(first, width, "first")
            names.update(dict.fromkeys(tail.first, self.cast(flat, TensorProto.FLOAT)))
        if tail.mean:
            names.update(dict.fromkeys(tail.mean, self._mean(hidden)))
        if tail.per_token:
            flat = self._flat(hidden, width, "hidden")
            names.update(dict.fromkeys(tail.hidden, self.cast(flat, TensorProto.FLOAT)))
        for node in tail.nodes:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [names.get(name, name) for name in node.input]
            if copy.op_type == "LayerNormalization" and node.name in tail.per_token:
                del copy.attribute[:]
                copy.attribute.extend([item for item in node.attribute if item.name != "axis"])
                copy.attribute.append(helper.make_attribute("axis", -1))
            for name in node.input:
                if name in self.encoder.constants:
                    self.constants[name] = self.encoder.constants[name]
            self.nodes.append(copy)

    def _mean(self, hidden: str) -> str:
        """The mean of each text's tokens, float32 [N, E]."""
        width = self.encoder.width
        if self.form.mean == "attention":
            # Query and key of zeros: every token looks at all of its text alike.
            zero, one = np.zeros((width, width), np.float32), np.eye(width, dtype=np.float32)
            heads = self.encoder.heads
            parts = [side.reshape(heads, -1, width) for side in (zero, zero, one)]
            matrix = Matrix(np.stack(parts, axis=1).reshape(3 * width, width), np.zeros(3 * width, np.float32))
            means = self._attention(self._linear(hidden, matrix, "mean.qkv"), "mean.context")
            first = self.node("Gather", [means, "starts"], "mean.first", axis=0)
            return self.cast(self._flat(first, width, "mean"), TensorProto.FLOAT)
        self.inputs.append("segment_ids")
        flat = self._flat(hidden, width, "hidden")
        ends = self.node("Slice", ["cu_seqlens", self.number("one", [1]), self.number("all", [2**31 - 1])], "ends")
        lengths = self.node("Cast", [self.node("Sub", [ends, "starts"], "counts")], "lengths", to=TensorProto.FLOAT)
        column = self.node("Unsqueeze", [lengths, self.number("one", [1])], "lengths.column")
        shape = self.node("Shape", ["starts"], "texts.shape")
        count = self.node("Squeeze", [shape, self.number("zero", [0])], "texts.count")
        texts = self.node("Range", [self.number("from", 0), count, self.number("by", 1)], "texts.range")
        index = self.node("Cast", [texts], "texts.index", to=TensorProto.INT32)
        rows = self.node("Unsqueeze", [index, self.number("one", [1])], "texts.column")
        across = self.node("Unsqueeze", ["segment_ids", self.number("zero", [0])], "segments.row")
        same = self.node("Equal", [rows, across], "segments.same")
        share = self.node("Cast", [same], "segments.share", to=self.kind)
        summed = self.cast(self.node("MatMul", [share, flat], "mean.sum"), TensorProto.FLOAT)
        return self.node("Div", [summed, column], "mean.mean")

    # ---------------------------------------------------------------------------------------------------- writing

    @property
    def dtype(self) -> type[np.floating[Any]]:
        return np.float16 if self.kind == TensorProto.FLOAT16 else np.float32

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def cast(self, source: str, kind: int) -> str:
        """``source`` in another type; a cast where it has not that type already."""
        if kind == self.kind:
            return source
        if source in self.wide:
            return self.wide[source]
        name = f"{source}.fp32"
        if all(node.output[0] != name for node in self.nodes):
            self.node("Cast", [source], name, to=kind)
        return name

    def weight(self, name: str, value: NDArray[np.float32]) -> str:
        if self.kind == TensorProto.FLOAT16:
            largest = float(np.abs(value).max(initial=0))
            if not largest <= _LARGEST:
                raise ModelError(
                    f"The weight {name} is beyond FP16's range (largest {largest:.3g}). Build this model with "
                    "precision fp32."
                )
        self.constants[name] = np.ascontiguousarray(value.astype(self.dtype))
        return name

    def number(self, name: str, values: int | list[int]) -> str:
        self.constants[f"shape.{name}"] = np.array(values, np.int64)
        return f"shape.{name}"

    def _four(self, source: str, width: int, label: str) -> str:
        return self.node("Reshape", [source, self.number(f"four.{width}", [-1, width, 1, 1])], f"{label}.four")

    def _flat(self, source: str, width: int, label: str) -> str:
        if self.form.linear != "conv":
            return source
        name = f"{label}.flat"
        if all(node.output[0] != name for node in self.nodes):
            self.node("Reshape", [source, self.number("flat", [-1, width])], name)
        return name

    def _assembled(self) -> ModelProto:
        info = helper.make_tensor_value_info
        sizes = {"cu_seqlens": "bounds", "longest": "longest"}
        outputs = []
        tail = self.encoder.tail
        of_tokens = {name for node in tail.nodes if node.name in tail.per_token for name in node.output}
        for value in self.source.graph.output:
            columns = value.type.tensor_type.shape.dim[-1].dim_value
            rows = "tokens" if value.name in of_tokens else "texts"
            outputs.append(info(value.name, TensorProto.FLOAT, [rows, columns]))
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "packed",
            [info(name, TensorProto.INT32, [sizes.get(name, "tokens")]) for name in self.inputs],
            outputs,
            initializer=[
                numpy_helper.from_array(np.asarray(value), name)
                for name, value in self.constants.items()
                if name in used
            ],
            value_info=[info(name, kind, shape) for name, (kind, shape) in self.typed.items()],
        )
        made = helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid("", _PAIRS_OPSET if self.amax else _OPSET),
                helper.make_opsetid(DOMAIN, 1),
            ],
            ir_version=9 if self.amax else 8,
        )
        made.metadata_props.extend(self.source.metadata_props)
        return made


def _unit_scale(*tables: NDArray[np.float32]) -> np.float32:
    """The power of 2 that brings the sum of a row of each table to a variance of about 1.

    The norm after it gives the same; the plugin's own epsilon, up to 0.001, then does not count.
    """
    variance = sum(float(table.var(axis=1).mean()) for table in tables)
    return np.float32(2.0 ** round(-math.log2(variance) / 2)) if variance > 0 else np.float32(1)


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(str(number) for number in numbers)


def _unfit(what: str) -> ModelError:
    return ModelError(f"The graph cannot be packed: {what}. Build it with --layout padded.")
