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

    _is_scheduled = False

    def start(self) -> None:
        """Does nothing: the loop of the requests is there."""

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_scheduled:
            return
        self._is_scheduled = True
        patience = self._queue[0].arrived + self._options.max_wait_ms / 1000
        loop.call_later(max(0.0, patience - time.monotonic()), self._drain, loop)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_scheduled = False
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
