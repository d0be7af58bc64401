"""The event time of rows: seconds since 1970."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from tzrec.errors import DataError

_UNKNOWN = -1.0
_MILLISECONDS = 1e11  # the year 5138 in seconds


def check_time_type(name: str, found: pa.DataType) -> None:
    """Raises a DataError if a column cannot hold event times."""
    if not (
        types.is_integer(found)
        or types.is_floating(found)
        or types.is_timestamp(found)
        or types.is_date(found)
    ):
        raise DataError(
            f"event_time_field {name!r} is {found}; a time is seconds since 1970, a timestamp or "
            "a date",
            hint="for CSV, declare it BIGINT in data_config.input_fields",
        )


def newest(column: pa.Array) -> float:
    """Returns the newest time of a batch in seconds, -1 if no row has one.

    Raises:
        DataError: numbers are milliseconds or smaller units.
    """
    latest = pc.max(column)
    if not latest.is_valid:
        return _UNKNOWN
    if types.is_date(column.type) or types.is_timestamp(column.type):
        return float(latest.cast(pa.timestamp("us")).value) / 1e6
    seconds = float(latest.as_py())
    if seconds >= _MILLISECONDS:
        raise DataError(
            f"event_time_field: {latest.as_py()} is no time in seconds since 1970",
            hint="divide milliseconds by 1000 where the file is written, or write a timestamp",
        )
    return seconds if seconds >= 0 else _UNKNOWN
