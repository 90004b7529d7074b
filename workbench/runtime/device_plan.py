"""Which texts make a batch on a GPU: how large one may be, and which run together.

Pure host code, as workbench.runtime.device_batches, where the batches themselves are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from workbench.errors import EngineError, ModelError
from workbench.runtime.batching import PackedTexts, plan_batches
from workbench.runtime.device_batches import UNREAD, Batch, PackedBatch, PaddedBatch, lay_out
from workbench.runtime.manifest import Profile
from workbench.tasks.spec import OutputKind

__all__ = [
    "Batching",
    "FewShape",
    "buffer_bytes",
    "choose_batching",
    "fallbacks",
    "few_shapes",
    "few_texts",
    "pick_profile",
    "plan_packed",
    "plan_padded",
    "single_text",
    "small_batches",
]

_SLOTS: Final = 2
_KEYS: Final = (64, 96, 128, 256, 384, 512)
"""Tokens of the longest text that the kernels of TensorRT 8.6's packed FP16 attention are made for (heads of 64, from
compute capability 8.0 on). The longest text of a batch chooses the kernel, and every text of the batch pays for its
size: of 28,000 tokens in texts of 4 to 256, at BERT-base's shape on one H100, attention took 0.40 ms a layer, and
0.13 ms in texts of at most 64."""

_BATCH: Final = 1_500_000
"""What one more batch costs, in tokens times keys. On the same machine a layer of 12 heads took 0.04 us for a
thousand of them, and 0.1 ms for a batch however small, a part of which other batches fill."""

_FINE, _COARSE, _FINE_UP_TO = 16, 32, 128
_GRAPH_STEP: Final = 32

_FEW_TEXTS: Final = 64
_FEW_TOKENS: Final = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Tokens of the batches that few texts are filled up to. From one to the next is a half or a third more: that padding
costs less than the host needs for a batch of a new shape (some 2 ms at six layers on an H100's host)."""

_FEW_LONGEST: Final = {128: 12, 256: 20, 512: 32}
"""What the longest of few texts is said to have, and tokens for each row of such a batch: rows for two to four times
the usual number of texts, because texts are of all lengths. Each row costs attention the longest text's square."""


@dataclass(frozen=True)
class Batching:
    """How texts are batched: at most ``token_budget`` tokens (padding included) and ``max_texts`` texts together,
    ``slots`` batches under way at once, ``graphs``: single texts and batches of few run as CUDA graphs."""

    token_budget: int
    max_texts: int
    slots: int = _SLOTS
    graphs: bool = False


def choose_batching(
    given: Mapping[str, Any] | None, *, layout: str, profiles: Sequence[Profile], longest: int
) -> Batching:
    """``given`` (a manifest's ``batching``) within what the engine takes; without it the largest batches.

    ``longest``: tokens of the longest text, which always fits. Raises EngineError for values that are none.
    """
    if layout == "packed":
        # Both of one profile: the most texts of one and the most tokens of another may be more than any takes.
        most_tokens, most_texts = max((profile.max[1], profile.max[0]) for profile in profiles)
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
            f"The engine's batching is {values!r}, which is not whole numbers. Measure it again: workbench engines "
            "warm-up"
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
    """The profile whose usual shape is nearest to a batch (tokens: of each text where padded, of the batch where
    packed): its kernels were chosen for that; None where none takes it."""

    def distance(index: int) -> tuple[float, int]:
        profile = profiles[index]
        away = abs(math.log(texts / profile.opt[0])) + abs(math.log(tokens / profile.opt[1]))
        return round(away, 6), profile.max[1]

    fitting = [index for index, profile in enumerate(profiles) if profile.fits(texts, tokens)]
    return min(fitting, key=distance, default=None)


def plan_packed(texts: PackedTexts, batching: Batching, profiles: Sequence[Profile]) -> Iterator[PackedBatch]:
    """Texts of like lengths together where that pays, the longest first, in batches of about as many tokens each.

    Texts that one batch can hold, or of one kernel of attention, stay in their order and need no sorting.
    """
    count, tokens = len(texts), int(texts.cu_seqlens[-1])
    if count <= batching.max_texts and tokens <= min(batching.token_budget, _BATCH // _KEYS[-1]):
        if count:  # too little for a second batch to pay, whatever the lengths
            yield PackedBatch(texts, slice(0, count), profile=_fitting(profiles, count, tokens))
        return
    groups = _groups(texts, batching)
    order: NDArray[np.intp] | None = None
    ends: NDArray[Any] = texts.cu_seqlens
    if len(groups) > 1 or (groups and groups[0].batches > 1 and groups[0].mixed):
        order = np.argsort(_kernels(texts.lengths)[1], kind="stable")
        ends = np.concatenate([[0], np.cumsum(texts.lengths[order])])
    start = 0
    for group in groups:
        stop = start + group.texts
        while start < stop:
            end = _next_end(ends, start, stop, batching)
            profile = _fitting(profiles, end - start, int(ends[end] - ends[start]))
            yield PackedBatch(texts, slice(start, end) if order is None else order[start:end], profile=profile)
            start = end


@dataclass(frozen=True)
class _Group:
    """Neighbours in length whose batches are cut without regard to others. ``mixed``: of more than one kernel."""

    texts: int
    batches: int
    mixed: bool


def _groups(texts: PackedTexts, batching: Batching) -> list[_Group]:
    """How texts are grouped, the longest first, at the least cost: tokens times the keys of their batch's kernel, and
    so much for each batch."""
    lengths = texts.lengths
    keys, kernels = _kernels(lengths)
    counts = np.bincount(kernels, minlength=len(keys)).tolist()
    tokens = np.bincount(kernels, lengths, len(keys)).tolist() if len(texts) else counts
    there = [at for at, count in enumerate(counts) if count]

    def group(first: int, last: int) -> tuple[int, _Group]:
        own = there[first:last]
        size, members = int(sum(tokens[at] for at in own)), sum(counts[at] for at in own)
        batches = max(-(-size // batching.token_budget), -(-members // batching.max_texts))
        return batches * _BATCH + size * keys[own[0]], _Group(members, batches, len(own) > 1)

    best: list[tuple[int, list[_Group]]] = [(0, [])]
    for last in range(1, len(there) + 1):
        options = []
        for first in range(last):
            cost, made = group(first, last)
            options.append((best[first][0] + cost, [*best[first][1], made]))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def _kernels(lengths: NDArray[np.int32]) -> tuple[tuple[int, ...], NDArray[np.uint8]]:
    """Keys of each kernel, the largest first, and of each text which one it needs."""
    longest = int(lengths.max(initial=0))
    keys = tuple(sorted({*_KEYS, max(longest, _KEYS[-1])}, reverse=True))
    table = len(keys) - 1 - np.searchsorted(keys[::-1], np.arange(longest + 1))
    return keys, table.astype(np.uint8)[lengths]


def _next_end(ends: NDArray[Any], start: int, stop: int, batching: Batching) -> int:
    """Where the batch from ``start`` ends: what is left until ``stop`` makes batches of about as many tokens."""
    left = int(ends[stop] - ends[start])
    goal = -(-left // -(-left // batching.token_budget))
    # The batch ends with the text that reaches the goal, or before it where that is too much.
    end = int(np.searchsorted(ends, ends[start] + goal, side="left"))
    if int(ends[min(end, stop)] - ends[start]) > batching.token_budget:
        end -= 1
    return max(start + 1, min(end, start + batching.max_texts, stop))


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
        # The other text has at least a step and less than two, so that the longest is told for all lengths of a step,
        # and no attention kernel larger than the text's own is taken.
        told = max(-(-length // _GRAPH_STEP), 2) * _GRAPH_STEP
        room = (-(-length // _GRAPH_STEP) + 1) * _GRAPH_STEP
        profile = pick_profile(profiles, 2, room)
        if profile is None or told > longest or room > batching.token_budget or batching.max_texts < 2:
            return None
        fillers = np.array([room - length], np.int32)
        return PackedBatch(texts, slice(0, 1), profile=profile, fillers=fillers, longest=told, pad_id=pad_id)
    room = min(-(-length // _GRAPH_STEP) * _GRAPH_STEP, longest)
    profile = pick_profile(profiles, 1, room)
    if profile is None:
        return None
    return PaddedBatch(texts, np.zeros(1, np.intp), room, profile=profile, pad_id=pad_id, graph=True)


@dataclass(frozen=True)
class FewShape:
    """A shape of batches of few texts: ``rows`` texts with ``tokens`` tokens in all, the longest ``longest``."""

    rows: int
    tokens: int
    longest: int
    profile: int


def few_shapes(batching: Batching, profiles: Sequence[Profile], *, longest: int) -> tuple[FewShape, ...]:
    """The shapes that a packed engine has graphs for, the smallest first."""
    told: dict[int, int] = {}
    for size, tokens in _FEW_LONGEST.items():
        told.setdefault(min(size, longest), tokens)
    shapes = []
    for total in _FEW_TOKENS:
        for size, tokens in told.items():
            rows = min(total // tokens, _FEW_TEXTS + _FEW_TEXTS // 4, batching.max_texts)
            profile = pick_profile(profiles, rows, total)
            # So many rows that they have room for the tokens.
            if size <= total <= min(batching.token_budget, (rows - 1) * size) and profile is not None:
                shapes.append(FewShape(rows, total, size, profile))
    return tuple(shapes)


def few_texts(texts: PackedTexts, shapes: Sequence[FewShape], *, pad_id: int) -> PackedBatch | None:
    """A few texts as a batch of one of ``shapes``, so that a graph is kept for it: a packed engine's requests from
    here and there. None where they are many, or too many tokens."""
    count, tokens = len(texts), int(texts.cu_seqlens[-1])
    if not 0 < count <= _FEW_TEXTS or tokens >= _FEW_TOKENS[-1]:
        return None
    most = int(texts.lengths.max())
    for shape in shapes:
        # What fills up is texts too: one token each at least, and none longer than the longest.
        more, room = shape.rows - count, shape.tokens - tokens
        if most <= shape.longest and 0 < more <= room <= more * shape.longest:
            fillers = np.full(more, room // more, np.int32)
            fillers[: room % more] += 1
            return PackedBatch(
                texts,
                slice(0, count),
                profile=shape.profile,
                fillers=fillers,
                longest=shape.longest,
                pad_id=pad_id,
            )
    return None


def small_batches(
    batching: Batching, profiles: Sequence[Profile], *, layout: str, longest: int, pad_id: int
) -> list[Batch]:
    """A batch of each shape that ``single_text`` and ``few_texts`` use; none for padded engines, which need half a
    second for each."""
    if layout != "packed":
        return []

    def text(length: int) -> PackedTexts:
        return PackedTexts(np.full(length, pad_id, np.int32), np.array([0, length], np.int32))

    made = [
        single_text(text(length), batching, profiles, layout=layout, longest=longest, pad_id=pad_id)
        for length in range(_GRAPH_STEP, longest + 1, _GRAPH_STEP)
    ] + [few_texts(text(1), [shape], pad_id=pad_id) for shape in few_shapes(batching, profiles, longest=longest)]
    return [batch for batch in made if batch is not None]


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
