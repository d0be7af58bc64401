"""Profiling of a few training steps."""

from __future__ import annotations

import logging
from typing import Any

from torch.profiler import record_function

from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.location import Location
from tzrec.training.profiling import StepProfiler
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

# What begins when a part ends; hooks run between the others.
_NEXT = {"data": "forward", "backward": "update", "update": "metrics"}


class ProfilerHook(Hook):
    """Writes ``train_eval_trace`` and logs where the time of ten steps went.

    The parts of a step are ranges ``part: …`` of the trace. Must be the last hook: it takes what
    follows it for the beginning of the next step.

    Args:
        directory: where the trace goes.
    """

    def __init__(self, directory: Location) -> None:
        self._directory = directory
        self._profiler: StepProfiler | None = None
        self._trainer: Trainer | None = None
        self._range: Any = None
        self._last_part = ""

    def on_train_start(self, trainer: Trainer) -> None:
        """Shows the model and starts."""
        logger.info("profiling the model\n%s", trainer.model)
        self._profiler = StepProfiler(self._directory, parts=lambda: trainer.timer.seconds)
        self._trainer = trainer
        trainer.timer.on_lap = self._on_lap
        self._profiler.start()

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Counts a step."""
        self._end_range()
        if self._profiler is not None and self._profiler.step():
            trainer.timer.start()  # summing up takes seconds that are no training

    def close(self) -> None:
        """Stops; a short run is summed up as far as it went."""
        if self._trainer is not None:
            self._trainer.timer.on_lap = None
        self._end_range()
        if self._profiler is not None:
            self._profiler.close()

    def _on_lap(self, part: str) -> None:
        """Opens the range of the part that begins now."""
        self._end_range()
        begins = _NEXT.get(part)
        if part == "other":
            begins = "backward" if self._last_part == "forward" else "data"
        self._last_part = part
        if begins is not None:
            self._range = record_function(f"part: {begins}")
            self._range.__enter__()

    def _end_range(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
