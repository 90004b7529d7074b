"""Prepared arrays and the batches drawn from them. numpy and torch only.

A batch holds texts of similar length up to a token budget, so that little of it is padding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Arrays", "Batch", "Recipe", "batches", "collate", "mixture"]


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
        # Arrays prepared by an older version know no folds and no fixed shares.
        count = len(self.ends)
        self.fold: NDArray[np.int8] = loaded["fold"] if "fold" in loaded else np.full(count, -1, np.int8)
        self.shares: NDArray[np.float32] = (
            loaded["shares"] if "shares" in loaded else np.full((count, 3), np.nan, np.float32)
        )
        self._flat: dict[torch.device, dict[str, Tensor]] = {}

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """The token arrays as tensors: ids int32 and tags int8 [tokens], starts and lengths int64 [texts]."""
        if device not in self._flat:
            arrays = {
                "ids": self.ids.astype(np.int32),
                "tags": self.tags,
                "starts": self.starts,
                "lengths": self.lengths,
            }
            self._flat[device] = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        return self._flat[device]

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
    """Pad to the longest text of the batch, rounded up to 16.

    The texts are gathered on the device: a batch costs one small copy, whatever its tokens.
    """
    flat = arrays.on(device)
    width = int(-(-min(longest, int(arrays.lengths[index].max())) // 16) * 16)
    chosen = torch.from_numpy(index).to(device, non_blocking=True)
    lengths = flat["lengths"][chosen].clamp(max=longest)
    columns = torch.arange(width, device=device)
    inside = columns < lengths[:, None]
    at = torch.where(inside, flat["starts"][chosen][:, None] + columns, 0)
    ids = torch.where(inside, flat["ids"][at], 0).long()
    tags = torch.where(inside, flat["tags"][at], -100).long()
    bias = torch.where(inside, 0.0, -1e4)[:, None, None, :]
    return Batch(ids, bias, tags, chosen)


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
