"""A transformer of two layers in the form of the bundled network, small enough to build in a test.

The same operators in the same order as workbench/engine/training/exported.py writes them: embeddings flattened to
[batch * sequence, width], linears as Gemm, erf GELU, layer norm after the residual, mean pooling by a product, three
heads, matrices stored as FP16. Random weights from a fixed seed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.runtime.tiny_model import TOML, make_tokenizer

WIDTH, HEADS, INNER, LAYERS, POSITIONS = 32, 2, 64, 2, 64


class _Builder:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.casts: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], f"/{output}/{kind}", **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def matrix(self, name: str, *shape: int, scale: float | None = None) -> str:
        spread = scale if scale is not None else shape[0] ** -0.5
        values = (self.random.standard_normal(shape) * spread).astype(np.float16)
        self.constant(f"{name}_fp16", values)
        self.casts.append(helper.make_node("Cast", [f"{name}_fp16"], [name], f"cast_{name}", to=TensorProto.FLOAT))
        return name

    def vector(self, name: str, size: int, *, around: float = 0.0) -> str:
        return self.constant(name, (around + 0.1 * self.random.standard_normal(size)).astype(np.float32))

    def linear(self, name: str, source: str, inputs: int, outputs: int) -> str:
        weights = [self.matrix(f"{name}.weight", inputs, outputs), self.vector(f"{name}.bias", outputs)]
        return self.node("Gemm", [source, *weights], f"{name}.out")

    def norm(self, name: str, source: str) -> str:
        weights = [self.vector(f"{name}.weight", WIDTH, around=1.0), self.vector(f"{name}.bias", WIDTH)]
        return self.node("LayerNormalization", [source, *weights], f"{name}.out", axis=-1, epsilon=1e-12)

    def layer(self, at: str, hidden: str) -> str:
        parts = {}
        for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            flat = self.linear(f"{at}.{name}", hidden, WIDTH, WIDTH)
            split = self.node("Reshape", [flat, "heads_shape"], f"{at}.{name}.split")
            parts[name] = self.node("Transpose", [split], f"{at}.{name}.heads", perm=order)
        scores = self.node("MatMul", [parts["query"], parts["key"]], f"{at}.scores")
        masked = self.node("Add", [scores, "attention_bias"], f"{at}.masked")
        shares = self.node("Softmax", [masked], f"{at}.shares", axis=3)
        mixed = self.node("MatMul", [shares, parts["value"]], f"{at}.mixed")
        back = self.node("Transpose", [mixed], f"{at}.back", perm=[0, 2, 1, 3])
        joined = self.node("Reshape", [back, "flat_shape"], f"{at}.joined")
        attended = self.linear(f"{at}.output", joined, WIDTH, WIDTH)
        added = self.node("Add", [hidden, attended], f"{at}.attention_add")
        hidden = self.norm(f"{at}.attention_norm", added)
        wide = self.linear(f"{at}.expand", hidden, WIDTH, INNER)
        scaled = self.node("Div", [wide, "root_two"], f"{at}.gelu_scaled")
        erf = self.node("Erf", [scaled], f"{at}.gelu_erf")
        one = self.node("Add", [erf, "one_float"], f"{at}.gelu_one")
        product = self.node("Mul", [wide, one], f"{at}.gelu_product")
        gelu = self.node("Mul", [product, "half_float"], f"{at}.gelu")
        narrow = self.linear(f"{at}.contract", gelu, INNER, WIDTH)
        added = self.node("Add", [hidden, narrow], f"{at}.ffn_add")
        return self.norm(f"{at}.output_norm", added)


def make_encoder(vocabulary: int, *, seed: int = 20261122) -> onnx.ModelProto:
    """The network; inputs and outputs as every model folder has them."""
    b = _Builder(seed)
    floats = {"root_two": math.sqrt(2), "one_float": 1.0, "half_float": 0.5}
    for name, value in floats.items():
        b.constant(name, np.array(value, np.float32))
    integers = {
        "flat_shape": [-1, WIDTH],
        "head_sizes": [HEADS, WIDTH // HEADS],
        "width": [WIDTH],
        "start": [0],
        "one": [1],
        "two": [2],
    }
    for name, values in integers.items():
        b.constant(name, np.array(values, np.int64))
    b.constant("zero", np.array(0, np.int64))
    b.node("Shape", ["input_ids"], "shape")
    b.node("Concat", ["shape", "head_sizes"], "heads_shape", axis=0)
    b.node("Slice", ["shape", "one", "two"], "length")
    b.node("Slice", [b.matrix("positions", POSITIONS, WIDTH, scale=0.2), "start", "length", "start"], "places")
    b.node("Gather", [b.matrix("tokens", vocabulary, WIDTH, scale=1.0), "input_ids"], "words")
    b.node("Add", ["words", "places"], "embedded")
    hidden = b.node("Reshape", [b.norm("norm", "embedded"), "flat_shape"], "layers.0.in")
    for index in range(LAYERS):
        hidden = b.layer(f"layers.{index}", hidden)
    b.node("Concat", ["shape", "width"], "hidden_shape", axis=0)
    b.node("Reshape", [hidden, "hidden_shape"], "hidden")
    b.node("Squeeze", ["attention_bias", "one"], "row_bias")
    b.node("Exp", ["row_bias"], "present")
    b.node("MatMul", ["present", "hidden"], "summed")
    b.node("ReduceSum", ["present", "two"], "count", keepdims=1)
    b.node("Div", ["summed", "count"], "means")
    b.node("Squeeze", ["means", "one"], "mean")
    b.node("Gather", ["hidden", "zero"], "first", axis=1)
    b.node("Concat", ["first", "mean"], "both", axis=1)
    pooled = b.node("Tanh", [b.linear("pool", "both", 2 * WIDTH, WIDTH)], "pooled")
    for name, labels in (("sentiment", 3), ("topics", 8)):
        weights = [b.matrix(f"{name}.weight", WIDTH, labels, scale=1.0), b.vector(f"{name}.bias", labels)]
        b.node("Gemm", [pooled, *weights], name)
    b.node("MatMul", ["hidden", b.matrix("entities.weight", WIDTH, 9, scale=0.5)], "tags")
    b.node("Add", ["tags", b.vector("entities.bias", 9)], "entities")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*b.casts, *b.nodes],
        "small",
        [
            info("input_ids", TensorProto.INT32, ["batch", "sequence"]),
            info("attention_bias", TensorProto.FLOAT, ["batch", 1, 1, "sequence"]),
        ],
        [
            info("sentiment", TensorProto.FLOAT, ["batch", 3]),
            info("topics", TensorProto.FLOAT, ["batch", 8]),
            info("entities", TensorProto.FLOAT, ["batch", "sequence", 9]),
        ],
        initializer=b.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_small_model(folder: Path, *, seed: int = 20261122) -> Path:
    """Write a whole model folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    onnx.save(make_encoder(tokenizer.get_vocab_size(), seed=seed), folder / "model.onnx")
    (folder / "model.toml").write_text(TOML.replace('name = "tiny"', 'name = "small"'), encoding="utf-8")
    return folder
