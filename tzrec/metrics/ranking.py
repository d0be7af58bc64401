"""What metrics of ranked candidates share: at which ranks the positives of each row stand."""

from __future__ import annotations

import torch
from torch import Tensor

from tzrec.errors import ConfigError
from tzrec.metrics.base import BaseMetric


class RankingMetric(BaseMetric):
    """Base of metrics of the ranks of positives among the candidates of their row.

    Rank 1 is the best. A tie counts against the positive, and so does a score that is not a number,
    its own or another one: a model that gives all candidates one score has found nothing.

    Args:
        top_k: only ranks up to k count, 0 = all.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``top_k`` is 0 although the metric needs a bound.
    """

    value: Tensor
    total: Tensor
    _name = ""
    _needs_bound = True

    def __init__(self, *, top_k: int = 0, local: bool = False) -> None:
        super().__init__(local=local)
        if top_k < 0 or (self._needs_bound and top_k < 1):
            raise ConfigError(f"{self._name}.top_k is {top_k}, it must be at least 1")
        self._top_k = top_k
        self._add_sum("value")
        self._add_sum("total", dtype=torch.int64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds rows.

        Args:
            preds: (B, C) scores of the candidates.
            target: (B,) column of the one positive of each row, or (B, C), true at each positive.
        """
        if target.dim() == 1:
            rows, columns = torch.arange(preds.size(0), device=preds.device), target.long()
            ranks = ranks_of_one(preds, columns)
        else:
            rows, ranks = ranks_of_many(preds, target.bool())
        self._add(rows, ranks, preds.size(0))

    def _add(self, rows: Tensor, ranks: Tensor, num_rows: int) -> None:
        """Adds positives: their rows (M,) in ascending order and their ranks (M,)."""
        raise NotImplementedError

    def _within(self, ranks: Tensor) -> Tensor:
        """Tells which ranks count."""
        return ranks <= self._top_k if self._top_k else torch.ones_like(ranks, dtype=torch.bool)

    def compute(self) -> Tensor:
        """Returns the metric, a float64 scalar; 0 without positives."""
        return self.value / self.total.clamp(min=1)


class RowMeanMetric(RankingMetric):
    """Base of ranking metrics that are a mean over the rows that have a positive."""

    def _add(self, rows: Tensor, ranks: Tensor, num_rows: int) -> None:
        positives = torch.bincount(rows, minlength=num_rows)
        exists = positives > 0
        self.value += self._of_rows(rows, ranks, positives)[exists].sum()
        self.total += exists.sum()

    def _of_rows(self, rows: Tensor, ranks: Tensor, positives: Tensor) -> Tensor:
        """Returns the value of each row (B,), float64.

        Args:
            rows: (M,) row of each positive.
            ranks: (M,) its rank.
            positives: (B,) number of positives of each row.
        """
        raise NotImplementedError

    def _best(self, rows: Tensor, gains: Tensor, num_rows: int) -> Tensor:
        """Returns the largest gain (B,) of the positives of each row, 0 without any."""
        best = torch.zeros(num_rows, dtype=torch.float64, device=gains.device)
        return best.scatter_reduce(0, rows, gains.double(), "amax")


def ranks_of_one(preds: Tensor, columns: Tensor) -> Tensor:
    """Returns the rank (B,) of one candidate of each row.

    Args:
        preds: (B, C).
        columns: (B,) the candidate.
    """
    # What is not below stands before: equal scores, and comparisons with NaN.
    below = preds < preds.gather(1, columns.unsqueeze(1))
    return preds.size(1) - below.sum(dim=1)


def ranks_of_many(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns row and rank (M,) of every positive, the rows in ascending order.

    Args:
        preds: (B, C).
        target: (B, C), true at the positives.
    """
    worst = torch.where(target, -torch.inf, torch.inf)
    scores = torch.where(preds.isnan(), worst, preds)
    # Two stable sorts: by score, and among equal ones the positives last.
    order = target.to(torch.uint8).argsort(dim=1, stable=True)
    by_score = scores.gather(1, order).argsort(dim=1, descending=True, stable=True)
    rows, places = target.gather(1, order).gather(1, by_score).nonzero(as_tuple=True)
    return rows, places + 1
