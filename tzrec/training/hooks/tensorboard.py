"""TensorBoard summaries of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.trainer import Trainer


class TensorBoardHook(Hook):
    """Writes losses, learning rates and metrics; rank 0 only.

    Tags: ``loss/{key}``, ``loss/total``, ``lr/g{i}``, ``metric/{train metric}`` in the root of
    the run, ``metric/{name}`` of evaluations below ``eval_val``.

    Args:
        model_dir: the run.
        every: steps between two points.
    """

    def __init__(self, model_dir: str | Path, every: int) -> None:
        self._dir = Path(model_dir)
        self._every = max(every, 1)
        self._writers: dict[str, Any] = {}

    def _writer(self, sub_dir: str) -> Any:
        if sub_dir not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[sub_dir] = SummaryWriter(str(self._dir / sub_dir))
        return self._writers[sub_dir]

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Writes one point every few steps."""
        step = trainer.state.last_step
        if step % self._every:
            return
        writer = self._writer("")
        for key, value in result.losses.items():
            writer.add_scalar(f"loss/{key}", float(value), step)
        writer.add_scalar("loss/total", float(result.total_loss), step)
        for index, rate in enumerate(trainer.optimizer.learning_rates()):
            writer.add_scalar(f"lr/g{index}", rate, step)
        for key, value in trainer.base_model.compute_train_metric().items():
            writer.add_scalar(f"metric/{key}", float(value), step)

    def after_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Writes the metrics of an evaluation."""
        write_metrics(self._writer("eval_val"), metrics, trainer.state.last_step)

    def close(self) -> None:
        """Flushes and closes the event files."""
        for writer in self._writers.values():
            writer.close()


def write_metrics(writer: Any, metrics: dict[str, float], step: int) -> None:
    """Writes ``metric/{name}`` for each metric."""
    for key, value in metrics.items():
        writer.add_scalar(f"metric/{key}", value, step)
    writer.flush()
