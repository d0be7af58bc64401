"""Squared error."""

from __future__ import annotations

from torch import Tensor, nn


class L2Loss(nn.Module):
    """``(prediction - label)^2``."""

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each row (B,) of ``predictions`` (B,) and ``labels`` (B,)."""
        return (predictions - labels.to(predictions.dtype)).square()
