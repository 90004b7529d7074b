"""Ranges from histograms that grow with the data: entropy (KL), percentile, min-max.

A range is symmetric, [-amax, amax], so only absolute values are counted. A histogram has a fixed number of bins: when
a value lies beyond the last, neighbouring bins are merged until it has a place. Memory does not grow with the data.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["METHODS", "Histogram", "Method"]

Method = Literal["entropy", "percentile-99.9", "percentile-99.99", "minmax"]
METHODS: Final = ("entropy", "percentile-99.9", "percentile-99.99", "minmax")

_BINS: Final = 4096
_STRIDES: Final = (7, 11, 13)
"""The first that does not divide the number of channels counts: it falls on every channel in turn. 7 against counting
all values, on the bundled model and sets: 24 s for 33 s on two cores; the ranges of percentiles move by 0.1 % (99.9)
and 0.4 % (99.99) in the median, by 4 % at most, those of entropy by 2.6 %."""
_LEVELS: Final = 128
"""Values of an absolute number in INT8: 0 to 127."""
_STEP: Final = 16
"""Bins from one range that is tried to the next: 1/256 of the whole, finer than the choice matters."""


class Histogram:
    """Counts of absolute values."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self.limit = 0.0
        self.largest = 0.0

    def add(self, values: NDArray[np.float32]) -> bool:
        """Count ``values``, of any shape: every seventh or so of them, and the largest of all.

        The last axis of two or three is taken for the channels; of four it is a part of them, or tokens. False, and
        nothing is counted, when there is a NaN or an infinity among them.
        """
        flat = values.reshape(-1)
        if not flat.size:
            return True
        largest = max(float(flat.max()), -float(flat.min()))
        width = values.shape[-1] if values.ndim in (2, 3) else 1
        stride = next((step for step in _STRIDES if width % step), 1)
        flat = np.abs(flat[:: stride if flat.size >= 100 * stride else 1])
        if not np.isfinite(largest):
            return False
        self.largest = max(self.largest, largest)
        if largest > 0 and self.limit == 0:
            # A power of two, so that the same data in another order gives the same bins.
            # Not so small a one that bins a unit overflow a 32-bit float.
            self.limit = float(2.0 ** max(np.ceil(np.log2(largest)), -100))
        while largest > self.limit:
            self.counts[: _BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[_BINS // 2 :] = 0
            self.limit *= 2
        if self.limit == 0:
            self.counts[0] += flat.size
            return True
        places = np.minimum((flat * np.float32(_BINS / self.limit)).astype(np.int32), _BINS - 1)
        self.counts += np.bincount(places, minlength=_BINS)
        return True

    def amax(self, method: Method) -> float:
        """The largest absolute value that is to be told apart; 0 when all values are 0."""
        if self.largest == 0:
            return 0.0
        if method == "minmax":
            return self.largest
        if method == "entropy":
            return self._entropy()
        return self._percentile(float(method.removeprefix("percentile-")))

    def _percentile(self, percent: float) -> float:
        """The value under which ``percent`` of all lie, between the edges of a bin by proportion."""
        sums = np.cumsum(self.counts).astype(np.float64)
        wanted = percent / 100 * sums[-1]
        place = int(np.searchsorted(sums, wanted))
        before = float(sums[place - 1]) if place else 0.0
        share = (wanted - before) / max(1.0, float(self.counts[place]))
        return min(self.largest, float(place + share) * self.limit / _BINS)

    def _entropy(self) -> float:
        """The range with the least Kullback-Leibler divergence of what INT8 keeps from what there is.

        As TensorRT's entropy calibration: values beyond a range count in its last bin of the reference; inside, the
        128 levels spread evenly over the bins that are not empty. Zero counts are left out of the first bin: they are
        exact whatever the scale.
        """
        counts = self.counts.astype(np.float64)
        counts[0] = 0 if counts[1:].any() else counts[0]
        last = int(np.flatnonzero(counts)[-1]) + 1
        if last <= _LEVELS:
            return self.largest
        best, chosen = np.inf, last
        beyond = counts.sum() - np.cumsum(counts)
        for stop in [*range(_LEVELS, last, _STEP), last]:
            reference = counts[:stop].copy()
            reference[-1] += beyond[stop - 1]
            edges = np.arange(_LEVELS) * stop // _LEVELS
            sums = np.add.reduceat(counts[:stop], edges)
            filled = np.add.reduceat((counts[:stop] > 0).astype(np.float64), edges)
            widths = np.diff([*edges, stop])
            kept = np.repeat(sums / np.maximum(filled, 1), widths) * (counts[:stop] > 0)
            divergence = _divergence(reference, kept)
            if divergence < best:
                best, chosen = divergence, stop
        return min(self.largest, chosen * self.limit / _BINS)


def _divergence(reference: NDArray[np.float64], kept: NDArray[np.float64]) -> float:
    """KL(reference | kept) in nats; infinite where nothing is kept. A small share is given to empty bins."""
    total = kept.sum()
    if total <= 0:
        return float("inf")
    share = reference / reference.sum()
    model = kept / total
    there = share > 0
    # Where the last bin was empty, what lies beyond would be infinitely far.
    floor = 1e-9
    return float(np.sum(share[there] * np.log(share[there] / np.maximum(model[there], floor))))
