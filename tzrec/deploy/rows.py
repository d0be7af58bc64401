"""Raw rows in any of the shapes that people hold them in, as Arrow columns."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.datasets.schema import accepted_type, cast_column, check_column_type
from tzrec.errors import DataError, did_you_mean
from tzrec.fg.columns import is_list

# Bytes of a text that holds one value, most likely, with its offsets.
_SHORT_TEXT = 64


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

    @functools.cached_property
    def settled(self) -> pa.DataType | None:
        """Type of which columns are taken as they are; None where that is not known."""
        if self.declared is not None or self.trained is None:
            return self.declared
        return self.trained if accepted_type(self.trained) == self.trained else None

    @functools.cached_property
    def direct(self) -> pa.DataType | None:
        """Type that a list of Python values becomes at once; None where its values tell."""
        kind = self.settled
        if kind is None or _holds_integers(kind):
            return None  # Arrow would cut 1.5 down to 1
        return kind if pa.types.is_floating(kind) else self.declared


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
    _refuse_missing(types, _names(rows))
    # One by one: to_dict or from_pandas would convert columns that nobody needs.
    columns = {name: _typed(name, rows[name], wanted) for name, wanted in types.items()}
    _common_length(columns)
    return columns


def request_columns(
    context: Any, items: Any, types: Mapping[str, ColumnType]
) -> tuple[dict[str, pa.Array], int]:
    """Returns the columns of a request, and the number of its items.

    Args:
        context: the columns that all items share, of one row.
        items: the other columns; both in any form that `to_columns` takes.
        types: columns to take.

    Raises:
        DataError: as `to_columns`; or a column comes twice, or the context has not one row.
    """
    of_context, of_items = _names(context), _names(items)
    _refuse_missing(types, {**dict.fromkeys(of_context), **dict.fromkeys(of_items)})
    twice = [name for name in types if name in of_context and name in of_items]
    if twice:
        raise DataError(
            f"the context and the items both have the columns {', '.join(twice)}",
            hint="the context has what all items share, the items have the rest",
        )
    shared = {name: wanted for name, wanted in types.items() if name in of_context}
    own = {name: wanted for name, wanted in types.items() if name in of_items}
    if not own:
        raise DataError(
            "the model reads no column of the items",
            hint=f"it reads {', '.join(types)}; give at least one of them row by row",
        )
    columns = to_columns(context, shared) if shared else {}
    if columns and _common_length(columns) != 1:
        raise DataError(
            f"the context has {_common_length(columns)} rows, it must be one",
            hint=f"one row is {{{next(iter(columns))!r}: [value]}}",
        )
    candidates = to_columns(items, own)
    return columns | candidates, _common_length(candidates)


def repeat_short(columns: Mapping[str, pa.Array], num_rows: int) -> dict[str, pa.Array]:
    """Returns columns of a request with the short ones of one row repeated.

    Making a feature of a number or a word for all rows takes no longer than making it once and
    repeating the feature; a history is better left alone.

    Args:
        columns: of ``num_rows`` rows, or of one.
        num_rows: of the others.
    """
    short = {n: column for n, column in columns.items() if len(column) == 1 and _is_short(column)}
    return {**columns, **{name: pa.repeat(column[0], num_rows) for name, column in short.items()}}


def _is_short(column: pa.Array) -> bool:
    kind = column.type
    if pa.types.is_string(kind):
        return column.nbytes <= _SHORT_TEXT
    return pa.types.is_primitive(kind)


def _common_length(columns: Mapping[str, pa.Array]) -> int:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        listed = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise DataError(f"columns have different numbers of rows: {listed}")
    return lengths.pop() if lengths else 0


def _names(rows: Any) -> Collection[str]:
    """Returns the columns that there are."""
    if isinstance(rows, dict):
        return rows
    if isinstance(rows, (pa.RecordBatch, pa.Table)):
        return Counter(rows.schema.names)
    if isinstance(rows, Mapping):
        return rows
    if type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "columns"):
        return Counter(name for name in rows.columns if isinstance(name, str))
    raise DataError(
        f"rows are a {type(rows).__name__}",
        hint="pass a dict of columns, a pandas.DataFrame, or a pyarrow RecordBatch or Table",
    )


def _refuse_missing(names: Collection[str], present: Collection[str]) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(
            f"rows lack the columns {', '.join(missing)}{did_you_mean(missing[0], present)}",
            hint=f"the model reads {', '.join(names)}",
        )
    twice = [n for n in names if present[n] > 1] if isinstance(present, Counter) else []
    if twice:
        raise DataError(f"rows have the columns {', '.join(twice)} more than once")


def _typed(name: str, values: Any, wanted: ColumnType) -> pa.Array:
    column = values if isinstance(values, pa.Array) else _array(name, values, wanted)
    if column.type == wanted.settled:
        return column
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
    if type(values) is list and wanted.settled is not None:
        column = _of_list(values, wanted)
        if column is not None:
            return column
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
        raise DataError(
            f"column {name!r} is {values!r}, not a column of values",
            hint=f"one row is {{{name!r}: [{values!r}]}}",
        )
    if isinstance(values, np.ndarray) and values.ndim != 1:
        if values.ndim != 2:
            raise DataError(f"column {name!r} is an array of {values.ndim} dimensions, not 1 or 2")
        if values.dtype != object and values.shape[1]:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        values = list(values)
    maps = _maps(name, values, wanted)
    if maps is not None:
        return maps
    # NaN is how pandas, and arrays that come from it, say that a value is missing.
    nan_is_null = isinstance(values, np.ndarray) or hasattr(values, "to_numpy")
    if hasattr(values, "to_numpy") and isinstance(values.dtype, np.dtype):
        values = values.to_numpy()  # pyarrow takes much longer for a Series
    declared = wanted.declared
    kind = None if declared is not None and _holds_integers(declared) else declared
    try:
        array = pa.array(values, type=kind, from_pandas=nan_is_null)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        wish = f" as {declared}" if declared is not None else ""
        raise DataError(f"column {name!r} cannot be read{wish}: {error}") from error
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _of_list(values: list[Any], wanted: ColumnType) -> pa.Array | None:
    """Returns a list that has the wanted type as it is; None for others, good or bad."""
    try:
        column = pa.array(values, type=wanted.direct)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    return column if column.type == wanted.settled else None


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


def _holds_integers(kind: pa.DataType) -> bool:
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return bool(pa.types.is_integer(kind)) or any(map(_holds_integers, inner))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
