"""``raw_feature``: the numbers of one column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, as_float32


class RawOperator(Operator):
    """``value_dim`` numbers, normalised.

    Columns of numbers are computed in float32, numbers in text in float64 (fg.md §4).
    """

    kind = "raw_feature"
    num_inputs = 1
    numeric = True
    is_elementwise = True

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the normalised numbers."""
        (column,) = columns
        values = column.values
        if values.dtype == np.int64:
            values = as_float32(values)
        if self.normalizer is not None:
            values = self.normalizer(values)
        return column.with_values(values)
