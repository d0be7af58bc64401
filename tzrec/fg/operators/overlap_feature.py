"""``overlap_feature``: how much the terms of a query and a title have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tzrec.errors import ConfigError, did_you_mean
from tzrec.fg.operators.base import Operator
from tzrec.fg.overlap import METHODS, term_pairs
from tzrec.fg.ragged import Ragged
from tzrec.fg.reading import Reading


class OverlapOperator(Operator):
    """One number per cell by ``method``, see `tzrec.fg.overlap`; 0 where a side is missing."""

    kind = "overlap_feature"
    numeric = True
    zero_default = True

    def expressions(self) -> list[str]:
        """Returns query and title."""
        return [str(self.option("query")), str(self.option("title"))]

    def setup(self) -> None:
        """Reads ``method``."""
        method = str(self.option("method"))
        if method not in METHODS:
            raise ConfigError(
                f"overlap_feature {self.spec.name!r}: method is {method!r}, must be one of "
                f"{', '.join(METHODS)}{did_you_mean(method, METHODS)}"
            )
        self._compute = METHODS[method]
        self.spec = dataclasses.replace(self.spec, value_dim=1)

    def reading(self, number: int) -> Reading:
        """Reads terms as text."""
        return super().reading(number).as_text()

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns one number per cell that has both sides."""
        query, title = columns
        present = (query.lengths > 0) & (title.lengths > 0)
        cells = np.flatnonzero(present)
        numbers = self._compute(term_pairs(query.take_cells(cells), title.take_cells(cells)))
        if self.normalizer is not None:
            numbers = self.normalizer(numbers)
        return Ragged(numbers, present.astype(np.int32), query.row_lengths)
