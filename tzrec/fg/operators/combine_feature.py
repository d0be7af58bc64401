"""``combine_feature``: the values of a cell made into one number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tzrec.fg.bucketize import NumberOf
from tzrec.fg.checks import mapping, number
from tzrec.fg.combiners import combiner_number
from tzrec.fg.kernels import kernels
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, count_kept
from tzrec.fg.reading import Reading, as_text, parse_numbers


def combined(cells: Ragged, how: int) -> Ragged:
    """Returns one number per cell that has values; ``how`` as in `tzrec.fg.combiners`."""
    present = cells.lengths > 0
    numbers = kernels().combine(cells.values.astype(np.float64), cells.lengths, how)
    return Ragged(numbers[present], present.astype(np.int32), cells.row_lengths)


class CombineOperator(Operator):
    """Numbers, or what ``value_map`` has for a value, combined and normalised.

    With ``num_buckets`` the number is cut to a whole one. Values that ``value_map`` lacks are
    passed over.
    """

    kind = "combine_feature"
    num_inputs = 1
    numeric = True

    def setup(self) -> None:
        """Reads ``combiner`` and ``value_map``."""
        self._how = combiner_number(str(self.spec.options.get("combiner") or "sum"))
        value_map = mapping("value_map", self.spec.options.get("value_map") or {})
        self._map = NumberOf({k: number(f"value_map[{k!r}]", v) for k, v in value_map.items()})
        self._has_map = bool(value_map)

    def reading(self, number: int) -> Reading:
        """Reads text where it is mapped."""
        return super().reading(number).as_text() if self._has_map else super().reading(number)

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns one number per cell."""
        (column,) = columns
        if self._has_map:
            column = self._mapped(column)
        elif column.is_text:
            column = column.with_values(parse_numbers(column, "the column"))
        result = combined(column, self._how)
        if self.normalizer is not None:
            result = result.with_values(self.normalizer(result.values))
        return result

    def _mapped(self, column: Ragged) -> Ragged:
        numbers, known = self._map.of(as_text(column.values))
        lengths = count_kept(known, column.lengths)
        return Ragged(numbers[known], lengths, column.row_lengths)
