"""Who has which slot: things that are handed out one by one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from workbench.errors import ModelError

__all__ = ["SlotPool"]

Item = TypeVar("Item")


@dataclass
class _Waiter:
    owner: object
    ready: threading.Event = field(default_factory=threading.Event)
    item: Any = None


class SlotPool(Generic[Item]):
    """Things that are handed out one by one, first come, first served. Safe in threads.

    Whoever takes one is its owner until it is given back; ``held`` tells what an owner has, so that an interrupt at
    any moment loses none. ``closed``: what the ModelError says once the pool is closed.
    """

    def __init__(self, items: Sequence[Item], *, closed: str) -> None:
        self._items = list(items)
        self._owners: list[object | None] = [None] * len(self._items)
        self._waiting: deque[_Waiter] = deque()
        self._changed = threading.Condition()
        self._message = closed
        self._is_closed = False

    def take(self, owner: object, *, wait: bool = True) -> Item | None:
        """The next free thing, now ``owner``'s; without ``wait`` None where none is free or others are waiting.

        Raises ModelError when the pool is closed.
        """
        with self._changed:
            self._check()
            if not self._waiting:
                for index, own in enumerate(self._owners):
                    if own is None:
                        self._owners[index] = owner
                        return self._items[index]
            if not wait:
                return None
            waiter = _Waiter(owner)
            self._waiting.append(waiter)
        try:
            waiter.ready.wait()
        finally:
            with self._changed:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
        if waiter.item is None:
            raise ModelError(self._message)
        item: Item = waiter.item
        return item

    def give(self, item: Item) -> None:
        """Give it back: to whoever has waited longest."""
        with self._changed:
            index = next(place for place, own in enumerate(self._items) if own is item)
            if self._waiting:
                waiter = self._waiting.popleft()
                self._owners[index] = waiter.owner
                waiter.item = item
                waiter.ready.set()
            else:
                self._owners[index] = None
                self._changed.notify_all()

    def held(self, owner: object) -> list[Item]:
        """What ``owner`` has now."""
        with self._changed:
            return [item for item, own in zip(self._items, self._owners, strict=True) if own is owner]

    def close(self, *, timeout: float) -> bool:
        """Hand out nothing more, and wait until all is back; False when that took longer than ``timeout`` seconds."""
        with self._changed:
            self._is_closed = True
            while self._waiting:
                self._waiting.popleft().ready.set()
            return self._changed.wait_for(lambda: all(own is None for own in self._owners), timeout)

    def _check(self) -> None:
        if self._is_closed:
            raise ModelError(self._message)
