"""Column types: which Arrow types are read as what, and the ``input_fields`` of a config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from tzrec.errors import ConfigError, DataError, did_you_mean
from tzrec.fg.columns import is_list, is_list_of_pairs
from tzrec.protos.data_pb2 import DataConfig, FieldType

_SCALARS = {
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "STRING": pa.string(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
}
_ALIASES = {"INT": "INT32", "BIGINT": "INT64"}
_MAP_KEYS = ("STRING", "INT64", "INT32")
_WIDER = {
    pa.bool_(): pa.int32(),
    pa.int8(): pa.int32(),
    pa.uint8(): pa.int32(),
    pa.int16(): pa.int32(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
}
_ACCEPTED = "int32, int64, float, double, string, list or list<list> of them, map<key, value>"


def accepted_type(found: pa.DataType) -> pa.DataType | None:
    """Returns the type that a column of type ``found`` is read as, None if it cannot be read.

    Types are compared by meaning: nullability and field names inside lists do not matter;
    dictionaries, run-end encoding, large and view variants and extension types are decoded;
    small integers become int32, decimals int64 or double; a list of ``struct<key, value>``, the
    form that Polars gives to maps, is a map. A column that is all null stays so until other
    files tell its type (`unify`).
    """
    return _accept_nested(found, depth=2)


def _accept_nested(found: pa.DataType, *, depth: int) -> pa.DataType | None:
    found = _stored(found)
    if depth == 2 and (types.is_map(found) or is_list_of_pairs(found)):
        key_type, item_type = _pair_types(found)
        key = _accept_nested(key_type, depth=0)
        item = _accept_nested(item_type, depth=0)
        if key is None or item is None or types.is_floating(key):
            return None
        return pa.map_(key, item)
    if depth and is_list(found):
        inner = _accept_nested(found.value_type, depth=depth - 1)
        return None if inner is None or types.is_map(inner) else pa.list_(inner)
    if types.is_decimal(found):
        return pa.int64() if found.scale <= 0 else pa.float64()
    if found in _SCALARS.values() or types.is_null(found):
        return found
    return _WIDER.get(found)


def _stored(found: pa.DataType) -> pa.DataType:
    """Returns the type of the values under encodings and extension types."""
    if isinstance(found, pa.BaseExtensionType):
        return _stored(found.storage_type)
    if types.is_dictionary(found) or types.is_run_end_encoded(found):
        return _stored(found.value_type)
    return found


def _pair_types(found: pa.DataType) -> tuple[pa.DataType, pa.DataType]:
    if types.is_map(found):
        return found.key_type, found.item_type
    return tuple(field.type for field in found.value_type)


def same_meaning(left: pa.DataType, right: pa.DataType) -> bool:
    """Returns whether two accepted types differ at most in names and nullability."""
    if types.is_map(left) and types.is_map(right):
        return bool(left.key_type == right.key_type and left.item_type == right.item_type)
    if types.is_list(left) and types.is_list(right):
        return same_meaning(left.value_type, right.value_type)
    return bool(left == right)


def cast_column(column: pa.Array, target: pa.DataType, name: str) -> pa.Array:
    """Returns the column with type ``target``, without a copy where it has it already.

    Raises:
        DataError: a value does not fit (uint64 above the range of int64, bad UTF-8).
    """
    try:
        return _cast(column, target)
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} ({column.type}) cannot become {target}: {error}"
        ) from error


def _cast(column: pa.Array, target: pa.DataType) -> pa.Array:
    if column.type == target:
        return column
    if isinstance(column, pa.ExtensionArray):
        return _cast(column.storage, target)
    if types.is_dictionary(column.type):
        return _cast(column.dictionary_decode(), target)
    if types.is_run_end_encoded(column.type):
        return _cast(pc.run_end_decode(column), target)
    if types.is_map(target) and not types.is_null(column.type):
        return _cast_pairs(column, target)
    if not is_list(column.type):
        return column.cast(target)
    # Built anew: cast() does not decode what is inside, and from views gives wrong offsets.
    values = _cast(column.flatten(), target.value_type)
    return pa.ListArray.from_arrays(_offsets(column), values, type=target)


def _cast_pairs(column: pa.Array, target: pa.DataType) -> pa.Array:
    if types.is_map(column.type):
        # keys and items are those of the whole buffer, whatever slice of it the column is.
        first, last = column.offsets[0].as_py(), column.offsets[len(column)].as_py()
        pairs = [part.slice(first, last - first) for part in (column.keys, column.items)]
        column = pa.ListArray.from_arrays(
            pa.array(column.offsets.to_numpy() - first, mask=_missing(column)),
            pa.StructArray.from_arrays(
                [_cast(pairs[0], target.key_type), _cast(pairs[1], target.item_type)],
                ["key", "value"],
            ),
        )
    keys, items = column.flatten().flatten()
    return pa.MapArray.from_arrays(
        _offsets(column), _cast(keys, target.key_type), _cast(items, target.item_type), type=target
    )


def _offsets(column: pa.Array) -> pa.Array:
    """Returns where the flattened values of each row begin, null for null rows."""
    offsets = np.zeros(len(column) + 1, dtype=np.int32)
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    np.cumsum(lengths.to_numpy(zero_copy_only=False), out=offsets[1:])
    return pa.array(offsets, mask=_missing(column))


def _missing(column: pa.Array) -> NDArray[np.bool_] | None:
    """Returns which rows are null, and False for the offset after them; None if no row is."""
    if not column.null_count:
        return None
    return np.append(column.is_null().to_numpy(zero_copy_only=False), False)


def check_column_type(name: str, found: pa.DataType, file: str) -> pa.DataType:
    """Returns the type to read a column as.

    Raises:
        DataError: it cannot be read; names column, file, type and what to do.
    """
    accepted = accepted_type(found)
    if accepted is None:
        raise DataError(
            f"column {name!r} of {file} has type {found}; readable are {_ACCEPTED}",
            hint=f"cast it when writing the file, for example {_cure(name, _stored(found))}",
        )
    return accepted


def _cure(name: str, found: pa.DataType) -> str:
    """Returns the SQL that makes a column readable."""
    if types.is_timestamp(found) or types.is_date(found):
        return f"CAST(UNIX_TIMESTAMP({name}) AS BIGINT), the seconds since 1970"
    if types.is_binary(found) or types.is_large_binary(found) or types.is_binary_view(found):
        return f"CAST({name} AS STRING)"
    if types.is_map(found) or is_list_of_pairs(found):
        return f"CAST({name} AS MAP<STRING, DOUBLE>)"
    if types.is_struct(found):
        first = found[0].name if found.num_fields else "x"
        return f"CAST({name}.{first} AS BIGINT), a column for each field"
    if is_list(found):
        return f"CAST({name} AS ARRAY<BIGINT>)"
    return f"CAST({name} AS BIGINT)"


def unify(name: str, typed_files: Iterable[tuple[str, pa.DataType]]) -> pa.DataType:
    """Returns the one type that holds a column of several files (string if all are null).

    Raises:
        DataError: the types of two files cannot be brought together.
    """
    first_file, unified = "", pa.null()
    for file, found in typed_files:
        if not first_file or same_meaning(unified, found):
            first_file, unified = first_file or file, found
            continue
        wider = _wider(unified, found)
        if wider is None:
            raise DataError(f"column {name!r} is {unified} in {first_file} but {found} in {file}")
        unified = wider
    return _settle(unified)


def _settle(found: pa.DataType) -> pa.DataType:
    if types.is_list(found):
        return pa.list_(_settle(found.value_type))
    return pa.string() if types.is_null(found) else found


def _wider(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if types.is_list(left) and types.is_list(right):
        inner = _wider(left.value_type, right.value_type)
        return None if inner is None else pa.list_(inner)
    if types.is_map(left) and types.is_map(right):
        key = _wider(left.key_type, right.key_type)
        item = _wider(left.item_type, right.item_type)
        fits = key is not None and item is not None and not types.is_floating(key)
        return pa.map_(key, item) if fits else None
    if types.is_null(left) or types.is_null(right) or left == right:
        return right if types.is_null(left) else left
    both = {left, right}
    if both == {pa.int32(), pa.int64()}:
        return pa.int64()
    if all(types.is_integer(t) or types.is_floating(t) for t in both):
        return pa.float64()
    return None


def parse_type(text: str) -> pa.DataType:
    """Returns the Arrow type of ``BIGINT``, ``ARRAY<FLOAT>``, ``MAP<STRING,INT64>`` …

    Raises:
        ConfigError: no such type.
    """
    name = re.sub(r"\s+", "", text).upper()
    name = _ALIASES.get(name, name)
    if name in _SCALARS:
        return _SCALARS[name]
    nested = re.fullmatch(r"ARRAY<(.+)>", name)
    if nested and nested[1].count("ARRAY<") <= 1 and not nested[1].startswith("MAP<"):
        return pa.list_(parse_type(nested[1]))
    pair = re.fullmatch(r"MAP<(\w+),(\w+)>", name)
    if pair:
        key, value = (_ALIASES.get(part, part) for part in pair.groups())
        if key in _MAP_KEYS and value in _SCALARS:
            return pa.map_(_SCALARS[key], _SCALARS[value])
    known = [*_SCALARS, *_ALIASES]
    raise ConfigError(
        f"{text.strip()!r} is no type of a column{did_you_mean(name, known)}",
        hint=f"types: {', '.join(known)}, ARRAY<…>, ARRAY<ARRAY<…>>, MAP<key,value>",
    )


def parse_input_fields_str(text: str) -> dict[str, pa.DataType]:
    """Returns column → type of ``name:TYPE;name:TYPE;``.

    Raises:
        ConfigError: a part has no colon, no name, or no or an unknown type; or a name repeats.
    """
    fields: dict[str, pa.DataType] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, colon, type_text = (piece.strip() for piece in part.partition(":"))
        if not colon or not name or not type_text:
            raise ConfigError(f"input_fields_str: {part!r} should be name:TYPE")
        if name in fields:
            raise ConfigError(f"input_fields_str: column {name!r} is named twice")
        fields[name] = parse_type(type_text)
    return fields


def input_fields(data_config: DataConfig) -> dict[str, pa.DataType | None]:
    """Returns column → type of a config, None where the type is left to the file.

    ``input_fields_str`` wins over ``input_fields``.

    Raises:
        ConfigError: the string form is malformed, or a name repeats.
    """
    if data_config.input_fields_str:
        return {**parse_input_fields_str(data_config.input_fields_str)}
    fields: dict[str, pa.DataType | None] = {}
    for field in data_config.input_fields:
        if field.input_name in fields:
            raise ConfigError(f"input_fields: column {field.input_name!r} is named twice")
        typed = field.HasField("input_type")
        fields[field.input_name] = _field_type(field.input_type) if typed else None
    return fields


def _field_type(number: int) -> pa.DataType:
    name = FieldType.Name(number)
    if name.startswith("MAP_"):
        _, key, value = name.split("_")
        return parse_type(f"MAP<{key},{value}>")
    depth = name.count("ARRAY_")
    return parse_type("ARRAY<" * depth + name.replace("ARRAY_", "") + ">" * depth)


def missing_columns_error(
    missing: Iterable[str], file: str, available: Mapping[str, object] | Iterable[str]
) -> DataError:
    """Returns the error for columns that a file should have and has not."""
    present, absent = list(available), list(missing)
    listed = ", ".join(present[:50]) + (", …" if len(present) > 50 else "")
    guess = did_you_mean(absent[0], present)
    others = f" (and {', '.join(map(repr, absent[1:6]))})" if len(absent) > 1 else ""
    return DataError(
        f"column {absent[0]!r}{others} is not in {file}{guess}", hint=f"the file has: {listed}"
    )
