"""CSV text cell by cell: which rows cannot be read, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, types

from tzrec.datasets.bad_rows import find_failures

_NULLS = pa.array(csv.ConvertOptions().null_values)


class WrongRows:
    """Rows with too few or too many columns, collected while a file is parsed.

    Args:
        first: rows that are parsed before the first that counts, such as the header.
    """

    def __init__(self, first: int = 0) -> None:
        self._first = first
        self.messages: dict[int, str] = {}

    def __call__(self, row: csv.InvalidRow) -> str:
        """Tells the parser to skip the row."""
        self.messages[row.number - 1 - self._first] = (
            f"CSV parse error: Expected {row.expected_columns} columns, got "
            f"{row.actual_columns}: {row.text}"
        )
        return "skip"

    def fill_in(
        self, pieces: Iterator[pa.RecordBatch]
    ) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
        """Yields the pieces with a row of nulls for each wrong row, and all row numbers."""
        row, empty = 0, None
        for piece in pieces:
            wrong = np.array(sorted(w for w in self.messages if w >= row), dtype=np.int64)
            # The k-th wrong row is here if fewer good rows than the piece has are before it.
            num_wrong = int(np.searchsorted(wrong - row - np.arange(len(wrong)), piece.num_rows))
            rows = np.arange(row, row + piece.num_rows + num_wrong)
            is_wrong = np.isin(rows, wrong)
            index = pa.array(np.cumsum(~is_wrong) - 1, mask=is_wrong)
            yield rows, piece.take(index) if num_wrong else piece
            row += len(rows)
            empty = piece.slice(0, 0)
        rest = np.array(sorted(w for w in self.messages if w >= row), dtype=np.int64)
        if len(rest) and empty is not None:
            yield rest, empty.take(pa.nulls(len(rest), pa.int64()))


def convert(text: pa.RecordBatch, schema: pa.Schema) -> tuple[pa.RecordBatch, Mapping[int, str]]:
    """Converts columns of text as the CSV parser does.

    Args:
        text: binary columns.
        schema: names and types wanted.

    Returns:
        The columns, null where a cell cannot be converted, and the message of each such row.
    """
    columns, messages = [], dict[int, str]()
    for field in schema:
        cells = text.column(field.name)
        try:
            columns.append(_convert(cells, field.type))
        except pa.ArrowInvalid:
            is_bad = np.zeros(len(cells), dtype=bool)
            for row, _ in find_failures(len(cells), partial(_error_of, cells, field.type)):
                is_bad[row] = True
                messages.setdefault(row, _message(field, cells[row].as_py()))
            index = pa.array(np.arange(len(cells)), mask=is_bad)
            columns.append(_convert(cells.take(index), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema), messages


def _message(field: pa.Field, cell: bytes) -> str:
    text = f"column {field.name!r}: CSV conversion error to {field.type}: "
    if types.is_string(field.type):
        return f"{text}invalid UTF8 data {cell!r}"
    return f"{text}invalid value {cell.decode(errors='replace')!r}"


def _error_of(cells: pa.Array, target: pa.DataType, start: int, stop: int) -> Exception | None:
    try:
        _convert(cells.slice(start, stop - start), target)
    except pa.ArrowInvalid as error:
        return error
    return None


def _convert(cells: pa.Array, target: pa.DataType) -> pa.Array:
    words = cells.cast(pa.string())
    if types.is_string(target):
        return words
    words = pc.if_else(pc.is_in(words, _NULLS), pa.scalar(None, pa.string()), words)
    if types.is_null(target):
        if words.null_count < len(words):
            raise pa.ArrowInvalid("a value in an empty column")
        return pa.nulls(len(words))
    return pc.cast(pc.utf8_trim_whitespace(words), target)
