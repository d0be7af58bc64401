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
    """

    total_loss: Tensor
    losses: dict[str, Tensor]
    predictions: dict[str, Tensor]
    batch: Batch
    num_rows: int


class Hook:
    """Methods that the trainer calls in list order, the same on every rank.

    A hook with state that must survive a restart gives it a ``name`` and
    ``state_dict`` / ``load_state_dict``.
    """

    name: str = ""

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first step."""

    def before_update(
        self, trainer: Trainer, total_loss: Tensor, losses: dict[str, Tensor], batch: Batch
    ) -> None:
        """After the losses are known, before any parameter changes."""

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """After each update; ``trainer.state.step`` already counts the step."""

    def after_pass(self, trainer: Trainer) -> None:
        """After each pass over the data."""

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
