"""Share of rows whose class is predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from tzrec.errors import ConfigError
from tzrec.metrics.base import BaseMetric


class Accuracy(BaseMetric):
    """Share of rows that are right.

    With one score per row a row is predicted positive above the threshold. With a score per
    class a row is right when its class is among the best ``top_k``.

    Args:
        threshold: of the positive class, for one score per row.
        top_k: classes that count as predicted, for a score per class.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``threshold`` is outside [0, 1] or ``top_k`` is 0.
    """

    correct: Tensor
    total: Tensor

    def __init__(self, *, threshold: float = 0.5, top_k: int = 1, local: bool = False) -> None:
        super().__init__(local=local)
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"accuracy.threshold is {threshold}, it must be in [0, 1]")
        if top_k < 1:
            raise ConfigError(f"accuracy.top_k is {top_k}, it must be at least 1")
        self._threshold = threshold
        self._top_k = top_k
        self._add_sum("correct", dtype=torch.int64)
        self._add_sum("total", dtype=torch.int64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds rows.

        Args:
            preds: (B,) probabilities of the positive class, or (B, C) scores.
            target: (B,) labels, positive above 0.5, or class ids.
        """
        if preds.dim() == 1:
            right = (preds > self._threshold) == (target > 0.5)
        else:
            best = preds.topk(min(self._top_k, preds.size(1)), dim=1).indices
            right = (best == target.long().unsqueeze(1)).any(dim=1)
        self.correct += right.sum()
        self.total += right.numel()

    def compute(self) -> Tensor:
        """Returns the share, a float64 scalar; 0 without rows."""
        return self.correct.double() / self.total.clamp(min=1)
