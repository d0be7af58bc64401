"""`BaseWriter`: one output file of this rank that appears whole or not at all."""

from __future__ import annotations

import abc
import contextlib
import types
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from tzrec.datasets.files import arrow_filesystem
from tzrec.datasets.schema import same_meaning
from tzrec.errors import DataError


class BaseWriter(abc.ABC):
    """Writes ``part-{rank}`` with the suffix of the format into ``output_path``.

    The file has a temporary name until `close`. As a context manager it is closed at the end
    and aborted by an exception.

    Args:
        output_path: directory, made if it is not there.
        rank: number of this process.

    Attributes:
        name: of the file.
        metadata: what a Parquet file says about itself; set it before the first `write`.
    """

    suffix = ""

    def __init__(self, output_path: str, *, rank: int = 0) -> None:
        self.output_path = output_path
        self.metadata: dict[str, str] = {}
        self._system, directory = arrow_filesystem(output_path.rstrip("/") or "/")
        self.name = f"part-{rank}{self.suffix}"
        self._final = f"{directory}/{self.name}"
        self._partial = f"{directory}/.{self.name}.partial"
        self._writer: Any = None
        self._sink: pa.NativeFile | None = None
        self._schema: pa.Schema | None = None
        try:
            self._system.create_dir(directory, recursive=True)
        except OSError as error:
            raise DataError(f"cannot make the output directory {output_path}: {error}") from error

    @abc.abstractmethod
    def _start(self, sink: pa.NativeFile, schema: pa.Schema) -> Any:
        """Returns an Arrow writer with ``write_batch`` and ``close``."""

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Appends rows; the first call fixes names, order and types of the columns.

        Raises:
            DataError: later columns do not fit, their lengths differ, or the disk is full.
        """
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"output columns differ in length: {lengths}")
        try:
            if self._schema is None:
                self._open(columns)
            self._writer.write_batch(self._fit(columns))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot write {self._final}: {error}") from error

    def close(self) -> None:
        """Finishes the file under its final name; without any `write` there is no file."""
        if self._writer is None:
            return
        try:
            self._writer.close()
            assert self._sink is not None
            self._sink.close()
            self._system.move(self._partial, self._final)
        except (pa.ArrowException, OSError) as error:
            self.abort()
            raise DataError(f"cannot finish {self._final}: {error}") from error
        self._writer = self._sink = None

    def abort(self) -> None:
        """Removes what was written; harmless after `close`."""
        if self._writer is None:
            return
        with contextlib.suppress(pa.ArrowException, OSError):
            self._writer.close()
        with contextlib.suppress(pa.ArrowException, OSError):
            if self._sink is not None:
                self._sink.close()
        self._writer = self._sink = None
        if self._system.get_file_info(self._partial).type != pafs.FileType.NotFound:
            self._system.delete_file(self._partial)

    def __enter__(self) -> BaseWriter:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if error_type is None:
            self.close()
        else:
            self.abort()

    def _open(self, columns: Mapping[str, pa.Array]) -> None:
        self._schema = self._fix_schema(columns)
        self._sink = self._system.open_output_stream(self._partial)
        self._writer = self._start(self._sink, self._schema)

    def _fix_schema(self, columns: Mapping[str, pa.Array]) -> pa.Schema:
        return pa.schema([pa.field(name, column.type) for name, column in columns.items()])

    def _fit(self, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
        assert self._schema is not None
        if set(columns) != set(self._schema.names):
            raise DataError(f"output columns changed from {self._schema.names} to {list(columns)}")
        arrays = []
        for field in self._schema:
            column = columns[field.name]
            if column.type != field.type and not same_meaning(column.type, field.type):
                raise DataError(
                    f"output column {field.name!r} changed from {field.type} to {column.type}"
                )
            arrays.append(column.cast(field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)
