"""What ``workbench bench gpu`` has its peers read: texts, a file of rows; and what the answers should be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workbench.bench.peer_work import MOST_TOKENS
from workbench.bench.texts import make_texts
from workbench.runtime import open_session
from workbench.runtime.batching import PackedTexts
from workbench.tasks.encode import TextEncoder
from workbench.tasks.spec import ModelSpec

__all__ = ["Texts", "prepare_texts", "reference_logits"]


@dataclass
class Texts:
    """The texts, and ``path``, the list as JSON that peers read. ``rows``: after ``write_rows``, more of them."""

    texts: list[str]
    path: Path
    rows: pl.DataFrame

    def write_rows(self, count: int) -> None:
        """Make ``count`` rows for files, all different."""
        texts = make_texts(count)
        self.rows = pl.DataFrame({"id": range(count), "text": texts})

    def file_of(self, rows: int) -> Path:
        """A Parquet file with the first ``rows`` rows, or as many as there are."""
        path = self.path.with_name("rows.parquet")
        self.rows.head(rows).write_parquet(path)
        return path

    def lengths(self, spec: ModelSpec) -> dict[str, Any]:
        """How long they are, in tokens of the model's tokenizer."""
        encoder = TextEncoder(spec)
        marks = len(encoder.prefix) + len(encoder.suffix)
        some = self.texts[:5000]
        counts = [min(len(item.ids) + marks, MOST_TOKENS) for item in encoder.encode(some, offsets=False)]
        p50, p99 = np.percentile(counts, (50, 99))
        return {
            "n": len(self.texts),
            "mean_tokens": float(np.mean(counts)),
            "p50_tokens": float(p50),
            "p99_tokens": float(p99),
        }


def prepare_texts(count: int, folder: Path) -> Texts:
    """``count`` texts with the lengths of the calibration sets, written into ``folder`` for the peers."""
    texts = make_texts(count)
    path = folder / "texts.json"
    path.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    return Texts(texts, path, pl.DataFrame({"id": [], "text": []}))


def reference_logits(spec: ModelSpec, texts: list[str]) -> NDArray[np.float64]:
    """Logits of sentiment [N, labels] from onnxruntime in FP32 on the CPU."""
    with open_session(spec.folder, backend="onnxruntime") as session:
        encoder = session.encoder
        prefix, suffix = np.array(encoder.prefix, np.int32), np.array(encoder.suffix, np.int32)
        most = min(MOST_TOKENS, spec.max_tokens) - len(prefix) - len(suffix)
        rows = [np.concatenate([prefix, item.ids[:most], suffix]) for item in encoder.encode(texts, offsets=False)]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
        packed = PackedTexts(np.concatenate(rows), starts)
        return session.run_packed(packed, ["sentiment"])["sentiment"].astype(np.float64)
