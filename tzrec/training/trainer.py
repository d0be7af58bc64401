"""The training loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.datasets.position import DataPosition
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.state import TrainState


class Optimizer(Protocol):
    """What the loop needs of an optimizer (`tzrec.optim.optimizer.TZRecOptimizer`)."""

    schedulers: list[Any]

    def zero_grad(self) -> None:
        """Drops dense gradients."""

    def backward(self, loss: Tensor) -> None:
        """Computes gradients; embedding tables are updated on the way."""

    def step(self) -> None:
        """Updates dense parameters."""

    def learning_rates(self) -> list[float]:
        """Current learning rates."""

    def init_state(self) -> None:
        """Creates the states that the first step would create."""

    def state_dict(self) -> dict[str, Any]:
        """States of all optimizers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""


class Loader(Protocol):
    """What the loop needs of a data loader (`tzrec.datasets.loader.BatchLoader`)."""

    num_rows: int | None
    num_batches: int | None

    def __iter__(self) -> Iterator[Batch]: ...

    def set_epoch(self, epoch: int) -> None:
        """Selects the shuffle order."""

    def resume(self, position: DataPosition) -> None:
        """Skips consumed rows in the next pass."""


class Trainer:
    """Runs steps until ``num_steps`` or ``num_epochs`` is reached or a hook asks to stop.

    Args:
        model: a `TrainWrapper`, distributed; returns (total_loss, (losses, predictions, batch)).
        optimizer: all optimizers as one.
        loader: training batches; one iteration is one pass.
        hooks: called in this order.
        num_steps: steps to run, 0 = no limit. The data is read as often as needed.
        num_epochs: passes to run, 0 = no limit.
        device: where batches are moved to.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        loader: Loader,
        hooks: list[Hook],
        num_steps: int = 0,
        num_epochs: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loader = loader
        self.hooks = hooks
        self.num_steps = num_steps
        self.num_epochs = num_epochs
        self.device = device or torch.device("cpu")
        self.state = TrainState()
        self.stop_reason: str | None = None

    @property
    def base_model(self) -> Any:
        """The `BaseModel` inside the wrappers."""
        wrapped: Any = self.model
        return getattr(wrapped, "module", wrapped).model

    @property
    def total_steps(self) -> int | None:
        """Steps that the whole run will take, if that is known before it ends."""
        by_data = None
        if self.num_epochs and self.loader.num_batches is not None:
            by_data = self.num_epochs * self.loader.num_batches
        limits = [limit for limit in (self.num_steps or None, by_data) if limit is not None]
        return min(limits) if limits else None

    def fit(self) -> None:
        """Trains; hooks are closed in any case."""
        try:
            self._call("on_train_start")
            self.model.train()
            while not self.is_finished:
                self._run_pass()
            self._call("on_train_end")
        finally:
            for hook in self.hooks:
                hook.close()

    def stop(self, reason: str) -> None:
        """Ends training after the current step."""
        self.stop_reason = reason

    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """Tells schedules and hooks the metrics of an evaluation."""
        for scheduler in self.optimizer.schedulers:
            if hasattr(scheduler, "observe"):
                scheduler.observe(metrics)
        self._call("after_evaluation", metrics)

    def _run_pass(self) -> None:
        self.loader.set_epoch(self.state.epoch)
        if self.state.position.num_batches:
            self.loader.resume(self.state.position)
        for batch in self.loader:
            self._run_step(batch)
            if self._steps_done() or self.stop_reason:
                return
        self.state.end_pass()
        self._step_schedulers(by_epoch=True)
        self._call("after_pass")

    def _run_step(self, batch: Batch) -> None:
        batch = batch.to(self.device, non_blocking=True)
        self.optimizer.zero_grad()
        total_loss, (losses, predictions, batch) = self.model(batch)
        self._call("before_update", total_loss, losses, batch)
        self.optimizer.backward(total_loss)
        self.optimizer.step()
        self._step_schedulers(by_epoch=False)
        self.base_model.update_train_metric(predictions, batch)
        self.state.step += 1
        self.state.position.add(batch.checkpoint_info)
        num_rows = next(iter(predictions.values())).shape[0] if predictions else 0
        result = StepResult(total_loss.detach(), losses, predictions, batch, num_rows)
        self._call("after_step", result)

    def _step_schedulers(self, *, by_epoch: bool) -> None:
        for scheduler in self.optimizer.schedulers:
            if scheduler.by_epoch == by_epoch:
                scheduler.step()

    def _steps_done(self) -> bool:
        return bool(self.num_steps) and self.state.step >= self.num_steps

    @property
    def is_finished(self) -> bool:
        """True when a limit is reached or a hook asked to stop."""
        passes_done = bool(self.num_epochs) and self.state.epoch >= self.num_epochs
        return passes_done or self._steps_done() or self.stop_reason is not None

    def _call(self, method: str, *args: Any) -> None:
        for hook in self.hooks:
            getattr(hook, method)(self, *args)
