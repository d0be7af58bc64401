"""``id_feature``: the values of one column."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tzrec.errors import ConfigError
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, as_float32
from tzrec.fg.reading import Reading, parse_numbers


class IdOperator(Operator):
    """Each value is one id; with ``weighted`` each comes with a weight, ``id:weight``."""

    kind = "id_feature"
    num_inputs = 1

    def setup(self) -> None:
        """Reads ``weighted``."""
        self.weighted = bool(self.spec.options.get("weighted"))
        self.is_elementwise = not self.weighted
        if self.weighted and self.spec.is_sequence:
            raise ConfigError(
                f"id_feature {self.spec.name!r} is weighted and a sequence; steps have no weights"
            )

    def reading(self, number: int) -> Reading:
        """Reads weighted ids as a map."""
        how = super().reading(number)
        if not self.weighted:
            return how
        return dataclasses.replace(how, as_map=True, map_separator=self.spec.separator)

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the column's values, with weights if weighted."""
        (column,) = columns
        if not self.weighted or column.keys is None:
            return column
        weights = column.values
        if column.is_text:
            weights = parse_numbers(column, "the column")
        return Ragged(column.keys, column.lengths, column.row_lengths, as_float32(weights))
