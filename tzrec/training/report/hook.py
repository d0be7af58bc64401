"""`HistoryHook`: notes the curves of a run while it trains."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from tzrec.training.checkpoint.find import read_results
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.location import Location
from tzrec.training.peers import num_ranks
from tzrec.training.report.history import HISTORY_FILENAME, History
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")


class HistoryHook(Hook):
    """Keeps mean losses, train metrics, learning rates, evaluations and times; rank 0 only.

    A point every ``every`` steps. The file is written after each save, and never
    fails the run. Put it before the hook that saves.

    Args:
        model_dir: the run.
        every: ``train_config.log_step_count_steps``.

    Attributes:
        history: what is known so far, of the run's earlier parts too.
    """

    def __init__(self, model_dir: Location, every: int) -> None:
        self._dir = model_dir
        self._every = max(every, 1)
        self.history = History(model_dir / HISTORY_FILENAME)
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._rows = 0
        self._rows_before = 0
        self._seconds_before: dict[str, float] = {}
        self._broken = False

    def on_train_start(self, trainer: Trainer) -> None:
        """Of a resumed run: reads what is known of it."""
        if trainer.state.step == 0:
            return
        try:
            self._read(trainer.state.last_step)
        except Exception as error:  # a remote file system may raise anything
            logger.warning("the report will start at this step: %s", error)

    def _read(self, last_step: int) -> None:
        self.history = History.read(self._dir / HISTORY_FILENAME, last_step)
        for row in read_results(self._dir):
            step = int(row["global_step"])
            if step <= last_step and self.history.evaluation_at(step) is None:
                metrics = {name: row[name] for name in row if name != "global_step"}
                self.history.add_evaluation(step, metrics, {})
        if self.history.times:
            self._rows_before = self.history.times[-1]["rows"]
            self._seconds_before = self.history.times[-1]["seconds"]

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Adds the losses up, and makes a point when it is time."""
        self._rows += result.num_rows * num_ranks()
        if not result.skipped:
            self._steps += 1
            for key, value in result.losses.items():
                self._sums[key] = self._sums[key] + value if key in self._sums else value
        if trainer.state.last_step % (self._every * self.history.stride) == 0:
            self._point(trainer)

    def after_save(self, trainer: Trainer) -> None:
        """Notes the time and writes the file."""
        self._write(trainer)

    def after_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Adds an evaluation; the one that a resumed run already knows stays as it is."""
        step = trainer.state.last_step
        known = self.history.evaluation_at(step)
        if known is None or known["metrics"] != metrics:
            half_widths = trainer.base_model.metric_half_widths()
            self.history.add_evaluation(step, metrics, half_widths)
            self._flush()

    def on_train_end(self, trainer: Trainer) -> None:
        """Makes the last point, unless a few steps would stick out, and writes the file."""
        if 2 * self._steps >= self._every or not self.history.train:
            self._point(trainer)
        self._write(trainer)

    def num_rows(self) -> int:
        """Returns the rows that the run has trained on, earlier parts included.

        Ranks get about as many each, so those of this one are counted.
        """
        return self._rows_before + self._rows

    def seconds(self, trainer: Trainer) -> dict[str, float]:
        """Returns the seconds by part of the run, earlier parts included."""
        now = trainer.timer.seconds
        return {part: self._seconds_before.get(part, 0.0) + now[part] for part in now}

    def _point(self, trainer: Trainer) -> None:
        if self._steps == 0:
            return
        self.history.add_train(
            trainer.state.last_step,
            steps=self._steps,
            losses={key: float(value) / self._steps for key, value in self._sums.items()},
            metrics=_floats(trainer.base_model.compute_train_metric()),
            lr=trainer.optimizer.learning_rates(),
        )
        self._sums, self._steps = {}, 0

    def _write(self, trainer: Trainer) -> None:
        seconds = self.seconds(trainer)
        self.history.add_time(trainer.state.last_step, rows=self.num_rows(), seconds=seconds)
        self._flush()

    def _flush(self) -> None:
        if self._broken:
            return
        try:
            self.history.flush()
        except Exception as error:  # a full disk; a remote file system may raise anything
            self._broken = True
            logger.warning("%s is no longer written: %s", self._dir / HISTORY_FILENAME, error)


def _floats(values: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}
