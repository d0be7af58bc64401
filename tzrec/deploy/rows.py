"""Raw rows in any of the shapes that people hold them in, as Arrow columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.datasets.schema import cast_column, check_column_type
from tzrec.errors import DataError, did_you_mean
from tzrec.fg.columns import is_list


@dataclasses.dataclass(frozen=True)
class ColumnType:
    """How a column that a model reads is typed.

    Attributes:
        declared: type that the config declares, None where it leaves that to the data.
        unknown: type of the values where the data does not tell: all null, or empty lists.
        trained: type that the column had in training; numbers and maps become of it.
    """

    declared: pa.DataType | None
    unknown: pa.DataType
    trained: pa.DataType | None = None


def to_columns(rows: Any, types: Mapping[str, ColumnType]) -> dict[str, pa.Array]:
    """Returns the columns that a model reads, typed as a reader of files types them.

    Columns that it does not read are left alone: rows of a service carry more than one model
    needs.

    Args:
        rows: record batch or table of Arrow, data frame of pandas, or mapping of column → values
            (list, NumPy array, Arrow array).
        types: columns to take.

    Raises:
        DataError: not such rows, a column is missing, of another length, or of a wrong type.
    """
    source = _mapping(rows, list(types))
    columns = {name: _typed(name, source[name], wanted) for name, wanted in types.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"columns have different numbers of rows: {listed}")
    return columns


def _mapping(rows: Any, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(rows, (pa.RecordBatch, pa.Table)):
        present = rows.schema.names
    elif isinstance(rows, Mapping):
        present = list(rows)
    elif type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "columns"):
        present = [str(name) for name in rows.columns]
    else:
        raise DataError(
            f"rows are a {type(rows).__name__}",
            hint="pass a dict of columns, a pandas.DataFrame, or a pyarrow RecordBatch or Table",
        )
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(
            f"rows lack the columns {', '.join(missing)}{did_you_mean(missing[0], present)}",
            hint=f"the model reads {', '.join(names)}",
        )
    # One by one: to_dict or from_pandas would convert columns that nobody needs.
    return {name: rows[name] for name in names}


def _typed(name: str, values: Any, wanted: ColumnType) -> pa.Array:
    column = _array(name, values, wanted)
    if wanted.declared is not None:
        return cast_column(column, wanted.declared, name)
    found = check_column_type(name, _known(column.type, wanted.unknown, wanted.trained), "the rows")
    column = cast_column(column, found, name)
    target = found if wanted.trained is None else _as_trained(found, wanted.trained)
    try:
        return column if target == found else cast_column(column, target, name)
    except DataError:
        return column  # of numbers that the trained type cannot hold


def _array(name: str, values: Any, wanted: ColumnType) -> pa.Array:
    declared = wanted.declared
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
        raise DataError(
            f"column {name!r} is {values!r}, not a column of values",
            hint=f"one row is {{{name!r}: [{values!r}]}}",
        )
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    maps = _maps(name, values, wanted)
    if maps is not None:
        return maps
    # NaN is how pandas, and arrays that come from it, say that a value is missing.
    nan_is_null = isinstance(values, np.ndarray) or hasattr(values, "to_numpy")
    try:
        array = pa.array(values, type=declared, from_pandas=nan_is_null)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        kind = f" as {declared}" if declared is not None else ""
        raise DataError(f"column {name!r} cannot be read{kind}: {error}") from error
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _maps(name: str, values: Any, wanted: ColumnType) -> pa.Array | None:
    """Returns a column of mappings, or of lists of pairs where a map is wanted; else None."""
    if str(getattr(values, "dtype", "object")) != "object":
        return None
    first = next((v for v in values if not _is_missing(v)), None)
    kind = wanted.declared or wanted.trained
    is_map = kind is not None and pa.types.is_map(kind)
    if not isinstance(first, Mapping) and not (is_map and isinstance(first, (list, tuple))):
        return None
    rows = [list(v.items()) if isinstance(v, Mapping) else v for v in values]
    rows = [None if _is_missing(row) else row for row in rows]
    try:
        pairs = [pair for row in rows if row is not None for pair in row]
        keys, items = (pa.array([pair[side] for pair in pairs]) for side in (0, 1))
        lengths = np.array([0, *(len(row or ()) for row in rows)])
        missing = np.array([*(row is None for row in rows), False])
        offsets = pa.array(np.cumsum(lengths).astype(np.int32), mask=missing)
        return pa.MapArray.from_arrays(offsets, keys, items)
    except (pa.ArrowException, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"column {name!r} cannot be read as a map: {error}") from error


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _known(
    found: pa.DataType, unknown: pa.DataType, trained: pa.DataType | None = None
) -> pa.DataType:
    """Returns a type with what is not known of it filled in."""
    if pa.types.is_null(found):
        return trained or unknown
    if pa.types.is_list(found):
        inner = trained.value_type if trained is not None and is_list(trained) else None
        return pa.list_(_known(found.value_type, unknown, inner))
    if pa.types.is_map(found):
        key, item = pa.string(), unknown
        if trained is not None and pa.types.is_map(trained):
            key, item = trained.key_type, trained.item_type
        return pa.map_(_known(found.key_type, key), _known(found.item_type, item))
    return found


def _as_trained(found: pa.DataType, trained: pa.DataType) -> pa.DataType:
    """Returns the type of training where it differs in the kind of number only."""
    if _is_number(found) and _is_number(trained):
        return trained
    if pa.types.is_list(found) and pa.types.is_list(trained):
        return pa.list_(_as_trained(found.value_type, trained.value_type))
    if pa.types.is_map(found) and pa.types.is_map(trained):
        key = _as_trained(found.key_type, trained.key_type)
        return pa.map_(key, _as_trained(found.item_type, trained.item_type))
    return found


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
