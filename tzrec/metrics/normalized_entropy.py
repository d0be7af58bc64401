"""Normalized entropy (He et al., "Practical Lessons from Predicting Clicks on Ads", ADKDD 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

from tzrec.errors import ConfigError
from tzrec.metrics.base import BaseMetric


class NormalizedEntropy(BaseMetric):
    """Cross entropy of the predictions, divided by that of the mean label as only prediction.

    Below 1 the predictions know more than the mean. 0 without rows.

    Args:
        eta: probabilities are kept in [eta, 1 - eta].
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``eta`` is outside (0, 0.5).
    """

    entropy: Tensor
    positive: Tensor
    total: Tensor

    def __init__(self, eta: float = 1e-12, *, local: bool = False) -> None:
        super().__init__(local=local)
        if not 0.0 < eta < 0.5:
            raise ConfigError(f"normalized_entropy.eta is {eta}, it must be in (0, 0.5)")
        self._eta = eta
        for name in ("entropy", "positive", "total"):
            self._add_sum(name)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds rows: ``preds`` (B,) probabilities and ``target`` (B,) labels in [0, 1]."""
        label = target.double()
        self.entropy += self._cross_entropy(preds.double(), label).sum()
        self.positive += label.sum()
        self.total += label.numel()

    def compute(self) -> Tensor:
        """Returns the ratio, a float64 scalar."""
        mean = self.positive / self.total.clamp(min=1)
        return self.entropy / (self.total.clamp(min=1) * self._cross_entropy(mean, mean))

    def _cross_entropy(self, probability: Tensor, label: Tensor) -> Tensor:
        p = probability.clamp(self._eta, 1.0 - self._eta)
        return -(label * torch.log(p) + (1.0 - label) * torch.log1p(-p))
