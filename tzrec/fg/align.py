"""Bringing the inputs of one feature to the same cells (fg.md §9), and reading features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tzrec.errors import FeatureError
from tzrec.fg.ragged import Lengths, Ragged, ranges
from tzrec.fg.reading import Reading, parse_numbers, split_pairs, split_values


def cut_steps(column: Ragged, most: int) -> Ragged:
    """Returns the first ``most`` steps of each row; 0 = all."""
    row_lengths = column.row_lengths
    if not most or row_lengths is None or not (row_lengths > most).any():
        return column
    starts = np.cumsum(row_lengths, dtype=np.int64) - row_lengths
    kept = np.minimum(row_lengths, np.int32(most))
    return column.take_cells(ranges(starts, kept), kept)


def as_steps(columns: Sequence[Ragged]) -> list[Ragged]:
    """Returns columns without steps as sequences of one step."""
    return [
        dataclasses.replace(c, row_lengths=np.ones(c.num_cells, np.int32), from_numbers=False)
        for c in columns
    ]


def align(columns: Sequence[Ragged], names: Sequence[str]) -> list[Ragged]:
    """Returns the columns with the same cells.

    A column of one row stands for all rows. Where any column is a sequence, the others are
    repeated for each step, a sequence of one step likewise, and a shorter one is filled up with
    missing steps.

    Raises:
        FeatureError: columns differ in their number of rows.
    """
    if len(columns) == 1:
        return list(columns)
    # One row stands for all rows, for none in an empty batch.
    num_rows = max((c.num_rows for c in columns if c.num_rows != 1), default=1)
    equal = [spread(c, name, num_rows) for c, name in zip(columns, names, strict=True)]
    sequences = [c.row_lengths for c in equal if c.row_lengths is not None]
    if not sequences:
        return equal
    steps = sequences[0]
    for other in sequences[1:]:
        if other is not steps:
            steps = np.maximum(steps, other)
    return [_to_steps(column, steps) for column in equal]


def spread(column: Ragged, name: str, num_rows: int) -> Ragged:
    """Returns a column of ``num_rows`` rows; its one row stands for all.

    Raises:
        FeatureError: it has another number of rows.
    """
    if column.num_rows == num_rows:
        return column
    if column.num_rows != 1:
        raise FeatureError(
            f"input {name!r} has {column.num_rows} rows, another input of the feature {num_rows}",
            hint="inputs of a feature have the same rows, or one row for all",
        )
    if column.row_lengths is None:
        return column.take_cells(np.zeros(num_rows, np.int64))
    cells = np.tile(np.arange(column.num_cells), num_rows)
    return column.take_cells(cells, np.repeat(column.row_lengths, num_rows))


def _to_steps(column: Ragged, steps: Lengths) -> Ragged:
    own = column.row_lengths
    if own is not None and (own is steps or np.array_equal(own, steps)):
        return column
    owners = np.repeat(np.arange(len(steps)), steps)
    if own is None:
        return column.take_cells(owners, steps)
    ends = np.cumsum(own, dtype=np.int64)
    number = ranges(np.zeros(len(steps), np.int64), steps)
    number = np.where((own == 1)[owners], 0, number)
    cells = (ends - own)[owners] + number
    return column.take_cells(np.where(number < own[owners], cells, -1), steps)


def read_feature(found: Ragged, how: Reading, place: str) -> Ragged:
    """Returns the result of another feature as an input.

    Args:
        found: what the other feature gave.
        how: what is expected; a sequence that is read as none becomes one cell per row with the
            values of all its steps.
        place: names feature and input in messages.
    """
    cells = found
    if found.row_lengths is not None and not how.is_sequence:
        cells = Ragged(found.values, sum_cells(found.lengths, found.row_lengths))
    elif found.row_lengths is None and how.is_sequence:
        cells = Ragged(found.values, found.lengths, np.ones(len(found.lengths), np.int32))
    separator = how.map_separator if how.as_map else how.separator
    if cells.is_text and separator:
        parts = split_values(cells.values, separator)
        lengths = sum_cells(parts.lengths, cells.lengths)
        cells = Ragged(parts.values, lengths, cells.row_lengths)
    if how.as_map:
        cells = split_pairs(cells, how.pair_separator)
    if how.as_numbers and cells.is_text:
        cells = cells.with_values(parse_numbers(cells, place))
    return cells


def sum_cells(values: Lengths, lengths: Lengths) -> Lengths:
    """Returns the sums of ``values`` over consecutive groups of ``lengths`` values."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    ends = np.cumsum(lengths, dtype=np.int64)
    return (sums[ends] - sums[ends - lengths]).astype(np.int32)
