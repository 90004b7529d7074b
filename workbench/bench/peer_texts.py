# mypy: ignore-errors
"""What peers share that run a network themselves: tokens, sorted batches, files. Needs numpy and tokenizers.

Imported by its bare name by the peers beside it, as peer_network.py is. Texts are sorted by length over all that are
given at once and padded to a multiple of 8; the next texts are tokenized while the device computes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tokenizers
from peer_work import MOST_TOKENS

__all__ = ["LABELS", "TextsPeer", "labels_of", "padded_batches", "sweep"]

LABELS = ("negative", "neutral", "positive")
TOPICS = ("price", "quality", "delivery", "service", "usability", "feature request", "bug", "other")
BATCHES = (32, 64, 128, 256, 512)
CHUNK = 8192
"""Texts that are tokenized together, and rows of a file that are read together."""


def padded_batches(rows: Sequence[np.ndarray], batch: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of token rows, the longest first: their places, ids [B, S] with 0 for padding, and lengths [B]."""
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch):
        picked = order[start : start + batch]
        width = -(-int(lengths[picked[0]]) // 8) * 8
        inside = np.arange(width) < lengths[picked, None]
        ids = np.zeros(inside.shape, np.int64)
        ids[inside] = np.concatenate([rows[index] for index in picked])
        yield picked, ids, lengths[picked]


def sweep(peer: TextsPeer, seconds: float, *, least: int, full: type[BaseException]) -> dict[str, int]:
    """Set ``peer.batch`` to the best of BATCHES; gives tokens a second of each.

    ``least``: the fewest texts that each is tried on. ``full``: what is raised when memory runs out, which ends it.
    """
    speeds: dict[int, float] = {}
    for batch in BATCHES:
        peer.batch = batch
        count = min(len(peer.texts), max(least, 8 * batch if least > 64 else 0))
        try:
            peer.run_network(0, count)  # kernels and memory for these shapes
            tokens, start = 0, time.perf_counter()
            while not tokens or time.perf_counter() - start < seconds:
                tokens += peer.run_network(0, count)
            speeds[batch] = tokens / (time.perf_counter() - start)
        except full:
            break
        if speeds[batch] < 0.8 * max(speeds.values()):
            break
    peer.batch = max(speeds, key=speeds.get)
    return {str(batch): round(speed) for batch, speed in speeds.items()}


class TextsPeer:
    """The texts, their tokens, and all that a network's logits are needed for. A subclass gives ``run_rows``."""

    tasks: tuple[str, ...] = ("sentiment",)

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self.texts = texts
        self.batch = BATCHES[0]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)
        self.tokenizer.encode_special_tokens = True  # "[MASK]" in a review is six characters, not an instruction
        self.ids = self.tokenize(texts)
        self.counts = np.array([len(row) for row in self.ids])

    def run_rows(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of each task [N, labels], in the rows' order."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token rows, int64."""
        return [np.array(item.ids, np.int64) for item in self.tokenizer.encode_batch_fast(texts)]

    def run_network(self, start: int, end: int) -> int:
        self.run_rows(self.ids[start:end])
        return int(self.counts[start:end].sum())

    def read_texts(self, start: int, end: int) -> int:
        chunks = [self.texts[at : min(at + CHUNK, end)] for at in range(start, end, CHUNK)]
        found = []
        for _, values in self._chunks(chunks, lambda texts: texts):
            found += labels_of(values[0])
        if len(found) != end - start:
            raise RuntimeError("a text has no row")
        return int(self.counts[start:end].sum())

    def one_network(self, tokens: int | None, turn: int) -> None:
        self.run_rows([self.ids[turn] if tokens is None else np.resize(self.ids[0], tokens)])

    def one_text(self, turn: int) -> None:
        labels_of(self.run_rows(self.tokenize([self.texts[turn]]))[0])

    def logits(self, texts: Sequence[str]) -> list[list[float]]:
        return self.run_rows(self.tokenize(texts))[0].tolist()

    def read_file(self, source: Path, out: Path, tasks: Sequence[str]) -> int:
        import pyarrow
        from pyarrow import parquet

        rows, writer = 0, None
        try:
            batches = parquet.ParquetFile(source).iter_batches(CHUNK)
            for batch, values in self._chunks(batches, lambda batch: batch.column("text").to_pylist()):
                table = pyarrow.Table.from_batches([batch])
                for name, array in _columns(dict(zip(self.tasks, values, strict=True)), tasks).items():
                    table = table.append_column(name, pyarrow.array(array))
                writer = writer or parquet.ParquetWriter(out, table.schema)
                writer.write_table(table)
                rows += len(table)
        finally:
            if writer is not None:
                writer.close()
        return rows

    def _chunks(self, chunks, texts_of):
        """Each chunk with its logits; the next one is tokenized meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for chunk in chunks:
                job = pool.submit(lambda chunk=chunk: self.tokenize(texts_of(chunk)))
                if waiting is not None:
                    yield waiting[0], self.run_rows(waiting[1].result())
                waiting = (chunk, job)
            if waiting is not None:
                yield waiting[0], self.run_rows(waiting[1].result())


def labels_of(logits: np.ndarray) -> list[str]:
    """The sentiment of each row."""
    return [LABELS[place] for place in _softmax(logits).argmax(1)]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _columns(values: dict[str, np.ndarray], tasks: Sequence[str]) -> dict:
    columns = {}
    if "sentiment" in tasks:
        columns["sentiment"] = labels_of(values["sentiment"])
        shares = _softmax(values["sentiment"])
        columns |= {f"p_{label}": shares[:, place] for place, label in enumerate(LABELS)}
    if "topics" in tasks:
        chosen = 1 / (1 + np.exp(-values["topics"])) > 0.5
        columns["topics"] = [[TOPICS[place] for place in np.flatnonzero(row)] for row in chosen]
    return columns
