"""Raw rows in any of the shapes that people hold them in, as Arrow columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.datasets.schema import cast_column, check_column_type
from tzrec.errors import DataError, did_you_mean


@dataclasses.dataclass(frozen=True)
class ColumnType:
    """How a column that a model reads is typed.

    Attributes:
        declared: type that the config declares, None where it leaves that to the data.
        unknown: type of the values where the data does not tell: all null, or empty lists.
    """

    declared: pa.DataType | None
    unknown: pa.DataType


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
    column = _array(name, values, wanted.declared)
    target = wanted.declared or check_column_type(
        name, _known(column.type, wanted.unknown), "the rows"
    )
    return cast_column(column, target, name)


def _array(name: str, values: Any, declared: pa.DataType | None) -> pa.Array:
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
    # NaN is how pandas, and arrays that come from it, say that a value is missing.
    nan_is_null = isinstance(values, np.ndarray) or hasattr(values, "to_numpy")
    try:
        array = pa.array(values, type=declared, from_pandas=nan_is_null)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        wanted = f" as {declared}" if declared is not None else ""
        raise DataError(f"column {name!r} cannot be read{wanted}: {error}") from error
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _known(found: pa.DataType, unknown: pa.DataType) -> pa.DataType:
    if pa.types.is_null(found):
        return unknown
    if pa.types.is_list(found):
        return pa.list_(_known(found.value_type, unknown))
    return found
