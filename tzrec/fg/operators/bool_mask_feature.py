"""``bool_mask_feature``: the values that a mask keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import ConfigError
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, Text, count_kept, ranges

_TRUE = (b"true", b"1")


class BoolMaskOperator(Operator):
    """Value i of a cell stays where value i of its mask is ``true`` or ``1``, in any case.

    Values without a mask are dropped.
    """

    kind = "bool_mask_feature"

    def setup(self) -> None:
        """Checks the number of inputs."""
        if len(self.inputs) != 2:
            raise ConfigError(
                f"bool_mask_feature {self.spec.name!r} has {len(self.inputs)} inputs; it takes "
                "the values and their mask"
            )

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the values that are kept."""
        values, mask = columns
        common = np.minimum(values.lengths, mask.lengths)
        of_values = ranges(_starts(values), common)
        of_mask = ranges(_starts(mask), common)
        keeps = _truths(mask)[of_mask]
        lengths = count_kept(keeps, common)
        return values.take_values(of_values[keeps], lengths, values.row_lengths)


def _starts(column: Ragged) -> NDArray[np.int64]:
    return np.cumsum(column.lengths, dtype=np.int64) - column.lengths


def _truths(mask: Ragged) -> NDArray[np.bool_]:
    values = mask.values
    if not isinstance(values, Text):
        return np.asarray(values == 1)
    sizes = values.ends - values.starts
    truths = np.zeros(len(values), dtype=bool)
    for word in _TRUE:
        same = np.flatnonzero(sizes == len(word))
        letters = values.data[values.starts[same, None] + np.arange(len(word))]
        # The bit 0x20 makes ASCII letters small and leaves digits alone.
        small = np.frombuffer(word, np.uint8) | 0x20
        truths[same] |= ((letters | 0x20) == small).all(axis=1)
    return truths
