"""Arrow columns brought to a few shapes: flat values and lengths as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tzrec.errors import FeatureError


def plain(column: Any) -> pa.Array:
    """Returns one array without dictionary encoding or view layout."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def is_text(data_type: pa.DataType) -> bool:
    """True for strings of any layout."""
    return (
        pa.types.is_string(data_type)
        or pa.types.is_large_string(data_type)
        or pa.types.is_string_view(data_type)
    )


def is_list(data_type: pa.DataType) -> bool:
    """True for lists of any layout, maps excluded."""
    return (
        pa.types.is_list(data_type)
        or pa.types.is_large_list(data_type)
        or pa.types.is_fixed_size_list(data_type)
        or pa.types.is_list_view(data_type)
        or pa.types.is_large_list_view(data_type)
    )


def is_number(data_type: pa.DataType) -> bool:
    """True for integers, floats and booleans."""
    return (
        pa.types.is_integer(data_type)
        or pa.types.is_floating(data_type)
        or pa.types.is_boolean(data_type)
    )


def unlist(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Returns the flat values of a list column and its lengths, int32, null → 0."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return plain(pc.list_flatten(column)), lengths.to_numpy(zero_copy_only=False).astype(np.int32)


def split(column: pa.Array, separator: str) -> tuple[pa.Array, np.ndarray]:
    """Splits text; null and "" have no parts. Returns the parts and their number per row."""
    blank = pc.or_kleene(pc.is_null(column), pc.equal(column, ""))
    lists = pc.split_pattern(column, separator)
    if pc.any(blank, min_count=0).as_py():
        lists = pc.if_else(pc.fill_null(blank, True), pa.scalar(None, lists.type), lists)
    return unlist(lists)


def to_int64(values: pa.Array, feature: str) -> np.ndarray:
    """Returns ids; text is read as decimal numbers.

    Raises:
        FeatureError: a value is null or no whole number.
    """
    return _convert(values, feature, pa.int64(), "a whole number")


def to_float32(values: pa.Array, feature: str) -> np.ndarray:
    """Returns numbers; text is read as decimal numbers.

    Raises:
        FeatureError: a value is null or no number.
    """
    return _convert(values, feature, pa.float32(), "a number")


def _convert(values: pa.Array, feature: str, to: pa.DataType, what: str) -> np.ndarray:
    if values.null_count:
        position = pc.index(pc.is_null(values), True).as_py()
        raise FeatureError(f"feature {feature!r}: value {position} of the batch is null")
    try:
        if is_text(values.type):
            values = pc.utf8_trim_whitespace(values)
        safe = not pa.types.is_floating(to)
        converted = values if values.type == to else pc.cast(values, to, safe=safe)
    except pa.ArrowInvalid as error:
        raise _bad_value(values, feature, to, what) from error
    return converted.to_numpy(zero_copy_only=not pa.types.is_boolean(values.type))


def _bad_value(values: pa.Array, feature: str, to: pa.DataType, what: str) -> FeatureError:
    for position, value in enumerate(values):
        try:
            pc.cast(value, to)
        except pa.ArrowInvalid:
            return FeatureError(
                f"feature {feature!r}: {value.as_py()!r} (value {position} of the batch) is not "
                f"{what}"
            )
    return FeatureError(f"feature {feature!r}: {values.type} cannot become {what}")


def fill_rows(
    values: np.ndarray, lengths: np.ndarray, default: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gives every row without values those of ``default``.

    Args:
        values: (n, …) flat values.
        lengths: (B,) values per row.
        default: (d, …) values of an empty row.

    Returns:
        The new values and lengths.
    """
    empty = lengths == 0
    if not empty.any():
        return values, lengths
    filled_lengths = np.where(empty, len(default), lengths).astype(np.int32)
    filled = np.empty((int(filled_lengths.sum()), *values.shape[1:]), dtype=values.dtype)
    is_default = np.repeat(empty, filled_lengths)
    filled[is_default] = np.tile(default, (int(empty.sum()), *[1] * (values.ndim - 1)))
    filled[~is_default] = values
    return filled, filled_lengths
