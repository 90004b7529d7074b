"""The written graph against torch: random texts of several lengths, in padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from workbench.engine.export.extra import import_torch
from workbench.engine.export.labels import LabelPlan
from workbench.errors import ModelError

__all__ = ["TOLERANCE", "Probe", "check_parity", "make_probes", "reference_outputs"]

TOLERANCE: Final = 1e-4
"""Largest difference of a logit, for logits beyond 1 relative to their size."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Probe:
    """A padded batch: ``input_ids`` int32 [batch, sequence], ``mask`` int32 of the same shape, 1 for a token."""

    input_ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.int32]


def make_probes(
    *, specials: Sequence[int], vocabulary: Sequence[int], max_tokens: int, pad_id: int, seed: int = 20261116
) -> list[Probe]:
    """Batches of random texts: one alone, several of different lengths, and one as long as the model allows.

    ``specials`` are the ids of an empty text (such as [CLS] [SEP]); ``vocabulary`` the ids to draw words from.
    """
    random = np.random.default_rng(seed)
    longest = max_tokens - len(specials)
    probes = []
    for lengths in ((1,), (3, 17, 0, 40), (longest, 1, 9), (8, 8)):
        texts = []
        for length in (min(length, longest) for length in lengths):
            body = random.choice(np.asarray(vocabulary), length).tolist()
            texts.append([*specials[:1], *body, *specials[1:]])
        ids = np.full((len(texts), max(map(len, texts))), pad_id, dtype=np.int32)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        probes.append(Probe(ids, mask))
    return probes


def reference_outputs(model: Any, probes: Sequence[Probe]) -> list[Floats]:
    """What torch gives for each probe, called as the library means it: int64 ids and a mask of 0 and 1."""
    torch = import_torch()
    outputs = []
    with torch.no_grad():
        for probe in probes:
            ids, mask = torch.from_numpy(probe.input_ids).long(), torch.from_numpy(probe.mask).long()
            outputs.append(model(input_ids=ids, attention_mask=mask).logits.numpy())
    return outputs


def check_parity(path: Path, plan: LabelPlan, probes: Sequence[Probe], references: Sequence[Floats]) -> float:
    """Run the graph with onnxruntime on each probe; give the largest difference from torch.

    Raises ModelError, with the number, when it is above ``TOLERANCE``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for probe, reference in zip(probes, references, strict=True):
        bias = np.where(probe.mask[:, None, None, :] == 1, 0, -1e4).astype(np.float32)
        (output,) = session.run([plan.task], {"input_ids": probe.input_ids, "attention_bias": bias})
        difference = np.abs(output - reference) / np.maximum(1.0, np.abs(reference))
        if plan.kind == "tags":
            difference = difference[probe.mask == 1]
        # max() passes over NaN in silence; a NaN is as wrong as can be.
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max()))
    if worst > TOLERANCE:
        raise ModelError(
            f"The exported graph differs from torch by {worst:.2g} on random texts; {TOLERANCE:g} is allowed. The "
            "checkpoint's model is not what its family's is; name another, or install the versions in "
            "constraints.txt: pip install -c constraints.txt -e '.[export]'"
        )
    return worst
