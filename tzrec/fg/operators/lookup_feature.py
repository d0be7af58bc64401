"""``lookup_feature``: values of a map at some keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.combiners import combiner_number
from tzrec.fg.kernels import kernels
from tzrec.fg.maps import find, kept
from tzrec.fg.operators.base import Operator
from tzrec.fg.operators.combine_feature import combined
from tzrec.fg.ragged import Ragged, Text
from tzrec.fg.reading import Reading, as_text, parse_numbers


class LookupOperator(Operator):
    r"""What a map has for the keys of a cell, in the order of the keys; misses are passed over.

    The map is text ``k:v\x1dk:v`` or a map column. Numbers are combined into one; text, and
    numbers without a combiner, stay several. Of equal keys the first counts.
    """

    kind = "lookup_feature"
    truncates = False

    def expressions(self) -> list[str]:
        """Returns the map and the key."""
        return [str(self.option("map")), str(self.option("key"))]

    def setup(self) -> None:
        """Reads what the values are and how they are combined."""
        options = self.spec.options
        self._discrete = self.spec.value_type == "string"
        self.numeric = not self._discrete
        combiner = "" if options.get("needDiscrete") else options.get("combiner", "sum")
        combines = combiner and not self._discrete
        self._how = combiner_number(str(combiner), or_none=True) if combines else None
        self._with_key = bool(options.get("needKey")) and self._discrete
        if self.numeric:
            # Without a combiner a cell has as many numbers as keys were found.
            dim = 1 if self._how is not None else 0
            self.spec = dataclasses.replace(self.spec, value_dim=dim)

    def reading(self, number: int) -> Reading:
        """Reads the map as one, the key as text."""
        return dataclasses.replace(super().reading(number), as_map=number == 0, as_numbers=False)

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the values that were found."""
        entries, wanted = columns
        assert isinstance(entries.keys, Text)
        positions = find(entries.keys, entries.lengths, wanted)
        lengths = kept(wanted, positions)
        found = entries.take_values(positions[positions >= 0], lengths, wanted.row_lengths)
        if self._discrete:
            return self._texts(found)
        numbers = found.with_values(self._numbers(found))
        if self._how is not None:
            numbers = combined(numbers, self._how)
        if self.normalizer is not None:
            numbers = numbers.with_values(self.normalizer(numbers.values))
        return numbers

    def _numbers(self, found: Ragged) -> NDArray[np.float64]:
        if found.is_text:
            return parse_numbers(found, "the map")
        return found.values.astype(np.float64)

    def _texts(self, found: Ragged) -> Ragged:
        values = as_text(found.values)
        if self._with_key:
            assert isinstance(found.keys, Text)
            joiner = np.frombuffer(b"_", np.uint8)
            pieces = ((found.keys.data, found.keys.starts, found.keys.ends), _arrays(values))
            values = Text(*kernels().concat(pieces, joiner))
        return found.with_values(values)


def _arrays(text: Text) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    return text.data, text.starts, text.ends
