"""Training on a stream: how far behind it is, committing offsets, ending while it is quiet."""

from __future__ import annotations

import datetime as dt
import logging
import signal
import time
from collections.abc import Mapping
from typing import Any

from tzrec.datasets.kafka.loader import KafkaLoader
from tzrec.datasets.position import StreamMark
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.hooks.signals import SignalHook
from tzrec.training.peers import sum_over_ranks
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")


class StreamHook(Hook):
    """Says every few steps how many messages wait, and commits offsets with each checkpoint.

    Without it a signal would not be noticed while no message comes. Put it on every rank, before
    the hook that saves.

    Args:
        loader: of this rank.
        signals: notices the signals.
        every: ``train_config.log_step_count_steps``.
    """

    def __init__(self, loader: KafkaLoader, signals: SignalHook, every: int) -> None:
        self._loader = loader
        self._signals = signals
        self._every = max(every, 1)
        self._newest = -1.0
        self._marks: dict[str, StreamMark] = {}
        self._epoch = 0

    def on_train_start(self, trainer: Trainer) -> None:
        """Lets a signal end the pass."""
        self._epoch, self._marks = trainer.state.epoch, trainer.state.position.marks

        def stop() -> None:
            if trainer.stop_reason is None:
                number = self._signals.received or signal.SIGTERM
                trainer.interrupted = number
                trainer.stop(f"{number.name} was received")

        self._loader.wants_stop = lambda: self._signals.received is not None
        self._loader.on_stopped = stop

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Tells the lag, the same steps on every rank."""
        self._newest = max(self._newest, result.batch.data_timestamp)
        info: Mapping[str, Any] = result.batch.checkpoint_info or {}
        if trainer.state.epoch != self._epoch:
            self._epoch, self._marks = trainer.state.epoch, {}
        self._marks |= {name: mark for name, mark in info.items() if isinstance(mark, StreamMark)}
        if (trainer.state.step - 1) % self._every == 0:
            self._tell()

    def after_save(self, trainer: Trainer) -> None:
        """Commits what the checkpoint says."""
        self._loader.commit(self._marks)

    def on_train_end(self, trainer: Trainer) -> None:
        """Tells the lag once more."""
        self._tell()

    def close(self) -> None:
        """Lets go of the loader."""
        self._loader.wants_stop = _never

    def _tell(self) -> None:
        lags = self._loader.lag(self._marks)
        behind = sum_over_ranks(sum(lags.values()))
        if self._loader.config.rank:
            return
        topic, most = self._loader.reader.uri.topic, ""
        if len(lags) > 1 and behind:
            worst = max(lags, key=lambda partition: lags[partition])
            most = f", most in {topic}:{worst}: {lags[worst]:,}"
        logger.info("stream %s: %s messages behind%s%s", topic, f"{behind:,}", most, self._age())

    def _age(self) -> str:
        if self._newest < 0:
            return ""
        when = dt.datetime.fromtimestamp(self._newest, dt.timezone.utc)
        ago = max(time.time() - self._newest, 0.0)
        return f"; newest event {when:%Y-%m-%d %H:%M:%S} UTC, {_words(ago)} ago"


def _words(seconds: float) -> str:
    """Returns a length of time in its largest unit."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _never() -> bool:
    return False
