"""Texts in, answers out, in the same order: tokenize, batch, run, merge, decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ModelError
from workbench.runtime.batching import bucket_length, pad_batch, plan_batches
from workbench.runtime.session import Session
from workbench.tasks.decode import (
    Entity,
    choose_topics,
    find_entities,
    label_probabilities,
    pool_classes,
    pool_labels,
    sentiment_probabilities,
    topic_names,
    topic_probabilities,
)
from workbench.tasks.encode import EncodedText, reason_not_readable
from workbench.tasks.labels import SENTIMENTS, TASKS
from workbench.tasks.language import detect_language

__all__ = ["TOKEN_BUDGET", "Reading", "read_texts"]

TOKEN_BUDGET = 256
"""Tokens of one batch, padding included: what stays in a core's cache on its way through the layers. Measured on two
cores with the bundled model: 256 tokens 328 texts a second, 512 to 1024 tokens 280, 2048 tokens 265."""

_CHUNK_TEXTS = 4096
_CHUNK_CHARACTERS = 1_000_000


@dataclass
class Reading:
    """What was read, one entry for each text, in the order of the texts. Columns of tasks not asked for stay empty.

    ``p_sentiment`` float32 [N, 3] (negative, neutral, positive) and ``p_topics`` float32 [N, topics] hold NaN where
    nothing can be said; ``topic_names`` are the columns of the latter. ``reason`` says why a text has no answer.
    """

    tasks: tuple[str, ...]
    sentiment: list[str | None] = field(default_factory=list)
    p_sentiment: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, len(SENTIMENTS)), np.float32))
    topics: list[tuple[str, ...] | None] = field(default_factory=list)
    p_topics: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    topic_names: tuple[str, ...] = ()
    entities: list[list[Entity] | None] = field(default_factory=list)
    language: list[str | None] = field(default_factory=list)
    reason: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.reason)


@dataclass
class _Answer:
    """What one text gets."""

    sentiment: NDArray[np.float32] | None = None
    topics: NDArray[np.float32] | None = None
    entities: list[Entity] | None = None
    language: str | None = None
    reason: str | None = None


def read_texts(
    session: Session,
    texts: Sequence[str | None],
    tasks: Sequence[str] = TASKS,
    *,
    progress: bool = False,
    token_budget: int = TOKEN_BUDGET,
) -> Reading:
    """Read ``texts`` with ``session`` for ``tasks``.

    A text that nothing can be said about gets a row with a reason. The same text gives the same answer whatever
    stands beside it. Texts are read in chunks, so that memory grows with the answers only.
    Raises ModelError when the model does not give a task.
    """
    wanted = tuple(task for task in TASKS if task in tasks)
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise ModelError(f"No task is named {unknown[0]!r}. Tasks: {', '.join(TASKS)}")
    if missing := [task for task in wanted if task not in session.spec.outputs]:
        raise ModelError(
            f"The model {session.spec.title} gives {', '.join(session.spec.outputs)}, not {', '.join(missing)}. "
            "Name another model for it in workspace.toml, under [models]."
        )
    answers: list[_Answer] = []
    with ThreadPoolExecutor(session.slots) as pool, _bar(len(texts), progress) as advance:
        reader = _Reader(session, wanted, token_budget, pool)
        for start, end in _chunks(texts):
            answers += reader.read(texts[start:end], advance)
    return _reading(answers, wanted, session)


class _Reader:
    def __init__(self, session: Session, tasks: tuple[str, ...], token_budget: int, pool: ThreadPoolExecutor) -> None:
        self.session = session
        self.tasks = tasks
        self.token_budget = token_budget
        self.pool = pool
        self.encoder = session.encoder
        network = session.spec.card.get("network")
        self.batch_invariant = isinstance(network, Mapping) and network.get("batch_invariant") is True

    def read(self, texts: Sequence[str | None], advance: Callable[[int], None]) -> list[_Answer]:
        """The answers for one chunk."""
        # The same words are read once.
        places: dict[str | None, list[int]] = {}
        for index, text in enumerate(texts):
            places.setdefault(text, []).append(index)
        answers: dict[str | None, _Answer] = {text: _Answer(reason=reason_not_readable(text)) for text in places}
        for text, answer in answers.items():
            if answer.reason is not None and answer.reason != "only emoji":
                advance(len(places[text]))
        readable = [text for text, answer in answers.items() if text and answer.reason in (None, "only emoji")]
        encoded = self.encoder.encode(readable, offsets="entities" in self.tasks)
        known: list[tuple[str, EncodedText]] = []
        for text, item in zip(readable, encoded, strict=True):
            answer = answers[text]
            if self.encoder.knows(item):
                answer.language = detect_language(text)
                known.append((text, item))
            else:
                answer.reason = (
                    "emoji the model does not know" if answer.reason else "no words or characters the model knows"
                )
                advance(len(places[text]))
        self._answer(known, answers, lambda text: advance(len(places[text])))
        return [answers[text] for text in texts]

    def _answer(
        self,
        known: Sequence[tuple[str, EncodedText]],
        answers: dict[str | None, _Answer],
        done: Callable[[str], None],
    ) -> None:
        windows = [(index, window) for index, (_, item) in enumerate(known) for window in item.windows]
        marks = len(self.encoder.prefix) + len(self.encoder.suffix)
        lengths = [end - start + marks for _, (start, end) in windows]
        left = [len(item.windows) for _, item in known]
        logits: list[dict[str, NDArray[np.float32]]] = [{} for _ in windows]
        by_text: list[list[int]] = [[] for _ in known]
        for place, (index, _) in enumerate(windows):
            by_text[index].append(place)
        spec = self.session.spec

        def run(batch: NDArray[np.intp]) -> dict[str, NDArray[np.float32]]:
            rows = [self._row(known[windows[place][0]][1], windows[place][1]) for place in batch]
            length = bucket_length(lengths[batch[0]], spec.max_tokens)
            if len(rows) == 1 and 2 * length <= self.token_budget and not self.batch_invariant:
                # In most networks one row alone goes through other arithmetic than rows side by side, and its last
                # bit may differ: a text that stands alone by chance is run twice, so that it gets the very numbers it
                # always gets.
                rows *= 2
            return self.session.run(*pad_batch(rows, length, pad_id=spec.pad_id), self.tasks)

        batches = plan_batches(lengths, max_tokens=spec.max_tokens, token_budget=self.token_budget)
        for batch, values in zip(batches, self.pool.map(run, batches), strict=True):
            for row, place in enumerate(batch):
                logits[place] = {task: self._own(task, values[task][row], lengths[place]) for task in self.tasks}
                index = windows[place][0]
                left[index] -= 1
                if not left[index]:
                    text, item = known[index]
                    self._decode(text, item, [logits[at] for at in by_text[index]], answers[text])
                    for at in by_text[index]:
                        logits[at] = {}
                    done(text)

    def _row(self, item: EncodedText, window: tuple[int, int]) -> NDArray[np.int32]:
        prefix, suffix = self.encoder.prefix, self.encoder.suffix
        return np.concatenate([prefix, item.ids[slice(*window)], suffix]).astype(np.int32)

    def _own(self, task: str, value: NDArray[np.float32], length: int) -> NDArray[np.float32]:
        """The logits of one window; of tags, those of the text's own tokens. A copy, so that the batch can go."""
        if task == "entities":
            return value[len(self.encoder.prefix) : length - len(self.encoder.suffix)].copy()
        return value.copy()

    def _decode(
        self, text: str, item: EncodedText, logits: Sequence[dict[str, NDArray[np.float32]]], answer: _Answer
    ) -> None:
        outputs = self.session.spec.outputs
        sizes = [end - start for start, end in item.windows]
        languages = [answer.language] * len(logits)
        only_emoji = answer.reason is not None
        for task in self.tasks:
            values = np.stack([window[task] for window in logits]) if task != "entities" else None
            if task == "sentiment" and values is not None:
                shares = sentiment_probabilities(values, outputs[task], languages)
                answer.sentiment = pool_classes(shares, sizes)
            elif task == "topics" and values is not None and not only_emoji:
                shares = label_probabilities(values, outputs[task], languages)
                pool = pool_classes if outputs[task].kind == "classes" else pool_labels
                answer.topics = pool(shares, sizes)
            elif task == "entities" and not only_emoji and item.offsets is not None:
                tags = _join_windows([window[task] for window in logits], item.windows)
                answer.entities = find_entities(text, tags, outputs[task], offsets=item.offsets)
        if only_emoji and self.tasks == ("sentiment",):
            answer.reason = None
        elif only_emoji:
            answer.reason = "only emoji: a sentiment, but no topic and no entity"


def _join_windows(parts: Sequence[NDArray[np.float32]], windows: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Tag logits [n, K] of a whole text: each token from the window that it stands deepest in.

    Neighbours share tokens; each gives one half of them, so that no entity is found twice and one that crosses the
    cut is found whole.
    """
    cuts = [
        0,
        *((left[1] + right[0]) // 2 for left, right in pairwise(windows)),
        windows[-1][1],
    ]
    return np.concatenate(
        [
            part[cut - start : next_cut - start]
            for part, (start, _), cut, next_cut in zip(parts, windows, cuts[:-1], cuts[1:], strict=True)
        ]
    )


def _reading(answers: Sequence[_Answer], tasks: tuple[str, ...], session: Session) -> Reading:
    reading = Reading(tasks, language=[a.language for a in answers], reason=[a.reason for a in answers])
    outputs = session.spec.outputs
    if "sentiment" in tasks:
        reading.p_sentiment = _rows([a.sentiment for a in answers], len(SENTIMENTS))
        reading.sentiment = [None if a.sentiment is None else SENTIMENTS[int(a.sentiment.argmax())] for a in answers]
    if "topics" in tasks:
        spec = outputs["topics"]
        reading.topics = [None if a.topics is None else choose_topics(a.topics, spec) for a in answers]
        reading.p_topics = topic_probabilities(_rows([a.topics for a in answers], len(spec.labels)), spec)
        reading.topic_names = topic_names(spec)
    if "entities" in tasks:
        reading.entities = [a.entities for a in answers]
    return reading


def _rows(values: Sequence[NDArray[np.float32] | None], width: int) -> NDArray[np.float32]:
    result = np.full((len(values), width), np.nan, np.float32)
    for index, value in enumerate(values):
        if value is not None:
            result[index] = value
    return result


def _chunks(texts: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Ranges of texts that are tokenized together: bounded in number and in characters."""
    start = characters = 0
    for index, text in enumerate(texts):
        size = len(text) if text else 0
        if index > start and (index - start >= _CHUNK_TEXTS or characters + size > _CHUNK_CHARACTERS):
            yield start, index
            start, characters = index, 0
        characters += size
    if start < len(texts):
        yield start, len(texts)


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of texts done."""
    if not progress:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="text", desc="Reading") as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance
