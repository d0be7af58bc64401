"""Removing old checkpoints while training goes on."""

from __future__ import annotations

import logging
import queue
import threading

from tzrec.errors import CheckpointError
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.training.checkpoint.find import best_checkpoint, list_checkpoints, newest_first
from tzrec.training.checkpoint.save import remove_checkpoint
from tzrec.training.location import Location

logger = logging.getLogger("tzrec")


class Pruner:
    """Keeps the newest checkpoints of a run and the best one; a thread removes the others.

    Args:
        model_dir: the run.
        keep: checkpoints to keep, 0 = all.
        export_config: how the best one is chosen; it only counts for ``exporter_type: "best"``.
    """

    def __init__(self, model_dir: Location, keep: int, export_config: ExportConfig) -> None:
        self._dir = model_dir
        self._keep = keep
        self._export_config = export_config
        self._queue: queue.Queue[Location | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._queued: set[str] = set()

    def prune(self) -> None:
        """Decides now which checkpoints go, and has them removed in the background."""
        for path in self.superfluous():
            if str(path) not in self._queued:
                self._queued.add(str(path))
                self._queue.put(path)
        if not self._queue.empty() and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tzrec-prune", daemon=True)
            self._thread.start()

    def superfluous(self) -> list[Location]:
        """Returns the checkpoints older than those to keep; damaged ones do not count."""
        if not self._keep:
            return []
        whole: list[Location] = []
        for path, reason in newest_first(self._dir):
            if reason is None:
                whole.append(path)
            if len(whole) == self._keep:
                break
        else:
            return []
        every = list_checkpoints(self._dir)
        older = every[: every.index(whole[-1])]
        if older and self._export_config.exporter_type == "best":
            try:
                best = best_checkpoint(self._dir, self._export_config)[0]
            except CheckpointError as error:
                logger.warning("no checkpoint was pruned: %s", error)
                return []
            older = [path for path in older if path != best]
        return older

    def close(self) -> None:
        """Waits until everything is removed."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (path := self._queue.get()) is not None:
            try:
                remove_checkpoint(path)
            except Exception as error:
                logger.warning("could not remove %s, training goes on: %s", path, error)
