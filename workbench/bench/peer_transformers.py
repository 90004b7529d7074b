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
from pathlib import Path

import torch
import transformers

# Run as a file, not as a module of the package: what stands beside it is imported by its bare name.
from peer_network import build_model, read_weights
from process import serve

__all__: list[str] = []


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
