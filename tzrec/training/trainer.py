"""The training loop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.datasets.position import DataPosition
from tzrec.errors import DataError, DistributedError
from tzrec.training import peers
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.state import TrainState
from tzrec.training.timing import PartTimer


class Optimizer(Protocol):
    """What the loop needs of an optimizer (`tzrec.optim.optimizer.TZRecOptimizer`)."""

    schedulers: list[Any]

    def zero_grad(self) -> None:
        """Drops dense gradients."""

    def backward(self, loss: Tensor) -> None:
        """Computes gradients."""

    def is_finite(self) -> bool:
        """Whether all gradients so far are finite."""

    def non_finite(self) -> list[str]:
        """Dense parameters whose gradients are not finite."""

    def drop(self) -> None:
        """Forgets the gradients since the last update."""

    def step(self) -> None:
        """Updates all parameters."""

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

    Attributes:
        state: where the run stands.
        timer: where the time goes.
        stop_reason: why training ends before its limit; None = it does not.
        interrupted: the signal that ends training; None = none does.
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
        self.timer = PartTimer()
        self.stop_reason: str | None = None
        self.interrupted: signal.Signals | None = None

    @property
    def base_model(self) -> Any:
        """The `BaseModel` inside the wrappers."""
        wrapped: Any = self.model
        return getattr(wrapped, "module", wrapped).model

    @property
    def ema(self) -> Any:
        """The moving average of the dense parameters (`DenseEma`), None without."""
        return getattr(self.optimizer, "ema", None)

    @property
    def total_steps(self) -> int | None:
        """Steps that the whole run will take, if that is known before it ends."""
        by_data = None
        if self.num_epochs and self.loader.num_batches is not None:
            by_data = self.num_epochs * self.loader.num_batches
        limits = [limit for limit in (self.num_steps or None, by_data) if limit is not None]
        return min(limits) if limits else None

    def fit(self) -> None:
        """Trains; hooks are closed in any case.

        Raises:
            DistributedError: another rank has ended.
        """
        with contextlib.ExitStack() as closing:
            for hook in reversed(self.hooks):
                closing.callback(hook.close)
            try:
                self._train()
            except BaseException as error:
                failure = peers.failure_behind(error)
                if failure is not None:
                    raise failure from error
                peers.announce_failure(error)
                raise

    def stop(self, reason: str) -> None:
        """Ends training after the current step."""
        self.stop_reason = reason

    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """Tells schedules and hooks the metrics of an evaluation."""
        for scheduler in self.optimizer.schedulers:
            if hasattr(scheduler, "observe"):
                scheduler.observe(metrics)
        self._call("after_evaluation", metrics)

    def before_save(self) -> None:
        """Asks the hooks whether the weights may be saved; called on every rank.

        Raises:
            TrainingError: they are not worth a checkpoint.
        """
        self._call("before_save")

    def _train(self) -> None:
        self.timer.start()
        self._call("on_train_start")
        self.model.train()
        while not self.is_finished:
            self._run_pass()
        self._call("on_train_end")

    def _run_pass(self) -> None:
        self.loader.set_epoch(self.state.epoch)
        if self.state.position.num_batches:
            self.loader.resume(self.state.position)
        batches = iter(self.loader)
        self.timer.lap("other")
        while not (self._steps_done() or self.stop_reason):
            batch = self._next(batches)
            if batch is not None:
                self._run_step(batch)
            elif not self.stop_reason:
                self._end_pass()
                return

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        try:
            return next(batches, None)
        except DistributedError:
            # A signal to the whole process group ends the loader's processes as well.
            if self.interrupted is None:
                raise
            self.stop(f"{self.interrupted.name} also ended the data workers")
            return None
        finally:
            self.timer.lap("data")

    def _end_pass(self) -> None:
        self.state.end_pass()
        self._step_schedulers(by_epoch=True)
        self._call("after_pass")
        self.timer.lap("other")

    def _run_step(self, batch: Batch) -> None:
        lap = self.timer.lap
        batch = batch.to(self.device, non_blocking=True)
        self._call("before_forward", batch)
        self.optimizer.zero_grad()
        total_loss, (losses, predictions, batch) = self._forward(batch)
        lap("forward")
        skip = any(self._call("before_update", total_loss, losses, batch))
        lap("other")
        if not skip:
            self.optimizer.backward(total_loss)
            lap("backward")
            skip = any(self._call("after_backward"))
        if not skip:
            self.optimizer.step()
        self._step_schedulers(by_epoch=False)
        lap("update")
        if not skip:
            self.base_model.update_train_metric(predictions, batch)
            lap("metrics")
        self.state.step += 1
        self.state.position.add(batch.checkpoint_info)
        # Predictions may have other rows: those of steps of a history.
        columns = [*batch.labels.values(), *predictions.values()]
        num_rows = columns[0].shape[0] if columns else 0
        result = StepResult(total_loss.detach(), losses, predictions, batch, num_rows, skip)
        self._call("after_step", result)
        lap("other")

    def _forward(self, batch: Batch) -> Any:
        try:
            return self.model(batch)
        except DataError as error:
            if error.row is not None and (where := batch.locate(error.row)):
                error.location.insert(0, where)
            raise

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

    def _call(self, method: str, *args: Any) -> list[Any]:
        return [getattr(hook, method)(self, *args) for hook in self.hooks]
