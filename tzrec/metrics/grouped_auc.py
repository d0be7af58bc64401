"""Mean of the exact AUCs of groups of rows (GAUC; Zhu et al., KDD 2017, arXiv 1703.02091)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from tzrec.metrics.base import RowsMetric, exchange_rows, world_size


class GroupedAUC(RowsMetric):
    """Plain mean of the AUCs of the groups that have rows of both classes; 0 without such groups.

    Rows are kept until `compute`, where each group goes to the rank ``key % world size``.

    Args:
        local: `compute` stays on this rank.
    """

    def __init__(self, *, local: bool = False) -> None:
        super().__init__("preds", "target", "keys", local=local)

    def update(self, preds: Tensor, target: Tensor, keys: Tensor) -> None:
        """Adds rows.

        Args:
            preds: (B,) scores.
            target: (B,) labels, positive above 0.5.
            keys: (B,) int64 group of each row.
        """
        self._append(preds=preds.float(), target=target > 0.5, keys=keys)

    def compute(self) -> Tensor:
        """Returns the mean, a float64 scalar."""
        preds, target, keys = self._rows()
        columns = [preds.float(), target.to(torch.uint8), keys.long()]
        if self._joins():
            columns = exchange_rows(columns, columns[2] % world_size())
        preds, target, keys = columns
        aucs = group_aucs(preds, target, keys)
        result = torch.stack([aucs.sum(), aucs.new_tensor(float(aucs.numel()))])
        if self._joins():
            dist.all_reduce(result)
        return result[0] / result[1].clamp(min=1)


def group_aucs(preds: Tensor, target: Tensor, keys: Tensor) -> Tensor:
    """Returns the AUC of each group that has both classes, tied scores counting half.

    The AUC of P positive and N negative rows is ``(R - P(P + 1)/2) / PN``, R being the sum of the
    ranks of the positive rows (Mann-Whitney), ties having their mean rank.

    Args:
        preds: (N,).
        target: (N,) of 0 and 1.
        keys: (N,).

    Returns:
        (groups,) float64.
    """
    order = torch.argsort(preds)
    order = order[torch.argsort(keys[order], stable=True)]
    preds, positive, keys = preds[order], target[order].double(), keys[order]
    _, group, sizes = torch.unique_consecutive(keys, return_inverse=True, return_counts=True)
    starts = sizes.cumsum(0) - sizes
    new = torch.ones_like(keys, dtype=torch.bool)
    new[1:] = (keys[1:] != keys[:-1]) | (preds[1:] != preds[:-1])
    tie = new.long().cumsum(0) - 1
    tie_starts = new.nonzero().squeeze(1)
    tie_sizes = torch.diff(tie_starts, append=tie_starts.new_tensor([keys.numel()]))
    mean_rank = (tie_starts + (tie_sizes + 1) / 2.0)[tie] - starts[group]
    zeros = positive.new_zeros(sizes.numel())
    num_positive = zeros.index_add(0, group, positive)
    rank_sum = zeros.index_add(0, group, positive * mean_rank)
    pairs = num_positive * (sizes - num_positive)
    aucs = (rank_sum - num_positive * (num_positive + 1) / 2) / pairs
    return aucs[pairs > 0]
