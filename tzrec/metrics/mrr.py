"""Mean reciprocal rank."""

from __future__ import annotations

from torch import Tensor

from tzrec.metrics.ranking import RowMeanMetric


class MRR(RowMeanMetric):
    """Mean over rows of 1 / rank of the best positive.

    Args:
        top_k: ranks beyond k count 0; 0 = all count.
        local: `compute` stays on this rank.
    """

    _name = "mrr"
    _needs_bound = False

    def __init__(self, top_k: int = 0, *, local: bool = False) -> None:
        super().__init__(top_k=top_k, local=local)

    def _of_rows(self, rows: Tensor, ranks: Tensor, positives: Tensor) -> Tensor:
        return self._best(rows, self._within(ranks) / ranks.double(), positives.numel())
