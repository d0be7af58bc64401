"""Runs a function over a stream on several threads and keeps the order."""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from tzrec.errors import ServingError

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_SECONDS = 0.1
_JOIN_SECONDS = 5.0
_FRAMES = 8  # of each thread in the message about a stall


class OrderedMap(Generic[Item, Result]):
    """Iterates over ``function(item)`` for every item, in order, computed by threads.

    At most ``2 * threads`` items wait or are being computed: a slow consumer slows the source.
    One more thread reads the items. Use as a context manager: leaving it stops the threads,
    also after an error, which is raised to the consumer where its item would have come.

    Args:
        function: called by several threads at once.
        items: read by one thread.
        threads: how many call ``function``.
        timeout: seconds that the consumer waits for one result.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        threads: int = 1,
        timeout: float = 600.0,
    ) -> None:
        self._function = function
        self._items = items
        self._timeout = timeout
        self._stop = threading.Event()
        # Futures in the order of the items; its size bounds what is in flight.
        self._ordered: queue.Queue[Any] = queue.Queue(2 * threads)
        self._work: queue.Queue[Any] = queue.Queue(2 * threads)
        # Daemons, so that one that hangs cannot keep the process alive.
        targets = {"reader": self._read} | {f"forward {i}": self._compute for i in range(threads)}
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in targets.items()
        ]

    def __enter__(self) -> OrderedMap[Item, Result]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __iter__(self) -> Iterator[Result]:
        while True:
            try:
                future = self._ordered.get(timeout=self._timeout)
            except queue.Empty:
                raise self._stuck("the reader delivered no batch") from None
            if future is None:
                return
            try:
                result = future.result(timeout=self._timeout)
            except concurrent.futures.TimeoutError:
                if future.done():  # the function's own TimeoutError
                    raise
                raise self._stuck("the model did not score a batch") from None
            yield result

    def _stuck(self, what: str) -> ServingError:
        return ServingError(
            f"{what} within {self._timeout:g} seconds\n{self._where()}",
            hint="the environment variable PREDICT_QUEUE_TIMEOUT sets the seconds to wait",
        )

    def _where(self) -> str:
        """Returns what each thread does now."""
        frames = sys._current_frames()
        lines = []
        for thread in self._threads:
            frame = frames.get(thread.ident or 0)
            if frame is None:
                lines.append(f"thread {thread.name}: has ended")
                continue
            stack = "".join(traceback.format_stack(frame)[-_FRAMES:])
            lines.append(f"thread {thread.name}:\n{stack.rstrip()}")
        return "\n".join(lines)

    def _read(self) -> None:
        try:
            for item in self._items:
                future: concurrent.futures.Future[Result] = concurrent.futures.Future()
                if not (self._put(self._ordered, future) and self._put(self._work, (future, item))):
                    return
        except BaseException as error:  # handed to the consumer, whatever it is
            failed: concurrent.futures.Future[Result] = concurrent.futures.Future()
            failed.set_exception(error)
            self._put(self._ordered, failed)
        finally:
            self._put(self._ordered, None)

    def _put(self, target: queue.Queue[Any], value: Any) -> bool:
        """Waits for room; False when the consumer has left."""
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                target.put(value, timeout=_POLL_SECONDS)
                return True
        return False

    def _compute(self) -> None:
        while not self._stop.is_set():
            try:
                future, item = self._work.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            try:
                future.set_result(self._function(item))
            except BaseException as error:  # handed to the consumer, whatever it is
                future.set_exception(error)
            # Else the last batch stays alive until the next one comes.
            del future, item
