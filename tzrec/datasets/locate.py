"""Parsing a batch so that an error names the file and the row that caused it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from torch import Tensor

from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.slicer import RawBatch
from tzrec.errors import DataError, TzrecError, Unsupported


def columns_of(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Returns column → array."""
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def parse_rows(parser: DataParser, raw: RawBatch, paths: Sequence[str]) -> dict[str, Tensor]:
    """Parses a batch.

    Args:
        parser: what to parse it with.
        raw: the batch.
        paths: names of the files that ``raw.source`` counts.

    Raises:
        TzrecError: as `DataParser.parse`, with file and row in front.
    """
    try:
        return parser.parse(columns_of(raw.columns))
    except Unsupported:
        raise
    except (TzrecError, ValueError) as error:
        raise _located(parser, raw, paths, error) from error


def _located(
    parser: DataParser, raw: RawBatch, paths: Sequence[str], error: Exception
) -> TzrecError:
    row = _first_bad_row(parser, raw.columns)
    if row is None:
        return _prefixed(f"in {paths[int(raw.source[0])]}", error)
    where = f"{paths[int(raw.source[row])]}: row {int(raw.row[row])} (counted from 0)"
    return _prefixed(where, _error_of(parser, raw.columns.slice(0, row + 1)) or error)


def _prefixed(where: str, error: Exception) -> TzrecError:
    if not isinstance(error, TzrecError):
        return DataError(f"{where}: {error}")
    inner = "".join(f"{part}: " for part in error.location)
    return type(error)(f"{where}: {inner}{error.message}", hint=error.hint)


def _first_bad_row(parser: DataParser, batch: pa.RecordBatch) -> int | None:
    """Returns the row that ends the shortest failing prefix; None if no row is to blame."""
    if _error_of(parser, batch.slice(0, 0)) is not None:
        return None
    good, bad = 0, batch.num_rows
    while bad - good > 1:
        middle = (good + bad) // 2
        if _error_of(parser, batch.slice(0, middle)) is None:
            good = middle
        else:
            bad = middle
    return bad - 1


def _error_of(parser: DataParser, batch: pa.RecordBatch) -> Exception | None:
    try:
        parser.parse(columns_of(batch))
    except (TzrecError, ValueError) as error:
        return error
    return None
