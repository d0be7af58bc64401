"""XAUC within groups of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import ConfigError
from tzrec.metrics.grouped import GroupedMetric
from tzrec.metrics.pairs import SEED


class GroupedXAUC(GroupedMetric):
    """Mean over groups of two or more rows, weighted by their rows, of the XAUC in the group.

    All pairs of a group count if there are at most ``max_pairs_per_group``; otherwise that many
    are drawn with replacement, by a generator with a fixed seed. 0 without such groups. Memory
    as of `GroupedMetric`.

    Args:
        max_pairs_per_group: most pairs per group.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: ``max_pairs_per_group`` is 0.
    """

    def __init__(self, *, max_pairs_per_group: int = 100, local: bool = False) -> None:
        super().__init__(local=local)
        if max_pairs_per_group < 1:
            raise ConfigError(
                f"grouped_xauc.max_pairs_per_group is {max_pairs_per_group}, must be at least 1"
            )
        self._max_pairs = max_pairs_per_group

    def _totals(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        from tzrec.metrics.kernels import xauc_totals

        return xauc_totals(rows, min(self._max_pairs, 1 << 62), SEED)
