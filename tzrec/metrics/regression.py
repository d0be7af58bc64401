"""Mean absolute and mean squared error."""

from __future__ import annotations

from torch import Tensor

from tzrec.metrics.base import BaseMetric


class _MeanError(BaseMetric):
    error: Tensor
    total: Tensor

    def __init__(self, *, local: bool = False) -> None:
        super().__init__(local=local)
        self._add_sum("error")
        self._add_sum("total")

    def _of(self, difference: Tensor) -> Tensor:
        raise NotImplementedError

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds rows: ``preds`` (B,) and ``target`` (B,)."""
        self.error += self._of(preds.double() - target.double()).sum()
        self.total += preds.numel()

    def compute(self) -> Tensor:
        """Returns the mean, a float64 scalar; 0 without rows."""
        return self.error / self.total.clamp(min=1)


class MeanAbsoluteError(_MeanError):
    """Mean of ``|prediction - label|``."""

    def _of(self, difference: Tensor) -> Tensor:
        return difference.abs()


class MeanSquaredError(_MeanError):
    """Mean of ``(prediction - label)^2``."""

    def _of(self, difference: Tensor) -> Tensor:
        return difference.square()
