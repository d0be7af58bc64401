"""Normalised discounted cumulative gain of the best k candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from tzrec.metrics.ranking import RowMeanMetric


class NDCGAtK(RowMeanMetric):
    """Mean over rows of DCG@k divided by the best that it can be.

    ``DCG@k = sum 1 / log2(1 + rank)`` over the positives of a row with ``rank <= k`` (Järvelin and
    Kekäläinen 2002, gain 1 for each positive).

    Args:
        top_k: k.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``top_k`` is 0.
    """

    _name = "ndcg_at_k"

    def __init__(self, top_k: int = 10, *, local: bool = False) -> None:
        super().__init__(top_k=top_k, local=local)

    def _of_rows(self, rows: Tensor, ranks: Tensor, positives: Tensor) -> Tensor:
        gains = self._within(ranks) / torch.log2(1.0 + ranks.double())
        found = torch.zeros(positives.numel(), dtype=torch.float64, device=ranks.device)
        found.index_add_(0, rows, gains)
        places = torch.arange(1, self._top_k + 1, dtype=torch.float64, device=ranks.device)
        best = torch.cumsum(1.0 / torch.log2(1.0 + places), dim=0)
        return found / best[positives.clamp(1, self._top_k) - 1]
