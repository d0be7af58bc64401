"""Values of columns: plain ones first, then maps and masks, which follow from other columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tzrec.demo.shape.columns import Column
from tzrec.demo.shape.domains import Codes, Domain

Ints = NDArray[np.int64]

_MOST_VALUES = 4
_OTHER_KEYS = 2
_KNOWN_SHARE = 0.8
_MASKED_SHARE = 0.3
# Rows in a row that have the same value of a column of sessions.
_SESSION = 4


@dataclasses.dataclass(frozen=True)
class Cells:
    """The values of a column.

    Attributes:
        codes: of all values.
        lengths: values of each cell; None = one each.
        steps: cells of each row; None = one each.
        weights: of each value, of a weighted column.
        inner: of a map of maps what each (primary) key leads to.
        contents: of a map what each key leads to, ``dim`` codes each.
    """

    codes: Codes
    lengths: Ints | None = None
    steps: Ints | None = None
    weights: NDArray[np.float64] | None = None
    inner: Cells | None = None
    contents: Codes | None = None

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return len(self.codes) if self.lengths is None else len(self.lengths)

    def cell_of_value(self) -> Ints:
        """Returns the cell of each value."""
        cells = np.arange(self.num_cells)
        return cells if self.lengths is None else np.repeat(cells, self.lengths)

    def row_of_value(self) -> Ints:
        """Returns the row of each value."""
        cells = self.cell_of_value()
        return (
            cells
            if self.steps is None
            else np.repeat(np.arange(len(self.steps)), self.steps)[cells]
        )


def taken(cells: Cells, rows: Ints) -> Cells:
    """Returns the values of some rows, in their order.

    Args:
        cells: of all rows.
        rows: numbers of rows, each any number of times.
    """
    if cells.steps is not None:
        of_cells = taken(dataclasses.replace(cells, steps=None), _members(cells.steps, rows))
        return dataclasses.replace(of_cells, steps=cells.steps[rows])
    values = rows if cells.lengths is None else _members(cells.lengths, rows)
    contents = cells.contents
    if contents is not None:
        dim = max(len(contents) // max(len(cells.codes), 1), 1)
        contents = contents[(values[:, None] * dim + np.arange(dim)).reshape(-1)]
    return Cells(
        cells.codes[values],
        None if cells.lengths is None else cells.lengths[rows],
        weights=None if cells.weights is None else cells.weights[values],
        inner=None if cells.inner is None else taken(cells.inner, values),
        contents=contents,
    )


def _members(lengths: Ints, owners: Ints) -> Ints:
    """Returns the positions of all that belongs to some owners."""
    wanted = lengths[owners]
    shift = (np.cumsum(lengths) - lengths)[owners] - (np.cumsum(wanted) - wanted)
    found: Ints = np.arange(int(wanted.sum())) + np.repeat(shift, wanted)
    return found


def draw(
    columns: Sequence[Column],
    num_rows: int,
    rng: np.random.Generator,
    *,
    given: Mapping[str, Cells] | None = None,
    steps: Mapping[str, Ints] | None = None,
) -> dict[str, Cells]:
    """Returns values of columns.

    Args:
        columns: the columns; what they refer to is among them, or given.
        num_rows: B.
        rng: decides.
        given: values of other columns.
        steps: how many steps rows have, by `Column.steps`; of others it is drawn.
    """
    steps = dict(steps or {})
    drawn: dict[str, Cells] = dict(given or {})
    for column in columns:
        if column.steps is not None and column.steps not in steps:
            steps[column.steps] = rng.integers(0, column.most_steps + 1, num_rows)
    for column in sorted(columns, key=lambda c: not c.is_plain):
        own = steps[column.steps] if column.steps is not None else None
        count = num_rows if own is None else int(own.sum())
        if column.masks is not None:
            cells = _mask(drawn[column.masks], rng)
        elif column.nested is not None:
            cells = _nested(column, count, drawn, rng)
        elif column.entries is not None:
            cells = _entries(column, count, drawn, rng)
        else:
            cells = _plain(column, count, rng)
        drawn[column.name] = dataclasses.replace(cells, steps=own)
    return {column.name: drawn[column.name] for column in columns}


def _plain(column: Column, count: int, rng: np.random.Generator) -> Cells:
    weights = None
    if column.together:
        sessions = column.domain.draw(rng, count // _SESSION + 1)
        return Cells(np.repeat(sessions, _SESSION)[:count])
    if column.many:
        # Steps have at least one value: an empty step would be the default's.
        least = 1 if column.steps is not None or column.as_text else 0
        lengths = rng.integers(least, _MOST_VALUES + 1, count)
    else:
        lengths = np.full(count, column.dim)
    if column.steps is None and column.missing:
        lengths[rng.random(count) < column.missing] = 0
    codes = column.domain.draw(rng, int(lengths.sum()))
    if column.weighted:
        owners, codes = _unique([(np.repeat(np.arange(count), lengths), codes)])
        lengths = np.bincount(owners, minlength=count)
        weights = np.round(rng.uniform(0.5, 2.0, len(codes)), 2)
    return Cells(codes, None if (lengths == 1).all() else lengths, weights=weights)


def _mask(masked: Cells, rng: np.random.Generator) -> Cells:
    """1 where a value counts, 0 where it does not."""
    return Cells((rng.random(len(masked.codes)) > _MASKED_SHARE).astype(np.int64), masked.lengths)


def _entries(
    column: Column, count: int, drawn: Mapping[str, Cells], rng: np.random.Generator
) -> Cells:
    assert column.entries is not None
    own = [_of_rows(drawn[name], column, rng) for name in column.entries.keys]
    owners, codes = _unique([*own, _others(column.domain, count, rng)])
    contents = column.entries.values.draw(rng, len(codes) * column.entries.dim)
    return Cells(codes, np.bincount(owners, minlength=count), contents=contents)


def _nested(
    column: Column, count: int, drawn: Mapping[str, Cells], rng: np.random.Generator
) -> Cells:
    """Primary keys of each cell, and below each of them the row's secondary keys."""
    assert column.nested is not None
    nested = column.nested
    primary = [_of_rows(drawn[name], column, rng) for name in nested.primary]
    secondary = [_of_rows(drawn[name], column, rng) for name in nested.secondary]
    if not nested.alone or not primary:
        primary.append(_others(column.domain, count, rng))
    if not nested.alone or not secondary:
        secondary.append(_others(nested.skeys, count, rng))
    owners, codes = _unique(primary)
    below, skeys = _unique(secondary)
    if nested.alone:
        owners, codes = _first(owners, codes)
        below, skeys = _first(below, skeys)
    # Each primary key leads to all secondary keys of its cell.
    per_cell = np.bincount(below, minlength=count)
    starts = np.cumsum(per_cell) - per_cell
    lengths = per_cell[owners]
    first = np.cumsum(lengths) - lengths
    positions = np.arange(int(lengths.sum())) + np.repeat(starts[owners] - first, lengths)
    values = nested.values.draw(rng, len(positions))
    inner = Cells(skeys[positions], lengths, contents=values)
    return Cells(codes, np.bincount(owners, minlength=count), inner=inner)


def _of_rows(keys: Cells, column: Column, rng: np.random.Generator) -> tuple[Ints, Codes]:
    """Returns (cell, key) of most keys of a column's rows, for maps that are no sequences."""
    if column.steps is not None:
        return np.zeros(0, np.int64), keys.codes[:0]
    known = rng.random(len(keys.codes)) < _KNOWN_SHARE
    return keys.row_of_value()[known], keys.codes[known]


def _others(domain: Domain, count: int, rng: np.random.Generator) -> tuple[Ints, Codes]:
    return np.repeat(np.arange(count), _OTHER_KEYS), domain.draw(rng, count * _OTHER_KEYS)


def _unique(pairs: Sequence[tuple[Ints, Codes]]) -> tuple[Ints, Codes]:
    """Returns all (cell, key) once, cells in order."""
    owners = np.concatenate([cells for cells, _ in pairs])
    codes = np.concatenate([keys for _, keys in pairs])
    order = np.lexsort((codes, owners))
    owners, codes = owners[order], codes[order]
    fresh = np.ones(len(owners), dtype=bool)
    fresh[1:] = (owners[1:] != owners[:-1]) | (codes[1:] != codes[:-1])
    return owners[fresh], codes[fresh]


def _first(owners: Ints, codes: Codes) -> tuple[Ints, Codes]:
    """Returns the first key of each cell."""
    fresh = np.ones(len(owners), dtype=bool)
    fresh[1:] = owners[1:] != owners[:-1]
    return owners[fresh], codes[fresh]
