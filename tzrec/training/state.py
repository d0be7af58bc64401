"""`TrainState`: everything beside weights and optimizer states that must survive a restart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from tzrec.datasets.position import DataPosition


@dataclass
class TrainState:
    """Where a run stands.

    Attributes:
        step: number of finished steps.
        epoch: number of finished passes over the data.
        position: rows of the current pass that were consumed.
    """

    step: int = 0
    epoch: int = 0
    position: DataPosition = field(default_factory=DataPosition)

    @property
    def last_step(self) -> int:
        """0-based number of the last finished step; names the checkpoint."""
        return self.step - 1

    def end_pass(self) -> None:
        """Counts a finished pass; the next one starts from the first row."""
        self.epoch += 1
        self.position = DataPosition()

    def state_dict(self) -> dict[str, Any]:
        """Returns step, epoch and the random state (dropout) as plain values and tensors."""
        state: dict[str, Any] = {
            "step": self.step,
            "epoch": self.epoch,
            "rng": {"cpu": torch.get_rng_state()},
        }
        if torch.cuda.is_available():
            state["rng"]["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, the random state included."""
        self.step = state["step"]
        self.epoch = state["epoch"]
        torch.set_rng_state(state["rng"]["cpu"])
        if "cuda" in state["rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["rng"]["cuda"])
