"""Running mean of a number per batch, the losses in an evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from tzrec.metrics.base import BaseMetric


class RunningMean(BaseMetric):
    """Weighted mean of the values given to `update`.

    Args:
        local: `compute` stays on this rank.
    """

    weighted: Tensor
    weight: Tensor

    def __init__(self, *, local: bool = False) -> None:
        super().__init__(local=local)
        self._add_sum("weighted")
        self._add_sum("weight")

    def update(self, value: Tensor, weight: float = 1.0) -> None:
        """Adds a scalar that stands for ``weight`` rows."""
        self.weighted += value.detach().to(torch.float64) * weight
        self.weight += weight

    def compute(self) -> Tensor:
        """Returns the mean, a float64 scalar; 0 without values."""
        return torch.where(self.weight > 0, self.weighted / self.weight, 0.0)
