"""Stops before a non-finite loss reaches the weights, and non-finite weights a checkpoint."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from tzrec.batch import Batch
from tzrec.errors import DistributedError, TrainingError
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.hooks.nonfinite_cause import cause_in_batch, cause_in_model, cause_on_the_way
from tzrec.training.peers import Vote, any_rank, num_ranks
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

_MAX_OVERFLOWS = 100


class NonFiniteGuard(Hook):
    """Ends training, or leaves a step out, when a loss or gradient is not finite, and says why.

    Gradients are looked at where steps may be left out, which costs a few percent of a step.
    Otherwise one that is not finite shows in the loss of the next step, and in the weights, which
    are looked at before they are saved. Under a grad scaler gradients that overflow are the
    normal case, unless they always do.

    Of several ranks all leave the same steps out; the flag that takes is only exchanged where
    steps may be left out. Otherwise the rank with the bad loss names it, and the others end
    because it has.

    Args:
        max_steps: steps to leave out before the next one ends training.
        scaled: gradients are scaled (``train_config.grad_scaler``).

    Attributes:
        num_skipped: steps that were left out, those before a restart included.
    """

    name = "non_finite"

    def __init__(self, max_steps: int = 0, *, scaled: bool = False) -> None:
        self._max = max_steps
        self._scaled = scaled
        self._overflows = self._overflows_in_a_row = 0
        self._vote: Vote | None = None
        self._buffers: list[Tensor] = []
        self._before: list[Tensor] = []
        self.num_skipped = 0

    def on_train_start(self, trainer: Trainer) -> None:
        """Prepares to take back what the forward pass of a step changes (batch norm)."""
        if not self._max:
            return
        if num_ranks() > 1:
            self._vote = Vote()
        kept = trainer.base_model.state_dict().keys()
        self._buffers = [b for n, b in trainer.base_model.named_buffers() if n in kept]
        self._before = [torch.empty_like(buffer) for buffer in self._buffers]

    def before_forward(self, trainer: Trainer, batch: Batch) -> None:
        """Remembers the buffers."""
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    def before_update(
        self, trainer: Trainer, total_loss: Tensor, losses: dict[str, Tensor], batch: Batch
    ) -> bool:
        """Checks the losses of this step.

        Raises:
            TrainingError: a loss is not finite, and no more steps may be left out. No parameter
                has changed in this step.
            DistributedError: that happened to another rank.
        """
        is_bad = not math.isfinite(total_loss.item())
        if not (self._vote.any_of(is_bad) if self._vote else is_bad):
            return False
        said = _describe(trainer, total_loss, losses, batch) if is_bad else ""
        return self._leave_out(said, said or "another rank has a loss that is not finite")

    def after_backward(self, trainer: Trainer) -> bool:
        """Checks the gradients, which every rank has after they were averaged.

        Raises:
            TrainingError: one is not finite, and no more steps may be left out.
        """
        if not self._max or self._scaled or trainer.optimizer.is_finite():
            return False
        said = (
            f"the gradient of {_whose_gradient(trainer)} is not finite at step "
            f"{trainer.state.step}, though the loss is"
        )
        trainer.optimizer.drop()
        return self._leave_out(said, said)

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Watches the grad scaler.

        Raises:
            TrainingError: no update has been made for long.
        """
        if not self._scaled:
            return
        overflows = getattr(trainer.optimizer, "num_overflows", 0)
        self._overflows_in_a_row += 1 if overflows > self._overflows else -self._overflows_in_a_row
        self._overflows = overflows
        if self._overflows_in_a_row >= _MAX_OVERFLOWS:
            raise TrainingError(
                f"gradients were not finite in {_MAX_OVERFLOWS} updates in a row, whatever the "
                "scale: nothing is learnt any more",
                hint="without train_config.grad_scaler the first such step is explained",
            )

    def _leave_out(self, said: str, why: str) -> bool:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)
        if self.num_skipped >= self._max:
            raise self._failure(said)
        self.num_skipped += 1
        logger.warning("%s; step left out (%d of %d)", why, self.num_skipped, self._max)
        return True

    def before_save(self, trainer: Trainer) -> None:
        """Checks the weights, and the gradients that are still accumulating.

        Raises:
            TrainingError: one is not finite; nothing is saved over the last good checkpoint.
            DistributedError: that happened to another rank.
        """
        found = cause_in_model(trainer)
        waiting = getattr(trainer.optimizer, "num_waiting", 0)
        if found is None and waiting and not self._scaled and not trainer.optimizer.is_finite():
            found = f"the accumulated gradient of {_whose_gradient(trainer)} is not finite"
        if not any_rank(found is not None):
            return
        step = trainer.state.last_step
        if found is None:
            raise DistributedError(f"another rank has weights that are not finite at step {step}")
        raise TrainingError(
            f"{found} after step {step}: nothing is saved",
            hint="earlier checkpoints are untouched: go on from them with a lower learning rate "
            "or train_config.grad_clipping",
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns how many steps were left out."""
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.num_skipped = state["num_skipped"]

    def _failure(self, said: str) -> TrainingError | DistributedError:
        if not said:
            return DistributedError("another rank has a loss that is not finite")
        before = ""
        if self._max:
            before = f"; {self.num_skipped} steps were left out before (max_non_finite_steps)"
        return TrainingError(
            said + before,
            hint="no weight was changed by this step, and checkpoints are untouched; "
            "mend the input, lower the learning rate, or set train_config.grad_clipping",
        )


def _whose_gradient(trainer: Trainer) -> str:
    names = trainer.optimizer.non_finite()
    whose = f"parameter {names[0]}" if names else "an embedding table"
    return f"{whose} and {len(names) - 1} more" if len(names) > 1 else whose


def _describe(trainer: Trainer, total_loss: Tensor, losses: dict[str, Tensor], batch: Batch) -> str:
    """Returns which loss is not finite, and the first cause that can be found."""
    bad = [key for key, value in losses.items() if not torch.isfinite(value)]
    what = ", ".join(bad) or "the total loss"
    value = next((losses[key] for key in bad), total_loss)
    cause = cause_in_batch(batch)
    if cause is None and (spoilt := cause_in_model(trainer)):
        cause = f"{spoilt}: an update before this step did that"
    if cause is None and num_ranks() == 1:
        cause = cause_on_the_way(trainer, batch)
    cause = cause or "all inputs and parameters of the step are finite"
    return f"{what} is {float(value):g} at step {trainer.state.step}; {cause}"
