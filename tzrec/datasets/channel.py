"""`Channel`: a bounded queue between a producer and a consumer that either may end."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):  # noqa: N818 (no error: the other side ended)
    """The channel was closed by the consumer; the producer should end."""


class Channel(Generic[T]):
    """Hands items over in order, holding at most so many items and bytes.

    One item is always let in, however large.

    Args:
        max_items: items held at most.
        max_bytes: bytes held at most.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: T, size: int) -> None:
        """Adds an item of ``size`` bytes, waiting for room.

        Raises:
            Closed: the consumer wants no more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(size))
            if self._closed:
                raise Closed
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        if not self._items:
            return True
        return len(self._items) < self._max_items and self._bytes + size <= self._max_bytes

    def end(self, error: BaseException | None = None) -> None:
        """Says that no item follows; the consumer sees ``error`` after the items before it."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> T | None:
        """Returns the next item, waiting for it, or None at the end.

        Raises:
            BaseException: the producer's error.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._ended or self._closed)
            if self._items:
                item, size = self._items.popleft()
                self._bytes -= size
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def close(self) -> None:
        """Drops what is held and lets the producer end; called by the consumer."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()
