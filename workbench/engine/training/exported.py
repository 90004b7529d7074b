"""The trained network as an ONNX graph to the workbench's contract: three outputs, weights stored as FP16.

Inputs: ``input_ids`` int32 [batch, sequence], ``attention_bias`` float32 [batch, 1, 1, sequence] (0 for a token, -1e4
for padding). Outputs, float32 logits: ``sentiment`` [batch, 3], ``topics`` [batch, 8], ``entities`` [batch, sequence,
9]. Standard operators of opset 17, the newest that TensorRT 8.6 reads.

The form is the fastest of those tried in onnxruntime on a CPU (8 % faster than hidden states of [batch, sequence,
width] and one product for query, key and value): hidden states are [batch * sequence, width] from the embeddings to
the last layer, where a product and its bias become one Gemm; query, key and value are three products; the scores'
scale is folded into the query's weights, a power of two; the two shapes that reshapes need are put together once. The
mean over tokens is a product with a row of ones and zeros: the library adds up a ReduceSum over the tokens of a lone
text in another order than over those of several, a product always in the same.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx.checker
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workbench.engine.export.graph import OPSET, contract_problems, refuse_graph, round_weights, store_weights_fp16
from workbench.engine.training.encoder import Attention, Encoder, Layer
from workbench.errors import ModelError
from workbench.tasks.labels import ENTITY_TAGS, SENTIMENTS, TASKS, TOPICS

__all__ = ["TOLERANCE", "check_graph", "check_parity", "is_batch_invariant", "rounded_copy", "write_graph"]

TOLERANCE: Final = 1e-4
"""Largest difference of a logit: of the graph from torch, of a text in a batch from the same text alone."""

_SIZES: Final = {"sentiment": len(SENTIMENTS), "topics": len(TOPICS), "entities": len(ENTITY_TAGS)}
_PADDING: Final = -1e4


class _Reshape(torch.autograd.Function):
    """A reshape to sizes that are a tensor: one computed once in the graph, or a constant."""

    @staticmethod
    def forward(_context: Any, value: Tensor, sizes: Tensor) -> Tensor:
        return value.reshape(sizes.tolist())

    @staticmethod
    def symbolic(graph: Any, value: Any, sizes: Any) -> Any:
        return graph.op("Reshape", value, sizes)


def _reshape(value: Tensor, sizes: Tensor) -> Tensor:
    reshaped: Tensor = _Reshape.apply(value, sizes)
    return reshaped


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight.half().float())
        linear.bias.copy_(bias)
    return linear


class _Attention(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
        scale = math.sqrt(attention.output.in_features // attention.heads)
        self.query = _linear(weights[0] / scale, biases[0] / scale)
        self.key, self.value = _linear(weights[1], biases[1]), _linear(weights[2], biases[2])
        self.output = attention.output

    def forward(self, hidden: Tensor, bias: Tensor, heads: Tensor, flat: Tensor) -> Tensor:
        query, key, value = (_reshape(part(hidden), heads) for part in (self.query, self.key, self.value))
        scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) + bias
        mixed = torch.softmax(scores, dim=3) @ value.transpose(1, 2)
        joined: Tensor = self.output(_reshape(mixed.transpose(1, 2), flat))
        return joined


class _Layer(nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.attention, self.attention_norm = _Attention(layer.attention), layer.attention_norm
        self.expand, self.contract, self.output_norm = layer.expand, layer.contract, layer.output_norm

    def forward(self, hidden: Tensor, bias: Tensor, heads: Tensor, flat: Tensor) -> Tensor:
        hidden = self.attention_norm(hidden + self.attention(hidden, bias, heads, flat))
        normed: Tensor = self.output_norm(hidden + self.contract(functional.gelu(self.expand(hidden))))
        return normed


class _Graph(nn.Module):
    """The encoder's weights in the graph's form. Its modules give the nodes their names."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.tokens, self.positions, self.norm = encoder.tokens.weight, encoder.positions.weight, encoder.norm
        self.layers = nn.ModuleList(_Layer(layer) for layer in encoder.layers)
        self.pool, self.sentiment = encoder.pool, encoder.sentiment
        self.topics, self.entities = encoder.topics, encoder.entities
        self.width, self.heads = encoder.config.width, encoder.config.heads

    def forward(self, input_ids: Tensor, attention_bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = self.width
        shape = torch._shape_as_tensor(input_ids)
        heads = torch.cat([shape, torch.tensor([self.heads, width // self.heads])])
        flat = torch.tensor([-1, width])
        # int32 ids go to the Gather as they are.
        embedded = functional.embedding(input_ids, self.tokens) + self.positions[: input_ids.shape[1]]
        hidden = _reshape(self.norm(embedded), flat)
        for layer in self.layers:
            hidden = layer(hidden, attention_bias, heads, flat)
        hidden = _reshape(hidden, torch.cat([shape, torch.tensor([width])]))
        # 1 for a token and 0 for padding: e^-10000 is 0 in FP32 and in FP16. Sums of ones are exact in any order.
        present = torch.exp(attention_bias.squeeze(1))
        mean = (present @ hidden / present.sum(2, keepdim=True)).squeeze(1)
        pooled = torch.tanh(self.pool(torch.cat([hidden[:, 0], mean], dim=1)))
        return self.sentiment(pooled), self.topics(pooled), self.entities(hidden)


def rounded_copy(model: Encoder) -> Encoder:
    """``model`` on the CPU in eval mode, its matrices rounded to FP16: what the graph computes with.

    Raises ModelError when a weight is beyond FP16's range, or for a network with layer norm before the sublayers.
    """
    if model.config.pre_norm:
        raise ModelError(
            "A network with layer norm before the sublayers is a teacher, not for a bundle: its form is not the one "
            "that inference libraries fuse. Train one with pre_norm=False."
        )
    rounded = Encoder(model.config)
    rounded.load_state_dict({name: value.float().cpu() for name, value in model.state_dict().items()})
    round_weights(rounded)
    rounded.eval()
    return rounded


def write_graph(model: Encoder, path: Path) -> None:
    """Write ``model``, as ``rounded_copy`` gives it, to ``path``. The same weights give the same bytes."""
    axes = {
        "input_ids": {0: "batch", 1: "sequence"},
        "attention_bias": {0: "batch", 3: "sequence"},
        **{task: {0: "batch"} for task in TASKS},
    }
    axes["entities"] = {0: "batch", 1: "sequence"}
    # Sizes that differ from each other and from 1: a size must not be taken for a constant.
    ids, bias = torch.full((2, 7), 5, dtype=torch.int32), torch.zeros((2, 1, 1, 7))
    with torch.no_grad(), warnings.catch_warnings():
        # The tracing exporter is announced as old; the new one writes opset 18 and converts down. A tracer also warns
        # about each size it reads; the parity check runs other sizes.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        torch.onnx.export(
            _Graph(model).eval(),
            (ids, bias),
            str(path),
            input_names=["input_ids", "attention_bias"],
            output_names=list(TASKS),
            dynamic_axes=axes,
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
    graph = onnx.load(str(path))
    # Which torch wrote it, and from which line of which file, is no part of the network.
    graph.producer_name, graph.producer_version = "workbench", ""
    # A transposed matrix gets a number for a name; its node knows better: /layers.0/expand/MatMul.
    names = {
        node.input[1]: node.name.removesuffix("/MatMul").strip("/").replace("/", ".") + ".weight"
        for node in graph.graph.node
        if node.op_type == "MatMul" and node.input[1].startswith("onnx::MatMul")
    }
    for node in graph.graph.node:
        node.ClearField("doc_string")
        node.input[:] = [names.get(name, name) for name in node.input]
    for item in graph.graph.initializer:
        item.name = names.get(item.name, item.name)
    onnx.save(graph, str(path))
    store_weights_fp16(path)


def check_graph(path: Path) -> None:
    """Check a written graph against the contract in this module's docstring.

    Raises ModelError naming each difference: inputs, outputs, opset, operators from elsewhere, matrices not stored as
    FP16.
    """
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path))
    problems = contract_problems(
        model,
        {
            "sentiment": [_SIZES["sentiment"]],
            "topics": [_SIZES["topics"]],
            "entities": ["sequence", _SIZES["entities"]],
        },
    )
    float16 = onnx.TensorProto.FLOAT16
    large = [item.name for item in model.graph.initializer if len(item.dims) >= 2 and item.data_type != float16]
    if large:
        problems.append(f"{', '.join(large)} not stored as FP16")
    refuse_graph(problems)


def check_parity(path: Path, model: Encoder, *, seed: int = 20261122) -> float:
    """Run the graph beside ``model`` (as ``rounded_copy`` gives it); give the largest difference of a logit.

    Random texts of random lengths in batches of 1, 3 and 17, one of the full length; each text of a batch is also run
    alone. Raises ModelError when a difference is above ``TOLERANCE``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    longest = model.config.positions
    worst = {"torch": 0.0, "the same text alone": 0.0}
    for lengths in (
        [longest],
        random.integers(1, min(40, longest) + 1, 3).tolist(),
        [1, 2, longest // 4, *random.integers(1, min(64, longest) + 1, 14).tolist()],
    ):
        ids, bias = _probe(lengths, model.config.vocabulary, random)
        values = session.run(list(TASKS), {"input_ids": ids, "attention_bias": bias})
        with torch.no_grad():
            out = model(torch.from_numpy(ids).long(), torch.from_numpy(bias))
        for row, length in enumerate(lengths):
            own = {"input_ids": ids[row : row + 1, :length], "attention_bias": bias[row : row + 1, :, :, :length]}
            alone = session.run(list(TASKS), own)
            for task, value, single in zip(TASKS, values, alone, strict=True):
                got = value[row, :length] if task == "entities" else value[row]
                reference = getattr(out, task)[row].numpy()[: len(got)]
                for against, other in (("torch", reference), ("the same text alone", single[0])):
                    # max() passes over NaN in silence; a NaN is as wrong as can be.
                    difference = float(np.nan_to_num(np.abs(got - other), nan=np.inf).max())
                    worst[against] = max(worst[against], difference)
    for against, difference in worst.items():
        if difference > TOLERANCE:
            raise ModelError(
                f"The exported graph differs from {against} by {difference:.2g} on random texts; {TOLERANCE:g} is "
                "allowed. Install the versions in constraints.txt: pip install -c constraints.txt -e '.[export]'"
            )
    return max(worst.values())


def is_batch_invariant(path: Path, model: Encoder, *, seed: int = 20261122) -> bool:
    """Whether a text gets the very same bits alone and among others of its padded length, in all three outputs.

    Tried with random texts of every length the runtime pads to up to 128 tokens, and some longer ones; on one core,
    as the runtime runs them.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    longest = model.config.positions
    for size in (size for size in (*range(4, 132, 4), 200, 256, 512) if size <= longest):
        count = max(2, 256 // size)
        ids, bias = _probe([size, *random.integers(1, size + 1, count - 1).tolist()], model.config.vocabulary, random)
        together = session.run(list(TASKS), {"input_ids": ids, "attention_bias": bias})
        for row in {0, 1, count - 1}:
            own = {"input_ids": ids[row : row + 1], "attention_bias": bias[row : row + 1]}
            for values, single in zip(together, session.run(list(TASKS), own), strict=True):
                if values[row].tobytes() != single[0].tobytes():
                    return False
    return True


def _probe(
    lengths: list[int], vocabulary: int, random: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    ids = np.zeros((len(lengths), max(lengths)), np.int32)
    bias = np.full((len(lengths), 1, 1, max(lengths)), _PADDING, np.float32)
    for row, length in enumerate(lengths):
        ids[row, :length] = random.integers(1, vocabulary, length)
        bias[row, :, :, :length] = 0
    return ids, bias
