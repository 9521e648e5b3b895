"""A bounded queue between two threads that can drop its oldest instead of holding up who fills it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Closed(Exception):  # noqa: N818 - not an error: there is nothing more to do
    """The queue was closed: nothing more goes in, and on the reading side nothing is left."""


class BoundedQueue[T]:
    """First in, first out.

    Args:
        size: entries it holds.
        spill: called, in the thread that puts, with the entry that has to go when the queue is full; None: `put` waits.
        beside: tells entries that are counted apart, and of which it holds `size_beside`.
        size_beside: of those.
    """

    def __init__(
        self,
        size: int,
        spill: Callable[[T], None] | None = None,
        beside: Callable[[T], bool] = lambda entry: False,
        size_beside: int = 0,
    ) -> None:
        self._size, self._spill, self._beside, self._size_beside = size, spill, beside, size_beside
        self._entries: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: T) -> None:
        """Add an entry. Raises Closed."""
        spilled: list[T] = []
        with self._changed:
            beside = self._beside(entry)
            size = self._size_beside if beside else self._size
            while not self._closed:
                alike = [at for at, other in enumerate(self._entries) if self._beside(other) == beside]
                if len(alike) < size:
                    break
                if self._spill is not None:
                    spilled.append(self._entries[alike[0]])
                    del self._entries[alike[0]]
                else:
                    self._changed.wait()
            if self._closed:
                raise Closed
            self._entries.append(entry)
            self._changed.notify_all()
        for old in spilled:
            assert self._spill is not None
            self._spill(old)

    def get(self, timeout: float | None = None) -> T | None:
        """The oldest entry, None if none came in time. Raises Closed when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._closed, timeout)
            if self._entries:
                entry = self._entries.popleft()
                self._changed.notify_all()
                return entry
            if self._closed:
                raise Closed
            return None

    def close(self) -> None:
        """Nothing more is coming; what is inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[T]:
        """Close, and take what is left."""
        with self._changed:
            self._closed = True
            left = list(self._entries)
            self._entries.clear()
            self._changed.notify_all()
        return left
