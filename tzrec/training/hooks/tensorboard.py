"""TensorBoard summaries of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tzrec.batch import Batch
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.events import EventLog
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.location import Location
from tzrec.training.trainer import Trainer

_OF_GRADIENTS = {"global_gradient_norm", "gradient_norm", "gradient"}


class TensorBoardHook(Hook):
    """Writes losses, learning rates, metrics and what else is asked for; rank 0 only.

    Tags in the root of the run:

    - always ``loss/{key}``, ``loss/total``, ``lr/g{i}``, ``metric/{train metric}``;
    - ``parameter``: histogram ``{name}`` of each parameter after the update;
      ``{name}/rank:{r}`` for a table that is sharded, with this rank's shard only;
    - ``global_gradient_norm``: scalar of that name, the 2-norm over all dense gradients;
    - ``gradient_norm``: scalar ``{name}/gradient_norm`` of each dense parameter;
    - ``gradient``: histogram ``{name}/gradient`` of each dense parameter.

    Gradients are those of the whole batch of all ranks, before clipping. Embedding tables have
    none: their backward pass is their update. Evaluations write ``metric/{name}`` below
    ``eval_val``.

    Args:
        model_dir: the run.
        train_config: ``log_step_count_steps`` (steps between two points) and
            ``tensorboard_summaries``.
    """

    def __init__(self, model_dir: Location, train_config: TrainConfig) -> None:
        self._dir = model_dir
        self._every = max(train_config.log_step_count_steps, 1)
        self._summaries = set(train_config.tensorboard_summaries)
        self._log: EventLog | None = None
        self._purge_step: int | None = None

    def on_train_start(self, trainer: Trainer) -> None:
        """Notes where a resumed run goes on."""
        self._purge_step = trainer.state.step or None

    def before_update(
        self, trainer: Trainer, total_loss: Tensor, losses: dict[str, Tensor], batch: Batch
    ) -> bool:
        """Asks for the gradients of this step, or of the next update, when they are due."""
        if self._summaries & _OF_GRADIENTS and trainer.state.step % self._every == 0:
            optimizer: Any = trainer.optimizer
            optimizer.on_gradients = lambda named: self._write_gradients(named, trainer.state.step)
        return False

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Writes one point every few steps."""
        step = trainer.state.last_step
        if step % self._every:
            return
        values: dict[str, Any] = {f"loss/{key}": value for key, value in result.losses.items()}
        values["loss/total"] = result.total_loss
        for index, rate in enumerate(trainer.optimizer.learning_rates()):
            values[f"lr/g{index}"] = rate
        for key, value in trainer.base_model.compute_train_metric().items():
            values[f"metric/{key}"] = value
        self._events.scalars(values, step)
        if "parameter" in self._summaries:
            for name, value in _local_parameters(trainer):
                self._events.histogram(name, value, step)

    def after_save(self, trainer: Trainer) -> None:
        """Makes the points so far visible."""
        if self._log is not None:
            self._log.flush()

    def after_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Writes the metrics of an evaluation."""
        write_metrics(self._events, metrics, trainer.state.last_step, sub_dir="eval_val")

    def close(self) -> None:
        """Flushes and closes the event files."""
        if self._log is not None:
            self._log.close()
            self._log = None

    @property
    def _events(self) -> EventLog:
        if self._log is None:
            self._log = EventLog(self._dir, purge_step=self._purge_step)
        return self._log

    def _write_gradients(self, named: dict[str, Tensor], step: int) -> None:
        values: dict[str, Any] = {}
        if self._summaries & {"global_gradient_norm", "gradient_norm"}:
            norms = torch._foreach_norm([gradient.float() for gradient in named.values()])
            if "global_gradient_norm" in self._summaries:
                values["global_gradient_norm"] = torch.stack(norms).norm()
            if "gradient_norm" in self._summaries:
                names = (f"{name}/gradient_norm" for name in named)
                values |= dict(zip(names, norms, strict=True))
        self._events.scalars(values, step)
        if "gradient" in self._summaries:
            for name, gradient in named.items():
                self._events.histogram(f"{name}/gradient", gradient, step)


def write_metrics(events: EventLog, metrics: dict[str, float], step: int, *, sub_dir: str) -> None:
    """Writes ``metric/{name}`` for each metric, visible at once."""
    events.scalars(
        {f"metric/{key}": value for key, value in metrics.items()}, step, sub_dir=sub_dir
    )
    events.flush()


def log_evaluation(model_dir: str, metrics: dict[str, float], step: int) -> None:
    """Writes the metrics of ``tzrec eval`` below ``model_dir/eval``."""
    events = EventLog(model_dir)
    write_metrics(events, metrics, step, sub_dir="eval")
    events.close()


def _local_parameters(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, value) of the parameters; of a sharded table what this rank holds."""
    names = {name for name, _ in trainer.model.named_parameters()}
    rank = dist.get_rank() if dist.is_initialized() else 0
    for name, value in trainer.model.state_dict().items():
        if name not in names:
            continue
        if not hasattr(value, "local_shards"):
            yield name, value
            continue
        shards = [shard.tensor.reshape(-1) for shard in value.local_shards()]
        if shards:
            yield f"{name}/rank:{rank}", torch.cat(shards)
