"""Progress of training on the console."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from torch import Tensor

from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

_QUIET_SECONDS = 10.0


class ProgressHook(Hook):
    """A progress bar on a terminal, plain lines elsewhere; rank 0 only.

    A line is written every ``every`` steps, and after 10 seconds without one.

    Args:
        every: ``train_config.log_step_count_steps``.
        bar: draw a bar instead of lines; None asks the terminal.
    """

    def __init__(self, every: int, bar: bool | None = None) -> None:
        self._every = max(every, 1)
        self._use_bar = sys.stderr.isatty() if bar is None else bar
        self._bar: Any = None
        self._last_time = self._last_training = 0.0
        self._rows_since = 0
        self._steps_before = 0
        self.num_rows = 0
        self._latest: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer) -> None:
        """Starts the clock."""
        self._last_time = time.monotonic()
        self._last_training = trainer.timer.training
        self._steps_before = trainer.state.step
        if self._use_bar:
            from tqdm import tqdm

            self._bar = tqdm(
                total=trainer.total_steps,
                initial=trainer.state.step,
                unit="step",
                dynamic_ncols=True,
                desc="train",
            )

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Counts rows; writes when it is time."""
        self._rows_since += result.num_rows
        self.num_rows += result.num_rows
        if self._bar is not None:
            self._bar.update(1)
        if result.skipped:
            return
        losses = {**result.losses, "total_loss": result.total_loss}
        self._latest = {key: value.detach() for key, value in losses.items()}
        now = time.monotonic()
        due = (trainer.state.step - 1) % self._every == 0
        if due or now - self._last_time > _QUIET_SECONDS:
            self._write(trainer, now)

    @property
    def last_losses(self) -> dict[str, float]:
        """Losses of the last step that was not left out."""
        return _floats(self._latest)

    def _write(self, trainer: Trainer, now: float) -> None:
        seconds = trainer.timer.training
        rate = self._rows_since / max(seconds - self._last_training, 1e-9)
        self._last_time, self._last_training, self._rows_since = now, seconds, 0
        rates = trainer.optimizer.learning_rates()
        parts = [f"lr_g{i}:{lr:.5g}" for i, lr in enumerate(rates)]
        values = self.last_losses | _floats(trainer.base_model.compute_train_metric())
        parts += [f"{key}:{value:.5f}" for key, value in values.items()]
        if self._bar is not None:
            self._bar.set_postfix_str(f"{rate:,.0f} rows/s " + " ".join(parts))
            return
        step, total = trainer.state.step, trainer.total_steps
        of_total = f"/{total} ({100 * step / total:.0f}%)" if total else ""
        # The first step compiles kernels; it says nothing about the others.
        warm = step > self._steps_before + 1
        eta = f" eta {_clock(self._remaining(trainer, total))}" if total and warm else ""
        values_text = " ".join(parts)
        logger.info("step %d%s %s rows/s%s %s", step, of_total, f"{rate:,.0f}", eta, values_text)

    def _remaining(self, trainer: Trainer, total: int) -> float:
        step = trainer.state.step
        return trainer.timer.training / max(step - self._steps_before, 1) * (total - step)

    def close(self) -> None:
        """Leaves the terminal clean."""
        if self._bar is not None:
            self._bar.close()


def _floats(values: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
