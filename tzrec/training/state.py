"""`TrainState`: everything beside weights and optimizer states that must survive a restart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

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
            "rng": {"cpu": _of_ranks(torch.get_rng_state())},
        }
        if torch.cuda.is_available():
            state["rng"]["cuda"] = _of_ranks(torch.cuda.get_rng_state())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, the random state included.

        With another number of ranks the ranks beyond the stored ones keep their own.
        """
        self.step = state["step"]
        self.epoch = state["epoch"]
        rank = dist.get_rank() if dist.is_initialized() else 0
        if rank < len(state["rng"]["cpu"]):
            torch.set_rng_state(state["rng"]["cpu"][rank])
        if torch.cuda.is_available() and rank < len(state["rng"].get("cuda", [])):
            torch.cuda.set_rng_state(state["rng"]["cuda"][rank])


def _of_ranks(value: torch.Tensor) -> list[torch.Tensor]:
    """Returns a value of each rank."""
    values = [value]
    if dist.is_initialized() and dist.get_world_size() > 1:
        values = values * dist.get_world_size()
        dist.all_gather_object(values, value)
    return values
