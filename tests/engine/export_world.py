"""Small checkpoints with random weights, made on the spot: one of each family, with a tokenizer trained for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

if os.environ.get("CI") != "true":  # there, a missing package is an error
    for _package in ("torch", "transformers", "onnx"):
        pytest.importorskip(_package, reason="the extra export is not installed: pip install -e '.[export]'")

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

torch.set_num_threads(1)  # the models are so small that a second core only waits

FAMILIES = ("bert", "distilbert", "electra", "roberta", "xlm-roberta", "minilm")
STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-PRODUCT", "I-PRODUCT")

_CORPUS = (
    "The battery lasts two days and the screen is sharp.",
    "Delivery was late, but the service team answered within an hour!",
    "物流很快，屏幕清晰，就是价格有点高。",
    "The pen of the Ondine Folio M2 feels like paper; the app still crashes.",
    "客服态度很好，笔写起来像纸一样。",
) * 4

_CONFIGS = {
    "bert": transformers.BertConfig,
    "minilm": transformers.BertConfig,
    "distilbert": transformers.DistilBertConfig,
    "electra": transformers.ElectraConfig,
    "roberta": transformers.RobertaConfig,
    "xlm-roberta": transformers.XLMRobertaConfig,
}


def make_checkpoint(
    folder: Path,
    family: str,
    labels: tuple[str, ...],
    *,
    tokens: bool = False,
    problem_type: str | None = None,
    max_tokens: int = 64,
    seed: int = 7,
) -> Path:
    """Save a checkpoint of ``family`` to ``folder``, with a token head or (default) a sequence head."""
    tokenizer = _TOKENIZERS[family](max_tokens)
    offset = tokenizer.pad_token_id + 1 if "roberta" in family else 0
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": max_tokens + offset,
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": problem_type,
        # Far larger than in training, so that a wrong mask or position moves the logits by more than rounding.
        "initializer_range": 0.4,
    }
    if family == "distilbert":
        settings |= {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    else:
        settings |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if family == "electra":
        settings["embedding_size"] = 16
    if family == "minilm":
        settings |= {"num_hidden_layers": 3, "num_attention_heads": 4}
    if "roberta" in family:
        settings |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = _CONFIGS[family](**settings)
    torch.manual_seed(seed)
    auto = transformers.AutoModelForTokenClassification if tokens else transformers.AutoModelForSequenceClassification
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:  # biases start as 0 and norms as 1, which hides a mistake
                weight.add_(torch.randn_like(weight) * 0.1)
            if "token_type" in name:
                weight.copy_(torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _wordpiece(max_tokens: int) -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(_CORPUS, trainers.WordPieceTrainer(vocab_size=220, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _sentencepiece_or_bytes(max_tokens: int, *, bytes_: bool) -> Any:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if bytes_:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=220, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def _bytes(max_tokens: int) -> Any:
    return _sentencepiece_or_bytes(max_tokens, bytes_=True)


def _unigram(max_tokens: int) -> Any:
    return _sentencepiece_or_bytes(max_tokens, bytes_=False)


_TOKENIZERS = {
    "bert": _wordpiece,
    "distilbert": _wordpiece,
    "electra": _wordpiece,
    "roberta": _bytes,
    "xlm-roberta": _unigram,
    "minilm": _unigram,  # as the multilingual ones: a BERT with XLM-R's vocabulary
}
