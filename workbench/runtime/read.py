"""Texts in, answers out, in the same order: tokenize, run, merge, decode.

``read_texts`` reads a list; ``read_chunks`` reads lists as they come and gives their answers as columns. While the
session runs one list, the next ones are tokenized and the last ones are decoded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ModelError
from workbench.runtime.batching import PackedTexts
from workbench.runtime.onnx import TOKEN_BUDGET, usable_cores
from workbench.runtime.session import Session
from workbench.runtime.workers import Encoders
from workbench.tasks.decode import (
    Entity,
    Spans,
    choose_all_topics,
    find_spans,
    label_probabilities,
    pool_classes,
    pool_labels,
    sentiment_probabilities,
    topic_names,
    topic_probabilities,
)
from workbench.tasks.encode import REASONS, EncodedTexts
from workbench.tasks.labels import SENTIMENTS, TASKS
from workbench.tasks.language import LANGUAGES
from workbench.tasks.spec import OutputSpec

__all__ = [
    "TOKEN_BUDGET",
    "Answers",
    "Reading",
    "check_tasks",
    "make_encoders",
    "read_chunks",
    "read_texts",
    "reading_bar",
    "share_texts",
    "split_texts",
]

_CHUNK_TEXTS = 4096
_CHUNK_CHARACTERS = 1_000_000
_LEAST_TEXTS = 640  # reviews that fill a batch; what shares the work does not cut below that
_RUNS: Final = 2
"""Lists that are with the session at once: one is on the device while the other is sent there or decoded."""
_MOST_ENCODERS: Final = 16  # processes that tokenize: so many feed the fastest GPU, and each takes memory
_TICK_S: Final = 0.1
_ONLY_EMOJI: Final = len(REASONS) - 1
# By code; -1, none, is the last one.
_SENTIMENT_OF: Final = (*SENTIMENTS, None)
_LANGUAGE_OF: Final = (*LANGUAGES, None)
_REASON_OF: Final = (*REASONS, None)


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


@dataclass(frozen=True)
class Answers:
    """What was read of N texts, as columns of numbers; those of tasks not asked for are empty.

    ``sentiments`` int8 [N], ``languages`` int8 [N] and ``reasons`` int8 [N] are places in SENTIMENTS, LANGUAGES and
    REASONS, -1 for none. ``p_sentiment`` float32 [N, 3] and ``p_topics`` float32 [N, topics] hold NaN where nothing
    can be said. ``topics`` int32 [n]: places in ``topic_names``, text by text and the likeliest first; each text has
    ``topic_counts`` int32 [N] of them. ``spans``: the entities, None where they were not asked for.
    """

    tasks: tuple[str, ...]
    languages: NDArray[np.int8]
    reasons: NDArray[np.int8]
    sentiments: NDArray[np.int8]
    p_sentiment: NDArray[np.float32]
    topic_names: tuple[str, ...]
    topics: NDArray[np.int32]
    topic_counts: NDArray[np.int32]
    p_topics: NDArray[np.float32]
    spans: Spans | None

    @property
    def entities(self) -> list[list[Entity] | None]:
        """The entities of each text as objects, made anew each time; None where nothing can be said."""
        return [] if self.spans is None else self.spans.objects()

    def __len__(self) -> int:
        return len(self.reasons)


def read_texts(
    session: Session, texts: Sequence[str | None], tasks: Sequence[str] = TASKS, *, progress: bool = False
) -> Reading:
    """Read ``texts`` with ``session`` for ``tasks``.

    A text that nothing can be said about gets a row with a reason. The same text gives the same answer whatever
    stands beside it. Texts are read in chunks, so that memory grows with the answers only.
    Raises ModelError when the model does not give a task.
    """
    wanted = check_tasks(session, tasks)
    chunks = [texts[start:end] for start, end in split_texts(texts)]
    if len(chunks) < 2 and not progress:  # nothing to overlap and nothing to show: a few requests, perhaps
        return _reading([_read_here(session, chunk, wanted) for chunk in chunks], wanted, session)
    with make_encoders(session) as encoders, reading_bar(len(texts), progress) as advance:
        encoders.expect(len(texts))
        shares = share_texts(texts, encoders)
        parts = list(read_chunks(session, shares, wanted, encoders=encoders, advance=advance))
    return _reading(parts, wanted, session)


def read_chunks(
    session: Session,
    chunks: Iterable[Sequence[str | None]],
    tasks: Sequence[str] = TASKS,
    *,
    encoders: Encoders,
    advance: Callable[[int], None] | None = None,
) -> Generator[Answers, None, None]:
    """The answers for each of ``chunks``, in order; see ``read_texts``. A few chunks are under way at a time.

    ``encoders`` are those of the session (``make_encoders``), and the caller's to close. ``advance`` is called, in
    this thread, with the number of texts finished since its last call.
    """
    wanted = check_tasks(session, tasks)
    source = iter(chunks)
    ahead = list(islice(source, 2))
    if len(ahead) < 2 and advance is None:  # nothing to overlap and nothing to show
        for chunk in ahead:
            yield _read_here(session, chunk, wanted)
        return
    reader, count = _Reader(session, wanted), _Count(advance)
    waiting: deque[tuple[Future[EncodedTexts], Future[Answers]]] = deque()
    runs = ThreadPoolExecutor(_RUNS, thread_name_prefix="read")
    try:
        for chunk in chain(ahead, source):
            encoded_later = encoders.submit(chunk, offsets=reader.offsets)
            waiting.append((encoded_later, runs.submit(reader.read_later, chunk, encoded_later, count)))
            if len(waiting) >= encoders.ahead:
                yield _wait(waiting.popleft()[1], count)
        while waiting:
            yield _wait(waiting.popleft()[1], count)
    finally:
        # After Ctrl-C or an error: what is with the session ends at its next sign of life.
        count.stopped = True
        for encoded_later, answers_later in waiting:
            answers_later.cancel()
            encoded_later.cancel()
        runs.shutdown(wait=True, cancel_futures=True)


def _read_here(session: Session, texts: Sequence[str | None], tasks: tuple[str, ...]) -> Answers:
    """Everything in the caller's thread."""
    reader = _Reader(session, tasks)
    return reader.read(texts, session.encoder.encode_columns(texts, offsets=reader.offsets), _Count(None))


def make_encoders(session: Session) -> Encoders:
    """What tokenizes for ``session``: this process, and for a GPU as many others as there are cores to spare."""
    cores = usable_cores()
    # A CPU that runs the network has no core to spare and no need: its network takes fifty times as long.
    spare = min(cores - 2, _MOST_ENCODERS) if session.backend != "onnxruntime" and cores >= 4 else 0
    return Encoders(session.encoder, workers=spare)


def check_tasks(session: Session, tasks: Sequence[str]) -> tuple[str, ...]:
    """``tasks`` in their usual order. Raises ModelError for one that is none, or that the model does not give."""
    wanted = tuple(task for task in TASKS if task in tasks)
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise ModelError(f"No task is named {unknown[0]!r}. Tasks: {', '.join(TASKS)}")
    if missing := [task for task in wanted if task not in session.spec.outputs]:
        raise ModelError(
            f"The model {session.spec.title} gives {', '.join(session.spec.outputs)}, not {', '.join(missing)}. "
            "Name another model for it in workspace.toml, under [models]."
        )
    return wanted


def share_texts(texts: Sequence[str | None], encoders: Encoders) -> Iterator[Sequence[str | None]]:
    """``texts`` in chunks of which ``encoders`` have enough for all their processes; see ``split_texts``."""
    for start, end in split_texts(texts, parts=encoders.workers):
        yield texts[start:end]


def split_texts(texts: Sequence[str | None], *, parts: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges of texts that are tokenized together, in order: at most 4096 texts and a million characters each.

    ``parts``: how many ranges can be worked on at once. From 2 on, the texts are cut into twice as many ranges of
    like size, so that none works long while the others have nothing left, but not below 640 texts a range.
    """
    sizes = np.fromiter((len(text) if text else 0 for text in texts), np.int64, len(texts))
    ends = np.cumsum(sizes)
    most_texts = _CHUNK_TEXTS
    if parts > 1:
        ranges = max(1, -(-len(texts) // _CHUNK_TEXTS), min(2 * parts, len(texts) // _LEAST_TEXTS))
        most_texts = -(-len(texts) // ranges)
    start = 0
    while start < len(texts):
        most = _CHUNK_CHARACTERS + (ends[start - 1] if start else 0)
        end = max(start + 1, int(np.searchsorted(ends, most, side="right")))
        end = min(end, start + most_texts, len(texts))
        yield start, end
        start = end


class _StoppedError(Exception):
    """Raised into a run that nobody waits for any more."""


class _Count:
    """Texts finished, counted in any thread and shown in the caller's own."""

    def __init__(self, advance: Callable[[int], None] | None) -> None:
        self.stopped = False
        self._advance = advance
        self._lock = threading.Lock()
        self._new = 0

    def add(self, texts: int) -> None:
        if self.stopped:
            raise _StoppedError
        with self._lock:
            self._new += texts

    def show(self) -> None:
        with self._lock:
            new, self._new = self._new, 0
        if new and self._advance is not None:
            self._advance(new)

    def of_windows(self, windows: int, texts: int) -> Callable[[int], None]:
        """What a session tells how many of ``windows`` it has finished, for a chunk of so many ``texts``."""
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            before = texts * done // windows
            done += more
            self.add(texts * done // windows - before)

        return tell


def _wait(answers: Future[Answers], count: _Count) -> Answers:
    while not wait([answers], timeout=_TICK_S).done:
        count.show()
    count.show()
    return answers.result()


class _Reader:
    def __init__(self, session: Session, tasks: tuple[str, ...]) -> None:
        self.session = session
        self.tasks = tasks
        self.offsets = "entities" in tasks
        self.specs = {task: session.spec.outputs[task] for task in tasks}

    def read_later(self, texts: Sequence[str | None], encoded: Future[EncodedTexts], count: _Count) -> Answers:
        try:
            found = encoded.result()
        except CancelledError:
            raise _StoppedError from None
        return self.read(texts, found, count)

    def read(self, texts: Sequence[str | None], encoded: EncodedTexts, count: _Count) -> Answers:
        """Run what goes to the model and decode it."""
        packed = PackedTexts(encoded.input_ids, encoded.cu_seqlens)
        unread = int(np.count_nonzero(encoded.rows < 0))
        count.add(unread)
        logits: dict[str, NDArray[np.float32]] = {}
        if len(packed):
            tell = count.of_windows(len(packed), len(texts) - unread)
            logits = self.session.run_packed(packed, self.tasks, done=tell)
        else:
            for task, spec in self.specs.items():
                logits[task] = np.empty((0, len(spec.labels)), np.float32)
        return self._decode(texts, encoded, logits)

    def _decode(
        self, texts: Sequence[str | None], encoded: EncodedTexts, logits: dict[str, NDArray[np.float32]]
    ) -> Answers:
        rows, reasons = encoded.rows, encoded.reasons
        read = rows >= 0
        # A text of emoji has a sentiment, but no topic and no entity.
        plain = read & (reasons < 0)
        count = len(rows)
        windows = np.diff(encoded.first_window)
        languages = np.repeat(encoded.languages[encoded.first], windows)
        sentiments, p_sentiment = np.full(0, -1, np.int8), np.empty((0, len(SENTIMENTS)), np.float32)
        names: tuple[str, ...] = ()
        topics, topic_counts = np.empty(0, np.int32), np.zeros(0, np.int32)
        p_topics = np.empty((0, 0), np.float32)
        spans: Spans | None = None
        for task, spec in self.specs.items():
            if task == "sentiment":
                shares = self._pool(sentiment_probabilities(logits[task], spec, languages), encoded, spec)
                sentiments = np.full(count, -1, np.int8)
                sentiments[read] = shares.argmax(axis=1)[rows[read]]
                p_sentiment = _spread(shares, rows, read)
            elif task == "topics":
                shares = self._pool(label_probabilities(logits[task], spec, languages), encoded, spec)
                names, own = topic_names(spec), shares[rows[plain]]
                by_name = topic_probabilities(own, spec)
                topic_counts = np.zeros(count, np.int32)
                topics, topic_counts[plain] = choose_all_topics(own, by_name, spec)
                p_topics = np.full((count, len(names)), np.nan, np.float32)
                p_topics[plain] = by_name
            elif encoded.tokens is not None:
                tokens = encoded.tokens
                spans = find_spans(
                    texts,
                    logits[task],
                    spec,
                    places=tokens.places,
                    offsets=tokens.offsets,
                    starts=tokens.starts,
                    words=tokens.words,
                    first=encoded.first,
                ).take(rows, plain)
        if self.tasks == ("sentiment",):
            reasons = np.where(reasons == _ONLY_EMOJI, np.int8(-1), reasons)
        return Answers(
            self.tasks,
            encoded.languages,
            reasons,
            sentiments,
            p_sentiment,
            names,
            topics,
            topic_counts,
            p_topics,
            spans,
        )

    def _pool(self, shares: NDArray[np.float32], encoded: EncodedTexts, spec: OutputSpec) -> NDArray[np.float32]:
        """Probabilities of texts [U, K] from those of their windows [W, K]."""
        starts = encoded.first_window
        if len(shares) == len(starts) - 1:
            return shares
        pooled = shares[starts[:-1]]
        marks = len(self.session.encoder.prefix) + len(self.session.encoder.suffix)
        sizes = np.diff(encoded.cu_seqlens) - marks
        pool = pool_labels if spec.kind == "labels" else pool_classes
        for text in np.flatnonzero(np.diff(starts) > 1).tolist():
            own = slice(starts[text], starts[text + 1])
            pooled[text] = pool(shares[own], sizes[own].tolist())
        return pooled


def _spread(values: NDArray[np.float32], rows: NDArray[np.int32], read: NDArray[np.bool_]) -> NDArray[np.float32]:
    result = np.full((len(rows), values.shape[1]), np.nan, np.float32)
    result[read] = values[rows[read]]
    return result


def _reading(parts: Sequence[Answers], tasks: tuple[str, ...], session: Session) -> Reading:
    reading = Reading(tasks)
    outputs = session.spec.outputs
    if "sentiment" in tasks:
        reading.p_sentiment = _stacked([part.p_sentiment for part in parts], len(SENTIMENTS))
        reading.sentiment = [_SENTIMENT_OF[code] for part in parts for code in part.sentiments.tolist()]
    if "topics" in tasks:
        names = reading.topic_names = topic_names(outputs["topics"])
        reading.p_topics = _stacked([part.p_topics for part in parts], len(names))
        for part in parts:
            chosen, start = [names[place] for place in part.topics.tolist()], 0
            for count in part.topic_counts.tolist():
                reading.topics.append(tuple(chosen[start : start + count]) or None)
                start += count
    if "entities" in tasks:
        reading.entities = [found for part in parts for found in part.entities]
    reading.language = [_LANGUAGE_OF[code] for part in parts for code in part.languages.tolist()]
    reading.reason = [_REASON_OF[code] for part in parts for code in part.reasons.tolist()]
    return reading


def _stacked(parts: Sequence[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.empty((0, width), np.float32)


@contextmanager
def reading_bar(total: int, progress: bool) -> Iterator[Callable[[int], None] | None]:
    """A function to call with the number of texts done."""
    if not progress:
        yield None
        return
    from workbench.progress import tqdm

    with tqdm(total=total, unit="text", desc="Reading") as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance
