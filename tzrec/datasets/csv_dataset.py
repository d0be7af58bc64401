"""CSV files: rows are counted once, then read from near any row; written atomically."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, types

from tzrec.datasets.dataset import BaseDataset
from tzrec.datasets.files import open_input
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.schema import input_fields
from tzrec.datasets.split import Block
from tzrec.datasets.writer import BaseWriter
from tzrec.errors import ConfigError, DataError
from tzrec.protos.data_pb2 import DataConfig

_BLOCK_BYTES = 4 << 20
_TYPE_HINT = "declare the column's type in data_config.input_fields or input_fields_str"


@dataclass(frozen=True)
class CsvFormat:
    """How the text of the files is to be read.

    Attributes:
        fields: declared columns, in file order if the files have no header; the type is None
            where it is found out from the file.
        delimiter: one character.
        with_header: the first line names the columns.
    """

    fields: Mapping[str, pa.DataType | None] = field(default_factory=dict)
    delimiter: str = ","
    with_header: bool = False

    def __post_init__(self) -> None:
        if len(self.delimiter.encode()) != 1:
            raise ConfigError(f"data_config.delimiter {self.delimiter!r} is not one character")
        for name, declared in self.fields.items():
            if declared is not None and types.is_nested(declared):
                raise ConfigError(
                    f"input field {name!r}: a CSV column cannot be {declared}",
                    hint="declare it STRING and separate values by fg_encoded_multival_sep "
                    "or a sequence_delim, or use Parquet",
                )
        if not self.fields and not self.with_header:
            raise ConfigError(
                "nothing names the columns of the CSV files",
                hint="set data_config.with_header: true, or list the columns in input_fields or "
                "input_fields_str (predicting with an export: "
                "--edit_config_json '{\"data_config.with_header\": true}')",
            )

    @classmethod
    def of(cls, data_config: DataConfig) -> CsvFormat:
        """Returns the format that a config describes.

        Raises:
            ConfigError: columns are not named, or something a CSV file cannot have.
        """
        return cls(input_fields(data_config), data_config.delimiter, data_config.with_header)


@dataclass(frozen=True)
class _Layout:
    """What is known of a file: its columns, and (row, byte offset) of places to start at."""

    names: list[str]
    starts: list[tuple[int, int]]


class CsvReader(BaseReader):
    """Reads CSV files; see `BaseReader`.

    An empty field is null for numbers and ``""`` for strings; empty lines are skipped.

    Args:
        input_path: comma list of files, globs and directories.
        columns: columns that must be there, None = all of the first file.
        kept_columns: further columns that are passed on as they are.
        csv_format: header, delimiter, declared types. Default: a header, types found out.
    """

    suffix = ".csv"

    def __init__(
        self,
        input_path: str,
        columns: Sequence[str] | None = None,
        *,
        kept_columns: Sequence[str] | None = (),
        csv_format: CsvFormat | None = None,
    ) -> None:
        self.format = csv_format or CsvFormat(with_header=True)
        self._layouts: dict[str, _Layout] = {}
        super().__init__(input_path, columns, kept_columns=kept_columns)

    def blocks(self) -> list[Block]:
        """Returns the stretches between places where reading can start."""
        blocks = []
        for source, path in enumerate(self.paths):
            rows = [row for row, _ in self._layouts[path].starts if row < self.num_rows[source]]
            stops = [*rows[1:], self.num_rows[source]] if rows else []
            blocks += [Block(source, *edges) for edges in zip(rows, stops, strict=True)]
        return blocks

    def _inspect(self, path: str) -> tuple[int, pa.Schema | None]:
        try:
            return self._inspect_text(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is not a readable CSV file: {error}", hint=self._inspect_hint(error)
            ) from error

    def _inspect_hint(self, error: Exception) -> str:
        if self.format.with_header:
            return ""
        text, names = str(error), self.format.fields
        # Arrow tells the row only when it reads with one thread.
        if any(f"invalid value '{name}'" in text for name in names):
            return "its first line names the columns: set data_config.with_header: true"
        return "input_fields must list all its columns"

    def _inspect_text(self, path: str) -> tuple[int, pa.Schema | None]:
        with open_input(path) as file:
            if file.size() == 0:
                self._layouts[path] = _Layout([], [])
                return 0, None
            with self._parse(file, 0) as reader:
                found = reader.schema
        if len(set(found.names)) != len(found.names):
            twice = sorted({name for name in found.names if found.names.count(name) > 1})
            raise DataError(f"{path} has columns of the same name: {', '.join(twice)}")
        with open_input(path) as file:
            counted = _count_lines(file, self.format.with_header)
        if counted is None:
            counted = self._count_rows(path), [(0, 0)]
        num_rows, starts = counted
        self._layouts[path] = _Layout(found.names, starts)
        return num_rows, pa.schema([(f.name, self._read_type(f)) for f in found])

    def _read_type(self, found: pa.Field) -> pa.DataType:
        declared = self.format.fields.get(found.name)
        if declared is not None:
            return declared
        numeric = types.is_integer(found.type) or types.is_floating(found.type)
        return found.type if numeric or types.is_null(found.type) else pa.string()

    def _count_rows(self, path: str) -> int:
        # Text with quotes, carriage returns or empty lines: only a parser knows its rows.
        with open_input(path) as file, self._parse(file, 0) as reader:
            name = reader.schema.names[0]
        options = csv.ConvertOptions(include_columns=[name], column_types={name: pa.binary()})
        with open_input(path) as file, self._parse(file, 0, options) as reader:
            return sum(piece.num_rows for piece in reader)

    def _read_from(self, source: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        path = self.paths[source]
        layout = self._layouts[path]
        starts = np.array([row for row, _ in layout.starts])
        row, offset = layout.starts[int(np.searchsorted(starts, start, side="right")) - 1]
        options = csv.ConvertOptions(
            include_columns=self.schema.names,
            column_types={field.name: field.type for field in self.schema},
        )
        try:
            with (
                open_input(path) as file,
                self._parse(file, offset, options, layout.names) as reader,
            ):
                for piece in reader:
                    end_row = row + piece.num_rows
                    if end_row > start:
                        skipped = max(start - row, 0)
                        yield piece.slice(skipped, min(end_row, stop) - row - skipped)
                    row = end_row
                    if row >= stop:
                        return
        except pa.ArrowInvalid as error:
            raise self._explain(path, layout, row, (offset, options)) or error from error

    def _explain(
        self, path: str, layout: _Layout, row: int, place: tuple[int, csv.ConvertOptions]
    ) -> DataError | None:
        """Reads again without threads: only then the parser knows the row of an error."""
        offset, options = place
        first_row = next(r for r, o in layout.starts if o == offset)
        try:
            with (
                open_input(path) as file,
                self._parse(file, offset, options, layout.names, threads=False) as reader,
            ):
                for _ in reader:
                    pass
        except pa.ArrowInvalid as error:
            text = str(error)
            number = re.search(r"Row #(\d+): ", text)
            if number:
                header = self.format.with_header and offset == 0
                row = first_row + int(number[1]) - 1 - int(header)
                text = text.replace(number[0], "")
            column = re.search(r"In CSV column #(\d+): ", text)
            if column:
                text = text.replace(column[0], f"column {layout.names[int(column[1])]!r}: ")
            return DataError(f"{path}: row {row} (counted from 0): {text}", hint=_TYPE_HINT)
        return None

    @contextlib.contextmanager
    def _parse(
        self,
        file: pa.NativeFile,
        offset: int,
        options: csv.ConvertOptions | None = None,
        names: list[str] | None = None,
        *,
        threads: bool = True,
    ) -> Iterator[csv.CSVStreamingReader]:
        file.seek(offset)
        if self.format.with_header and offset == 0:
            names = None
        elif names is None:
            names = list(self.format.fields)
        reader = csv.open_csv(
            file,
            read_options=csv.ReadOptions(
                column_names=names, block_size=_BLOCK_BYTES, use_threads=threads
            ),
            parse_options=csv.ParseOptions(
                delimiter=self.format.delimiter, newlines_in_values=True
            ),
            convert_options=options or self._declared_types(),
        )
        with reader:
            yield reader

    def _declared_types(self) -> csv.ConvertOptions:
        declared = {name: t for name, t in self.format.fields.items() if t is not None}
        return csv.ConvertOptions(column_types=declared)


def _count_lines(
    file: pa.NativeFile, with_header: bool
) -> tuple[int, list[tuple[int, int]]] | None:
    """Counts the rows of plain text, where every line is one.

    Returns:
        Rows and (row, byte offset) of the first line of about every 4 MiB; None for text with
        quotes, carriage returns or empty lines.
    """
    lines, offset, last = 0, 0, b"\n"
    starts = [(-1, 0)] if with_header else [(0, 0)]
    header = int(with_header)
    while True:
        block = file.read(_BLOCK_BYTES)
        if not block:
            break
        if b'"' in block or b"\r" in block or b"\n\n" in last + block:
            return None
        if with_header and not lines and b"\n" in block:
            starts = [(0, offset + block.index(b"\n") + 1)]
        lines += block.count(b"\n")
        line_start = offset + block.rfind(b"\n") + 1
        if line_start > max(offset, starts[-1][1]):
            starts.append((lines - header, line_start))
        offset += len(block)
        last = block[-1:]
    rows = lines + int(last != b"\n") - header
    return rows, [start for start in starts if start[0] >= 0] or [(0, 0)]


class CsvWriter(BaseWriter):
    """Writes one CSV file with a header; lists become text, see `BaseWriter`."""

    suffix = ".csv"

    def _fix_schema(self, columns: Mapping[str, pa.Array]) -> pa.Schema:
        return pa.schema([pa.field(name, _text_type(c.type)) for name, c in columns.items()])

    def _fit(self, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
        return super()._fit({name: _as_text(column) for name, column in columns.items()})

    def _start(self, sink: pa.NativeFile, schema: pa.Schema) -> Any:
        return csv.CSVWriter(sink, schema)


def _text_type(found: pa.DataType) -> pa.DataType:
    return pa.string() if types.is_nested(found) else found


def _as_text(column: pa.Array) -> pa.Array:
    """Returns nested columns as JSON text, others as they are."""
    if not types.is_nested(column.type):
        return column
    import json

    values = column.to_pylist()
    return pa.array([None if v is None else json.dumps(v) for v in values], type=pa.string())


class CsvDataset(BaseDataset):
    """CSV files as training, evaluation or prediction input."""

    reader_class = CsvReader

    @classmethod
    def reader_options(cls, data_config: DataConfig) -> dict[str, Any]:
        """Returns the CSV format of the config."""
        return {"csv_format": CsvFormat.of(data_config)}
