# mypy: ignore-errors
"""torch and transformers as peers of ``workbench bench gpu``.

    PYTHON peer_gpu_torch.py MODEL TEXTS WAY DEVICE

WAY is eager-fp16 or eager-fp32 (scaled dot product attention), compile-fp16 (torch.compile), pipeline (transformers'
own, as a newcomer writes it) or pipeline-32 (with batch_size=32). Runs under any interpreter that has torch,
transformers, tokenizers and onnx, and pyarrow for files; it needs no workbench. What it answers: peer_work.py.

The network peers are written as somebody would who knows torch: sorted batches (peer_texts.py) of the size that a
sweep found best; masks made on the device; copies that nobody waits for; logits fetched once at the end. Compiled is
once with dynamic shapes for batches, and once as CUDA graphs for single texts, whose lengths are rounded up so that
the graphs are few.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers

# Run as a file, not as a module of the package: what stands beside it is imported by its bare name.
from peer_network import Heads, build_model, read_weights
from peer_texts import LABELS, TextsPeer, labels_of, padded_batches, sweep
from peer_work import MOST_TOKENS, closure_of, read_texts_file, serve_work

__all__: list[str] = []

SINGLE_LENGTHS = (*range(16, 129, 16), 192, 256, 384, MOST_TOKENS)
TO_MB = 1e-6


class _OnDevice(TextsPeer):
    def __init__(self, folder: Path, texts: list[str], device: str) -> None:
        super().__init__(folder, texts)
        self.device = torch.device(device)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def reserved(self) -> dict[str, float]:
        """MB that torch's allocator holds, and the most it held."""
        if not self.on_gpu:
            return {}
        torch.cuda.synchronize()
        return {
            "reserved_mb": torch.cuda.memory_reserved() * TO_MB,
            "peak_reserved_mb": torch.cuda.max_memory_reserved() * TO_MB,
            "peak_allocated_mb": torch.cuda.max_memory_allocated() * TO_MB,
        }

    def facts(self) -> dict:
        return {**self.reserved(), "closure": closure_of(("torch", "transformers"))}


class Network(_OnDevice):
    """The network in ``dtype``, eager or compiled."""

    def __init__(self, folder: Path, texts: list[str], device: str, *, dtype: torch.dtype, compiled: bool) -> None:
        super().__init__(folder, texts, device)
        self.dtype, self.compiled = dtype, compiled
        self.heads = Heads(build_model(read_weights(folder / "model.onnx"), LABELS)).eval()
        if self.heads.model.config._attn_implementation != "sdpa":
            self.heads.model.set_attn_implementation("sdpa")
        self.tasks = self.heads.tasks
        self.many = self.one = self.heads
        self.note = ""

    def load(self) -> dict:
        self.heads.to(self.device, self.dtype)
        return self.reserved()

    def compile(self) -> dict:
        """What takes long and needs the CPU; peers may do this side by side."""
        self.many = torch.compile(self.heads, dynamic=True)
        self.one = torch.compile(self.heads, dynamic=True, mode="reduce-overhead")
        for count in (48, 40, 7):  # sizes that are neither 1 nor each other's
            self.run_rows(self.ids[:count])
        self._warm_singles()
        return self.reserved()

    def warm(self, seconds: float) -> dict:
        if self.compiled and self.many is self.heads:
            self.compile()
        self.run_rows(self.ids[:64])
        self.one_network(128, 0)
        speeds = sweep(self, seconds, least=2048 if self.on_gpu else 64, full=torch.OutOfMemoryError)
        if self.on_gpu:
            torch.cuda.empty_cache()  # what the larger batches took
            torch.cuda.reset_peak_memory_stats()
        self.run_network(0, min(len(self.texts), 4 * self.batch))
        return {"batch": self.batch, "sweep": speeds, "note": self.note, **self.reserved()}

    def _warm_singles(self) -> None:
        try:
            for length in SINGLE_LENGTHS:
                for _ in range(3):  # compile, record, replay
                    self._single(np.resize(self.ids[0], length))
        except Exception as error:  # whatever a compiler says: batches are still measured
            self.one = self.many
            self.note = f"single texts without CUDA graphs: {type(error).__name__}: {error}"[:300]
            self._single(self.ids[0])

    def _mode(self) -> contextlib.AbstractContextManager:
        # CUDA graph trees and inference mode do not always agree.
        return torch.no_grad() if self.compiled else torch.inference_mode()

    def run_rows(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of each task [N, labels], in the rows' order."""
        places, parts = [], []
        with self._mode():
            for picked, ids, lengths in padded_batches(rows, self.batch):
                if len(picked) == 1 and self.compiled:  # a batch of one would be compiled on its own
                    ids, lengths = np.repeat(ids, 2, 0), np.repeat(lengths, 2)
                values = self.many(*self._inputs(ids, lengths))
                parts.append([value[: len(picked)] for value in values])
                places.append(picked)
            joined = [torch.cat(values).float().cpu().numpy() for values in zip(*parts, strict=True)]
        back = np.argsort(np.concatenate(places))
        return [values[back] for values in joined]

    def _inputs(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, counts = torch.from_numpy(ids), torch.from_numpy(lengths)
        if self.on_gpu:
            tokens = tokens.pin_memory().to(self.device, non_blocking=True)
            counts = counts.pin_memory().to(self.device, non_blocking=True)
        places = torch.arange(ids.shape[1], device=self.device)
        return tokens, (places < counts[:, None]).long()

    def _single(self, row: np.ndarray) -> list[np.ndarray]:
        width = next(length for length in SINGLE_LENGTHS if length >= len(row)) if self.compiled else len(row)
        ids = np.zeros((1, width), np.int64)
        ids[0, : len(row)] = row
        with self._mode():
            if self.compiled and self.on_gpu:
                torch.compiler.cudagraph_mark_step_begin()
            values = self.one(*self._inputs(ids, np.array([len(row)])))
            return [value.float().cpu().numpy() for value in values]

    def one_network(self, tokens: int | None, turn: int) -> None:
        self._single(self.ids[turn] if tokens is None else np.resize(self.ids[0], tokens))

    def one_text(self, turn: int) -> None:
        labels_of(self._single(self.tokenize([self.texts[turn]])[0])[0])


class Pipeline(_OnDevice):
    """``transformers.pipeline`` on the checkpoint, with nothing set but the batch size."""

    def __init__(self, folder: Path, texts: list[str], device: str, *, batch_size: int) -> None:
        super().__init__(folder, texts, device)
        self.options = {"batch_size": batch_size} if batch_size > 1 else {}
        self.checkpoint = tempfile.TemporaryDirectory()
        build_model(read_weights(folder / "model.onnx"), LABELS).save_pretrained(self.checkpoint.name)
        known = {
            item["content"] for item in json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
        }
        roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        self.own_tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            model_max_length=MOST_TOKENS,
            **{role: token for role, token in roles.items() if token in known},
        )
        self.classify = None

    def load(self) -> dict:
        self.classify = transformers.pipeline(
            "text-classification",
            model=self.checkpoint.name,
            tokenizer=self.own_tokenizer,
            device=0 if self.on_gpu else -1,
        )
        return self.reserved()

    def warm(self, seconds: float) -> dict:
        self.read_texts(0, min(len(self.texts), 64))
        return {"batch": self.options.get("batch_size", 1), **self.reserved()}

    def run_network(self, start: int, end: int) -> int:
        raise NotImplementedError("it takes texts only")

    def one_network(self, tokens: int | None, turn: int) -> None:
        raise NotImplementedError("it takes texts only")

    def read_file(self, source: Path, out: Path, tasks: Sequence[str]) -> int:
        raise NotImplementedError("it is measured on texts")

    def read_texts(self, start: int, end: int) -> int:
        if len(self.classify(self.texts[start:end], truncation=True, **self.options)) != end - start:
            raise RuntimeError("a text has no row")
        return int(self.counts[start:end].sum())

    def one_text(self, turn: int) -> None:
        self.classify(self.texts[turn], truncation=True)

    def logits(self, texts: Sequence[str]) -> list[list[float]]:
        found = []
        for text in texts:
            inputs = self.classify.tokenizer(
                text, return_tensors="pt", truncation=True, return_token_type_ids=False
            ).to(self.classify.model.device)
            with torch.no_grad():
                found.append(self.classify.model(**inputs).logits[0].float().tolist())
        return found


def main() -> None:
    """Make the network and answer the bench's requests until it closes the pipe."""
    folder, texts, way, device = Path(sys.argv[1]), read_texts_file(Path(sys.argv[2])), sys.argv[3], sys.argv[4]
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no GPU here")
    kind, _, rest = way.partition("-")
    if kind == "pipeline":
        work = Pipeline(folder, texts, device, batch_size=int(rest or 1))
    else:
        dtype = {"fp16": torch.float16, "fp32": torch.float32}[rest]
        work = Network(folder, texts, device, dtype=dtype, compiled=kind == "compile")
    about = f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    packages = closure_of(("torch", "transformers", "tokenizers", "numpy"))
    more = {"compile": work.compile} if kind == "compile" else {}
    serve_work(work, texts=len(texts), about=about, packages=packages, **more)
    if isinstance(work, Pipeline):
        work.checkpoint.cleanup()
    # Taking CUDA and the compiler's processes down in order takes seconds, which the next measurement waits for.
    os._exit(0)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # no process is forked here
    main()
