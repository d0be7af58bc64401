"""Item ids, and the rows of the index that they stand for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tzrec.errors import DataError
from tzrec.retrieval.row_lists import Positions, RowLists

_SEPARATORS = (";", ",", "\x1d", "\x03")


class ItemIds:
    """Ids by position and positions by id.

    Args:
        ids: distinct integers or strings.

    Raises:
        DataError: they are of another type, or one is missing.
    """

    def __init__(self, ids: pa.Array) -> None:
        self.values = plain_ids(ids, "item ids")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def type(self) -> pa.DataType:
        """``int64`` or ``string``."""
        return self.values.type

    def take(self, positions: Positions) -> pa.Array:
        """Returns the ids of positions; null for −1."""
        flat = np.asarray(positions, np.int64).reshape(-1)
        return self.values.take(pa.array(flat, mask=flat < 0))

    def positions(self, ids: pa.Array) -> Positions:
        """Returns the positions of ids; −1 for those that are missing or not known."""
        wanted = self._as_own_type(ids)
        if pa.types.is_string(self.type):
            table = self._by_text
            found = (table.get(one, -1) for one in wanted.to_pylist())
            return np.fromiter(found, np.int64, len(wanted))
        order, ascending = self._by_number
        present = np.asarray(pc.is_valid(wanted))
        numbers = np.asarray(pc.fill_null(wanted, 0))
        places = np.minimum(np.searchsorted(ascending, numbers), len(ascending) - 1)
        known = present & (ascending[places] == numbers)
        return np.where(known, order[places], -1)

    def row_lists(self, column: pa.Array, separator: str | None = None) -> RowLists:
        r"""Returns the positions of each row of a column; items that are not known are left out.

        Args:
            column: lists of ids, text with separated ids, or one id a row.
            separator: of text; None = the first of ``;``, ``,``, ``\x1d`` and ``\x03`` that
                the column has.
        """
        offsets, ids = id_lists(column, separator)
        rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        return RowLists.from_pairs(rows, self.positions(ids), len(offsets) - 1)

    def _as_own_type(self, ids: pa.Array) -> pa.Array:
        if pa.types.is_string(self.type):
            return ids.cast(pa.string())
        try:
            return ids.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DataError(f"the index has integer ids; these are others: {error}") from error

    @functools.cached_property
    def _by_number(self) -> tuple[Positions, Positions]:
        numbers = np.asarray(self.values)
        order = np.argsort(numbers, kind="stable")
        return order, numbers[order]

    @functools.cached_property
    def _by_text(self) -> Mapping[Any, int]:
        return {one: position for position, one in enumerate(self.values.to_pylist())}


def plain_ids(ids: Any, what: str) -> pa.Array:
    """Returns ids as an array of ``int64`` or ``string``.

    Raises:
        DataError: they are of another type, or one is missing.
    """
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if not isinstance(ids, pa.Array):
        ids = pa.array(ids)
    if isinstance(ids, pa.DictionaryArray):
        ids = ids.dictionary_decode()
    if pa.types.is_integer(ids.type):
        try:
            ids = ids.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DataError(f"{what} are larger than 64 bits with a sign: {error}") from error
    elif pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type):
        ids = ids.cast(pa.string())
    else:
        raise DataError(f"{what} are of type {ids.type}", hint="ids are integers or strings")
    if ids.null_count:
        row = int(np.flatnonzero(np.asarray(pc.is_null(ids)))[0])
        raise DataError(f"{what}: {ids.null_count} are missing, the first in row {row}")
    return ids


def id_lists(column: pa.Array, separator: str | None = None) -> tuple[Positions, pa.Array]:
    """Returns the ids of each row: offsets (B + 1,), and all ids.

    Args:
        column: lists of ids, text with separated ids, or one id a row; null is an empty list.
        separator: as in `ItemIds.row_lists`.

    Raises:
        DataError: the column is of another type.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _split(column.cast(pa.string()), separator)
    if pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        kept = column.drop_null()
        offsets = np.zeros(len(column) + 1, np.int64)
        np.cumsum(np.asarray(pc.is_valid(column)), out=offsets[1:])
        return offsets, kept.cast(pa.int64())
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        raise DataError(
            f"a list of ids has type {column.type}", hint="lists, text, or one id a row"
        )
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets, column.flatten()


def _split(column: pa.Array, separator: str | None) -> pa.Array:
    """Cuts text; brackets of JSON lists and blanks go, an empty text is an empty list."""
    text = pc.utf8_trim(column, " []")
    if separator is None:
        used = (s for s in _SEPARATORS if pc.any(pc.match_substring(text, s)).as_py())
        separator = next(used, _SEPARATORS[0])
    text = pc.if_else(pc.equal(text, ""), None, text)
    lists = pc.split_pattern(text, separator)
    words = pc.utf8_trim(lists.flatten(), ' "')
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0))
    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), words)
