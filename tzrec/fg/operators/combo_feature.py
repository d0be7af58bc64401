"""``combo_feature``: products of the values of several columns."""

from __future__ import annotations

from collections.abc import Sequence

from tzrec.errors import ConfigError
from tzrec.fg.kernels import kernels
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, Text
from tzrec.fg.reading import as_text

_JOINER = ord("_")


class ComboOperator(Operator):
    """The Cartesian product of each cell's values, joined by ``_``, first column slowest.

    ``(ua, ub) x (ia, ib)`` gives ``ua_ia, ua_ib, ub_ia, ub_ib``. A missing part makes the cell
    missing.
    """

    kind = "combo_feature"

    def setup(self) -> None:
        """Checks the number of inputs."""
        if len(self.inputs) < 2:
            raise ConfigError(
                f"combo_feature {self.spec.name!r} has {len(self.inputs)} input, needs at least 2"
            )

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the products as text."""
        parts = tuple(
            (text.data, text.starts, text.ends, column.lengths)
            for text, column in ((as_text(column.values), column) for column in columns)
        )
        data, starts, ends, lengths = kernels().cross_text(parts, _JOINER)
        return Ragged(Text(data, starts, ends), lengths, columns[0].row_lengths)

    def finish(self, columns: Sequence[Ragged]) -> Ragged:
        """Hashes the products without writing them, where they are hashed."""
        bucketize = self.tail.bucketize
        if bucketize is not None and bucketize.joins_products:
            return self.tail.finish_ids(bucketize.cross(list(columns)))
        return super().finish(columns)
