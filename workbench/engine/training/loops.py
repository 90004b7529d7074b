"""Masked-language pre-training, multi-task fine-tuning and prediction on prepared arrays. numpy and torch only.

Runs in bfloat16 on a GPU and in float32 on a CPU. Seeds are fixed: the same arrays on the same kind of GPU give the
same weights up to the order of atomic adds.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from workbench.engine.training.batches import Arrays, Recipe, batches, collate, mixture
from workbench.engine.training.encoder import Encoder
from workbench.engine.training.losses import labels_on, task_losses, teacher_losses

__all__ = ["fine_tune", "predict", "pretrain"]

log = logging.getLogger(__name__)

MASK_ID, FIRST_PLAIN_ID = 4, 5


def _optimizer(model: Encoder, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=fused)


class Progress:
    """Steps of a run, and the learning rate of each: linear warm-up, then cosine to zero.

    With ``limit_s`` the run ends after that time at the latest, its schedule drawn along.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
        self.optimizer, self.recipe, self.started, self.step = optimizer, recipe, time.perf_counter(), 0

    def __iter__(self) -> Iterator[int]:
        while True:
            share = self.step / self.recipe.steps
            if self.recipe.limit_s is not None:
                share = max(share, (time.perf_counter() - self.started) / self.recipe.limit_s)
            if share >= 1:
                return
            warm = self.recipe.warm_up
            factor = (
                (share + 1 / self.recipe.steps) / warm
                if share < warm
                else 0.5 * (1 + math.cos(math.pi * (share - warm) / (1 - warm)))
            )
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * factor
            yield self.step
            self.step += 1


def _compile(model: Encoder) -> None:
    # One layer at a time: all layers share its code, so that a new shape costs seconds and not minutes.
    if next(model.parameters()).is_cuda:
        for layer in model.layers:
            layer.compile(dynamic=True)


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def pretrain(
    model: Encoder, arrays: Arrays, chosen: NDArray[np.int64], recipe: Recipe, *, log_every: int = 200
) -> list[float]:
    """Masked-language modelling (Devlin et al. 2019: 80 % masked, 10 % random, 10 % kept). Returns logged losses."""
    device = next(model.parameters()).device
    torch.manual_seed(recipe.seed)
    optimizer = _optimizer(model, recipe)
    stream, losses = batches(arrays, chosen, recipe), []
    model.train()
    _compile(model)
    seen, started = 0, time.perf_counter()
    for step in Progress(optimizer, recipe):
        batch = collate(arrays, next(stream), recipe.longest, device)
        plain = batch.ids >= FIRST_PLAIN_ID
        picked = (torch.rand(batch.ids.shape, device=device) < recipe.masked) & plain
        dice = torch.rand(batch.ids.shape, device=device)
        noise = torch.randint(FIRST_PLAIN_ID, model.config.vocabulary, batch.ids.shape, device=device)
        shown = torch.where(picked & (dice < 0.8), MASK_ID, batch.ids)
        shown = torch.where(picked & (dice >= 0.9), noise, shown)
        with _autocast(device):
            hidden = model.encode(shown, batch.bias)
            loss = functional.cross_entropy(model.guess_masked(hidden[picked]), batch.ids[picked])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen += batch.ids.numel()
        if step % log_every == 0:
            losses.append(float(loss.detach()))
            log.info(
                "pretrain %d/%d loss %.3f, %.0f tokens/s",
                step,
                recipe.steps,
                losses[-1],
                seen / (time.perf_counter() - started),
            )
    return losses


def fine_tune(
    model: Encoder,
    arrays: Arrays,
    chosen: NDArray[np.int64],
    recipe: Recipe,
    *,
    weights: dict[str, float],
    shares: dict[str, float] | None = None,
    teacher: dict[str, Tensor] | None = None,
    weak_topics: bool = True,
    log_every: int = 200,
) -> list[dict[str, float]]:
    """Train all heads together; ``weights`` by task, ``shares`` by source. Returns the logged losses.

    ``teacher`` are lessons beside the labels (see ``teachers``); without ``weak_topics`` the labels of the word list
    of Chinese topics take no part.
    """
    device = next(model.parameters()).device
    torch.manual_seed(recipe.seed + 1)
    rng = np.random.default_rng(recipe.seed + 1)
    optimizer = _optimizer(model, recipe)
    stream = batches(arrays, mixture(arrays, chosen, shares or {}, rng), recipe)
    labels, history = labels_on(arrays, device, weak_topics=weak_topics), []
    # The average of the weights over the last thousand steps is better than the last step's.
    live = list(model.state_dict().values())
    average = [value.detach().clone() for value in live]
    model.train()
    _compile(model)
    for step in Progress(optimizer, recipe):
        batch = collate(arrays, next(stream), recipe.longest, device)
        # Words are hidden at random, but not in texts whose entities are marked: there every word counts.
        hide = (torch.rand(batch.ids.shape, device=device) < recipe.word_dropout) & (batch.ids >= FIRST_PLAIN_ID)
        hide &= (labels["entity_types"][batch.index] == 0)[:, None]
        with _autocast(device):
            out = model(torch.where(hide, MASK_ID, batch.ids), batch.bias)
        losses = task_losses(out, batch, labels, recipe)
        if teacher is not None:
            losses |= teacher_losses(out, batch, teacher)
        total = sum(weights.get(name, 1.0) * loss for name, loss in losses.items())
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            keep = min(recipe.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, live, 1 - keep)
        if step % log_every == 0:
            history.append({name: float(loss.detach()) for name, loss in losses.items()})
            log.info("fine-tune %d/%d %s", step, recipe.steps, {k: round(v, 3) for k, v in history[-1].items()})
    with torch.no_grad():
        torch._foreach_copy_(live, average)
    return history


def predict(
    model: Encoder,
    arrays: Arrays,
    chosen: NDArray[np.int64],
    *,
    longest: int = 512,
    token_budget: int = 131_072,
    tags: bool = True,
) -> dict[str, Any]:
    """Logits for the chosen texts: sentiment [N, 3], topics [N, 8] and, with ``tags``, entities: list of [S, 9]."""
    device = next(model.parameters()).device
    model.eval()
    order = np.argsort(arrays.lengths[chosen], kind="stable")
    lengths = np.minimum(arrays.lengths[chosen][order], longest)
    sentiment = np.zeros((len(chosen), 3), np.float32)
    topics = np.zeros((len(chosen), 8), np.float32)
    entities: list[Any] = [None] * len(chosen)
    first = 0
    with torch.no_grad():
        while first < len(order):
            # Sorted by length: the last text decides the width of the batch.
            last = first + 1
            while last < len(order) and last - first < 4096 and lengths[last] * (last + 1 - first) <= token_budget:
                last += 1
            at = order[first:last]
            batch = collate(arrays, chosen[at], longest, device)
            with _autocast(device):
                out = model(batch.ids, batch.bias)
            sentiment[at] = out.sentiment.float().cpu().numpy()
            topics[at] = out.topics.float().cpu().numpy()
            if tags:
                rows = out.entities.float().cpu().numpy()
                for row, length, where in zip(rows, lengths[first:last], at, strict=True):
                    entities[where] = row[:length]
            first = last
    return {"sentiment": sentiment, "topics": topics, "entities": entities}
