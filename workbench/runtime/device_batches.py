"""What a GPU engine is given: how large a batch may be, which texts make one, where its arrays lie in a buffer.

Pure host code: numpy in, numpy out, no GPU. A batch knows its shapes, writes its inputs into views of pinned memory,
and puts the rows that come back where the caller wants them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from workbench.errors import EngineError, ModelError
from workbench.runtime.batching import PADDING_BIAS, PackedTexts, plan_batches
from workbench.runtime.manifest import Profile
from workbench.tasks.spec import OutputKind

__all__ = [
    "UNREAD",
    "Batch",
    "Batching",
    "GivenBatch",
    "PackedBatch",
    "PaddedBatch",
    "Region",
    "buffer_bytes",
    "check_texts",
    "choose_batching",
    "fallbacks",
    "lay_out",
    "pack_rows",
    "pick_profile",
    "plan_packed",
    "plan_padded",
    "single_text",
]

UNREAD: Final = "longest"
"""The input of a packed engine of which only the length counts: it is not copied."""

_ALIGN: Final = 256  # what TensorRT asks of every address
_SLOTS: Final = 2
_FINE, _COARSE, _FINE_UP_TO = 16, 32, 128
_GRAPH_STEP: Final = 32


@dataclass(frozen=True)
class Batching:
    """How texts are batched: at most ``token_budget`` tokens (padding included) and ``max_texts`` texts together,
    ``slots`` batches under way at once, ``graphs``: single texts run as CUDA graphs."""

    token_budget: int
    max_texts: int
    slots: int = _SLOTS
    graphs: bool = False


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
    """An array in a buffer."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.dtype.itemsize * int(np.prod(self.shape))

    def view(self, buffer: NDArray[np.uint8]) -> NDArray[Any]:
        """The array in ``buffer``."""
        return buffer[self.offset : self.end].view(self.dtype).reshape(self.shape)


def lay_out(arrays: Mapping[str, tuple[tuple[int, ...], DTypeLike]]) -> tuple[dict[str, Region], int]:
    """Regions for arrays (shape, type) one after the other, aligned for TensorRT, and the bytes they take in all."""
    regions, offset = {}, 0
    for name, (shape, dtype) in arrays.items():
        regions[name] = Region(offset, tuple(shape), np.dtype(dtype))
        offset = -(-max(regions[name].end, offset + 1) // _ALIGN) * _ALIGN
    return regions, offset


def choose_batching(
    given: Mapping[str, Any] | None, *, layout: str, profiles: Sequence[Profile], longest: int
) -> Batching:
    """``given`` (a manifest's ``batching``) within what the engine takes; without it the largest batches.

    ``longest``: tokens of the longest text, which always fits. Raises EngineError for values that are none.
    """
    if layout == "packed":
        most_tokens = max(profile.max[1] for profile in profiles)
    else:
        most_tokens = max(profile.max[0] * profile.max[1] for profile in profiles)
    most_texts = max(profile.max[0] for profile in profiles)
    values = dict(given or {})
    try:
        budget = int(values.get("token_budget", most_tokens))
        texts = int(values.get("max_texts", most_texts))
        slots = int(values.get("slots", _SLOTS))
    except (TypeError, ValueError):
        raise EngineError(
            f"The engine's batching is {values!r}, which is not whole numbers. Build the engine again."
        ) from None
    return Batching(
        token_budget=min(max(budget, longest), most_tokens),
        max_texts=min(max(texts, 1), most_texts),
        slots=min(max(slots, 1), 8),
        graphs=bool(values.get("graphs", False)),
    )


def fallbacks(batching: Batching, *, longest: int) -> Iterator[Batching]:
    """``batching`` and what is tried after it where memory is short: fewer slots, then smaller batches."""
    for slots in range(batching.slots, 0, -1):
        yield replace(batching, slots=slots)
    budget = batching.token_budget
    while budget > longest:
        budget = max(budget // 2, longest)
        yield replace(batching, slots=1, token_budget=budget)


def buffer_bytes(
    batching: Batching,
    *,
    longest: int,
    inputs: Mapping[str, DTypeLike],
    outputs: Mapping[str, tuple[OutputKind, int, DTypeLike]],
) -> tuple[int, int]:
    """Bytes of the input and of the output buffer of a slot, for the largest batch.

    ``outputs``: kind, number of labels and type by name.
    """
    tokens, rows = batching.token_budget, batching.max_texts
    sizes = {"cu_seqlens": rows + 1, UNREAD: longest}
    _, taken = lay_out({name: ((sizes.get(name, tokens),), dtype) for name, dtype in inputs.items()})
    _, given = lay_out(
        {
            name: ((tokens if kind == "tags" else rows, labels), dtype)
            for name, (kind, labels, dtype) in outputs.items()
        }
    )
    return taken, given


def pick_profile(profiles: Sequence[Profile], texts: int, tokens: int) -> int | None:
    """The tightest profile for a batch (tokens: of each text where padded, of the batch where packed); None: none."""
    fitting = [index for index, profile in enumerate(profiles) if profile.fits(texts, tokens)]
    return min(fitting, key=lambda index: (profiles[index].max[1], profiles[index].max[0]), default=None)


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
    _check_ids(texts.input_ids, vocabulary)


def _check_ids(input_ids: NDArray[np.int32], vocabulary: int) -> None:
    if int(input_ids.min()) < 0 or int(input_ids.max()) >= vocabulary:
        wrong = input_ids[(input_ids < 0) | (input_ids >= vocabulary)][0]
        raise ModelError(
            f"{wrong} is no token id: the model has {vocabulary}. Encode the texts with the session's own encoder."
        )


class PackedBatch(Batch):
    """Texts ``start`` to ``end`` of ``texts``, without padding.

    ``room``: tokens to fill up to with one more text, whose rows are thrown away, so that texts of different lengths
    make batches of one shape.
    """

    def __init__(
        self, texts: PackedTexts, start: int, end: int, *, profile: int, room: int | None = None, pad_id: int = 0
    ) -> None:
        first, last = int(texts.cu_seqlens[start]), int(texts.cu_seqlens[end])
        self._ids = texts.input_ids[first:last]
        self._ends = texts.cu_seqlens[start : end + 1] - first
        self._range = (start, end)
        self._first = first
        self._pad_id = pad_id
        self.profile = profile
        self.texts, self.tokens = end - start, last - first
        if room is not None:
            self._ends = np.append(self._ends, np.int32(room))
        self.rows, total = len(self._ends) - 1, int(self._ends[-1])
        longest = room or int(np.diff(self._ends).max())
        self.places = (total,)
        self.shapes = {
            "input_ids": (total,),
            "position_ids": (total,),
            "segment_ids": (total,),
            "cu_seqlens": (self.rows + 1,),
            UNREAD: (longest,),
        }
        self.key = (profile, self.rows, total, longest) if room is not None else None

    def fill(self, views: Mapping[str, NDArray[Any]]) -> None:
        """Write the inputs that the engine has."""
        ids, lengths = views["input_ids"], np.diff(self._ends)
        ids[: self.tokens] = self._ids
        ids[self.tokens :] = self._pad_id
        if "cu_seqlens" in views:
            views["cu_seqlens"][:] = self._ends
        if "position_ids" in views:
            np.subtract(np.arange(len(ids)), np.repeat(self._ends[:-1], lengths), out=views["position_ids"])
        if "segment_ids" in views:
            views["segment_ids"][:] = np.repeat(np.arange(self.rows), lengths)

    def place(self, values: NDArray[np.float32], result: NDArray[np.float32], *, tags: bool) -> None:
        """Put what came back into the caller's array."""
        if tags:
            result[self._first : self._first + self.tokens] = values[: self.tokens]
        else:
            result[slice(*self._range)] = values[: self.texts]


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


def plan_packed(texts: PackedTexts, batching: Batching, profiles: Sequence[Profile]) -> Iterator[PackedBatch]:
    """Neighbouring texts that run together, in order, in batches of about the same number of tokens."""
    ends, total = texts.cu_seqlens, len(texts)
    start = 0
    while start < total:
        left = int(ends[total] - ends[start])
        goal = -(-left // -(-left // batching.token_budget))
        # The batch ends with the text that reaches the goal, or before it where that is too much.
        end = int(np.searchsorted(ends, ends[start] + goal, side="left"))
        if int(ends[min(end, total)] - ends[start]) > batching.token_budget:
            end -= 1
        end = max(start + 1, min(end, start + batching.max_texts, total))
        yield PackedBatch(texts, start, end, profile=_fitting(profiles, end - start, int(ends[end] - ends[start])))
        start = end


def plan_padded(
    texts: PackedTexts, batching: Batching, profiles: Sequence[Profile], *, longest: int, pad_id: int
) -> Iterator[PaddedBatch]:
    """Texts of like lengths together, the longest first; the length depends on the text alone."""
    least = min(profile.min[1] for profile in profiles)
    padded = np.maximum(_rounded(texts.lengths, longest), least)
    for group in plan_batches(padded.tolist(), max_tokens=longest, token_budget=batching.token_budget):
        length = int(padded[group].max())
        rows = min(batching.max_texts, max(profile.max[0] for profile in profiles if length <= profile.max[1]))
        for start in range(0, len(group), rows):
            members = group[start : start + rows]
            yield PaddedBatch(texts, members, length, profile=_fitting(profiles, len(members), length), pad_id=pad_id)


def single_text(
    texts: PackedTexts, batching: Batching, profiles: Sequence[Profile], *, layout: str, longest: int, pad_id: int
) -> Batch | None:
    """One text as a batch of one of few shapes, so that a graph is kept for it; None where it does not fit."""
    length = int(texts.cu_seqlens[1])
    if layout == "packed":
        room = -(-(length + 1) // _GRAPH_STEP) * _GRAPH_STEP  # one token at least is left for the other text
        profile = pick_profile(profiles, 2, room)
        if profile is None or room > min(batching.token_budget, longest) or batching.max_texts < 2:
            return None
        return PackedBatch(texts, 0, 1, profile=profile, room=room, pad_id=pad_id)
    room = min(-(-length // _GRAPH_STEP) * _GRAPH_STEP, longest)
    profile = pick_profile(profiles, 1, room)
    if profile is None:
        return None
    return PaddedBatch(texts, np.zeros(1, np.intp), room, profile=profile, pad_id=pad_id, graph=True)


def pack_rows(input_ids: NDArray[np.int32], bias: NDArray[np.float32]) -> tuple[PackedTexts, NDArray[np.bool_]]:
    """A padded batch without its padding, and which of its places [B, S] were kept."""
    own = bias[:, 0, 0, :] > PADDING_BIAS / 2
    ends = np.concatenate([[0], np.cumsum(own.sum(1))]).astype(np.int32)
    return PackedTexts(np.ascontiguousarray(input_ids[own], np.int32), ends), own


def _rounded(lengths: NDArray[np.int32], longest: int) -> NDArray[np.int64]:
    """The lengths that texts are padded to: few, and such that matrix products have whole tiles."""
    fine = -(-lengths.astype(np.int64) // _FINE) * _FINE
    coarse = -(-lengths.astype(np.int64) // _COARSE) * _COARSE
    return np.minimum(np.where(lengths <= _FINE_UP_TO, fine, coarse), longest)


def _fitting(profiles: Sequence[Profile], texts: int, tokens: int) -> int:
    found = pick_profile(profiles, texts, tokens)
    if found is None:
        raise ModelError(
            f"No profile of the engine takes {texts} texts of {tokens} tokens. Build the engine again with a profile "
            "for them: workbench engines build --profile"
        )
    return found
