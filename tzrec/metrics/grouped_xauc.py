"""XAUC within groups of rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from tzrec.errors import ConfigError
from tzrec.metrics.base import RowsMetric, exchange_rows, world_size
from tzrec.metrics.pairs import CHUNK, SEED, pair_of_index, same_order


class GroupedXAUC(RowsMetric):
    """Mean over groups of two or more rows, weighted by their rows, of the XAUC in the group.

    All pairs of a group count if there are at most ``max_pairs_per_group``; otherwise that many
    are drawn with replacement, by a generator with a fixed seed. 0 without such groups.

    Args:
        max_pairs_per_group: most pairs per group.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``max_pairs_per_group`` is 0.
    """

    def __init__(self, *, max_pairs_per_group: int = 100, local: bool = False) -> None:
        super().__init__("preds", "target", "keys", local=local)
        if max_pairs_per_group < 1:
            raise ConfigError(
                f"grouped_xauc.max_pairs_per_group is {max_pairs_per_group}, must be at least 1"
            )
        self._max_pairs = max_pairs_per_group

    def update(self, preds: Tensor, target: Tensor, keys: Tensor) -> None:
        """Adds rows.

        Args:
            preds: (B,) scores.
            target: (B,) targets.
            keys: (B,) int64 group of each row.
        """
        self._append(preds=preds.float(), target=target.float(), keys=keys)

    def compute(self) -> Tensor:
        """Returns the weighted mean, a float64 scalar."""
        preds, target, keys = self._rows()
        columns = [preds, target, keys.long()]
        if self._joins():
            columns = exchange_rows(columns, columns[2] % world_size())
        shares, sizes = group_xaucs(*columns, max_pairs=self._max_pairs)
        result = torch.stack([(shares * sizes).sum(), sizes.sum().double()])
        if self._joins():
            dist.all_reduce(result)
        return result[0] / result[1].clamp(min=1)


def group_xaucs(
    preds: Tensor, target: Tensor, keys: Tensor, *, max_pairs: int
) -> tuple[Tensor, Tensor]:
    """Returns the XAUC and the rows of each group that has at least two.

    Args:
        preds: (N,).
        target: (N,).
        keys: (N,).
        max_pairs: most pairs per group.

    Returns:
        (groups,) float64 and (groups,) int64, by rising key.
    """
    order = torch.argsort(keys, stable=True)
    preds, target = preds[order], target[order]
    _, sizes = torch.unique_consecutive(keys[order], return_counts=True)
    starts = sizes.cumsum(0) - sizes
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    every = sizes * (sizes - 1) // 2
    taken = every.clamp(max=max_pairs)
    right = torch.zeros_like(sizes)
    generator = torch.Generator(device=preds.device).manual_seed(SEED)
    for first, last in _chunks(taken):
        count = taken[first:last]
        group = torch.repeat_interleave(torch.arange(first, last, device=count.device), count)
        index = torch.arange(group.numel(), device=count.device)
        index -= torch.repeat_interleave(count.cumsum(0) - count, count)
        draw = torch.rand(
            index.shape, dtype=torch.float64, device=count.device, generator=generator
        )
        drawn = torch.minimum((draw * every[group]).long(), every[group] - 1)
        index = torch.where(every[group] > max_pairs, drawn, index)
        i, j = pair_of_index(index)
        hits = same_order(preds, target, starts[group] + i, starts[group] + j)
        right.index_add_(0, group, hits.long())
    return right.double() / taken, sizes


def _chunks(taken: Tensor) -> Iterator[tuple[int, int]]:
    """Yields ranges of groups that have about `CHUNK` pairs together."""
    if taken.numel() == 0:
        return
    part = taken.cumsum(0) // CHUNK
    sizes = torch.unique_consecutive(part, return_counts=True)[1].tolist()
    start = 0
    for size in sizes:
        yield start, start + size
        start += size
