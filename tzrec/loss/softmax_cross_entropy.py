"""Cross entropy of softmax over classes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.loss.binary_cross_entropy import check_smoothing


class SoftmaxCrossEntropy(nn.Module):
    """``-sum_c y'_c log softmax(logits)_c``; smoothing s gives each of C classes s/C.

    Args:
        label_smoothing: s.

    Raises:
        ConfigError: ``label_smoothing`` is outside [0, 1].
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self._smoothing = check_smoothing(label_smoothing)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each row (B,) of ``logits`` (B, C) and int64 ``labels`` (B,)."""
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self._smoothing)
