"""One number for a row of a partition: offset of its message, row in it, whether it is the last.

So that rows of streams go where rows of files do (`tzrec.datasets.slicer.RawBatch.row`). Numbers
of a partition grow in reading order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tzrec.datasets.position import StreamMark
from tzrec.errors import DataError

_ROW_BITS = 21
MOST_ROWS = (1 << _ROW_BITS) - 1
_MOST_OFFSET = (1 << (62 - _ROW_BITS)) - 1


def encode(offset: int, num_rows: int, first: int = 0) -> NDArray[np.int64]:
    """Returns the numbers of rows ``first`` … of a message with ``num_rows`` rows.

    A message without rows has one number, which is its end.

    Raises:
        DataError: it has too many rows, or comes too late.
    """
    if num_rows > MOST_ROWS or offset > _MOST_OFFSET:
        raise DataError(
            f"has {num_rows:,} rows at offset {offset:,}; readable are {MOST_ROWS:,} rows at "
            f"offsets up to {_MOST_OFFSET:,}",
            hint="send smaller messages",
        )
    rows = np.arange(min(first, max(num_rows - 1, 0)), max(num_rows, 1), dtype=np.int64)
    codes = (np.int64(offset) << (_ROW_BITS + 1)) | (rows << 1)
    codes[-1] |= 1
    return codes


def place_of(code: int) -> tuple[int, int]:
    """Returns the offset of the message and the row in it."""
    return code >> (_ROW_BITS + 1), (code >> 1) & MOST_ROWS


def mark_after(code: int) -> StreamMark:
    """Returns where reading goes on after a row."""
    offset, row = place_of(code)
    return StreamMark(offset + 1, 0) if code & 1 else StreamMark(offset, row + 1)


def row_numbers(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the rows in their messages."""
    return (codes >> 1) & MOST_ROWS
