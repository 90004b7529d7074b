"""The operators of TensorRT 8.6's plugin library that packed graphs use, and what they compute in standard ONNX.

    CustomQKVToContextPluginDynamic 2
        Attention of each text over its own tokens. Takes qkv [T, 3E, 1, 1], channels in the order head x {q, k, v},
        a mask that nobody reads, cu_seqlens int32 [N + 1], and a vector as long as the longest text; gives
        [T, E, 1, 1]. Divides the scores by the root of the head size. Heads of 32 and 64, at most 512 tokens a text.
        In INT8 (heads of 64) the shares that the softmax gives are counted in steps of dq_probs.
    CustomSkipLayerNormPluginDynamic 2
        Layer norm of the sum of two tensors, with parameters beta and gamma; sums in the tensors' own type. In INT8
        it knows widths of 768 and 1024 alone.

An operator in INT8 takes and gives INT8: in the graph its inputs come from a DequantizeLinear and its output goes
into a QuantizeLinear.

``expand_plugins`` gives the same graph without them, for machines that have onnxruntime alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = [
    "ATTENTION",
    "DOMAIN",
    "HEAD_SIZES",
    "INT8_HEAD_SIZE",
    "INT8_WIDTHS",
    "MOST_TOKENS",
    "NEEDED",
    "SKIP_NORM",
    "attention_node",
    "expand_plugins",
    "plugins_of",
    "skip_norm_node",
]

DOMAIN: Final = "trt.plugins"
ATTENTION: Final = "CustomQKVToContextPluginDynamic"
SKIP_NORM: Final = "CustomSkipLayerNormPluginDynamic"
HEAD_SIZES: Final = (32, 64)
MOST_TOKENS: Final = 512
INT8_HEAD_SIZE: Final = 64
INT8_WIDTHS: Final = (768, 1024)

NEEDED: Final = ((ATTENTION, "2"), (SKIP_NORM, "2"))
"""Name and version of the plugins that packed graphs are made of."""

_TYPES: Final[dict[int, int]] = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 1, TensorProto.INT8: 2}
"""TensorRT's number for an element type."""

_OUTSIDE: Final[dict[int, int]] = {0: TensorProto.FLOAT, 1: TensorProto.FLOAT16, 2: TensorProto.FLOAT16}
"""The type that a graph has around an operator, by TensorRT's number: beside INT8 stands FP16."""


def attention_node(
    inputs: list[str], output: str, *, width: int, heads: int, kind: int, share_step: float | None = None
) -> NodeProto:
    """Attention over packed texts; ``inputs``: qkv, mask, cu_seqlens, longest; ``kind``: a TensorProto type;
    ``share_step``: of INT8, what one step of a softmax's shares stands for."""
    more = {} if share_step is None else {"dq_probs": share_step}
    return _node(
        ATTENTION,
        inputs,
        output,
        type_id=_TYPES[kind],
        hidden_size=width,
        num_heads=heads,
        has_mask=1,
        var_seqlen=1,
        **more,
    )


def skip_norm_node(inputs: list[str], output: str, *, gamma: Any, beta: Any, kind: int) -> NodeProto:
    """Layer norm of the sum of two tensors; ``kind``: a TensorProto type."""
    parameters = {"beta": np.asarray(beta, np.float32).tolist(), "gamma": np.asarray(gamma, np.float32).tolist()}
    return _node(SKIP_NORM, inputs, output, type_id=_TYPES[kind], **parameters)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(
        kind, inputs, [output], output, domain=DOMAIN, plugin_version="2", plugin_namespace="", **attributes
    )


def plugins_of(model: ModelProto) -> tuple[tuple[str, str], ...]:
    """Name and version of every plugin that ``model`` needs."""
    found = {
        (node.op_type, helper.get_node_attr_value(node, "plugin_version").decode())
        for node in model.graph.node
        if node.domain == DOMAIN
    }
    return tuple(sorted(found))


def expand_plugins(model: ModelProto) -> ModelProto:
    """``model`` with standard operators in place of plugins, in the same types: exact, and slow for many tokens."""
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.node[:]
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"expand.{name}")
        for name, value in {
            "zero": np.array([0], np.int64),
            "one": np.array([1], np.int64),
            "two": np.array([2], np.int64),
            "last": np.array([2**31 - 1], np.int64),
            "start": np.array(0, np.int64),
            "step": np.array(1, np.int64),
            "axis": np.array(0, np.int64),
        }.items()
    )
    masked = False
    for node in model.graph.node:
        if node.op_type == ATTENTION and node.domain == DOMAIN:
            if not masked:
                graph.node.extend(_mask(node.input[2]))
                masked = True
            graph.node.extend(_attention(graph, node))
        elif node.op_type == SKIP_NORM and node.domain == DOMAIN:
            graph.node.extend(_skip_norm(graph, node))
        else:
            graph.node.append(node)
    kept = [item for item in made.opset_import if item.domain != DOMAIN]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    return made


def _mask(cu_seqlens: str) -> Iterator[NodeProto]:
    """expand.bias [T, T]: 0 for two tokens of one text, else minus infinity."""

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(kind, inputs, [f"expand.{output}"], f"expand.{output}", **attributes)

    yield node("Cast", [cu_seqlens], "cu", to=TensorProto.INT64)
    yield node("Slice", ["expand.cu", "expand.one", "expand.last"], "ends")
    yield node("ReduceMax", ["expand.cu"], "total", keepdims=0)
    yield node("Range", ["expand.start", "expand.total", "expand.step"], "places")
    yield node("Unsqueeze", ["expand.places", "expand.one"], "column")
    yield node("GreaterOrEqual", ["expand.column", "expand.ends"], "past")
    yield node("Cast", ["expand.past"], "counted", to=TensorProto.INT64)
    yield node("ReduceSum", ["expand.counted", "expand.one"], "texts", keepdims=1)
    yield node("Transpose", ["expand.texts"], "row")
    yield node("Equal", ["expand.texts", "expand.row"], "same")
    yield node("Cast", ["expand.same"], "share", to=TensorProto.FLOAT)
    yield node("Log", ["expand.share"], "log")
    yield node("Cast", ["expand.log"], "bias", to=TensorProto.FLOAT)


def _attention(graph: Any, node: NodeProto) -> Iterator[NodeProto]:
    at = node.output[0]
    values = {name: helper.get_node_attr_value(node, name) for name in ("hidden_size", "num_heads", "type_id")}
    heads, width = int(values["num_heads"]), int(values["hidden_size"])
    size, kind = width // heads, _OUTSIDE[int(values["type_id"])]
    step = next((item.f for item in node.attribute if item.name == "dq_probs"), None)

    def constant(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{at}.{name}"))
        return f"{at}.{name}"

    def made(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(kind, inputs, [f"{at}.{output}"], f"{at}.{output}", **attributes)

    yield made("Cast", [node.input[0]], "wide", to=TensorProto.FLOAT)
    yield made("Reshape", [f"{at}.wide", constant("split", np.array([-1, heads, 3, size], np.int64))], "parts")
    yield made("Transpose", [f"{at}.parts"], "sides", perm=[2, 1, 0, 3])
    for index, side in enumerate(("q", "k", "v")):
        yield made("Gather", [f"{at}.sides", constant(f"{side}.index", np.array(index, np.int64))], side, axis=0)
    yield made("Transpose", [f"{at}.k"], "turned", perm=[0, 2, 1])
    yield made("MatMul", [f"{at}.q", f"{at}.turned"], "product")
    yield made("Div", [f"{at}.product", constant("root", np.array(math.sqrt(size), np.float32))], "scores")
    yield made("Add", [f"{at}.scores", "expand.bias"], "masked")
    yield made("Softmax", [f"{at}.masked"], "shares", axis=-1)
    shares = f"{at}.shares"
    if step is not None:
        yield made("Div", [shares, constant("step", np.array(step, np.float32))], "steps")
        yield made("Round", [f"{at}.steps"], "rounded")
        yield made("Min", [f"{at}.rounded", constant("most", np.array(127, np.float32))], "counted")
        yield made("Mul", [f"{at}.counted", f"{at}.step"], "stepped")
        shares = f"{at}.stepped"
    yield made("MatMul", [shares, f"{at}.v"], "context")
    yield made("Transpose", [f"{at}.context"], "back", perm=[1, 0, 2])
    yield made("Reshape", [f"{at}.back", constant("whole", np.array([-1, width, 1, 1], np.int64))], "whole_wide")
    yield helper.make_node("Cast", [f"{at}.whole_wide"], [at], f"{at}.cast", to=kind)


def _skip_norm(graph: Any, node: NodeProto) -> Iterator[NodeProto]:
    at = node.output[0]
    kind = _OUTSIDE[int(helper.get_node_attr_value(node, "type_id"))]
    width = len(helper.get_node_attr_value(node, "gamma"))
    for name in ("gamma", "beta"):
        value = np.asarray(helper.get_node_attr_value(node, name), np.float32)
        graph.initializer.append(numpy_helper.from_array(value, f"{at}.{name}"))
    shape = np.array([-1, width], np.int64)
    graph.initializer.append(numpy_helper.from_array(shape, f"{at}.flat"))

    def made(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(kind, inputs, [f"{at}.{output}"], f"{at}.{output}", **attributes)

    yield made("Add", list(node.input), "sum")
    yield made("Shape", [f"{at}.sum"], "shape")
    yield made("Cast", [f"{at}.sum"], "wide", to=TensorProto.FLOAT)
    yield made("Reshape", [f"{at}.wide", f"{at}.flat"], "rows")
    yield made("LayerNormalization", [f"{at}.rows", f"{at}.gamma", f"{at}.beta"], "normed", axis=-1, epsilon=1e-6)
    yield made("Reshape", [f"{at}.normed", f"{at}.shape"], "as_it_was")
    yield helper.make_node("Cast", [f"{at}.as_it_was"], [at], f"{at}.cast", to=kind)
