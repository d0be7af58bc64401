"""Binary cross entropy of logits, with label smoothing."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError


class BinaryCrossEntropy(nn.Module):
    """``-y' log p - (1 - y') log(1 - p)`` with ``p = sigmoid(logit)``, ``y' = y(1 - s) + s/2``.

    Args:
        label_smoothing: s.

    Raises:
        ConfigError: ``label_smoothing`` is outside [0, 1].
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self._smoothing = check_smoothing(label_smoothing)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each row (B,) of ``logits`` (B,) and ``labels`` (B,) in [0, 1]."""
        target = labels.to(logits.dtype)
        if self._smoothing:
            target = target * (1.0 - self._smoothing) + 0.5 * self._smoothing
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def check_smoothing(label_smoothing: float) -> float:
    """Returns ``label_smoothing``.

    Raises:
        ConfigError: it is outside [0, 1].
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise ConfigError(f"label_smoothing is {label_smoothing}, it must be in [0, 1]")
    return label_smoothing
