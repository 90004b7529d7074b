"""``transformers.pipeline`` as a peer, with the weights of a bundled model in torch FP32.

    PYTHON peer_transformers.py MODEL BATCH_SIZE

Runs under any interpreter that has torch, transformers and onnx; it needs no workbench. The weights are taken from
model.onnx by its structure, put into transformers' own BERT, and saved as a checkpoint, which the pipeline then loads
as a newcomer would have it. See process.py beside this file for what it answers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch  # type: ignore[import-not-found, unused-ignore]
import transformers  # type: ignore[import-not-found, unused-ignore]
from onnx import numpy_helper

# Run as a file, not as a module of the package: what stands beside it is imported by its bare name.
from process import serve  # type: ignore[import-not-found, unused-ignore]
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

__all__: list[str] = []

HEAD_SIZE = 64
"""Of the bundled model; a graph does not say it plainly."""


class ReviewsConfig(BertConfig):  # type: ignore[misc, unused-ignore]
    """A BERT with the reviews model's pooling."""

    model_type = "workbench-reviews"


class ReviewsForSequenceClassification(BertPreTrainedModel):  # type: ignore[misc, unused-ignore]
    """BERT; the first token and the mean of all, concatenated, through one layer with tanh; then the classes."""

    config_class = ReviewsConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.pool = torch.nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        """Logits [B, classes]."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        present = attention_mask.to(hidden.dtype).unsqueeze(-1)
        mean = (hidden * present).sum(1) / present.sum(1)
        pooled = torch.tanh(self.pool(torch.cat([hidden[:, 0], mean], dim=-1)))
        return SequenceClassifierOutput(logits=self.classifier(pooled))


AutoConfig.register(ReviewsConfig.model_type, ReviewsConfig)
AutoModelForSequenceClassification.register(ReviewsConfig, ReviewsForSequenceClassification)


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


def build_model(weights: Weights, labels: Sequence[str]) -> ReviewsForSequenceClassification:
    """The same network in torch. Raises SystemExit when the graph is not of the bundled model's shape."""
    inner = [item for item in weights.linears if item[0] not in ("sentiment", "topics", "entities")]
    heads = {item[0]: item for item in weights.linears}
    layers = (len(weights.norms) - 1) // 2
    tokens, positions = sorted(weights.tables, key=len, reverse=True)[:2]
    width = tokens.shape[1]
    per_layer, rest = divmod(len(inner), layers)
    if per_layer not in (4, 6) or rest != 1 or "sentiment" not in heads:
        raise SystemExit("model.onnx is not shaped like the bundled reviews model; name that one")
    config = ReviewsConfig(
        vocab_size=len(tokens), hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // HEAD_SIZE,
        intermediate_size=inner[per_layer - 2][1].shape[0], max_position_embeddings=len(positions),
        type_vocab_size=1, layer_norm_eps=weights.epsilon, hidden_act="gelu",
        id2label=dict(enumerate(labels)), label2id={label: at for at, label in enumerate(labels)},
    )  # fmt: skip
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
    put("pool", *inner[-1][1:])
    put("classifier", *heads["sentiment"][1:])
    model = ReviewsForSequenceClassification(config)
    model.eval()
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in state.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or any("position_ids" not in name and "token_type_ids" not in name for name in missing):
        raise SystemExit(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    return model


def main() -> None:
    """Make the checkpoint, load it with the pipeline, and answer requests."""
    folder, batch_size = Path(sys.argv[1]), int(sys.argv[2])
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    names = {item["content"]: item["content"] for item in data["added_tokens"]}
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    with tempfile.TemporaryDirectory() as checkpoint:
        build_model(read_weights(folder / "model.onnx"), ("negative", "neutral", "positive")).save_pretrained(
            checkpoint
        )
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            model_max_length=512,
            **{role: names[token] for role, token in roles.items()},
        )
        tokenizer.save_pretrained(checkpoint)
        classify = transformers.pipeline("text-classification", model=checkpoint)

    def read(texts: Sequence[str]) -> None:
        options = {"batch_size": batch_size} if batch_size > 1 else {}
        if len(classify(list(texts), truncation=True, **options)) != len(texts):
            raise RuntimeError("a text has no row")

    def logits(texts: Sequence[str]) -> list[list[float]]:
        rows = []
        for text in texts:
            inputs = tokenizer(text, return_tensors="pt", truncation=True, return_token_type_ids=False)
            with torch.no_grad():
                rows.append(classify.model(**inputs).logits[0].tolist())
        return rows

    about = f"transformers {transformers.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    serve(read, logits, about=about)


if __name__ == "__main__":
    main()
