"""CSV files: rows are counted once, then read from near any row; written atomically."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import csv, types

from tzrec.datasets.bad_rows import BadRows
from tzrec.datasets.csv_cells import WrongRows, convert
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
    num_rows: int
    starts: list[tuple[int, int]]

    def stretch(self, row: int) -> tuple[int, int, int]:
        """Returns first row, byte offset and last row (exclusive) of the part that holds a row."""
        index = bisect_right(self.starts, row, key=lambda start: start[0]) - 1
        first, offset = self.starts[index]
        later = [first for first, _ in self.starts[index + 1 : index + 2]]
        return first, offset, min([*later, self.num_rows])


class CsvReader(BaseReader):
    """Reads CSV files; see `BaseReader`.

    An empty field is null for numbers and ``""`` for strings; empty lines are skipped.

    Args:
        input_path: comma list of files, globs and directories.
        columns: columns that must be there, None = all of the first file.
        kept_columns: further columns that are passed on as they are.
        bad_rows: counts rows that cannot be read, see `BaseReader`.
        csv_format: header, delimiter, declared types. Default: a header, types found out.
    """

    suffix = ".csv"

    def __init__(
        self,
        input_path: str,
        columns: Sequence[str] | None = None,
        *,
        kept_columns: Sequence[str] | None = (),
        bad_rows: BadRows | None = None,
        csv_format: CsvFormat | None = None,
    ) -> None:
        self.format = csv_format or CsvFormat(with_header=True)
        self._layouts: dict[str, _Layout] = {}
        super().__init__(input_path, columns, kept_columns=kept_columns, bad_rows=bad_rows)

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
            raise DataError(f"{path} is not a readable CSV file: {error}") from error

    def _columns(self, path: str) -> pa.Schema:
        """Returns the columns as far as the first block tells them."""
        try:
            with self._parse(path, 0, convert=self._declared_types()) as reader:
                return reader.schema
        except pa.ArrowInvalid as error:
            wrong = WrongRows()
            with self._parse(path, 0, convert=self._as_text(), wrong=wrong) as reader:
                first = next(iter(reader), None)
            hint = self._hint(first, wrong)
            if first is None or not first.num_rows or hint:
                text = f"{path} is not a readable CSV file: {error}"
                raise DataError(text, hint=hint) from error
            return first.schema  # What is wrong with single rows is told when they are read.

    def _hint(self, first: pa.RecordBatch | None, wrong: WrongRows) -> str:
        """Returns what to do when the first row is not what the config declares."""
        if self.format.with_header:
            return ""
        if 0 in wrong.messages:
            return "input_fields must list all its columns"
        if first is None or not first.num_rows:
            return ""
        if any(first.column(name)[0].as_py() == name for name in first.schema.names):
            return "its first line names the columns: set data_config.with_header: true"
        return ""

    def _inspect_text(self, path: str) -> tuple[int, pa.Schema | None]:
        with open_input(path) as file:
            if file.size() == 0:
                self._layouts[path] = _Layout([], 0, [])
                return 0, None
        found = self._columns(path)
        if len(set(found.names)) != len(found.names):
            twice = sorted({name for name in found.names if found.names.count(name) > 1})
            raise DataError(f"{path} has columns of the same name: {', '.join(twice)}")
        with open_input(path) as file:
            counted = _count_lines(file, self.format.with_header)
        if counted is None:
            counted = self._count_rows(path), [(0, 0)]
        num_rows, starts = counted
        self._layouts[path] = _Layout(found.names, num_rows, starts)
        return num_rows, pa.schema([(f.name, self._read_type(f)) for f in found])

    def _read_type(self, found: pa.Field) -> pa.DataType:
        declared = self.format.fields.get(found.name)
        if declared is not None:
            return declared
        numeric = types.is_integer(found.type) or types.is_floating(found.type)
        return found.type if numeric or types.is_null(found.type) else pa.string()

    def _count_rows(self, path: str) -> int:
        # Text with quotes, carriage returns or empty lines: only a parser knows its rows.
        wrong = WrongRows()
        with self._parse(path, 0, wrong=wrong) as reader:
            name = reader.schema.names[0]
        options = csv.ConvertOptions(include_columns=[name], column_types={name: pa.binary()})
        wrong = WrongRows()
        with self._parse(path, 0, convert=options, wrong=wrong) as reader:
            return sum(piece.num_rows for piece in reader) + len(wrong.messages)

    def _read_from(self, source: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        row = start
        while row < stop:
            try:
                for piece in self._read_fast(source, row, stop):
                    row += piece.num_rows
                    yield piece
                return
            except pa.ArrowInvalid as error:
                failed, reason = row, error
            for piece in self._read_carefully(source, row, stop):
                row += piece.num_rows
                yield piece
            if row == failed:
                raise reason

    def _read_fast(self, source: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        path = self.paths[source]
        layout = self._layouts[path]
        row, offset, _ = layout.stretch(start)
        options = csv.ConvertOptions(
            include_columns=self.schema.names,
            column_types={field.name: field.type for field in self.schema},
        )
        with self._parse(path, offset, layout.names, convert=options, threads=True) as reader:
            for piece in reader:
                yield from _between(piece, row, start, stop)
                row += piece.num_rows
                if row >= stop:
                    return

    def _read_carefully(self, source: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Reads the stretch that holds row ``start``, leaving out rows that cannot be read."""
        path = self.paths[source]
        layout = self._layouts[path]
        first_row, offset, end = layout.stretch(start)
        stop = min(stop, end)
        wrong = WrongRows(int(self.format.with_header and offset == 0))
        options = csv.ConvertOptions(
            include_columns=self.schema.names,
            column_types=dict.fromkeys(self.schema.names, pa.binary()),
        )
        with self._parse(path, offset, layout.names, convert=options, wrong=wrong) as reader:
            for rows, text in wrong.fill_in(iter(reader)):
                piece, messages = convert(text, self.schema)
                here = {int(row): wrong.messages[int(row)] for row in rows if row in wrong.messages}
                here |= {int(rows[index]): message for index, message in messages.items()}
                self._leave_out(
                    source, {first_row + row: why for row, why in here.items()}, start, stop
                )
                row = first_row + int(rows[0])
                yield from _between(piece, row, start, stop)
                if row + len(rows) >= stop:
                    return

    def _leave_out(self, source: int, messages: Mapping[int, str], start: int, stop: int) -> None:
        for row in sorted(messages):
            if start <= row < stop:
                named = f"{self.place(source, row)}: {messages[row]}"
                self.bad_rows.add(source, row, DataError(named, hint=_TYPE_HINT))

    @contextlib.contextmanager
    def _parse(
        self,
        path: str,
        offset: int,
        names: list[str] | None = None,
        *,
        convert: csv.ConvertOptions | None = None,
        wrong: WrongRows | None = None,
        threads: bool = False,
    ) -> Iterator[csv.CSVStreamingReader]:
        # Never closed by us: the parser reads ahead in threads of its own also after its end, and
        # would go on with whatever file gets the number of a closed one.
        file = open_input(path)
        file.seek(offset)
        if self.format.with_header and offset == 0:
            names = None
        elif names is None:
            names = list(self.format.fields)
        reader = csv.open_csv(
            file,
            # The number of a wrong row is known only without threads.
            read_options=csv.ReadOptions(
                column_names=names, block_size=_BLOCK_BYTES, use_threads=threads
            ),
            parse_options=csv.ParseOptions(
                delimiter=self.format.delimiter,
                newlines_in_values=True,
                invalid_row_handler=wrong,
            ),
            convert_options=convert,
        )
        with reader:
            yield reader

    def _as_text(self) -> csv.ConvertOptions:
        declared = {name: pa.string() for name, t in self.format.fields.items() if t is not None}
        return csv.ConvertOptions(column_types=declared, check_utf8=False)

    def _declared_types(self) -> csv.ConvertOptions:
        declared = {name: t for name, t in self.format.fields.items() if t is not None}
        return csv.ConvertOptions(column_types=declared)


def _between(piece: pa.RecordBatch, row: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a piece that begins at ``row`` which lie in ``[start, stop)``, if any."""
    first, last = max(start - row, 0), min(piece.num_rows, stop - row)
    if first < last:
        yield piece.slice(first, last - first)


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
        end_of_header = 0
        if with_header and not lines and b"\n" in block:
            end_of_header = block.index(b"\n") + 1
            starts = [(0, offset + end_of_header)]
            if block.count(b'"', 0, end_of_header) % 2:
                return None  # the name of a column goes on in the next line
        if block.find(b'"', end_of_header) >= 0 or b"\r" in block or b"\n\n" in last + block:
            return None
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
