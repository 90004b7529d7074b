"""Single requests and their answers, as workbench.runtime.micro handles them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from workbench.errors import DeadlineError
from workbench.runtime.read import Reading
from workbench.tasks.decode import Entity
from workbench.tasks.labels import SENTIMENTS

__all__ = ["Answer", "Reply", "Request", "answers_of", "fail", "is_late"]


@dataclass(frozen=True)
class Answer:
    """What one text got: a row of workbench.runtime.read.Reading. None stands for a task that was not asked for, and
    for one that nothing can be said about; ``reason`` then says why.

    ``p_sentiment`` and ``p_topics``: probabilities by name.
    """

    sentiment: str | None = None
    p_sentiment: Mapping[str, float] | None = None
    topics: tuple[str, ...] | None = None
    p_topics: Mapping[str, float] | None = None
    entities: tuple[Entity, ...] | None = None
    language: str | None = None
    reason: str | None = None


class Reply:
    """What one thread waits for, which it made: the part of a Future that this takes, at a third of the time."""

    __slots__ = ("_answer", "_cancelled", "_error", "_is_there", "_runs", "_waits")

    def __init__(self) -> None:
        self._waits = threading.Lock()
        self._waits.acquire()
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self._is_there = self._runs = self._cancelled = False

    def result(self, timeout: float | None = None) -> Answer:
        """The answer; raises TimeoutError of concurrent.futures, or what ``set_exception`` was given."""
        if not self._is_there and not self._waits.acquire(timeout=-1 if timeout is None else timeout):
            raise FutureTimeoutError
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise RuntimeError("there is neither an answer nor an error")
        return self._answer

    def set_running_or_notify_cancel(self) -> bool:
        """Whether it is still wanted."""
        self._runs = not self._cancelled
        return self._runs

    def set_result(self, answer: Answer) -> None:
        """Let the thread go on, with the answer."""
        self._answer = answer
        self._let_go()

    def set_exception(self, error: BaseException) -> None:
        """Let the thread go on, with an error."""
        self._error = error
        self._let_go()

    def cancel(self) -> bool:
        """It is not wanted any more; False where it is being read already."""
        self._cancelled = not self._runs
        return self._cancelled

    def running(self) -> bool:
        """Whether it is being read."""
        return self._runs and not self._is_there

    def done(self) -> bool:
        """Whether there is an answer, an error or nobody who waits."""
        return self._is_there or self._cancelled

    def _let_go(self) -> None:
        if not self._is_there:
            self._is_there = True
            self._waits.release()


@dataclass(eq=False)
class Request:
    """A text that waits. Times are of time.monotonic(): when it came, until when its caller waits (None: for ever),
    and when it should be started. ``given_up``: its caller went away, and it was counted."""

    text: str | None
    tasks: tuple[str, ...]
    arrived: float
    deadline: float | None
    start_by: float
    future: Future[Answer] | Reply
    given_up: bool = False


def is_late(request: Request, why: str = "it was not read in time") -> DeadlineError:
    """What its caller is told."""
    allowed = 0.0 if request.deadline is None else (request.deadline - request.arrived) * 1000
    return DeadlineError(
        f"The deadline of {allowed:g} ms passed: {why}. Give it more time, or send fewer requests at once."
    )


def fail(requests: Sequence[Request], error: BaseException) -> None:
    """Tell all that wait."""
    for request in requests:
        if not request.future.done() and (request.future.running() or request.future.set_running_or_notify_cancel()):
            request.future.set_exception(error)


def answers_of(reading: Reading) -> list[Answer]:
    """The rows of a reading, as plain values."""
    count = len(reading)
    nothing: list[None] = [None] * count
    sentiments, topics, entities = (
        reading.sentiment or nothing,
        reading.topics or nothing,
        reading.entities or nothing,
    )
    p_sentiment = reading.p_sentiment.tolist() if reading.sentiment else nothing
    p_topics = reading.p_topics.tolist() if reading.topics else nothing
    names = reading.topic_names
    answers = []
    for sentiment, shares, chosen, likely, found, language, reason in zip(
        sentiments, p_sentiment, topics, p_topics, entities, reading.language, reading.reason, strict=True
    ):
        # A frozen class sets its fields one by one through object.__setattr__: that took more than twice as long.
        answer = object.__new__(Answer)
        answer.__dict__.update(
            sentiment=sentiment,
            p_sentiment=None if sentiment is None else dict(zip(SENTIMENTS, shares, strict=True)),
            topics=chosen,
            p_topics=None if chosen is None else dict(zip(names, likely, strict=True)),
            entities=None if found is None else tuple(found),
            language=language,
            reason=reason,
        )
        answers.append(answer)
    return answers
