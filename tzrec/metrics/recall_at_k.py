"""Share of the positives among the best k candidates."""

from __future__ import annotations

from torch import Tensor

from tzrec.metrics.ranking import RankingMetric


class RecallAtK(RankingMetric):
    """Positives of all rows among the best k of their row, divided by all positives.

    Args:
        top_k: k.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``top_k`` is 0.
    """

    _name = "recall_at_k"

    def __init__(self, top_k: int = 5, *, local: bool = False) -> None:
        super().__init__(top_k=top_k, local=local)

    def _add(self, rows: Tensor, ranks: Tensor, num_rows: int) -> None:
        self.value += self._within(ranks).sum()
        self.total += rows.numel()
