"""The losses of multi-task fine-tuning: each task over the rows that have its labels, plus a teacher's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workbench.engine.training.batches import Arrays, Batch, Recipe
from workbench.engine.training.encoder import Outputs
from workbench.tasks.labels import ENTITY_TYPES

__all__ = ["entity_loss", "labels_on", "task_losses", "teacher_losses"]


def entity_loss(logits: Tensor, tags: Tensor, types: Tensor) -> Tensor:
    """Cross-entropy in which O of a set that does not annotate a type may be that type as well.

    ``logits`` [B, S, 9], ``tags`` [B, S], ``types`` [B] bit mask of annotated types. For a token tagged O the
    probability counted is that of O plus of all types the set does not annotate (marginal likelihood, as in
    Effland & Collins 2021, partially supervised NER).
    """
    scores = functional.log_softmax(logits.float(), dim=-1)
    keep = tags >= 0
    if not bool(keep.any()):
        return logits.sum() * 0.0
    bits = torch.arange(len(ENTITY_TYPES), device=types.device)
    unknown = ((types[:, None] >> bits) & 1) == 0
    free = torch.cat([torch.ones_like(unknown[:, :1]), unknown.repeat_interleave(2, dim=1)], dim=1)
    outside = torch.logsumexp(scores.masked_fill(~free[:, None, :], -1e9), dim=-1)
    named = scores.gather(-1, tags.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    chosen = torch.where(tags == 0, outside, named)
    return -(chosen * keep).sum() / keep.sum()


def task_losses(out: Outputs, batch: Batch, labels: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """Loss of each task over the rows that have its labels."""
    losses: dict[str, Tensor] = {}
    index = batch.index
    sentiment = labels["sentiment"][index]
    known = sentiment >= 0
    if bool(known.any()):
        logits = out.sentiment.float()
        each = functional.cross_entropy(
            logits, sentiment.clamp(min=0), reduction="none", label_smoothing=recipe.smoothing
        )
        losses["sentiment"] = (each * known).sum() / known.sum()
    topics = labels["topics"][index]
    known = topics >= 0
    if bool(known.any()):
        each = functional.binary_cross_entropy_with_logits(
            out.topics.float(), topics.clamp(min=0).float(), reduction="none"
        )
        losses["topics"] = (each * known).sum() / known.sum()
    app = labels["app_class"][index]
    known = app >= 0
    if bool(known.any()):
        # One class of four; what else an app review talks about stays open.
        among = labels["app_topics"]
        logits = out.topics.float()[:, among]
        target = (among[None, :] == app.clamp(min=0)[:, None]).float().argmax(1)
        each = functional.cross_entropy(logits, target, reduction="none", label_smoothing=recipe.smoothing)
        losses["app"] = (each * known).sum() / known.sum()
    losses["entities"] = entity_loss(out.entities, batch.tags, labels["entity_types"][index])
    return losses


def teacher_losses(out: Outputs, batch: Batch, teacher: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy against a teacher's probabilities: sentiment [N, 3] and topics [N, 8] by text, entities by token.

    ``entities`` is [tokens, 9] over the flat arrays, with ``starts`` [N]; texts whose row in ``entity_rows`` is False
    have none.
    """
    index = batch.index
    losses = {}
    wanted = teacher["sentiment"][index].float()
    losses["soft_sentiment"] = -(wanted * functional.log_softmax(out.sentiment.float(), -1)).sum(-1).mean()
    losses["soft_topics"] = functional.binary_cross_entropy_with_logits(
        out.topics.float(), teacher["topics"][index].float()
    )
    rows = teacher["entity_rows"][index]
    if bool(rows.any()):
        columns = torch.arange(batch.ids.shape[1], device=index.device)
        at = (teacher["starts"][index][:, None] + columns).clamp(max=len(teacher["entities"]) - 1)
        wanted = teacher["entities"][at].float()
        each = -(wanted * functional.log_softmax(out.entities.float(), -1)).sum(-1)
        keep = (batch.bias[:, 0, 0, :] == 0) & rows[:, None]
        losses["soft_entities"] = (each * keep).sum() / keep.sum()
    return losses


def labels_on(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """All labels as tensors."""
    names = ("sentiment", "topics", "app_class", "entity_types")
    labels = {name: torch.from_numpy(getattr(arrays, name).astype(np.int64)).to(device) for name in names}
    labels["app_topics"] = torch.from_numpy(np.unique(arrays.app_class[arrays.app_class >= 0]).astype(np.int64)).to(
        device
    )
    return labels
