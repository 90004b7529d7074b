"""The sentiment head taught again, on an encoder that stays as it is: minutes on a CPU.

Some texts want a reading that the rest of the network's training did not give: of a delivered meal, praise with one
fault is a complaint. Lessons are such texts, labelled; anchors are texts on which the head must keep its answers. The
loss is the cross-entropy of negative against positive on the lessons, both classes counting the same, plus the
cross-entropy of the old answers on the anchors (Li & Hoiem 2016, Learning without Forgetting), every source counting
the same, plus a ridge on the distance from the old weights. It is convex and found by L-BFGS: the same rows give the
same head.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from workbench.engine.training.batches import Arrays, collate
from workbench.engine.training.bundle import load_checkpoint
from workbench.engine.training.corpus import Example
from workbench.engine.training.encoder import Encoder
from workbench.engine.training.prepare import prepare
from workbench.errors import ModelError, ParameterError
from workbench.tasks.labels import SENTIMENTS

__all__ = ["HeadRecipe", "pool_texts", "read_lessons", "refit_checkpoint", "refit_sentiment"]

log = logging.getLogger(__name__)

_POLES = (SENTIMENTS.index("negative"), SENTIMENTS.index("positive"))


@dataclass(frozen=True)
class HeadRecipe:
    """Numbers of a refit: the share of the lessons in the loss, the ridge, the tokens of a batch."""

    lessons: float = 0.03
    ridge: float = 1e-3
    steps: int = 150
    token_budget: int = 4096
    longest: int = 512


def pool_texts(model: Encoder, arrays: Arrays, rows: NDArray[np.int64], recipe: HeadRecipe) -> Tensor:
    """What the sentiment head reads of ``rows``: [N, width], float32, in their order."""
    device = next(model.parameters()).device
    pooled = torch.zeros(len(rows), model.config.width)
    lengths = np.minimum(arrays.lengths[rows], recipe.longest)
    order = np.argsort(lengths, kind="stable")
    caught: list[Tensor] = []
    hook = model.sentiment.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            first = 0
            while first < len(order):
                last = first + 1
                while last < len(order) and lengths[order[last]] * (last + 1 - first) <= recipe.token_budget:
                    last += 1
                batch = collate(arrays, rows[order[first:last]], recipe.longest, device)
                model(batch.ids, batch.bias)
                pooled[torch.from_numpy(order[first:last])] = caught.pop().float().cpu()
                first = last
    finally:
        hook.remove()
        model.train(training)
    return pooled


def refit_sentiment(
    model: Encoder,
    *,
    lessons: tuple[Arrays, NDArray[np.int64]],
    anchors: tuple[Arrays, NDArray[np.int64]],
    recipe: HeadRecipe | None = None,
) -> float:
    """Teach ``model.sentiment`` the lessons in place; returns how far its weights went (Euclidean).

    Raises ParameterError when the lessons lack negative or positive texts, when there is no anchor, or when a text
    of a test part is among them.
    """
    recipe = recipe or HeadRecipe()
    for arrays, rows in (lessons, anchors):
        if (arrays.split[rows] == arrays.splits.index("test")).any():
            raise ParameterError(
                "a text of a test part is among those to learn from. Take arrays.where(split='train')."
            )
    labels = torch.from_numpy(lessons[0].sentiment[lessons[1]].astype(np.int64))
    poles = [labels == pole for pole in _POLES]
    if not all(pole.any() for pole in poles) or not len(anchors[1]):
        raise ParameterError("negative lessons, positive lessons or anchors are missing. Add texts of each.")
    taught, kept = (pool_texts(model, *chosen, recipe) for chosen in (lessons, anchors))
    source = torch.from_numpy(anchors[0].source[anchors[1]].astype(np.int64))
    counts = torch.bincount(source)
    share = 1 / (counts[source] * (counts > 0).sum())

    head = model.sentiment
    weight, bias = head.weight.detach().float().cpu(), head.bias.detach().float().cpu()
    old = functional.softmax(functional.linear(kept, weight, bias), dim=-1)
    step = [torch.zeros_like(weight, requires_grad=True), torch.zeros_like(bias, requires_grad=True)]
    optimizer = torch.optim.LBFGS(step, max_iter=recipe.steps, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        new = functional.log_softmax(functional.linear(kept, weight + step[0], bias + step[1]), dim=-1)
        polar = functional.linear(taught, weight + step[0], bias + step[1])[:, list(_POLES)]
        said = functional.log_softmax(polar, dim=-1)
        missed = -sum(said[pole, index].mean() for index, pole in enumerate(poles)) / len(poles)
        total = recipe.lessons * missed - (share * (old * new).sum(1)).sum()
        total = total + recipe.ridge * sum(part.square().sum() for part in step)
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        head.weight += step[0].detach().to(head.weight)
        head.bias += step[1].detach().to(head.bias)
    moved = float(torch.cat([part.detach().flatten() for part in step]).norm())
    log.info("sentiment head taught %d lessons beside %d anchors, moved %.3f", len(labels), len(source), moved)
    return moved


def read_lessons(path: Path, *, first: str = "", last: str = "") -> list[Example]:
    """The texts of a file of training texts (``calibration/training``), from the id ``first`` to ``last``, both in.

    Raises ModelError when a line is no labelled text.
    """
    lessons = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            if (first and row["id"] < first) or (last and row["id"] > last):
                continue
            source, label = f"written_{row['language']}", SENTIMENTS.index(row["sentiment"])
            lessons.append(Example(row["text"], source, "train", sentiment=label))
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path}, line {number} is no labelled text: {error!r}. "
                'Write lines such as {"id": "tr-en-0001", "text": "…", "language": "en", "sentiment": "negative"}.'
            ) from None
    return lessons


def refit_checkpoint(
    weights: Path,
    tokenizer: Path,
    out: Path,
    *,
    lessons: list[Example],
    arrays: Path,
    anchors: NDArray[np.int64] | None = None,
    recipe: HeadRecipe | None = None,
) -> float:
    """`refit_sentiment` from files; writes all weights to ``out``, each in its old type, and returns what it returns.

    ``anchors`` are rows of ``arrays``, by default those of all training parts. Raises ModelError when a file is not
    there or is not what it should be, ParameterError as `refit_sentiment`.
    """
    for path in (weights, tokenizer, arrays):
        if not path.is_file():
            raise ModelError(f"{path} is not there. Name the file that training wrote.")
    if not lessons:
        raise ParameterError("there are no lessons. Check the file and its first and last id.")
    model, known = load_checkpoint(weights), Arrays(arrays)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "lessons.npz"
        prepare(lessons, (), Tokenizer.from_file(str(tokenizer)), prepared)
        taught = Arrays(prepared)
    rows = known.where(split="train") if anchors is None else anchors
    if len(rows) and (rows.min() < 0 or rows.max() >= len(known.ends)):
        raise ParameterError(f"the anchors are not rows of {arrays}, which has {len(known.ends)}.")
    every = np.arange(len(lessons))
    moved = refit_sentiment(model, lessons=(taught, every), anchors=(known, rows), recipe=recipe)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    new = model.state_dict()
    for name in ("sentiment.weight", "sentiment.bias"):
        state[name] = new[name].to(state[name].dtype)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, out)
    return moved
