"""`Ragged`: the one shape that columns have inside feature generation.

A *cell* holds the values of one row, or of one step where the column is a sequence. Values of
all cells lie flat, in cell order; ``lengths`` says how many each cell has, 0 = missing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.fg.kernels import kernels
from tzrec.fg.kernels.plain_text import ranges

__all__ = ["Counts", "Ragged", "Text", "as_float32", "count_kept", "ranges", "take"]

Lengths = NDArray[np.int32]
Positions = NDArray[np.int64]


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Returns numbers in float32; those beyond its range become inf, as IEEE 754 rounds them."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


@dataclass(slots=True, eq=False)  # frozen ones take four times as long to make
class Text:
    """Texts as slices of one byte buffer: text i is ``data[starts[i]:ends[i]]``.

    Attributes:
        data: uint8 (bytes,), UTF-8; often the buffer of an Arrow array.
        starts: int64 (n,).
        ends: int64 (n,).
    """

    data: NDArray[np.uint8]
    starts: Positions
    ends: Positions

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, positions: NDArray[Any] | slice) -> Text:
        """Returns the texts at some positions; the bytes are shared."""
        return Text(self.data, self.starts[positions], self.ends[positions])

    def raw(self, position: int) -> bytes:
        """Returns the bytes of one text."""
        return self.data[self.starts[position] : self.ends[position]].tobytes()

    def show(self, position: int) -> str:
        """Returns one text for a message."""
        return self.raw(position).decode("utf-8", "replace")

    def to_arrow(self) -> pa.Array:
        """Returns the texts as a string array.

        Raises:
            pa.ArrowInvalid: bytes are not UTF-8.
        """
        array = self.to_binary().view(pa.large_string())
        array.validate(full=True)
        return array

    def to_binary(self) -> pa.Array:
        """Returns the bytes of the texts as a binary array, whatever they are."""
        data, starts, ends = kernels().gather_text(self.data, self.starts, self.ends)
        offsets = np.append(starts, ends[-1:] if len(ends) else 0).astype(np.int64)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.large_binary(), len(starts), buffers)

    @classmethod
    def of(cls, texts: list[str]) -> Text:
        """Returns Python strings as `Text`."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        starts = ends - np.array([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), starts, ends)


Values = Any  # Text, or an array of int64, float32 or float64


@dataclass(frozen=True)
class Counts:
    """What there was in a batch before defaults were filled in.

    Attributes:
        rows: rows.
        missing: rows without any value.
        cells: rows, or steps of a sequence.
        values: values of all cells.
        unknown: values that have no id of their own, of a vocabulary or ``num_buckets``.
    """

    rows: int
    missing: int
    cells: int
    values: int
    unknown: int


@dataclass(slots=True, eq=False)
class Ragged:
    """Values in cells; never changed, as features share them.

    Attributes:
        values: `Text`, or an array int64, float32, float64; n values.
        lengths: int32 (cells,) values per cell.
        row_lengths: int32 (B,) cells per row of a sequence; None: a cell is a row.
        weights: float32 (n,), or None.
        keys: keys of a map's entries, whose items are ``values``; else None.
        from_numbers: the column had one number per row, not text or a list.
        counts: what there was before defaults, where that is counted.
        single: each cell is known to have exactly one value, which makes most steps short.
    """

    values: Values
    lengths: Lengths
    row_lengths: Lengths | None = None
    weights: NDArray[np.float32] | None = None
    keys: Text | NDArray[Any] | None = None
    from_numbers: bool = False
    counts: Counts | None = None
    single: bool = False

    @property
    def is_sequence(self) -> bool:
        """True where cells are steps."""
        return self.row_lengths is not None

    @property
    def is_text(self) -> bool:
        """True where values are `Text`."""
        return isinstance(self.values, Text)

    @property
    def num_cells(self) -> int:
        """Rows, or steps of all rows."""
        return len(self.lengths)

    @property
    def num_rows(self) -> int:
        """Rows."""
        return len(self.lengths) if self.row_lengths is None else len(self.row_lengths)

    def with_values(self, values: Values) -> Ragged:
        """Returns the same cells with other values, as many as before."""
        return dataclasses.replace(self, values=values, keys=None)

    def row_of(self, position: int) -> int:
        """Returns the row of the flat value at ``position``."""
        return self.row_of_cell(_owner(self.lengths, position))

    def row_of_cell(self, cell: int) -> int:
        """Returns the row of a cell."""
        return cell if self.row_lengths is None else _owner(self.row_lengths, cell)

    def take_cells(self, cells: NDArray[Any], row_lengths: Lengths | None = None) -> Ragged:
        """Returns the cells at some positions, in that order; -1 stands for a missing cell.

        Args:
            cells: int64 (m,) positions.
            row_lengths: how the new cells form rows.
        """
        if self.single and cells.min(initial=0) >= 0:
            lengths = np.ones(len(cells), np.int32)
            taken = self.take_values(cells, lengths, row_lengths)
            return dataclasses.replace(taken, single=True)
        missing = cells < 0
        safe = np.where(missing, 0, cells) if missing.any() else cells
        lengths = self.lengths[safe] if len(self.lengths) else np.zeros(len(cells), np.int32)
        if missing.any():
            lengths = np.where(missing, np.int32(0), lengths)
        starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        firsts = starts[safe] if len(starts) else np.zeros(len(cells), np.int64)
        return self.take_values(ranges(firsts, lengths), lengths, row_lengths)

    def take_values(
        self, positions: NDArray[Any], lengths: Lengths, row_lengths: Lengths | None
    ) -> Ragged:
        """Returns the values at some positions in new cells."""
        weights = None if self.weights is None else self.weights[positions]
        keys = None if self.keys is None else take(self.keys, positions)
        values = take(self.values, positions)
        return Ragged(values, lengths, row_lengths, weights, keys, self.from_numbers)


def take(values: Values, positions: NDArray[Any] | slice) -> Values:
    """Returns the values at some positions."""
    return values.take(positions) if isinstance(values, Text) else values[positions]


def count_kept(kept: NDArray[np.bool_], lengths: Lengths) -> Lengths:
    """Returns the lengths of cells of which only the values with ``kept`` stay."""
    if kept.all():
        return lengths
    before = np.zeros(len(kept) + 1, np.int32)
    np.cumsum(kept, dtype=np.int32, out=before[1:])
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.asarray(before[ends] - before[ends - lengths])


def _owner(lengths: Lengths, position: int) -> int:
    return int(np.searchsorted(np.cumsum(lengths), position, side="right"))
