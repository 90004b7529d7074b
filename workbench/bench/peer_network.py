# mypy: ignore-errors
"""A model folder's network in torch, with the weights of its model.onnx: for peers of the bench.

Imported by its bare name by the peers beside it, under any interpreter that has torch, transformers and onnx; it
needs no workbench. The weights are told apart by the operators that use them, and put into transformers' own BERT:
with its pooler for a model of BERT's shape (workbench.bench.shapes), with the reviews model's pooling for the bundled
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertPreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

__all__ = ["HEAD_SIZE", "Heads", "ReviewsForSequenceClassification", "Weights", "build_model", "read_weights"]

HEAD_SIZE = 64
"""Of the models that are benched; a graph does not say it plainly."""


class ReviewsConfig(BertConfig):
    """A BERT with the reviews model's pooling. ``topics``: how many of them; 0 without that head."""

    model_type = "workbench-reviews"
    topics: int = 0


class ReviewsForSequenceClassification(BertPreTrainedModel):
    """BERT; the first token and the mean of all, concatenated, through one layer with tanh; then the classes."""

    config_class = ReviewsConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.pool = torch.nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.topics = torch.nn.Linear(config.hidden_size, config.topics) if config.topics else None
        self.post_init()

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """What the heads read [B, width]."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        present = attention_mask.to(hidden.dtype).unsqueeze(-1)
        mean = (hidden * present).sum(1) / present.sum(1)
        return torch.tanh(self.pool(torch.cat([hidden[:, 0], mean], dim=-1)))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        """Logits [B, classes]."""
        return SequenceClassifierOutput(logits=self.classifier(self.pooled(input_ids, attention_mask)))


AutoConfig.register(ReviewsConfig.model_type, ReviewsConfig)
AutoModelForSequenceClassification.register(ReviewsConfig, ReviewsForSequenceClassification)


class Heads(torch.nn.Module):
    """A model with its heads as plain tensors: ``tasks`` names them in order, "sentiment" first."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.reviews = isinstance(model, ReviewsForSequenceClassification)
        self.tasks = ("sentiment", "topics") if self.reviews and model.topics is not None else ("sentiment",)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits [B, labels] of each task."""
        if not self.reviews:
            return (self.model(input_ids=input_ids, attention_mask=attention_mask).logits,)
        pooled = self.model.pooled(input_ids, attention_mask)
        sentiment = self.model.classifier(pooled)
        return (sentiment, self.model.topics(pooled)) if len(self.tasks) == 2 else (sentiment,)


@dataclass
class Weights:
    """What stands in the graph, in its order. Weights of linears are [out, in], as torch has them."""

    tables: list[np.ndarray] = field(default_factory=list)
    norms: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    linears: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)
    epsilon: float = 1e-5
    scaled: bool = False
    """Whether the query's weights hold the division of the scores by the root of the head size."""


def read_weights(path: Path) -> Weights:
    """The weights of a model.onnx, told apart by the operators that use them."""
    graph = onnx.load(path).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type in ("Cast", "Identity") and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]].astype(np.float32)
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    found = Weights()
    producers = {name: node.op_type for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Add" and "attention_bias" in node.input:
            found.scaled = any(producers.get(name) == "MatMul" for name in node.input)
        second = constants.get(node.input[1]) if len(node.input) > 1 else None
        # Tokens are looked up; the positions are looked up or cut to the length.
        if node.op_type in ("Gather", "Slice") and constants.get(node.input[0], np.empty(0)).ndim == 2:
            found.tables.append(constants[node.input[0]])
        elif node.op_type == "LayerNormalization":
            found.norms.append((constants[node.input[1]], constants[node.input[2]]))
            found.epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        elif node.op_type == "Gemm" and second is not None:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            found.linears.append((node.output[0], second if transposed else second.T, constants[node.input[2]]))
        elif node.op_type == "MatMul" and second is not None:
            after = consumers[node.output[0]][0]
            bias = next(constants[name] for name in after.input if name in constants)
            found.linears.append((after.output[0], second.T, bias))
    return found


def build_model(weights: Weights, labels: Sequence[str]) -> Any:
    """The same network in torch, a classifier of ``labels``.

    It is a BertForSequenceClassification where the first token alone is pooled, a ReviewsForSequenceClassification
    where the mean is too.

    Raises SystemExit when the graph has neither shape.
    """
    inner = [item for item in weights.linears if item[0] not in ("sentiment", "topics", "entities")]
    heads = {item[0]: item[1:] for item in weights.linears}
    layers = (len(weights.norms) - 1) // 2
    tokens, positions = sorted(weights.tables, key=len, reverse=True)[:2]
    width = tokens.shape[1]
    per_layer, rest = divmod(len(inner), layers)
    if per_layer not in (4, 6) or rest != 1 or "sentiment" not in heads:
        raise SystemExit("model.onnx is not shaped like the bundled reviews model or a BERT; name one that is")
    sizes = {
        "vocab_size": len(tokens), "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD_SIZE, "intermediate_size": inner[per_layer - 2][1].shape[0],
        "max_position_embeddings": len(positions), "type_vocab_size": 1, "layer_norm_eps": weights.epsilon,
        "hidden_act": "gelu", "id2label": dict(enumerate(labels)),
        "label2id": {label: at for at, label in enumerate(labels)},
    }  # fmt: skip
    state: dict[str, np.ndarray] = {
        "bert.embeddings.word_embeddings.weight": tokens,
        "bert.embeddings.position_embeddings.weight": positions,
        "bert.embeddings.token_type_embeddings.weight": np.zeros((1, width), np.float32),
    }

    def put(name: str, weight: np.ndarray, bias: np.ndarray) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias

    put("bert.embeddings.LayerNorm", *weights.norms[0])
    for layer in range(layers):
        at = f"bert.encoder.layer.{layer}"
        linears = [(weight, bias) for _, weight, bias in inner[layer * per_layer : (layer + 1) * per_layer]]
        if per_layer == 4:
            joint, joint_bias = linears[0]
            linears[:1] = list(zip(np.split(joint, 3), np.split(joint_bias, 3), strict=True))
        if weights.scaled:
            linears[0] = tuple(part * np.sqrt(HEAD_SIZE) for part in linears[0])
        names = ("attention.self.query", "attention.self.key", "attention.self.value")
        for name, pair in zip(
            (*names, "attention.output.dense", "intermediate.dense", "output.dense"), linears, strict=True
        ):
            put(f"{at}.{name}", *pair)
        put(f"{at}.attention.output.LayerNorm", *weights.norms[1 + 2 * layer])
        put(f"{at}.output.LayerNorm", *weights.norms[2 + 2 * layer])
    put("classifier", *heads["sentiment"])
    pool = inner[-1][1:]
    if pool[0].shape[1] == width:
        put("bert.pooler.dense", *pool)
        model = BertForSequenceClassification(BertConfig(**sizes))
    else:
        put("pool", *pool)
        if "topics" in heads:
            put("topics", *heads["topics"])
        model = ReviewsForSequenceClassification(
            ReviewsConfig(**sizes, topics=len(heads["topics"][1]) if "topics" in heads else 0)
        )
    model.eval()
    tensors = {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in state.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or any("position_ids" not in name and "token_type_ids" not in name for name in missing):
        raise SystemExit(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    return model
