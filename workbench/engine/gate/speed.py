"""How fast engines are, side by side on the same batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkbenchError
from workbench.progress import tqdm
from workbench.runtime.batching import bucket_length, pad_batch
from workbench.runtime.session import Session
from workbench.tasks.encode import EncodedText, TextEncoder

__all__ = ["BATCHES", "Speed", "measure_speeds", "padded_batches"]

BATCHES: Final = (1, 8, 32)
_TEXTS: Final = 96
_SEED: Final = 5


@dataclass(frozen=True)
class Speed:
    """Batches of ``batch`` texts, one run at a time: milliseconds a batch, median and 95th percentile, and texts a
    second. ``tokens``: the mean length after padding."""

    batch: int
    tokens: float
    p50_ms: float
    p95_ms: float
    texts_per_s: float
    runs: int

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return dict(vars(self))


def measure_speeds(
    sessions: Mapping[str, Session],
    texts: Sequence[str],
    *,
    batches: Sequence[int] = BATCHES,
    most_texts: int = _TEXTS,
    progress: bool = False,
) -> dict[str, tuple[Speed, ...]]:
    """Time every session on the same batches, each batch by all sessions in turn: what slows the machine down for a
    while slows all of them. One pass with all outputs; tokenizing is not counted.

    Texts are drawn from ``texts`` (at most ``most_texts``), batched with texts of like length as scoring does. A
    batch size that an engine does not take is left out for it. Sessions must share a tokenizer.
    """
    if not sessions or not texts:
        return dict.fromkeys(sessions, ())
    first = next(iter(sessions.values()))
    drawn = list(np.random.default_rng(_SEED).permutation(len(texts))[:most_texts])
    chosen = [texts[at] for at in drawn]
    times: dict[str, dict[int, list[float]]] = {name: {size: [] for size in batches} for name in sessions}
    made = {size: padded_batches(first, chosen, size) for size in batches}
    # Texts without tokens fill no batch: there may be fewer rows than texts.
    sizes = {size: inputs for size, inputs in made.items() if inputs}
    total = sum(map(len, sizes.values()))
    with tqdm(total=total, desc="Timing", unit="batch", disable=not progress, delay=2, leave=False) as bar:
        for size, inputs in sizes.items():
            for name, session in sessions.items():
                if not _takes(session, inputs[-1]):
                    del times[name][size]
            for place, batch in enumerate(inputs):
                # Whoever comes first finds the caches cold: the turns rotate.
                names = [name for name in sessions if size in times[name]]
                for name in names[place % max(len(names), 1) :] + names[: place % max(len(names), 1)]:
                    session = sessions[name]
                    outputs = tuple(session.spec.outputs)
                    started = perf_counter()
                    session.run(*batch, outputs)
                    times[name][size].append(perf_counter() - started)
                bar.update()
    return {
        name: tuple(_speed(size, sizes[size], seconds) for size, seconds in own.items() if seconds)
        for name, own in times.items()
    }


def _speed(size: int, inputs: Sequence[tuple[NDArray[np.int32], Any]], seconds: Sequence[float]) -> Speed:
    count = sum(len(ids) for ids, _ in inputs)
    p50, p95 = np.quantile(np.array(seconds) * 1000, [0.5, 0.95])
    return Speed(
        batch=size,
        tokens=round(sum(ids.size for ids, _ in inputs) / count, 1),
        p50_ms=round(float(p50), 4),
        p95_ms=round(float(p95), 4),
        texts_per_s=round(count / sum(seconds), 2),
        runs=len(seconds),
    )


def _row(encoder: TextEncoder, item: EncodedText) -> NDArray[np.int32]:
    """What a text becomes for the network: its first window with the marks of beginning and end."""
    return np.concatenate([encoder.prefix, item.ids[slice(*item.windows[0])], encoder.suffix]).astype(np.int32)


def padded_batches(
    session: Session, texts: Sequence[str], size: int
) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Whole batches of ``size`` texts of like length, the shortest first, as ``Session.run`` takes them; what is left
    over is left out. Of a long text its first window."""
    spec = session.spec
    encoded = session.encoder.encode(texts, offsets=False)
    rows = sorted((_row(session.encoder, item) for item in encoded if len(item.ids)), key=len)
    made = []
    for start in range(0, len(rows) - len(rows) % size, size):
        part = rows[start : start + size]
        length = bucket_length(max(map(len, part)), spec.max_tokens)
        made.append(pad_batch(part, length, pad_id=spec.pad_id))
    return made


def _takes(session: Session, batch: tuple[NDArray[np.int32], NDArray[np.float32]]) -> bool:
    """Whether the engine takes such a batch; warms it up on the way."""
    try:
        session.run(*batch, tuple(session.spec.outputs))
    except WorkbenchError:
        return False
    return True
