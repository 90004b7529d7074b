"""The builder for machines without a GPU: the plan is the converted graph, and it is run once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.errors import EngineError
from workbench.runtime.batching import PADDING_BIAS
from workbench.runtime.manifest import Profile
from workbench.tasks.spec import ModelSpec

__all__ = ["execute"]


def execute(graph: bytes, spec: ModelSpec, profiles: Sequence[Profile]) -> None:
    """Load ``graph`` into onnxruntime and run the smallest and the usual batch of each profile.

    Raises EngineError when it cannot be loaded or run, or gives numbers that are not finite.
    """
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exceptions share no base of their own
        raise EngineError(f"onnxruntime cannot load the graph: {_first_line(error)}. Use precision fp32.") from None
    random = np.random.default_rng(20261122)
    shapes = {(1, profile.min[1] + 2) for profile in profiles} | {(2, profile.opt[1]) for profile in profiles}
    for batch, tokens in sorted(shapes):
        tokens = min(tokens, spec.max_tokens)
        ids = random.integers(1, 100, (batch, tokens), dtype=np.int32)
        bias = np.zeros((batch, 1, 1, tokens), np.float32)
        bias[-1, :, :, tokens // 2 + 1 :] = PADDING_BIAS
        try:
            values = session.run(list(spec.outputs), {"input_ids": ids, "attention_bias": bias})
        except Exception as error:  # the library's exceptions share no base of their own
            raise EngineError(
                f"The graph cannot be run on {batch} x {tokens} tokens: {_first_line(error)}. Use precision fp32."
            ) from None
        for name, value in zip(spec.outputs, values, strict=True):
            if not np.isfinite(value).all():
                raise EngineError(
                    f"{name} of the converted graph is no finite number on {batch} x {tokens} tokens: its range is "
                    "too small. Use precision fp32."
                )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
