"""``kv_dot_product``: the dot product of two sparse vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import ConfigError
from tzrec.fg.kernels import kernels
from tzrec.fg.maps import find
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, Text, count_kept
from tzrec.fg.reading import Reading, parse_numbers


class KvDotProductOperator(Operator):
    """The sum of ``query[k] * document[k]`` over the keys that both have.

    Tokens are ``k:v``; a bare ``k`` weighs 1. Missing where either side is; both there without
    a common key is 0. Of equal keys of the document the first counts.
    """

    kind = "kv_dot_product"
    numeric = True
    zero_default = True

    def expressions(self) -> list[str]:
        """Returns query and document."""
        return [str(self.option("query")), str(self.option("document"))]

    def setup(self) -> None:
        """Reads ``kv_delimiter``."""
        self._delimiter = str(self.spec.options.get("kv_delimiter", ":"))
        if len(self._delimiter.encode()) != 1:
            raise ConfigError(
                f"kv_delimiter is {self._delimiter!r}, must be one character of ASCII"
            )
        self.spec = dataclasses.replace(self.spec, value_dim=1)

    def reading(self, number: int) -> Reading:
        """Reads both sides as maps, with the feature's own separators."""
        return dataclasses.replace(
            super().reading(number),
            as_map=True,
            as_numbers=False,
            pair_separator=self._delimiter,
            map_separator=self.spec.separator,
        )

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns one number per cell that has both sides."""
        query, document = columns
        assert isinstance(query.keys, Text)
        assert isinstance(document.keys, Text)
        positions = find(document.keys, document.lengths, query.with_values(query.keys))
        weights = np.append(self._weights(document), 0.0)
        products = self._weights(query) * weights[positions]
        sums = kernels().combine(products, query.lengths, 0)
        present = (query.lengths > 0) & (document.lengths > 0)
        numbers = sums[present]
        if self.normalizer is not None:
            numbers = self.normalizer(numbers)
        return Ragged(numbers, present.astype(np.int32), query.row_lengths)

    def _weights(self, side: Ragged) -> NDArray[np.float64]:
        values = side.values
        if not isinstance(values, Text):
            return values.astype(np.float64)
        weights = np.ones(len(values))
        written = values.ends > values.starts
        if written.any():
            positions = np.flatnonzero(written)
            lengths = count_kept(written, side.lengths)
            cells = Ragged(values.take(positions), lengths, side.row_lengths)
            weights[positions] = parse_numbers(cells, "the column")
        return weights
