"""Arrow columns brought to a few shapes: flat values and lengths as NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.errors import FeatureError

Int32Array = NDArray[np.int32]


@dataclass(frozen=True)
class Place:
    """Where flat values lie in a column, so that an error names the row.

    Attributes:
        feature: feature that reads the column.
        nesting: lengths from the innermost level to the rows; those of a level add up to the
            number of entries of the level before.
    """

    feature: str
    nesting: tuple[Int32Array, ...] = ()

    def row(self, position: int) -> int:
        """Returns the row of the flat value at ``position``."""
        for lengths in self.nesting:
            position = int(np.searchsorted(np.cumsum(lengths), position, side="right"))
        return position

    def error(self, position: int, what: str, hint: str = "") -> FeatureError:
        """Returns an error about the flat value at ``position``."""
        row = self.row(position)
        return FeatureError(f"feature {self.feature!r}: row {row} of the batch {what}", hint=hint)


def plain(column: Any) -> pa.Array:
    """Returns one array of a plain type, with the same values.

    Encodings (dictionaries, runs), extension types, view layouts, decimals and lists of
    ``struct<key, value>`` become what they stand for.

    Raises:
        pa.ArrowInvalid: a decimal does not fit into 64 bits.
    """
    if isinstance(column, pa.ChunkedArray):
        chunks = column.num_chunks
        column = column.chunk(0) if chunks == 1 else pa.concat_arrays(_chunks(column))
    kind = column.type
    if kind.id in _PLAIN_IDS:
        return column
    if isinstance(kind, pa.BaseExtensionType):
        return plain(column.storage)
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(column))
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_decimal(kind):
        return column.cast(pa.int64() if kind.scale <= 0 else pa.float64())
    return _map_of_pairs(column) if is_list_of_pairs(kind) else column


# Types that `plain` need not look at any further.
_PLAIN_IDS = frozenset(kind.id for kind in (pa.string(), pa.int64(), pa.float32(), pa.float64()))


def is_list_of_pairs(data_type: pa.DataType) -> bool:
    """True for lists of ``struct<key, value>``, the form that Polars gives to maps."""
    if not is_list(data_type) or not pa.types.is_struct(data_type.value_type):
        return False
    return [field.name for field in data_type.value_type] == ["key", "value"]


def _map_of_pairs(column: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    missing = np.append(column.is_null().to_numpy(zero_copy_only=False), False)
    keys, items = pc.list_flatten(column).flatten()
    return pa.MapArray.from_arrays(pa.array(offsets, mask=missing), keys, items)


def _chunks(column: pa.ChunkedArray) -> list[pa.Array]:
    return column.chunks or [pa.array([], column.type)]


def is_text(data_type: pa.DataType) -> bool:
    """True for strings of any layout."""
    return bool(
        pa.types.is_string(data_type)
        or pa.types.is_large_string(data_type)
        or pa.types.is_string_view(data_type)
    )


def is_list(data_type: pa.DataType) -> bool:
    """True for lists of any layout, maps excluded."""
    return bool(
        pa.types.is_list(data_type)
        or pa.types.is_large_list(data_type)
        or pa.types.is_fixed_size_list(data_type)
        or pa.types.is_list_view(data_type)
        or pa.types.is_large_list_view(data_type)
    )


def is_number(data_type: pa.DataType) -> bool:
    """True for integers, floats and booleans."""
    return bool(
        pa.types.is_integer(data_type)
        or pa.types.is_floating(data_type)
        or pa.types.is_boolean(data_type)
    )


def unlist(column: pa.Array) -> tuple[pa.Array, Int32Array]:
    """Returns the flat values of a list column and its lengths, null → 0."""
    kind = column.type
    if not column.null_count and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        offsets = column.offsets.to_numpy()
        first, last = int(offsets[0]), int(offsets[-1])
        flat = plain(column.values.slice(first, last - first))
        return flat, np.diff(offsets).astype(np.int32, copy=False)
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    flat = plain(pc.list_flatten(column))
    return flat, lengths.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)


def scalars(column: pa.Array) -> tuple[pa.Array, Int32Array]:
    """Returns the non-null values of a column and their number per row, 0 or 1."""
    if not column.null_count:
        return column, np.ones(len(column), dtype=np.int32)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return column.drop_null(), valid.astype(np.int32)


def split(column: pa.Array, separator: str) -> tuple[pa.Array, Int32Array]:
    """Splits text; null and "" have no parts. Returns the parts and their number per row."""
    has_text = pc.greater(pc.binary_length(column), 0)
    lengths = pc.fill_null(has_text, False).to_numpy(zero_copy_only=False).astype(np.int32)
    if not lengths.all():
        column = column.filter(has_text)  # a null condition drops the row
    if not _holds(column, separator):
        return column, lengths
    parts, counts = unlist(pc.split_pattern(column, separator))
    lengths[lengths > 0] = counts
    return parts, lengths


def _holds(column: pa.Array, text: str) -> bool:
    """Tells whether ``text`` is anywhere in the characters of a text column without nulls."""
    if len(column) == 0:
        return False
    offset_type = np.int64 if pa.types.is_large_string(column.type) else np.int32
    _, offsets, characters = column.buffers()
    if characters is None:
        return False
    ends = np.frombuffer(offsets, offset_type)[column.offset :][: len(column) + 1]
    first, last = int(ends[0]), int(ends[-1])
    needle = text.encode()
    if len(needle) == 1:
        found = np.frombuffer(characters, np.uint8)[first:last] == needle[0]
        return bool(found.any())
    return needle in characters.slice(first, last - first).to_pybytes()


def unmap(column: pa.Array) -> tuple[pa.Array, pa.Array, Int32Array]:
    """Returns the flat keys and items of a map column and its lengths, null → 0."""
    offsets = column.offsets.to_numpy(zero_copy_only=False)
    lengths = np.diff(offsets).astype(np.int32)
    first, size = int(offsets[0]), int(offsets[-1] - offsets[0])
    # keys and items are those of the whole buffer, whatever slice of it the column is.
    keys, items = plain(column.keys.slice(first, size)), plain(column.items.slice(first, size))
    if column.null_count:
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        kept = pa.array(np.repeat(valid, lengths))
        keys, items = keys.filter(kept), items.filter(kept)
        lengths = np.where(valid, lengths, 0).astype(np.int32)
    return keys, items, lengths


def to_int64(values: pa.Array, place: Place) -> NDArray[np.int64]:
    """Returns ids; text is read as decimal whole numbers.

    Raises:
        FeatureError: a value is null or no whole number of 64 bits.
    """
    return _convert(values, place, pa.int64(), "a whole number")


def to_float32(values: pa.Array, place: Place) -> NDArray[np.float32]:
    """Returns numbers; text is read as decimal numbers.

    Raises:
        FeatureError: a value is null or no number.
    """
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    return _convert(values, place, pa.float32(), "a number")


def _convert(values: pa.Array, place: Place, to: pa.DataType, what: str) -> NDArray[Any]:
    if values.null_count:
        position = pc.index(values.is_null(), True).as_py()
        raise place.error(
            position, f"holds a null inside a list; each of its values must be {what}"
        )
    if values.type == to:
        return values.to_numpy()

    def cast(part: pa.Array) -> pa.Array:
        # float64 → float32 and int64 → float32 round, as they do in the model.
        return pc.cast(part, to, safe=not pa.types.is_floating(to))

    try:
        return cast(values).to_numpy()
    except pa.ArrowInvalid:
        if is_text(values.type):
            values = pc.utf8_trim_whitespace(values)
    try:
        return cast(values).to_numpy()
    except pa.ArrowInvalid as error:
        position = _first_bad(values, cast)
        value = values[position].as_py()
        raise place.error(position, f"holds {value!r}, which is not {what}") from error


def _first_bad(values: pa.Array, cast: Callable[[pa.Array], pa.Array]) -> int:
    """Returns the position of the first value that cannot be cast; there is one."""
    good, bad = 0, len(values)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            cast(values.slice(good, middle - good))
            good = middle
        except pa.ArrowInvalid:
            bad = middle
    return good
