"""XAUC: how often scores order two rows like their targets (Zhan et al., KDD 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzrec.errors import ConfigError
from tzrec.metrics.base import RowsMetric, gather_rows
from tzrec.metrics.pairs import CHUNK, SEED, count_same_order, pair_of_index, same_order


class XAUC(RowsMetric):
    """Share of pairs of rows that the scores order like the targets; a tie is wrong.

    Pairs are drawn with replacement from all pairs, by a generator of its own with a fixed seed.
    All pairs are counted instead where that is cheaper than drawing that many. 0 with fewer than
    two rows. Every rank gets the rows of all ranks at `compute`: 8 bytes each, 30 while counting.

    Args:
        sample_ratio: share of all pairs that are drawn.
        max_pairs: number of pairs to draw; 0 or None goes by the ratio.
        in_batch: mean over batches of the share of all pairs within a batch; nothing is drawn.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``sample_ratio`` is outside (0, 1].
    """

    shares: Tensor
    batches: Tensor

    def __init__(
        self,
        *,
        sample_ratio: float = 1e-3,
        max_pairs: int | None = None,
        in_batch: bool = False,
        local: bool = False,
    ) -> None:
        columns = () if in_batch else ("preds", "target")
        super().__init__(*columns, local=local)
        if not 0.0 < sample_ratio <= 1.0:
            raise ConfigError(f"xauc.sample_ratio is {sample_ratio}, it must be in (0, 1]")
        self._sample_ratio = sample_ratio
        self._max_pairs = max_pairs or 0
        self._in_batch = in_batch
        if in_batch:
            self._add_sum("shares")
            self._add_sum("batches")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds rows: ``preds`` (B,) and ``target`` (B,)."""
        if not self._in_batch:
            self._append(preds=preds.float(), target=target.float())
        elif preds.numel() > 1:
            self.shares += _share_of_all(preds, target)
            self.batches += 1

    def compute(self) -> Tensor:
        """Returns the share, a float64 scalar."""
        if self._in_batch:
            totals = torch.stack([self.shares, self.batches])
            if self._joins():
                torch.distributed.all_reduce(totals)
            return totals[0] / totals[1].clamp(min=1)
        columns = [column.float() for column in self._rows()]
        if self._joins():
            columns = gather_rows(columns)
        preds, target = columns
        if preds.numel() < 2:
            return preds.new_zeros((), dtype=torch.float64)
        num_pairs = self._num_pairs(preds.numel())
        if num_pairs is None:
            return _share_of_all(preds, target)
        return _share_of_sample(preds, target, num_pairs)

    def _num_pairs(self, num_rows: int) -> int | None:
        """Returns how many pairs to draw, None to take all."""
        every = num_rows * (num_rows - 1) // 2
        wanted = self._max_pairs or max(1, round(self._sample_ratio * every))
        # Measured on a CPU: drawing a pair takes as long as 12 rows and levels of the count.
        cost_of_all = num_rows * math.log2(num_rows) / 12
        return None if wanted >= min(every, cost_of_all) else wanted


def _share_of_all(preds: Tensor, target: Tensor) -> Tensor:
    num_rows = preds.numel()
    return count_same_order(preds, target).double() / (num_rows * (num_rows - 1) // 2)


def _share_of_sample(preds: Tensor, target: Tensor, num_pairs: int) -> Tensor:
    num_rows = preds.numel()
    every = num_rows * (num_rows - 1) // 2
    generator = torch.Generator(device=preds.device).manual_seed(SEED)
    right = torch.zeros((), dtype=torch.int64, device=preds.device)
    for start in range(0, num_pairs, CHUNK):
        size = (min(CHUNK, num_pairs - start),)
        index = torch.randint(every, size, generator=generator, device=preds.device)
        right += same_order(preds, target, *pair_of_index(index)).sum()
    return right.double() / num_pairs
