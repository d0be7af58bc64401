"""`BaseReader`: the rows of some files as Arrow record batches, by row number."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from tzrec.datasets import intervals
from tzrec.datasets.bad_rows import BadRows, find_failures
from tzrec.datasets.files import expand_paths, resolved
from tzrec.datasets.intervals import Intervals
from tzrec.datasets.schema import (
    accepted_type,
    cast_column,
    check_column_type,
    missing_columns_error,
    unify,
)
from tzrec.datasets.split import Block, RowOrder
from tzrec.errors import DataError

READ_BYTES = 16 << 20
_METADATA_THREADS = 8
_MIN_READ_ROWS, _MAX_READ_ROWS = 1024, 65536


class BaseReader(abc.ABC):
    """Reads rows of files, only the columns that are needed.

    What can be wrong with the files as a whole (missing columns, types, no rows) is found when
    the reader is made.

    Args:
        input_path: comma list of files, globs and directories.
        columns: columns that must be there and parsable; None = all of the first file, those
            that are not parsable as they are.
        kept_columns: further columns that are passed on as they are, whatever their type;
            None = all others.
        bad_rows: counts rows that cannot be read and says how many may be left out; by default
            none may.

    Attributes:
        paths: the files, in reading order.
        sources: names of the files that do not depend on how the input path was written.
        num_rows: rows of each file.
        schema: fields that `read` yields.

    Raises:
        DataError: no file, no row, a column is missing or has a type that cannot be read.
    """

    suffix = ""

    def __init__(
        self,
        input_path: str,
        columns: Sequence[str] | None = None,
        *,
        kept_columns: Sequence[str] | None = (),
        bad_rows: BadRows | None = None,
    ) -> None:
        self.input_path = input_path
        self.bad_rows = bad_rows or BadRows()
        self.paths = expand_paths(input_path, self.suffix)
        self.sources = [resolved(path) for path in self.paths]
        with ThreadPoolExecutor(_METADATA_THREADS) as pool:
            found = list(pool.map(self._inspect, self.paths))
        self.num_rows = [rows for rows, _ in found]
        schemas = {
            p: schema
            for p, (_, schema) in zip(self.paths, found, strict=True)
            if schema is not None
        }
        self.schema, self._checked = self._unify(schemas, columns, kept_columns)
        if self.total_rows == 0:
            raise DataError(
                f"{input_path!r} has no rows in {len(self.paths)} file(s), the first is "
                f"{self.paths[0]}"
            )

    @property
    def total_rows(self) -> int:
        """Rows of all files."""
        return sum(self.num_rows)

    @abc.abstractmethod
    def _inspect(self, path: str) -> tuple[int, pa.Schema | None]:
        """Returns the number of rows and all columns of a file (None: it is all empty)."""

    @abc.abstractmethod
    def blocks(self) -> list[Block]:
        """Returns all rows of all files, in order, cut where cutting is cheap."""

    @abc.abstractmethod
    def _read_from(self, source: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yields rows ``[start, stop)`` of a file, raw, `schema`'s columns in any order."""

    def place(self, source: int, row: int) -> str:
        """Returns words for a row of a file."""
        return f"{self.paths[source]}: row {row} (counted from 0)"

    def only(self, column: str) -> BaseReader:
        """Returns a reader of one column of the same files that leaves bad values null."""
        narrow = copy.copy(self)
        narrow.schema = pa.schema([self.schema.field(column)])
        narrow.bad_rows = BadRows(self.bad_rows.limit, quiet=True)
        return narrow

    def read(self, order: RowOrder) -> Iterator[pa.RecordBatch]:
        """Yields the rows of ``order``, in that order, in pieces of any size.

        A row that cannot be read and may be left out (`bad_rows`) is all null.

        Raises:
            DataError: a file or too many rows cannot be read; names file and row.
        """
        for source, rows in order.runs():
            yield from self._read_run(source, rows)

    def to_batches(self, batch_size: int = _MAX_READ_ROWS) -> Iterator[pa.RecordBatch]:
        """Yields all rows in file order in pieces of at most ``batch_size`` rows."""
        for piece in self.read(RowOrder.of_blocks(self.blocks())):
            for start in range(0, piece.num_rows, batch_size):
                yield piece.slice(start, batch_size)

    def _read_run(self, source: int, rows: Intervals) -> Iterator[pa.RecordBatch]:
        start, end = int(rows[0, 0]), int(rows[-1, 1])
        path = self.paths[source]
        try:
            for raw in self._read_from(source, start, end):
                stop = start + raw.num_rows
                wanted = intervals.clip(rows, start, stop) - start
                if len(wanted):
                    yield self._cast(pick(raw, wanted), source, wanted + start)
                start = stop
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot read {path} at row {start} or after: {error}") from error
        if start < end:
            raise DataError(
                f"{path} ends at row {start}, but had {self.num_rows[source]} rows when the "
                "reader was made: it was changed meanwhile"
            )

    def _unify(
        self,
        schemas: dict[str, pa.Schema],
        columns: Sequence[str] | None,
        kept_columns: Sequence[str] | None,
    ) -> tuple[pa.Schema, frozenset[str]]:
        """Returns the fields to yield and the names of those with a checked type."""
        first = next(iter(schemas.values()), pa.schema([]))
        if columns is None:
            wanted = [field.name for field in first if accepted_type(field.type) is not None]
            kept_columns = None
        else:
            wanted = list(dict.fromkeys(columns))
        others = first.names if kept_columns is None else kept_columns
        kept = [name for name in dict.fromkeys(others) if name not in wanted]
        for path, schema in schemas.items():
            missing = [name for name in [*wanted, *kept] if name not in schema.names]
            if missing:
                raise missing_columns_error(missing, path, schema.names)
        fields = [pa.field(name, first.field(name).type) for name in kept]
        for name in wanted if schemas else ():
            typed = [
                (path, check_column_type(name, schema.field(name).type, path))
                for path, schema in schemas.items()
            ]
            fields.append(pa.field(name, unify(name, typed)))
        order = {name: i for i, name in enumerate(first.names)}
        fields.sort(key=lambda field: order[field.name])
        return pa.schema(fields), frozenset(wanted)

    def _cast(self, raw: pa.RecordBatch, source: int, rows: Intervals) -> pa.RecordBatch:
        try:
            return self._cast_all(raw)
        except DataError as error:
            numbers = intervals.to_rows(rows)
            parts, start = [], 0
            for index, why in find_failures(raw.num_rows, lambda a, b: self._fails(raw, a, b)):
                assert isinstance(why, DataError)
                row = int(numbers[index])
                named = DataError(f"{self.place(source, row)}: {why.message}", hint=why.hint)
                self.bad_rows.add(source, row, named)
                parts += [self._cast_all(raw.slice(start, index - start)), self._nulls(1)]
                start = index + 1
            if not parts:
                raise DataError(
                    f"{self.paths[source]}: {error.message}", hint=error.hint
                ) from error
            return pa.concat_batches([*parts, self._cast_all(raw.slice(start))])

    def _fails(self, raw: pa.RecordBatch, start: int, stop: int) -> DataError | None:
        try:
            self._cast_all(raw.slice(start, stop - start))
        except DataError as error:
            return error
        return None

    def _nulls(self, num_rows: int) -> pa.RecordBatch:
        """Returns rows that stand for unreadable ones."""
        columns = [pa.nulls(num_rows, field.type) for field in self.schema]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _cast_all(self, raw: pa.RecordBatch) -> pa.RecordBatch:
        columns = []
        for field in self.schema:
            column = raw.column(field.name)
            if isinstance(column, pa.ExtensionArray):
                column = column.storage
            if field.name in self._checked or column.type != field.type:
                column = cast_column(column, field.type, field.name)
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


class RowStream:
    """Takes any number of rows at a time from pieces of any size."""

    def __init__(self, pieces: Iterator[pa.RecordBatch]) -> None:
        self._pieces = pieces
        self._held: pa.RecordBatch | None = None

    def take(self, num_rows: int) -> pa.RecordBatch:
        """Returns the next ``num_rows`` rows in one piece."""
        parts: list[pa.RecordBatch] = []
        missing = num_rows
        while missing:
            piece = self._held if self._held is not None else next(self._pieces)
            self._held = None
            if piece.num_rows > missing:
                self._held = piece.slice(missing)
                piece = piece.slice(0, missing)
            parts.append(piece)
            missing -= piece.num_rows
        return parts[0] if len(parts) == 1 else pa.concat_batches(parts)


def pick(batch: pa.RecordBatch, rows: Intervals) -> pa.RecordBatch:
    """Returns the rows in ``rows`` (inside the batch); one interval is taken without a copy."""
    if len(rows) == 1:
        return batch.slice(int(rows[0, 0]), int(rows[0, 1] - rows[0, 0]))
    return batch.take(pa.array(intervals.to_rows(rows)))


def read_rows(bytes_per_row: float) -> int:
    """Returns how many rows to decode at once so that memory stays bounded."""
    rows = int(READ_BYTES / max(bytes_per_row, 1.0))
    return min(max(rows, _MIN_READ_ROWS), _MAX_READ_ROWS)
