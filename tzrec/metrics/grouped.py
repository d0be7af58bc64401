"""What the metrics of groups share: where rows are kept, and how ranks exchange them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from tzrec.metrics.base import BaseMetric, exchange_rows, world_size
from tzrec.metrics.row_store import MAX_ROWS, NUM_PARTS, PART_BITS, ROW, RowStore

# Rows that are grouped at once: they, and the table of their groups, fit a processor's cache.
_CACHED_ROWS = 1 << 15
_MAX_BITS = 12


class GroupedMetric(BaseMetric):
    """A mean over groups of rows.

    Rows are kept until `compute` (16 bytes each; what exceeds 4M rows is on disk), where each
    group goes to the rank ``key % world size`` and is worked on there. The ranks exchange rows
    once, or once per 4M rows of the rank that has most. So a rank needs up to 0.3 GB of memory
    for up to 250M rows, and in proportion for more or for a single group that is larger than 4M.

    Args:
        local: `compute` stays on this rank.
    """

    _gathers_itself = True

    def __init__(self, *, local: bool = False) -> None:
        super().__init__(local=local)
        self._rows = RowStore()

    def update(self, preds: Tensor, target: Tensor, keys: Tensor) -> None:
        """Adds rows.

        Args:
            preds: (B,) scores.
            target: (B,) labels or targets.
            keys: (B,) int64 group of each row.
        """
        self._rows.add(keys, preds, target)

    def compute(self) -> Tensor:
        """Returns the mean over the groups, a float64 scalar; 0 without any."""
        own = np.zeros(3)
        for rows in self._exchanged():
            for part in _parts(rows):
                own += self._totals(part)
        totals = torch.from_numpy(own).to(self.device)
        if self._joins():
            dist.all_reduce(totals)
        mean = totals[0] / totals[1].clamp(min=1)
        self.half_width = self._half_width_of(mean, totals)
        return mean

    def reset(self) -> None:
        """Forgets all rows."""
        super().reset()
        self._rows.close()
        self._rows = RowStore()

    def _totals(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Returns (3,) over the groups of ``rows``: sum, weight, weighted sum of squares."""
        raise NotImplementedError

    def _half_width_of(self, mean: Tensor, totals: Tensor) -> float | None:
        """Returns the half width of the 95 % interval of the mean, None if it is not known."""
        return None

    def _exchanged(self) -> Iterator[NDArray[Any]]:
        """Yields the rows of this rank's groups, no group in two of the arrays."""
        most = torch.tensor(self._rows.num_rows, device=self.device)
        if self._joins():
            dist.all_reduce(most, dist.ReduceOp.MAX)
        num_rounds = min(-(-int(most) // MAX_ROWS), NUM_PARTS)
        limits = np.linspace(0, NUM_PARTS, num_rounds + 1).astype(int).tolist()
        for start, end in itertools.pairwise(limits):
            rows = self._rows.read(start, end)
            yield _sent_to_owners(rows, self.device) if self._joins() else rows


def _parts(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    from tzrec.metrics.kernels import sort_into_parts

    bits = min((len(rows) // _CACHED_ROWS).bit_length(), _MAX_BITS)
    rows, bounds = sort_into_parts(rows, PART_BITS, bits)
    for start, end in itertools.pairwise(bounds):
        yield rows[start:end]


def _sent_to_owners(rows: NDArray[Any], device: torch.device) -> NDArray[Any]:
    """Returns the rows of all ranks whose key belongs to this one."""
    # Two 8-byte words each.
    words = torch.from_numpy(rows.view(np.int64).reshape(-1, 2)).to(device)
    owner = words[:, 0] % world_size()
    (received,) = exchange_rows([words], owner)
    return received.cpu().numpy().reshape(-1).view(ROW)
