r"""Arrow columns → `Ragged`: the input side of feature generation.

Text is split into steps, then into values at ``\x1d`` and the feature's separator; lists and
maps come apart as they are. Buffers of Arrow are used where they lie.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.errors import FeatureError
from tzrec.fg.columns import is_list, is_number, is_text, plain, scalars, unlist, unmap
from tzrec.fg.kernels import kernels
from tzrec.fg.kernels.plain_text import EMPTY, SINGLE
from tzrec.fg.ragged import Lengths, Ragged, Text, count_kept
from tzrec.fg.spec import MULTIVAL_SEP

_CASTS = "cast the column to text, numbers, a list of these, or a map where the file is written"


@dataclass(frozen=True)
class Reading:
    r"""How a column is to be read; equal readings of a column are made once per batch.

    Attributes:
        is_sequence: the values of a row are steps.
        delim: separates steps in text.
        separator: separates values of a cell in text, beside ``\\x1d``; "" = a cell is one text.
        as_numbers: text is parsed into float64.
        as_map: text holds ``key:value`` entries; a token without a colon has itself as key and
            no value.
        pair_separator: between key and value.
        map_separator: separates entries, beside ``\x1d``.
        keeps_empty: an empty text in a list is a value.
    """

    is_sequence: bool = False
    delim: str = ";"
    separator: str = MULTIVAL_SEP
    as_numbers: bool = False
    as_map: bool = False
    pair_separator: str = ":"
    map_separator: str = MULTIVAL_SEP
    keeps_empty: bool = False

    def as_text(self) -> Reading:
        """Returns the same reading without parsing numbers."""
        return dataclasses.replace(self, as_numbers=False)


def read(column: Any, how: Reading, place: str) -> Ragged:
    """Reads a column.

    Args:
        column: (B,) text, numbers, booleans, lists (of lists) of these, or maps.
        how: what is expected.
        place: names feature and column in messages.

    Returns:
        The values of each row, or of each step. Null, "" and empty lists are missing: cells, or
        rows, without values. Numbers stay numbers, unless they are keys of a map.

    Raises:
        FeatureError: the type cannot be read, or a text is no number.
    """
    try:
        return _read(plain(column), how, place)
    except pa.ArrowInvalid as error:
        raise FeatureError(f"{place} cannot be read: {error}") from error


def _read(array: pa.Array, how: Reading, place: str) -> Ragged:
    row_lengths: Lengths | None = None
    cells: Ragged
    if how.is_sequence:
        cells, row_lengths = _steps(array, how, place)
    else:
        cells = _cells(array, how, place)
    if row_lengths is not None:
        cells = dataclasses.replace(cells, row_lengths=row_lengths, from_numbers=False)
    if how.as_map and cells.keys is None:
        cells = split_pairs(cells, how.pair_separator)
    if how.as_numbers and cells.is_text:
        cells = cells.with_values(parse_numbers(cells, place))
    return cells


def _steps(array: pa.Array, how: Reading, place: str) -> tuple[Ragged, Lengths]:
    """Returns the steps of all rows, taken apart, and their number per row."""
    if is_text(array.type):
        rows = text_of(array)
        starts, ends, row_lengths = kernels().split(
            rows.data, rows.starts, rows.ends, ord(how.delim), -1, True
        )
        return _split_cells(Text(rows.data, starts, ends), how), row_lengths
    if is_list(array.type):
        flat, row_lengths = unlist(array)
        return _cells(flat, how, place, in_list=True), row_lengths
    if pa.types.is_null(array.type):
        nothing = np.zeros(len(array), np.int32)
        return Ragged(Text.of([]), np.zeros(0, np.int32)), nothing
    cells = _cells(array, how, place)
    present = cells.lengths > 0
    one_step = Ragged(cells.values, cells.lengths[present], None, cells.weights, cells.keys)
    return one_step, present.astype(np.int32)


def _cells(array: pa.Array, how: Reading, place: str, *, in_list: bool = False) -> Ragged:
    kind = array.type
    if is_text(kind):
        return _split_cells(text_of(array), how)
    if pa.types.is_map(kind):
        return _map_cells(array, how, place)
    if is_number(kind):
        values, lengths = scalars(array)
        single = len(values) == len(array)
        return Ragged(numbers_of(values), lengths, from_numbers=not in_list, single=single)
    if is_list(kind):
        return _list_cells(array, how, place)
    if pa.types.is_null(kind):
        return Ragged(Text.of([]), np.zeros(len(array), np.int32))
    raise FeatureError(f"{place} cannot be read: its type is {kind}", hint=_CASTS)


def _split_cells(cells: Text, how: Reading) -> Ragged:
    return split_values(cells, how.map_separator if how.as_map else how.separator)


def split_values(cells: Text, separator: str) -> Ragged:
    r"""Splits each cell at ``\x1d`` and the separator; without one a cell is one value."""
    if not separator:
        kept = cells.ends > cells.starts
        return Ragged(cells.take(np.flatnonzero(kept)), kept.astype(np.int32))
    second = -1 if separator == MULTIVAL_SEP else ord(separator)
    text = (cells.data, cells.starts, cells.ends, ord(MULTIVAL_SEP), second)
    found = kernels().survey(*text)
    if found == SINGLE:
        return Ragged(cells, np.ones(len(cells), np.int32), single=True)
    if found == EMPTY:
        kept = cells.ends > cells.starts
        return Ragged(cells.take(np.flatnonzero(kept)), kept.astype(np.int32))
    starts, ends, lengths = kernels().split(*text, False)
    return Ragged(Text(cells.data, starts, ends), lengths)


def _list_cells(array: pa.Array, how: Reading, place: str) -> Ragged:
    flat, lengths = unlist(array)
    if is_text(flat.type):
        values: Any = text_of(flat)
        kept = values.ends > values.starts
        if how.keeps_empty:
            kept = flat.is_valid().to_numpy(zero_copy_only=False)
        if not kept.all():
            lengths = count_kept(kept, lengths)
            values = values.take(np.flatnonzero(kept))
        return Ragged(values, lengths)
    if is_number(flat.type):
        present, here = scalars(flat)
        if len(present) != len(flat):
            lengths = count_kept(here > 0, lengths)
        return Ragged(numbers_of(present), lengths)
    if pa.types.is_null(flat.type):
        return Ragged(Text.of([]), np.zeros(len(array), np.int32))
    raise FeatureError(f"{place} cannot be read: its type is {array.type}", hint=_CASTS)


def _map_cells(array: pa.Array, how: Reading, place: str) -> Ragged:
    if not how.as_map:
        raise FeatureError(
            f"{place} is a map; the feature takes text, numbers or lists", hint=_CASTS
        )
    keys, items, lengths = unmap(array)
    valid = items.is_valid()
    if items.null_count:
        lengths = count_kept(valid.to_numpy(zero_copy_only=False), lengths)
        keys, items = keys.filter(valid), items.filter(valid)
    return Ragged(_flat(items, place), lengths, keys=as_text(_flat(keys, place)))


def _flat(array: pa.Array, place: str) -> Any:
    if is_text(array.type):
        return text_of(array)
    if is_number(array.type):
        return numbers_of(array)
    raise FeatureError(f"{place} cannot be read: it holds {array.type}", hint=_CASTS)


def split_pairs(cells: Ragged, separator: str) -> Ragged:
    """Takes ``key:value`` texts apart; one without the separator has no value."""
    texts = as_text(cells.values)
    key_ends, value_starts, _ = kernels().split_pairs(
        texts.data, texts.starts, texts.ends, ord(separator)
    )
    keys = Text(texts.data, texts.starts, key_ends)
    values = Text(texts.data, value_starts, texts.ends)
    return Ragged(values, cells.lengths, cells.row_lengths, None, keys)


def text_of(array: pa.Array) -> Text:
    """Returns an Arrow text array as `Text`, null as "", without copying bytes."""
    large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    validity, offsets, data = array.buffers()
    if offsets is None:
        return Text.of([""] * len(array))
    bounds = np.frombuffer(offsets, np.int64 if large else np.int32)
    bounds = bounds[array.offset : array.offset + len(array) + 1]
    ends: NDArray[np.int64] = bounds.astype(np.int64, copy=False)
    characters = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    starts, stops = ends[:-1], ends[1:]
    if validity is not None and array.null_count:
        # Bytes under a null are undefined.
        stops = np.where(array.is_valid().to_numpy(zero_copy_only=False), stops, starts)
    return Text(characters, starts, stops)


def numbers_of(array: pa.Array) -> Any:
    """Returns numbers without nulls as int64, or float32 (float64 for double).

    Unsigned integers that do not fit into int64 come as text.
    """
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int64())
    if pa.types.is_integer(array.type):
        if pa.types.is_uint64(array.type) and (pc.max(array).as_py() or 0) >= 2**63:
            return text_of(array.cast(pa.string()))
        return array.cast(pa.int64()).to_numpy()
    if array.type != pa.float64():
        array = pc.cast(array, pa.float32())
    return array.to_numpy()


def as_text(values: Any) -> Text:
    """Returns values as text: whole numbers in decimal, others in the shortest form."""
    if isinstance(values, Text):
        return values
    formats = kernels()
    if values.dtype == np.float32:
        return Text(*formats.format_floats32(values))
    if values.dtype == np.float64:
        return Text(*formats.format_floats(values))
    return Text(*formats.format_ints(np.ascontiguousarray(values)))


def parse_numbers(cells: Ragged, place: str) -> NDArray[np.float64]:
    """Returns texts as numbers.

    Raises:
        FeatureError: a text is no number; names its row.
    """
    texts = cells.values
    values, good = kernels().parse_floats(texts.data, texts.starts, texts.ends)
    if not good.all():
        position = int(np.argmin(good))
        raise FeatureError(
            f"{place} holds {texts.show(position)!r} in row {cells.row_of(position)} of the "
            "batch, which is not a number"
        )
    return values
