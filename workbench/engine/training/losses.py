"""The losses of multi-task fine-tuning: each task over the rows that have its labels, plus a teacher's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workbench.engine.training.batches import Arrays, Batch, Recipe
from workbench.engine.training.encoder import Outputs
from workbench.engine.training.sets import DATA_SETS
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
    bits = torch.arange(len(ENTITY_TYPES), device=types.device)
    unknown = ((types[:, None] >> bits) & 1) == 0
    free = torch.cat([torch.ones_like(unknown[:, :1]), unknown.repeat_interleave(2, dim=1)], dim=1)
    outside = torch.logsumexp(scores.masked_fill(~free[:, None, :], -1e9), dim=-1)
    named = scores.gather(-1, tags.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    chosen = torch.where(tags == 0, outside, named)
    return -(chosen * keep).sum() / keep.sum().clamp(min=1)


def task_losses(out: Outputs, batch: Batch, labels: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """Loss of each task over the rows that have its labels; 0 where none has."""
    index = batch.index
    # No branch looks at the values: that would make the processor wait for the GPU in every step.
    sentiment = labels["sentiment"][index]
    each = functional.cross_entropy(
        out.sentiment.float(), sentiment.clamp(min=0), reduction="none", label_smoothing=recipe.smoothing
    )
    losses = {"sentiment": _mean(each, sentiment >= 0)}
    topics = labels["topics"][index]
    each = functional.binary_cross_entropy_with_logits(
        out.topics.float(), topics.clamp(min=0).float(), reduction="none"
    )
    losses["topics"] = _mean(each, topics >= 0)
    # An app review has one class of four; what else it talks about stays open.
    app, among = labels["app_class"][index], labels["app_topics"]
    if len(among):
        target = (among[None, :] == app.clamp(min=0)[:, None]).float().argmax(1)
        each = functional.cross_entropy(
            out.topics.float()[:, among], target, reduction="none", label_smoothing=recipe.smoothing
        )
        losses["app"] = _mean(each, app >= 0)
    losses["entities"] = entity_loss(out.entities, batch.tags, labels["entity_types"][index])
    return losses


def _mean(each: Tensor, known: Tensor) -> Tensor:
    return (each * known).sum() / known.sum().clamp(min=1)


def teacher_losses(out: Outputs, batch: Batch, teacher: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy against a teacher, by text (``sentiment`` [N, 3], ``topics`` [N, 8]) and by token.

    ``app`` [N, 4] are those of an app review's classes, ``app_topics`` [4] their topics. ``entities`` is [tokens, 9]
    over the flat arrays, with ``starts`` [N]. Texts whose row in ``sentiment_rows``, ``topics_rows``, ``app_rows`` or
    ``entity_rows`` (bool [N]) is False have none of that task.
    """
    index = batch.index
    losses = {}
    wanted = teacher["sentiment"][index].float()
    each = -(wanted * functional.log_softmax(out.sentiment.float(), -1)).sum(-1)
    losses["soft_sentiment"] = _mean(each, teacher["sentiment_rows"][index])
    each = functional.binary_cross_entropy_with_logits(
        out.topics.float(), teacher["topics"][index].float(), reduction="none"
    ).mean(-1)
    losses["soft_topics"] = _mean(each, teacher["topics_rows"][index])
    among = teacher["app_topics"]
    each = -(teacher["app"][index].float() * functional.log_softmax(out.topics.float()[:, among], -1)).sum(-1)
    losses["soft_app"] = _mean(each, teacher["app_rows"][index])
    columns = torch.arange(batch.ids.shape[1], device=index.device)
    at = (teacher["starts"][index][:, None] + columns).clamp(max=len(teacher["entities"]) - 1)
    each = -(teacher["entities"][at].float() * functional.log_softmax(out.entities.float(), -1)).sum(-1)
    losses["soft_entities"] = _mean(each, (batch.bias[:, 0, 0, :] == 0) & teacher["entity_rows"][index][:, None])
    return losses


def labels_on(arrays: Arrays, device: torch.device, *, weak_topics: bool = True) -> dict[str, Tensor]:
    """All labels as tensors. Without ``weak_topics``, topics that only a word list found are unknown."""
    names = ("sentiment", "topics", "app_class", "entity_types")
    labels = {name: torch.from_numpy(getattr(arrays, name).astype(np.int64)).to(device) for name in names}
    if not weak_topics:
        weak = [n for n, name in enumerate(arrays.sources) if name in DATA_SETS and DATA_SETS[name].weak_topics]
        labels["topics"][torch.from_numpy(np.isin(arrays.source, weak)).to(device)] = -1
    labels["app_topics"] = torch.from_numpy(np.unique(arrays.app_class[arrays.app_class >= 0]).astype(np.int64)).to(
        device
    )
    return labels
