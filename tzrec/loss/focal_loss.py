"""Binary focal loss (Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError


class BinaryFocalLoss(nn.Module):
    """Binary cross entropy that rows which are right already count little in.

    ``w * BCE`` with ``w = alpha y (1 - p)^gamma + (1 - alpha)(1 - y) p^gamma``; w is a constant
    for the gradient.

    Args:
        gamma: how fast the weight of a row falls, 0 for not at all.
        alpha: weight of positive rows; negative ones have ``1 - alpha``.

    Raises:
        ConfigError: ``gamma`` is negative or ``alpha`` is outside (0, 1).
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.5) -> None:
        super().__init__()
        if gamma < 0:
            raise ConfigError(f"binary_focal_loss.gamma is {gamma}, it must not be negative")
        if not 0.0 < alpha < 1.0:
            raise ConfigError(f"binary_focal_loss.alpha is {alpha}, it must be in (0, 1)")
        self._gamma = gamma
        self._alpha = alpha

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each row (B,) of ``logits`` (B,) and ``labels`` (B,) in [0, 1]."""
        target = labels.to(logits.dtype)
        with torch.no_grad():
            positive = self._alpha * target * torch.sigmoid(-logits).pow(self._gamma)
            negative = (1 - self._alpha) * (1 - target) * torch.sigmoid(logits).pow(self._gamma)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (positive + negative) * loss
