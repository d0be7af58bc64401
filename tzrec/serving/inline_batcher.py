"""`InlineBatcher`: the model runs in the event loop itself, between requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from tzrec.serving.batcher import Batcher, Job, resolve

logger = logging.getLogger("tzrec")


class InlineBatcher(Batcher):
    """Runs jobs in the event loop, without threads.

    A request costs no change of threads, and the interpreter is never shared: the latency is
    lower where each core has a worker of its own. While the model runs the loop does nothing
    else: what arrives meanwhile is read, and merged, right after. A call that hangs holds
    everything, so somebody outside of the loop has to watch `busy_seconds`.
    """

    # When the queue is looked at next, None when nothing waits for it; and in which loop.
    _timer: asyncio.TimerHandle | None = None
    _due = 0.0
    _loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Does nothing: the loop of the requests is there."""

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        due = self._queue[0].arrived
        if self._queued_rows < self._options.max_batch_rows:
            due += self._options.max_wait_ms / 1000
        if self._timer is not None:
            # A loop that ended before its turn never calls.
            if loop is self._loop and self._due <= due:
                return
            self._timer.cancel()
        self._due, self._loop = due, loop
        self._timer = loop.call_later(max(0.0, due - time.monotonic()), self._drain, loop)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        batch = self._take(wait=False)
        if batch is None:
            return
        self._run_safely(batch)
        with self._changed:
            if self._queue:
                self._wake(loop)

    def _deliver(self, results: Sequence[tuple[Job, Any]]) -> None:
        try:
            resolve(results)
        except RuntimeError:  # the loop is closed: nobody waits
            logger.debug("%d results came after the server had gone", len(results))
