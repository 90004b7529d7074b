"""What a GPU engine is given: batches of texts, and where their arrays lie in a buffer.

Pure host code: numpy in, numpy out, no GPU. A batch knows its shapes, writes its inputs into views of pinned memory,
and puts the rows that come back where the caller wants them. Which texts make one: workbench.runtime.device_plan.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from workbench.errors import ModelError
from workbench.runtime.batching import PADDING_BIAS, PackedTexts

__all__ = [
    "UNREAD",
    "Batch",
    "GivenBatch",
    "PackedBatch",
    "PaddedBatch",
    "Region",
    "check_ids",
    "check_texts",
    "lay_out",
    "pack_rows",
]

UNREAD: Final = "longest"
"""The input of a packed engine of which only the length counts: it is not copied."""

_ALIGN: Final = 256  # what TensorRT asks of every address


_counted: NDArray[np.int32] = np.arange(1 << 15, dtype=np.int32)


def _count_to(number: int) -> NDArray[np.int32]:
    """0, 1, 2 and so on, up to before ``number``; to be read only. Made once, and again only for a larger batch."""
    global _counted
    counted = _counted
    if number > len(counted):
        counted = _counted = np.arange(1 << number.bit_length(), dtype=np.int32)
    return counted[:number]


class Batch(ABC):
    """Texts that run together. ``profile``: the optimization profile; ``rows`` and ``places`` are the leading
    dimensions of what comes back for each text and for each token; ``key``: equal for batches of equal shape, None
    where no graph is kept for it."""

    profile: int
    texts: int
    tokens: int
    rows: int
    places: tuple[int, ...]
    shapes: Mapping[str, tuple[int, ...]]
    key: tuple[int, ...] | None = None

    @abstractmethod
    def fill(self, views: Mapping[str, NDArray[Any]]) -> None:
        """Write the inputs that the engine has."""

    @abstractmethod
    def place(self, values: NDArray[np.float32], result: NDArray[np.float32], *, tags: bool) -> None:
        """Put what came back into the caller's array."""


@dataclass(frozen=True)
class Region:
    """An array in a buffer; ``end``: the first byte behind it."""

    offset: int
    end: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def view(self, buffer: NDArray[np.uint8]) -> NDArray[Any]:
        """The array in ``buffer``."""
        return buffer[self.offset : self.end].view(self.dtype).reshape(self.shape)


def lay_out(arrays: Mapping[str, tuple[tuple[int, ...], DTypeLike]]) -> tuple[dict[str, Region], int]:
    """Regions for arrays (shape, type) one after the other, aligned for TensorRT, and the bytes they take in all."""
    regions, offset = {}, 0
    for name, (shape, dtype) in arrays.items():
        kind = np.dtype(dtype)
        end = offset + kind.itemsize * math.prod(shape)
        regions[name] = Region(offset, end, tuple(shape), kind)
        offset = -(-max(end, offset + 1) // _ALIGN) * _ALIGN
    return regions, offset


def check_texts(texts: PackedTexts, *, longest: int, vocabulary: int) -> None:
    """That an engine can read ``texts``: a token id out of range would break the GPU's context for good.

    Raises ModelError.
    """
    if not len(texts):
        return
    lengths = texts.lengths
    if int(lengths.max()) > longest:
        at = int(lengths.argmax())
        raise ModelError(
            f"Text {at} has {lengths[at]} tokens, and the engine reads at most {longest}. Split it into windows of "
            f"{longest} tokens, as read_texts does."
        )
    if int(lengths.min()) < 1:
        raise ModelError(f"Text {int(lengths.argmin())} has no tokens. Leave empty texts out.")
    check_ids(texts.input_ids, vocabulary)


def check_ids(input_ids: NDArray[np.int32], vocabulary: int) -> None:
    """That all are token ids. Raises ModelError."""
    if input_ids.size and (int(input_ids.min()) < 0 or int(input_ids.max()) >= vocabulary):
        wrong = input_ids[(input_ids < 0) | (input_ids >= vocabulary)][0]
        raise ModelError(
            f"{wrong} is no token id: the model has {vocabulary}. Encode the texts with the session's own encoder."
        )


class PackedBatch(Batch):
    """Texts ``members`` of ``texts`` (a range, or which ones in any order), without padding.

    ``fillers``: lengths of more texts, of padding alone, whose rows are thrown away, so that texts of different
    lengths make batches of one shape; ``longest`` is then the length that the engine is told for the longest text.
    """

    def __init__(
        self,
        texts: PackedTexts,
        members: slice | NDArray[np.intp],
        *,
        profile: int,
        fillers: NDArray[np.int32] | None = None,
        longest: int | None = None,
        pad_id: int = 0,
    ) -> None:
        self._all = texts.input_ids
        self._members = members
        self._pad_id = pad_id
        if isinstance(members, slice):
            ends = texts.cu_seqlens[members.start : members.stop + 1]
            self._from: slice | NDArray[np.intp] = slice(int(ends[0]), int(ends[-1]))
            self._ends = ends - ends[0]
        else:
            starts = texts.cu_seqlens[members]
            lengths = texts.cu_seqlens[members + 1] - starts
            self._ends = np.zeros(len(lengths) + 1, np.int32)
            np.cumsum(lengths, dtype=np.int32, out=self._ends[1:])
            # Of the type that numpy looks places up with: any other is converted each time.
            self._from = np.repeat((starts - self._ends[:-1]).astype(np.intp), lengths)
            self._from += _count_to(len(self._from))
        self.profile = profile
        self.texts, self.tokens = len(self._ends) - 1, int(self._ends[-1])
        if fillers is not None:
            self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(fillers, dtype=np.int32)])
        self._lengths = np.diff(self._ends)
        self.rows, total = len(self._lengths), int(self._ends[-1])
        longest = longest or int(self._lengths.max())
        self.places = (total,)
        self.shapes = {
            "input_ids": (total,),
            "position_ids": (total,),
            "segment_ids": (total,),
            "cu_seqlens": (self.rows + 1,),
            UNREAD: (longest,),
        }
        self.key = (profile, self.rows, total, longest) if fillers is not None else None

    def fill(self, views: Mapping[str, NDArray[Any]]) -> None:
        """Write the inputs that the engine has."""
        ids = views["input_ids"]
        if isinstance(self._from, slice):
            ids[: self.tokens] = self._all[self._from]
        else:
            np.take(self._all, self._from, out=ids[: self.tokens], mode="clip")  # raise would copy once more
        ids[self.tokens :] = self._pad_id
        if "cu_seqlens" in views:
            views["cu_seqlens"][:] = self._ends
        if "position_ids" in views:
            starts = np.repeat(self._ends[:-1], self._lengths)
            np.subtract(_count_to(len(ids)), starts, out=views["position_ids"])
        if "segment_ids" in views:
            views["segment_ids"][:] = np.repeat(_count_to(self.rows), self._lengths)

    def place(self, values: NDArray[np.float32], result: NDArray[np.float32], *, tags: bool) -> None:
        """Put what came back into the caller's array."""
        where, count = (self._from, self.tokens) if tags else (self._members, self.texts)
        if isinstance(where, slice):
            result[where] = values[:count]
        else:
            row = np.dtype((np.void, values.itemsize * values.shape[1]))  # a row at once: half the time
            result.view(row)[where, 0] = values[:count].view(row)[:, 0]


class PaddedBatch(Batch):
    """Texts ``members`` of ``texts``, padded to ``length`` tokens each."""

    def __init__(
        self,
        texts: PackedTexts,
        members: NDArray[np.intp],
        length: int,
        *,
        profile: int,
        pad_id: int,
        graph: bool = False,
    ) -> None:
        self._all = texts
        self._members = members
        self._pad_id = pad_id
        starts = texts.cu_seqlens[members].astype(np.intp)
        lengths = texts.cu_seqlens[members + 1] - starts
        self._own = np.arange(length) < lengths[:, None]
        self._from = (starts[:, None] + np.arange(length))[self._own]
        self.profile = profile
        self.rows = self.texts = len(members)
        self.tokens = len(self._from)
        self.places = (self.rows, length)
        self.shapes = {"input_ids": self.places, "attention_bias": (self.rows, 1, 1, length)}
        self.key = (profile, *self.places) if graph else None

    def fill(self, views: Mapping[str, NDArray[Any]]) -> None:
        """Write the inputs that the engine has."""
        ids = views["input_ids"]
        ids[:] = self._pad_id
        ids[self._own] = self._all.input_ids[self._from]
        views["attention_bias"][:, 0, 0, :] = np.where(self._own, np.float32(0), np.float32(PADDING_BIAS))

    def place(self, values: NDArray[np.float32], result: NDArray[np.float32], *, tags: bool) -> None:
        """Put what came back into the caller's array."""
        if tags:
            result[self._from] = values[self._own]
        else:
            result[self._members] = values


class GivenBatch(Batch):
    """Rows ``start`` to ``end`` of a batch that the caller padded."""

    def __init__(
        self, ids: NDArray[np.int32], bias: NDArray[np.float32], start: int, end: int, *, profile: int
    ) -> None:
        self._range = slice(start, end)
        self._ids, self._bias = ids[start:end], bias[start:end]
        self.profile = profile
        self.rows = self.texts = end - start
        self.tokens = int(np.count_nonzero(self._bias > PADDING_BIAS / 2))
        self.places = (self.rows, int(ids.shape[1]))
        self.shapes = {"input_ids": self._ids.shape, "attention_bias": self._bias.shape}

    def fill(self, views: Mapping[str, NDArray[Any]]) -> None:
        """Write the inputs that the engine has."""
        views["input_ids"][:] = self._ids
        views["attention_bias"][:] = self._bias

    def place(self, values: NDArray[np.float32], result: NDArray[np.float32], *, tags: bool) -> None:
        """Put what came back into the caller's array."""
        result[self._range] = values


def pack_rows(input_ids: NDArray[np.int32], bias: NDArray[np.float32]) -> tuple[PackedTexts, NDArray[np.bool_]]:
    """A padded batch without its padding, and which of its places [B, S] were kept."""
    own = bias[:, 0, 0, :] > PADDING_BIAS / 2
    ends = np.concatenate([[0], np.cumsum(own.sum(1))]).astype(np.int32)
    return PackedTexts(np.ascontiguousarray(input_ids[own], np.int32), ends), own
