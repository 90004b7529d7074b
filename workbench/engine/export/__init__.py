"""Any Hugging Face classifier as a model folder: model.onnx, tokenizer.json, model.toml.

    choose      which folder serves a task: bundled, given, or exported once and kept
    source      a local folder or a name on the hub -> files on disk
    labels      the checkpoint's labels -> the workbench's, with the rule that joins several of them
    graph       the model's forward pass -> ONNX to the workbench's contract, checked
    parity      the written graph against torch
    checkpoint  all of it in order

Importing this package imports neither torch nor transformers; the functions do (extra ``export``).
"""

from __future__ import annotations

from workbench.engine.export.checkpoint import export_checkpoint
from workbench.engine.export.choose import model_folder

__all__ = ["export_checkpoint", "model_folder"]
