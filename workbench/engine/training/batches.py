"""Prepared arrays and the batches drawn from them. numpy and torch only.

A batch holds texts of similar length up to a token budget, so that little of it is padding.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Arrays", "Batch", "Recipe", "batches", "collate", "mixture", "prefetch"]


class Arrays:
    """What `prepare` wrote, with texts addressed by index."""

    def __init__(self, path: Path) -> None:
        loaded = np.load(path)
        self.ids: NDArray[np.uint16] = loaded["ids"]
        self.ends: NDArray[np.int64] = loaded["ends"]
        self.starts = np.concatenate([[0], self.ends[:-1]])
        self.lengths = self.ends - self.starts
        self.tags, self.sentiment, self.two_class = loaded["tags"], loaded["sentiment"], loaded["two_class"]
        self.topics, self.app_class = loaded["topics"], loaded["app_class"]
        self.entity_types, self.source, self.split = loaded["entity_types"], loaded["source"], loaded["split"]
        names = json.loads(bytes(loaded["names"]))
        self.sources, self.splits = names["sources"], names["splits"]
        self.weight = loaded["weight"] if "weight" in loaded else np.ones(len(self.ends), np.float32)

    def where(self, *, split: str | None = None, source: str | None = None) -> NDArray[np.int64]:
        """Indices of the texts of a split and source."""
        keep = np.ones(len(self.ends), bool)
        if split is not None:
            keep &= self.split == self.splits.index(split)
        if source is not None:
            keep &= self.source == self.sources.index(source)
        return np.flatnonzero(keep)


@dataclass(frozen=True)
class Recipe:
    """Numbers of a training run."""

    steps: int
    token_budget: int = 65_536
    learning_rate: float = 1e-3
    warm_up: float = 0.06
    longest: int = 256
    weight_decay: float = 0.01
    seed: int = 7
    masked: float = 0.25
    smoothing: float = 0.05
    word_dropout: float = 0.1
    average: float = 0.999
    limit_s: float | None = None


def batches(arrays: Arrays, chosen: NDArray[np.int64], recipe: Recipe) -> Iterator[NDArray[np.int64]]:
    """Endless batches of indices: shuffled, sorted by length inside large pools, cut by the token budget."""
    rng = np.random.default_rng(recipe.seed)
    while True:
        order = rng.permutation(chosen)
        pools = []
        for begin in range(0, len(order), 16_384):
            pool = order[begin : begin + 16_384]
            lengths = np.minimum(arrays.lengths[pool], recipe.longest)
            pool = pool[np.argsort(lengths, kind="stable")]
            lengths = np.sort(lengths, kind="stable")
            first = 0
            while first < len(pool):
                last = first + 1
                while last < len(pool) and lengths[last] * (last - first + 1) <= recipe.token_budget:
                    last += 1
                pools.append(pool[first:last])
                first = last
        for index in rng.permutation(len(pools)):
            yield pools[index]


@dataclass
class Batch:
    """Tensors of one batch; ``bias`` is additive."""

    ids: Tensor
    bias: Tensor
    tags: Tensor
    index: Tensor


def collate(arrays: Arrays, index: NDArray[np.int64], longest: int, device: torch.device) -> Batch:
    """Pad to the longest text of the batch, rounded up to 16."""
    lengths = np.minimum(arrays.lengths[index], longest)
    width = int(-(-lengths.max() // 16) * 16)
    columns = np.arange(width)
    inside = columns < lengths[:, None]
    at = np.where(inside, arrays.starts[index][:, None] + columns, 0)
    ids = np.where(inside, arrays.ids[at], 0).astype(np.int64)
    tags = np.where(inside, arrays.tags[at], -100).astype(np.int64)
    bias = np.where(inside, 0.0, -1e4).astype(np.float32)[:, None, None, :]

    def put(array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        # Page-locked memory is copied to a GPU while the GPU works on the batch before.
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    return Batch(put(ids), put(bias), put(tags), put(index))


def prefetch(items: Iterator[Any], depth: int = 4) -> Iterator[Any]:
    """Make the next items in a thread while the last one is used."""
    shelf: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def fill() -> None:
        for item in items:
            while not stop.is_set():
                try:
                    shelf.put(item, timeout=0.5)
                    break
                except queue.Full:
                    continue
            if stop.is_set():
                return

    threading.Thread(target=fill, daemon=True).start()
    try:
        while True:
            yield shelf.get()
    finally:
        stop.set()


def mixture(
    arrays: Arrays, chosen: NDArray[np.int64], shares: dict[str, float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """One epoch's indices with each source taken ``shares`` times (default 1)."""
    parts = []
    for number, name in enumerate(arrays.sources):
        own = chosen[arrays.source[chosen] == number]
        times = shares.get(name, 1.0)
        whole, rest = int(times), times - int(times)
        parts += [own] * whole
        if rest > 0:
            parts.append(rng.choice(own, int(rest * len(own)), replace=False))
    return np.concatenate(parts)
