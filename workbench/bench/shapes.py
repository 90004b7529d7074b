"""A model folder of BERT-base's shape, with random weights: for measuring speed, where what it says counts nothing.

    python -m workbench.bench.shapes FOLDER

The weights come from a seed, so that every machine makes the same folder with no network: 12 layers of 768 with 12
heads, an inner width of 3,072, 30,522 tokens, 512 positions, a pooled first token and three classes. The tokenizer is
the bundled one. Matrices are scaled by the root of their inputs, so that each layer's numbers keep the size they have
in a trained network. The graph has the form of the bundled network (see workbench.engine.training.exported): hidden
states of [batch * sequence, width], each linear one Gemm, the scores' scale folded into the query's weights, matrices
stored as FP16.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ParameterError
from workbench.files import atomic_write, write_text
from workbench.settings import settings
from workbench.tasks.spec import MODEL_FILES

__all__ = ["BERT_BASE", "HEAD_SIZE", "LABELS", "Shape", "make_model"]

HEAD_SIZE: Final = 64
LABELS: Final = ("negative", "neutral", "positive")

_OPSET: Final = 17  # the newest that TensorRT 8.6 reads
_EPSILON: Final = 1e-12  # BERT's


@dataclass(frozen=True)
class Shape:
    """The sizes of an encoder; each head is 64 wide."""

    layers: int
    width: int
    inner: int
    vocabulary: int
    positions: int = 512

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // HEAD_SIZE


BERT_BASE: Final = Shape(layers=12, width=768, inner=3072, vocabulary=30522)


def make_model(
    folder: Path, *, shape: Shape = BERT_BASE, seed: int = 20261122, tokenizer: Path | None = None
) -> Path:
    """Write model.onnx, tokenizer.json and model.toml into ``folder``, named after it; what is there already stays.

    Raises ParameterError when onnx is not installed, or the tokenizer has more tokens than ``shape``.
    """
    if all((folder / name).is_file() for name in MODEL_FILES):
        return folder
    try:
        import onnx
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ParameterError(
            f"The folder cannot be made: {error}. Install what engines are built with: pip install -e '.[engines]'"
        ) from None
    source = tokenizer or settings().home / "engines" / "reviews" / "tokenizer.json"
    known = Tokenizer.from_file(str(source)).get_vocab_size(with_added_tokens=True)
    if known > shape.vocabulary:
        raise ParameterError(
            f"{source} has {known} tokens, the network {shape.vocabulary}. Name a smaller tokenizer."
        )
    folder.mkdir(parents=True, exist_ok=True)
    model = _network(shape, np.random.default_rng(seed))
    onnx.checker.check_model(model)
    with atomic_write(folder / "model.onnx") as stream:
        stream.write(model.SerializeToString(deterministic=True))
    shutil.copyfile(source, folder / "tokenizer.json")
    # Last: the folder counts as whole only with it.
    write_text(folder / "model.toml", _toml(folder.name, shape))
    return folder


def _toml(name: str, shape: Shape) -> str:
    return "\n".join(
        [
            f'name = "{name}"',
            'version = "1"',
            f"max_tokens = {shape.positions}",
            "pad_id = 0",
            'limits = ["Random weights: it is for measuring speed, and its answers mean nothing."]',
            "",
            "[outputs.sentiment]",
            'kind = "classes"',
            f"labels = [{', '.join(map(repr, LABELS))}]".replace("'", '"'),
            "",
        ]
    )


class _Builder:
    """Nodes and constants of a graph that is being made."""

    def __init__(self, random: np.random.Generator) -> None:
        from onnx import helper, numpy_helper

        self.random = random
        self._node = helper.make_node
        self._tensor = numpy_helper.from_array
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self._node(kind, list(inputs), [output], f"/{output}", **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(self._tensor(value, name))
        return name

    def matrix(self, name: str, rows: int, columns: int, scale: float) -> str:
        """A random matrix, stored as FP16 and used as FP32."""
        value = self.random.standard_normal((rows, columns), np.float32) * np.float32(scale)
        self.constant(f"{name}_fp16", value.astype(np.float16))
        return self.add("Cast", [f"{name}_fp16"], name, to=1)

    def linear(self, name: str, source: str, sizes: tuple[int, int], *, scale: float = 1.0, output: str = "") -> str:
        """``source`` [n, inputs] times a matrix [outputs, inputs], plus a bias."""
        inputs, outputs = sizes
        weight = self.matrix(f"{name}.weight", outputs, inputs, scale * inputs**-0.5)
        bias = (self.random.standard_normal(outputs, np.float32) * 0.02 * scale).astype(np.float16)
        added = self.constant(f"{name}.bias", bias.astype(np.float32))
        return self.add("Gemm", [source, weight, added], output or f"{name}.out", transB=1)

    def norm(self, name: str, source: str, width: int) -> str:
        """Layer norm over the last axis, its weights near 1 and 0 as in a trained network."""
        near_one = 1 + 0.05 * self.random.standard_normal(width, np.float32)
        near_zero = 0.05 * self.random.standard_normal(width, np.float32)
        weight = self.constant(f"{name}.weight", near_one.astype(np.float32))
        bias = self.constant(f"{name}.bias", near_zero.astype(np.float32))
        return self.add("LayerNormalization", [source, weight, bias], f"{name}.out", axis=-1, epsilon=_EPSILON)


def _network(shape: Shape, random: np.random.Generator) -> Any:
    from onnx import TensorProto, helper

    made = _Builder(random)
    width = shape.width
    for name, value in {"zero": 0, "one": 1}.items():
        made.constant(name, np.array(value, np.int64))
        made.constant(f"{name}s", np.array([value], np.int64))
    made.constant("head_sizes", np.array([shape.heads, HEAD_SIZE], np.int64))
    made.constant("width", np.array([width], np.int64))
    flat = made.constant("flat", np.array([-1, width], np.int64))
    made.constant("root_two", np.array(np.sqrt(2), np.float32))
    made.constant("whole", np.array(1, np.float32))
    made.constant("half", np.array(0.5, np.float32))

    sizes = made.add("Shape", ["input_ids"], "sizes")
    split = made.add("Concat", [sizes, "head_sizes"], "split", axis=0)
    length = made.add("Unsqueeze", [made.add("Gather", [sizes, "one"], "length", axis=0), "zeros"], "lengths")
    tokens = made.add("Gather", [made.matrix("tokens", shape.vocabulary, width, 1.0), "input_ids"], "words")
    table = made.matrix("positions", shape.positions, width, 0.2)
    places = made.add("Slice", [table, "zeros", length, "zeros", "ones"], "places")
    embedded = made.norm("norm", made.add("Add", [tokens, places], "embedded"), width)
    hidden = made.add("Reshape", [embedded, flat], "hidden")
    for layer in range(shape.layers):
        hidden = _layer(made, f"layers.{layer}", hidden, shape, split)
    back = made.add("Concat", [sizes, "width"], "back", axis=0)
    first = made.add("Gather", [made.add("Reshape", [hidden, back], "texts"), "zero"], "first", axis=1)
    pooled = made.add("Tanh", [made.linear("pool", first, (width, width))], "pooled")
    made.linear("sentiment", pooled, (width, len(LABELS)), scale=4.0, output="sentiment")

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        made.nodes,
        "bert",
        [
            info("input_ids", TensorProto.INT32, ["batch", "sequence"]),
            info("attention_bias", TensorProto.FLOAT, ["batch", 1, 1, "sequence"]),
        ],
        [info("sentiment", TensorProto.FLOAT, ["batch", len(LABELS)])],
        made.constants,
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="workbench",
    )


def _layer(made: _Builder, name: str, hidden: str, shape: Shape, split: str) -> str:
    """One transformer layer; ``hidden`` is [batch * sequence, width]."""
    width, square = shape.width, (shape.width, shape.width)
    # 1/8: the division of the scores by the root of the head size.
    ends = {
        part: made.add(
            "Transpose",
            [
                made.add(
                    "Reshape",
                    [
                        made.linear(
                            f"{name}.attention.{part}", hidden, square, scale=1 / 8 if part == "query" else 1
                        ),
                        split,
                    ],
                    f"{name}.{part}.heads",
                )
            ],
            f"{name}.{part}",
            perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3],
        )
        for part in ("query", "key", "value")
    }
    scores = made.add("MatMul", [ends["query"], ends["key"]], f"{name}.scores")
    shares = made.add(
        "Softmax", [made.add("Add", [scores, "attention_bias"], f"{name}.biased")], f"{name}.shares", axis=3
    )
    mixed = made.add("MatMul", [shares, ends["value"]], f"{name}.mixed")
    joined = made.add(
        "Reshape", [made.add("Transpose", [mixed], f"{name}.turned", perm=[0, 2, 1, 3]), "flat"], f"{name}.joined"
    )
    output = made.linear(f"{name}.attention.output", joined, square)
    normed = made.norm(f"{name}.attention_norm", made.add("Add", [hidden, output], f"{name}.attention_sum"), width)
    inner = made.linear(f"{name}.expand", normed, (width, shape.inner))
    grown = made.add("Erf", [made.add("Div", [inner, "root_two"], f"{name}.scaled")], f"{name}.erf")
    gate = made.add("Mul", [inner, made.add("Add", [grown, "whole"], f"{name}.lifted")], f"{name}.gate")
    active = made.add("Mul", [gate, "half"], f"{name}.active")
    contracted = made.linear(f"{name}.contract", active, (shape.inner, width))
    return made.norm(f"{name}.output_norm", made.add("Add", [normed, contracted], f"{name}.output_sum"), width)


if __name__ == "__main__":
    print(make_model(Path(sys.argv[1])))  # noqa: T201 - its answer
