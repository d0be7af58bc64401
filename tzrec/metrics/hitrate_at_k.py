"""Share of the rows with a positive among the best k candidates."""

from __future__ import annotations

from torch import Tensor

from tzrec.metrics.ranking import RowMeanMetric


class HitRateAtK(RowMeanMetric):
    """Rows with at least one positive among the best k, divided by all rows that have one.

    With one positive per row this is `RecallAtK`.

    Args:
        top_k: k.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``top_k`` is 0.
    """

    _name = "hitrate_at_k"

    def __init__(self, top_k: int = 10, *, local: bool = False) -> None:
        super().__init__(top_k=top_k, local=local)

    def _of_rows(self, rows: Tensor, ranks: Tensor, positives: Tensor) -> Tensor:
        return self._best(rows, self._within(ranks), positives.numel())
