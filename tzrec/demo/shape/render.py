"""Drawn values as Arrow columns: lists and maps, or text where a file or a reader wants it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.demo.shape.columns import Column
from tzrec.demo.shape.domains import Codes
from tzrec.demo.shape.draw import Cells

_BETWEEN_OUTER, _BEHIND_KEY, _BETWEEN_INNER, _BEHIND_SUBKEY = "|", "^", ",", ":"


def render(column: Column, cells: Cells, wanted: pa.DataType | None = None) -> pa.Array:
    """Returns a column.

    Args:
        column: what it is.
        cells: its values.
        wanted: type that the config declares; None takes what fits the values.
    """
    as_text = wanted is not None and pa.types.is_string(wanted)
    if column.nested is not None:
        found = _steps(_nested(column, cells), column, cells, as_text)
    elif column.entries is not None or column.weighted:
        found = _map(column, cells, as_text or column.as_text or column.steps is not None)
        if column.steps is not None:
            found = _steps(found, column, cells, as_text)
    else:
        found = _steps(_cells(column, cells, as_text), column, cells, as_text)
    return found if wanted is None else found.cast(wanted)


def _cells(column: Column, cells: Cells, as_text: bool) -> pa.Array:
    """Returns one element per cell: a value, a list, or text."""
    if column.masks is not None:
        values = pa.array(cells.codes == 1)
    else:
        values = column.domain.values(cells.codes)
    several = column.many or column.dim > 1 or column.masks is not None
    if column.as_text or (several and as_text):
        joined = pc.binary_join(_lists(_words(values), cells), column.separator)
        return _without_empty(joined)
    if several:
        return _lists(values, cells)
    if cells.lengths is not None:
        index = np.cumsum(cells.lengths) - 1
        values = values.take(pa.array(index, mask=cells.lengths == 0))
    return _words(values) if as_text else values


def _steps(values: pa.Array, column: Column, cells: Cells, as_text: bool) -> pa.Array:
    """Returns one element per row."""
    if cells.steps is None:
        return values
    lists = pa.ListArray.from_arrays(_offsets(cells.steps), values)
    return pc.binary_join(lists, column.delim) if as_text else lists


def _map(column: Column, cells: Cells, as_text: bool) -> pa.Array:
    keys = _words(column.domain.values(cells.codes))
    if cells.weights is not None:
        items = pa.array(cells.weights)
    else:
        assert column.entries is not None
        items = _contents(column, cells.contents)
    if not as_text:
        return pa.MapArray.from_arrays(_cell_offsets(cells), keys, items)
    entries = pc.binary_join_element_wise(keys, _words(items), column.pair)
    return pc.binary_join(_lists(entries, cells), column.separator)


def _contents(column: Column, codes: Codes | None) -> pa.Array:
    """Returns what each entry holds: a value, or the text of a vector."""
    assert column.entries is not None
    entries = column.entries
    values = entries.values.values(_given(codes))
    if entries.dim == 1:
        return values
    offsets = pa.array(np.arange(0, len(values) + 1, entries.dim, dtype=np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, _words(values)), entries.between)


def _nested(column: Column, cells: Cells) -> pa.Array:
    """Returns ``pk^sk:v,sk:v|pk^sk:v`` of each cell."""
    assert column.nested is not None
    assert cells.inner is not None
    inner = cells.inner
    skeys = _words(column.nested.skeys.values(inner.codes))
    values = _words(column.nested.values.values(_given(inner.contents)))
    entries = pc.binary_join_element_wise(skeys, values, _BEHIND_SUBKEY)
    below = pc.binary_join(_lists(entries, inner), _BETWEEN_INNER)
    outer = pc.binary_join_element_wise(
        _words(column.domain.values(cells.codes)), below, _BEHIND_KEY
    )
    return pc.binary_join(_lists(outer, cells), _BETWEEN_OUTER)


def _given(codes: Codes | None) -> NDArray[Any]:
    assert codes is not None
    return codes


def _words(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def _without_empty(texts: pa.Array) -> pa.Array:
    """Returns null for the text of no values."""
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _lists(values: pa.Array, cells: Cells) -> pa.Array:
    return pa.ListArray.from_arrays(_cell_offsets(cells), values)


def _cell_offsets(cells: Cells) -> pa.Array:
    lengths = np.ones(len(cells.codes), np.int64) if cells.lengths is None else cells.lengths
    return _offsets(lengths)


def _offsets(lengths: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
