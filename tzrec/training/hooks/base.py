"""The seam between the training loop and everything that watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from tzrec.batch import Batch
    from tzrec.training.trainer import Trainer


@dataclass(frozen=True)
class StepResult:
    """One finished step.

    Attributes:
        total_loss: scalar.
        losses: loss key → scalar.
        predictions: prediction key → tensor.
        batch: the rows.
        num_rows: rows of this rank.
        skipped: the update was left out.
    """

    total_loss: Tensor
    losses: dict[str, Tensor]
    predictions: dict[str, Tensor]
    batch: Batch
    num_rows: int
    skipped: bool = False


class Hook:
    """Methods that the trainer calls in list order, the same on every rank.

    A hook with state that must survive a restart gives it a ``name`` and
    ``state_dict`` / ``load_state_dict``.
    """

    name: str = ""

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first step."""

    def before_forward(self, trainer: Trainer, batch: Batch) -> None:
        """Before the model sees a batch."""

    def before_update(
        self, trainer: Trainer, total_loss: Tensor, losses: dict[str, Tensor], batch: Batch
    ) -> bool | None:
        """After the losses are known, before any parameter changes.

        Returns:
            True to leave the update of this step out, the same on every rank.
        """
        return None

    def after_backward(self, trainer: Trainer) -> bool | None:
        """After the gradients are known, before any parameter changes.

        Tables of TorchRec (several processes, GPUs) have changed already.

        Returns:
            True when the update of this step is to be left out, the same on every rank.
        """
        return None

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """After each update; ``trainer.state.step`` already counts the step."""

    def after_pass(self, trainer: Trainer) -> None:
        """After each pass over the data."""

    def before_save(self, trainer: Trainer) -> None:
        """Before a checkpoint is written; an error keeps it from being written."""

    def after_save(self, trainer: Trainer) -> None:
        """After a checkpoint was published."""

    def after_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After an evaluation, with its metrics."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last step, when training ended without an error."""

    def close(self) -> None:
        """Always called, also after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what must survive a restart."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
