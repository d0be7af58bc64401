"""Parquet files: read by row group, written atomically."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tzrec.datasets.bad_rows import BadRows
from tzrec.datasets.files import open_input
from tzrec.datasets.reader import BaseReader, read_rows
from tzrec.datasets.split import Block
from tzrec.datasets.writer import BaseWriter
from tzrec.errors import DataError

_MIN_BLOCK_ROWS = 65536
_BUFFER_BYTES = 256 << 10


class ParquetReader(BaseReader):
    """Reads Parquet files; see `BaseReader`."""

    suffix = ".parquet"

    def __init__(
        self,
        input_path: str,
        columns: Sequence[str] | None = None,
        *,
        kept_columns: Sequence[str] | None = (),
        bad_rows: BadRows | None = None,
    ) -> None:
        self._metadata: dict[str, pq.FileMetaData] = {}
        self._group_rows: dict[str, list[int]] = {}
        super().__init__(input_path, columns, kept_columns=kept_columns, bad_rows=bad_rows)

    def _inspect(self, path: str) -> tuple[int, pa.Schema]:
        with self._open(path) as file:
            metadata = file.metadata
            self._metadata[path] = metadata
            self._group_rows[path] = [
                metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
            ]
            return metadata.num_rows, file.schema_arrow

    def blocks(self) -> list[Block]:
        """Returns row groups, small neighbours of a file together."""
        blocks: list[Block] = []
        for source, path in enumerate(self.paths):
            start = stop = 0
            for rows in self._group_rows[path]:
                stop += rows
                if stop - start >= _MIN_BLOCK_ROWS:
                    blocks.append(Block(source, start, stop))
                    start = stop
            if stop > start:
                blocks.append(Block(source, start, stop))
        return blocks

    def place(self, source: int, row: int) -> str:
        """Returns words for a row of a file."""
        group, _ = self._group_at(source, row)
        return f"{self.paths[source]}: row group {group}, row {row} (counted from 0)"

    def _read_from(self, source: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        path, row, careful = self.paths[source], start, False
        while row < stop:
            # Small groups are decoded together; after an error they are read one by one.
            end = min(self._group_at(source, row)[1], stop) if careful else stop
            try:
                for piece in self._read_groups(path, row, end):
                    row += piece.num_rows
                    yield piece
                if row < end:
                    return
                continue
            except (pa.ArrowInvalid, OSError) as error:
                # Decoders raise OSError without a number; one with a number is of the system.
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                if careful:
                    self._leave_out(source, row, end, error)
            if careful:
                yield self._nulls(end - row)
                row = end
            careful = True

    def _group_at(self, source: int, row: int) -> tuple[int, int]:
        """Returns number and end of the row group of a row."""
        ends = np.cumsum(self._group_rows[self.paths[source]])
        group = int(np.searchsorted(ends, row, side="right"))
        return group, int(ends[group])

    def _leave_out(self, source: int, start: int, stop: int, error: Exception) -> None:
        named = DataError(
            f"{self.paths[source]}: row group {self._group_at(source, start)[0]}: rows {start} … "
            f"{stop - 1} (counted from 0) cannot be read: {str(error).strip()}",
            hint="the file is damaged: write or copy it again",
        )
        for row in range(start, stop):
            self.bad_rows.add(source, row, named)

    def _read_groups(self, path: str, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        groups, first_row = self._groups_of(path, start, stop)
        if not groups:
            return
        with self._open(path, self._metadata[path]) as file:
            pieces = file.iter_batches(
                batch_size=read_rows(self._bytes_per_row(path)),
                row_groups=groups,
                columns=self.schema.names,
            )
            for piece in pieces:
                end_row = first_row + piece.num_rows
                if end_row > start:
                    skipped = max(start - first_row, 0)
                    yield piece.slice(skipped, min(end_row, stop) - first_row - skipped)
                first_row = end_row
                if first_row >= stop:
                    return

    def _groups_of(self, path: str, start: int, stop: int) -> tuple[list[int], int]:
        groups: list[int] = []
        first_row = row = 0
        for group, rows in enumerate(self._group_rows[path]):
            if row < stop and row + rows > start:
                first_row = first_row if groups else row
                groups.append(group)
            row += rows
        return groups, first_row

    def _bytes_per_row(self, path: str) -> float:
        metadata, wanted = self._metadata[path], set(self.schema.names)
        group = metadata.row_group(0)
        size = sum(
            column.total_uncompressed_size
            for column in (group.column(i) for i in range(group.num_columns))
            if column.path_in_schema.split(".", 1)[0] in wanted
        )
        return float(size) / max(group.num_rows, 1)

    @contextlib.contextmanager
    def _open(self, path: str, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        with open_input(path) as source:
            try:
                # Without pre_buffer and with a buffer a row group is never in memory as a whole.
                file = pq.ParquetFile(
                    source, metadata=metadata, pre_buffer=False, buffer_size=_BUFFER_BYTES
                )
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is not a readable Parquet file: {error}") from error
            with file:
                yield file


class ParquetWriter(BaseWriter):
    """Writes one Parquet file; see `BaseWriter`."""

    suffix = ".parquet"

    def _start(self, sink: pa.NativeFile, schema: pa.Schema) -> Any:
        writer = pq.ParquetWriter(sink, schema)
        writer.add_key_value_metadata(self.metadata)
        return writer
