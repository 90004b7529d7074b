"""A model folder small enough to build in a test: real tokenizer, real network, random weights from a fixed seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH = 16
ENTITY_LABELS = ["O", *(f"{p}-{k}" for k in ("product", "brand", "company", "model") for p in ("B", "I"))]
TOPIC_LABELS = ["price", "quality", "delivery", "service", "usability", "feature request", "bug", "other"]

TOML = f"""\
name = "tiny"
version = "1"
max_tokens = 64
pad_id = 0

[outputs.sentiment]
kind = "classes"
labels = ["negative", "neutral", "positive"]
temperature = 1.0
[outputs.sentiment.temperatures]
zh = 2.0

[outputs.topics]
kind = "labels"
labels = {TOPIC_LABELS!r}

[outputs.entities]
kind = "tags"
labels = {ENTITY_LABELS!r}
"""


def make_tokenizer() -> Tokenizer:
    """Letters, digits, a few words and Chinese characters, and one emoji."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [chr(c) for c in range(0x21, 0x7F)] + [f"##{chr(c)}" for c in range(0x61, 0x7B)]
    words += ["good", "bad", "the", "price", "##phone", "👍", "é", "é", "ü", "。", "，", "！"]
    words += list("很好差价格质量物流快慢的了相机手机屏不是我")
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(dict.fromkeys(words))}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True
            ),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def make_network(vocabulary: int, *, positions: int = 64, seed: int = 0) -> onnx.ModelProto:
    """One attention layer and three heads; inputs and outputs as every model folder has them."""
    random = np.random.default_rng(seed)

    def weight(name: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)

    constants = [
        weight("tokens_table", vocabulary, WIDTH),
        weight("positions_table", positions, WIDTH, scale=0.2),
        *(weight(name, WIDTH, WIDTH, scale=WIDTH**-0.5) for name in ("wq", "wk", "wv")),
        weight("w_sentiment", WIDTH, 3, scale=0.5),
        weight("w_topics", WIDTH, 8, scale=0.5),
        weight("w_entities", WIDTH, 9, scale=0.7),
        numpy_helper.from_array(np.array(0, np.int64), "zero"),
        numpy_helper.from_array(np.array(1, np.int64), "one"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    node = helper.make_node
    nodes = [
        node("Shape", ["input_ids"], ["shape"]),
        node("Gather", ["shape", "one"], ["length"]),
        node("Range", ["zero", "length", "one"], ["places"]),
        node("Gather", ["tokens_table", "input_ids"], ["words"]),
        node("Gather", ["positions_table", "places"], ["at"]),
        node("Add", ["words", "at"], ["x"]),
        node("MatMul", ["x", "wq"], ["q"]),
        node("MatMul", ["x", "wk"], ["k"]),
        node("MatMul", ["x", "wv"], ["v"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["raw"]),
        node("Squeeze", ["attention_bias", "axis"], ["bias"]),
        node("Add", ["raw", "bias"], ["scores"]),
        node("Softmax", ["scores"], ["shares"], axis=-1),
        node("MatMul", ["shares", "v"], ["mixed"]),
        node("Add", ["x", "mixed"], ["hidden"]),
        node("Gather", ["mixed", "zero"], ["first"], axis=1),
        node("MatMul", ["first", "w_sentiment"], ["sentiment"]),
        node("MatMul", ["first", "w_topics"], ["topics"]),
        node("MatMul", ["hidden", "w_entities"], ["entities"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            info("input_ids", TensorProto.INT32, ["batch", "sequence"]),
            info("attention_bias", TensorProto.FLOAT, ["batch", 1, 1, "sequence"]),
        ],
        [
            info("sentiment", TensorProto.FLOAT, ["batch", 3]),
            info("topics", TensorProto.FLOAT, ["batch", 8]),
            info("entities", TensorProto.FLOAT, ["batch", "sequence", 9]),
        ],
        initializer=constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_tiny_model(folder: Path, *, toml: str = TOML, seed: int = 0) -> Path:
    """Write a whole model folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    onnx.save(make_network(tokenizer.get_vocab_size(), seed=seed), folder / "model.onnx")
    (folder / "model.toml").write_text(toml, encoding="utf-8")
    return folder
