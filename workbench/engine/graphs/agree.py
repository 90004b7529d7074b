"""Whether a packed graph answers as the padded one it was made from: both are run on the CPU."""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from workbench.engine.graphs.packed import PackedForm, to_packed
from workbench.engine.graphs.plugins import expand_plugins
from workbench.errors import ModelError
from workbench.runtime.batching import PADDING_BIAS

__all__ = ["check_agreement", "packed_inputs", "run_both"]

logger = logging.getLogger(__name__)

_LENGTHS: Final = (1, 9, 4, 23, 2, 16)
_MOST: Final = 0.01
"""Largest difference of a logit that passes, as a share of their spread: rounding, and the epsilon of the norms."""


def check_agreement(model: ModelProto, *, form: PackedForm, vocabulary: int) -> None:
    """Check that ``model`` packed in ``form`` answers as it does padded, both in FP32 and with its own activation.

    Raises ModelError when a logit differs by more than rounding. Without onnxruntime nothing is checked, and said so.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore] # noqa: F401
    except ImportError:
        logger.warning("onnxruntime is not installed: the packed graph is not compared with the padded one")
        return
    exact = PackedForm(linear=form.linear, norm=form.norm, gelu="own", mean=form.mean)
    packed = to_packed(model, precision="fp32", max_tokens=max(_LENGTHS), form=exact)
    random = np.random.default_rng(20261122)
    rows = [random.integers(min(5, vocabulary - 1), vocabulary, length, np.int32) for length in _LENGTHS]
    for name, (padded, own) in run_both(model, packed, rows).items():
        worst, spread = float(np.abs(padded - own).max()), float(padded.std())
        if not worst <= _MOST * max(spread, 1e-3):
            raise ModelError(
                f"The packed graph does not answer as the padded one: {name} differs by {worst:.3g} where logits "
                f"spread by {spread:.3g}. Build it with --layout padded."
            )


def run_both(
    padded: ModelProto, packed: ModelProto, rows: list[NDArray[np.int32]]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Outputs of both graphs by name, one row a text [N, K] or a token [T, K]; plugins are expanded."""
    lengths = [len(row) for row in rows]
    ids = np.full((len(rows), max(lengths)), rows[0][0], np.int32)
    bias = np.full((len(rows), 1, 1, max(lengths)), PADDING_BIAS, np.float32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        bias[index, 0, 0, : len(row)] = 0
    names = [item.name for item in padded.graph.output]
    before = _run(padded, names, {"input_ids": ids, "attention_bias": bias})
    after = _run(expand_plugins(packed), names, packed_inputs(rows))
    kept = np.concatenate([np.arange(length) + max(lengths) * index for index, length in enumerate(lengths)])
    return {
        name: (value.reshape(-1, value.shape[-1])[kept] if value.ndim == 3 else value, own)
        for name, value, own in zip(names, before, after, strict=True)
    }


def packed_inputs(rows: list[NDArray[np.int32]]) -> dict[str, NDArray[np.int32]]:
    """Every input that a packed graph may have."""
    lengths = np.array([len(row) for row in rows])
    return {
        "input_ids": np.concatenate(rows).astype(np.int32),
        "position_ids": np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "longest": np.zeros(lengths.max(), np.int32),
        "segment_ids": np.repeat(np.arange(len(rows)), lengths).astype(np.int32),
    }


def _run(model: ModelProto, names: list[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = {item.name for item in session.get_inputs()}
    return list(session.run(names, {name: value for name, value in feeds.items() if name in wanted}))
