"""Stops before a non-finite loss reaches the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from tzrec.batch import Batch
from tzrec.errors import TrainingError
from tzrec.training.hooks.base import Hook
from tzrec.training.trainer import Trainer


class NonFiniteGuard(Hook):
    """Raises when a loss is nan or infinite, and names the first cause that it finds."""

    def before_update(
        self, trainer: Trainer, total_loss: Tensor, losses: dict[str, Tensor], batch: Batch
    ) -> None:
        """Checks the losses of this step.

        Raises:
            TrainingError: a loss is not finite. No parameter has changed in this step.
        """
        if torch.isfinite(total_loss):
            return
        bad = [key for key, value in losses.items() if not torch.isfinite(value)]
        what = ", ".join(bad) or "the total loss"
        raise TrainingError(
            f"{what} is {float(total_loss):g} at step {trainer.state.step}; "
            f"{_cause(trainer, batch)}",
            hint="no weight was changed by this step, and checkpoints are untouched; "
            "mend the input, lower the learning rate, or set train_config.grad_clipping",
        )


def _cause(trainer: Trainer, batch: Batch) -> str:
    for kt in batch.dense_features.values():
        for name, value in kt.to_dict().items():
            if not torch.isfinite(value).all():
                return f"the input of feature {name} is not finite ({_rows(value)})"
    for name, label in (batch.labels | batch.sample_weights).items():
        if not torch.isfinite(label).all():
            return f"column {name} is not finite ({_rows(label)})"
    for name, parameter in trainer.base_model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"parameter {name} is not finite"
    return "all inputs and parameters of the step are finite"


def _rows(value: Tensor) -> str:
    bad = ~torch.isfinite(value.reshape(value.shape[0], -1)).all(dim=1)
    return f"{int(bad.sum())} of {len(bad)} rows, the first is row {int(bad.nonzero()[0])}"
