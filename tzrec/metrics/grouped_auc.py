"""Mean of the exact AUCs of groups of rows (GAUC; Zhu et al., KDD 2017, arXiv 1703.02091)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tzrec.metrics.base import half_width
from tzrec.metrics.grouped import GroupedMetric


class GroupedAUC(GroupedMetric):
    """Plain mean of the AUCs of the groups that have rows of both classes; 0 without such groups.

    Rows are positive above 0.5; of two tied rows each is right by half. Arguments and memory as
    of `GroupedMetric`.
    """

    def _totals(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        from tzrec.metrics.kernels import auc_totals, ordered_bits

        return auc_totals(rows, ordered_bits(np.ascontiguousarray(rows["score"])))

    def _half_width_of(self, mean: Tensor, totals: Tensor) -> float | None:
        _, count, squares = totals.tolist()
        if count < 2:
            return None
        # The groups are a sample of groups.
        variance = max(squares / count - float(mean) ** 2, 0.0) * count / (count - 1)
        return half_width(variance / count)
