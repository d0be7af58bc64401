"""Lists of item positions, one a row: what a user has seen, what would be right for him."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class RowLists:
    """Item positions of each row, without repetition.

    Attributes:
        offsets: (B + 1,) row i has ``values[offsets[i]:offsets[i + 1]]``.
        values: positions, ascending within a row.
    """

    offsets: Positions
    values: Positions

    @classmethod
    def of(cls, lists: Iterable[Sequence[int]]) -> RowLists:
        """Takes lists of positions; negative ones (unknown items) are left out."""
        parts = [np.asarray(one, dtype=np.int64) for one in lists]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        rows = np.repeat(np.arange(len(parts)), lengths)
        values = np.concatenate(parts) if parts else np.empty(0, np.int64)
        return cls.from_pairs(rows, values, len(parts))

    @classmethod
    def from_pairs(cls, rows: Positions, values: Positions, num_rows: int) -> RowLists:
        """Takes (row, position) pairs in any order; those with a negative number are left out."""
        rows, values = np.asarray(rows, np.int64), np.asarray(values, np.int64)
        known = (rows >= 0) & (values >= 0)
        rows, values = rows[known], values[known]
        order = np.lexsort((values, rows))
        rows, values = rows[order], values[order]
        first = np.ones(len(rows), dtype=bool)
        first[1:] = (rows[1:] != rows[:-1]) | (values[1:] != values[:-1])
        rows, values = rows[first], values[first]
        offsets = np.zeros(num_rows + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=num_rows), out=offsets[1:])
        return cls(offsets, values)

    @classmethod
    def empty(cls, num_rows: int) -> RowLists:
        """Returns empty lists."""
        return cls(np.zeros(num_rows + 1, np.int64), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Positions:
        """(B,) positions of each row."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Positions:
        """Row of each value."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def slice(self, start: int, stop: int) -> RowLists:
        """Returns the rows ``[start, stop)``."""
        offsets = self.offsets[start : stop + 1]
        return RowLists(offsets - offsets[0], self.values[offsets[0] : offsets[-1]])

    def take(self, rows: Positions) -> RowLists:
        """Returns some rows, in their order."""
        lengths = self.lengths[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return RowLists(offsets, self.values[places])

    def contains(self, found: Positions) -> NDArray[np.bool_]:
        """Says which of the positions ``found`` (B, K) are in their row's list; −1 never is."""
        if not len(self.values):
            return np.zeros(found.shape, dtype=bool)
        # Row and position as one number: sorted, as rows and the values within them are.
        width = int(max(self.values.max(), found.max(initial=0))) + 2
        keys = self.rows * width + self.values
        wanted = (np.arange(len(self))[:, None] * width + found).reshape(-1)
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        inside = (keys[places] == wanted).reshape(found.shape)
        return np.asarray(inside & (found >= 0))
