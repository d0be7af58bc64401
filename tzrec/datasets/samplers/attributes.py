"""Attributes of items: text with delimiters, or columns, as the input columns' types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from tzrec.datasets.bad_rows import find_failures
from tzrec.datasets.schema import cast_column
from tzrec.errors import ConfigError, DataError
from tzrec.fg.columns import is_list, is_list_of_pairs

MULTI_VALUE = "\x1d"
_PAIR = ":"


class Attributes:
    """The attributes of the items that are input columns too.

    Args:
        names: as configured, in the order in which text holds them.
        fields: input column → type.
        delimiter: between attributes in text.

    Attributes:
        types: attribute that is an input column → type.
        unknown: the other attributes, which are not used.

    Raises:
        ConfigError: the delimiter is empty, or an attribute is named twice.
    """

    def __init__(
        self, names: Sequence[str], fields: Mapping[str, pa.DataType], delimiter: str
    ) -> None:
        if not delimiter:
            raise ConfigError("attr_delimiter is empty", hint="the default is ':'")
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise ConfigError(f"attr_fields names {twice[0]!r} more than once")
        self._all = list(names)
        self._delimiter = delimiter
        self.types = {name: fields[name] for name in names if name in fields}
        self.unknown = [name for name in names if name not in fields]

    def parse(self, texts: pa.Array) -> list[pa.Array]:
        """Returns the columns of joined attributes, null for empty text.

        Raises:
            DataError: a row has another number of attributes, or a value that is not of the
                column's type; ``row`` is its number in ``texts``.
        """
        return _each_row_named(texts, self._parse)

    def _parse(self, texts: pa.Array) -> list[pa.Array]:
        parts = pc.split_pattern(pc.fill_null(texts, ""), self._delimiter)
        count = len(self._all)
        found = pc.list_value_length(parts).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(found != count)
        if len(wrong):
            text = texts[int(wrong[0])].as_py()
            raise DataError(
                f"{found[wrong[0]]} attributes in {text!r}, attr_fields names {count}: "
                f"{', '.join(self._all)}",
                hint=f"attr_delimiter is {self._delimiter!r}: does a value contain it?",
            )
        values = parts.flatten()
        places = np.arange(len(texts), dtype=np.int64) * count
        return [
            from_text(values.take(pa.array(places + i)), self.types[name], name)
            for i, name in enumerate(self._all)
            if name in self.types
        ]

    def convert(self, columns: pa.RecordBatch) -> list[pa.Array]:
        """Returns columns of a table as the input columns' types.

        Raises:
            DataError: a value does not fit; ``row`` is its number.
        """
        return _each_row_named(columns, self._convert)

    def _convert(self, columns: pa.RecordBatch) -> list[pa.Array]:
        return [_as_type(columns.column(name), kind, name) for name, kind in self.types.items()]


def _each_row_named(
    rows: pa.Array | pa.RecordBatch, work: Callable[[Any], list[pa.Array]]
) -> list[pa.Array]:
    """Returns ``work(rows)``; an error gets the number of the first row that fails."""
    try:
        return work(rows)
    except DataError:

        def attempt(start: int, stop: int) -> Exception | None:
            try:
                work(rows.slice(start, stop - start))
            except DataError as error:
                return error
            return None

        for row, error in find_failures(len(rows), attempt):
            assert isinstance(error, DataError)
            error.row = row
            raise error from None
        raise


def _as_type(column: pa.Array, target: pa.DataType, name: str) -> pa.Array:
    text = types.is_string(column.type) or types.is_large_string(column.type)
    if text and not types.is_string(target):
        return from_text(column, target, name)
    if not types.is_null(column.type) and _shape(column.type) != _shape(target):
        raise ConfigError(
            f"attribute {name!r} is {column.type} in the table, the input column is {target}",
            hint="values, lists and maps cannot become each other: give both the same type",
        )
    return cast_column(column, target, name)


def _shape(kind: pa.DataType) -> str:
    if isinstance(kind, pa.BaseExtensionType):
        return _shape(kind.storage_type)
    if types.is_map(kind) or is_list_of_pairs(kind):
        return "map"
    return "list" if is_list(kind) else "value"


def from_text(texts: pa.Array, target: pa.DataType, name: str) -> pa.Array:
    r"""Returns text as values of a type; empty text is null.

    Several values are separated by ``\x1d``, pairs of a map are ``key:value``.

    Raises:
        DataError: a text is no value of the type.
        ConfigError: text cannot be of this type.
    """
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, texts.type), texts)
    try:
        if types.is_map(target):
            return _maps(texts, target, name)
        if not is_list(target):
            return _scalars(texts, target)
        if is_list(target.value_type):
            raise ConfigError(
                f"attribute {name!r}: text cannot be {target}",
                hint="give the items as Parquet, with a column for each attribute",
            )
        parts = pc.split_pattern(texts, MULTI_VALUE)
        values = _scalars(parts.flatten(), target.value_type)
        return pa.ListArray.from_arrays(_offsets(parts), values, type=target)
    except pa.ArrowException as error:
        raise DataError(f"attribute {name!r} cannot be {target}: {error}") from error


def _scalars(texts: pa.Array, target: pa.DataType) -> pa.Array:
    if types.is_string(target):
        return texts.cast(target)
    return pc.utf8_trim_whitespace(texts).cast(target)


def _maps(texts: pa.Array, target: pa.DataType, name: str) -> pa.Array:
    parts = pc.split_pattern(texts, MULTI_VALUE)
    pairs = pc.split_pattern(parts.flatten(), _PAIR, max_splits=1)
    wrong = pc.index(pc.equal(pc.list_value_length(pairs), 2), False).as_py()
    if wrong >= 0:
        text = _PAIR.join(pairs[wrong].as_py())
        raise DataError(
            f"attribute {name!r}: Parse KV error: {text!r} is not key:value",
            hint="pairs are separated by \\x1d; attr_delimiter must not be ':' then",
        )
    flat = pairs.flatten()
    places = np.arange(len(pairs), dtype=np.int64) * 2
    keys, items = (flat.take(pa.array(places + i)) for i in (0, 1))
    return pa.MapArray.from_arrays(
        _offsets(parts),
        _scalars(keys, target.key_type),
        _scalars(items, target.item_type),
        type=target,
    )


def _offsets(lists: pa.Array) -> pa.Array:
    """Returns where the flattened values of each row begin, null for null rows."""
    offsets = np.zeros(len(lists) + 1, dtype=np.int32)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    np.cumsum(lengths, out=offsets[1:])
    missing = np.append(lists.is_null().to_numpy(zero_copy_only=False), False)
    return pa.array(offsets, mask=missing if missing.any() else None)
