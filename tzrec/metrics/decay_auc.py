"""AUC of the last steps of training, smoothed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tzrec.metrics.auc import AUC, auc_of_histogram
from tzrec.metrics.train_metric_wrapper import TrainMetricWrapper


class DecayAUC(TrainMetricWrapper):
    """`AUC` whose counts per threshold are blended, not its values.

    Args:
        thresholds: number of thresholds.
        decay_rate: weight of the old counts.
        decay_step: updates per window.
    """

    metric: AUC

    def __init__(self, thresholds: int = 200, **decay: Any) -> None:
        super().__init__(AUC(thresholds, local=True), **decay)

    def _recent(self) -> Tensor:
        return self.metric.histogram.double()

    def _value(self, blended: Tensor) -> Tensor:
        return auc_of_histogram(blended).nan_to_num(0.0)
