"""Lets workers that listen at one socket share its connections evenly.

The kernel wakes all of them for a connection, and the one that is awake already takes the next
ones too: clients that keep their connections would then keep one worker busy and the others idle.
So a worker that has more connections than another one lets that one go first, for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import socket
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("tzrec")

_FILE = "connections"
_CLOSED = -1
# A worker that is ahead looks again after the pause; when nobody came for so long, it accepts,
# for a while without waiting: the others seem to hang.
_PAUSE_SECONDS = 0.002
_PATIENCE_SECONDS = 0.1
_FREE_SECONDS = 0.5
# After so long without a look it is another wait, for another connection.
_STALE_SECONDS = 0.05
_WITHOUT_FILES_SECONDS = 1.0


class Shares:
    """How many connections each worker has, in memory that all of them see.

    Args:
        directory: that the workers share.
        num_workers: how many there are.
    """

    def __init__(self, directory: str, num_workers: int) -> None:
        path = os.path.join(directory, _FILE)
        size = 8 * num_workers
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < size:
                os.write(descriptor, _CLOSED.to_bytes(8, "little", signed=True) * num_workers)
            self._counts = memoryview(mmap.mmap(descriptor, size)).cast("q")
        finally:
            os.close(descriptor)

    def set(self, worker: int, count: int) -> None:
        """Says how many connections a worker has."""
        self._counts[worker] = count

    def close(self, worker: int) -> None:
        """Says that a worker takes no connections."""
        self._counts[worker] = _CLOSED

    def is_ahead(self, worker: int) -> bool:
        """Returns whether another worker that takes connections has fewer."""
        return any(_CLOSED < count < self._counts[worker] for count in self._counts)


class Acceptor:
    """Takes connections of a socket, one at a time.

    Args:
        sock: listens; does not block.
        protocol: makes the protocol of a connection.
        shares: of all workers.
        worker: number of this one.
    """

    def __init__(
        self, sock: socket.socket, protocol: Callable[[], Any], shares: Shares, worker: int
    ) -> None:
        self._socket = sock
        self._protocol = protocol
        self._shares = shares
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waits_since = self._looked_at = self._free_until = 0.0

    def start(self) -> None:
        """Begins; for the event loop."""
        self._shares.set(self._worker, 0)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Takes no more connections."""
        self._shares.close(self._worker)
        self._loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()

    def _accept(self) -> None:
        if self._lets_others_go_first():
            self._pause(_PAUSE_SECONDS)
            return
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client has gone
        except OSError as error:
            logger.error("cannot accept a connection: %s", error)
            self._pause(_WITHOUT_FILES_SECONDS)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            await self._loop.connect_accepted_socket(self._protocol, connection)

    def _lets_others_go_first(self) -> bool:
        now = time.monotonic()
        if not self._shares.is_ahead(self._worker) or now < self._free_until:
            return False
        if now - self._looked_at > _STALE_SECONDS:
            self._waits_since = now
        self._looked_at = now
        if now - self._waits_since < _PATIENCE_SECONDS:
            return True
        self._free_until = now + _FREE_SECONDS
        return False

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket)
        self._timer = self._loop.call_later(
            seconds, self._loop.add_reader, self._socket, self._accept
        )
