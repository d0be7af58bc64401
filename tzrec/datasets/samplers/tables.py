"""Tables of samplers: text with a typed header, and CSV or Parquet with named columns."""

from __future__ import annotations

import abc
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import csv, types

from tzrec.datasets.csv_files import CsvFormat
from tzrec.datasets.files import expand_paths, open_input
from tzrec.datasets.formats import create_reader, format_of
from tzrec.datasets.reader import BaseReader
from tzrec.errors import ConfigError, DataError

ID, USER, ITEM, WEIGHT, ATTRS = "id", "user", "item", "weight", "attrs"
NODE, EDGE = (ID, WEIGHT, ATTRS), (USER, ITEM, WEIGHT)

_INTEGERS, _NUMBERS = ("int64", "int32", "bigint"), ("float", "double")
_ALLOWED = {
    ID: (*_INTEGERS, "string"),
    USER: (*_INTEGERS, "string"),
    ITEM: (*_INTEGERS, "string"),
    WEIGHT: (*_NUMBERS, *_INTEGERS),
    ATTRS: ("string",),
}
_SHAPES: dict[tuple[str, ...], str] = {
    NODE: "id:int64<TAB>weight:float<TAB>attrs:string",
    EDGE: "userid:int64<TAB>itemid:int64<TAB>weight:float",
}
_TYPED = re.compile(rf":\s*({'|'.join([*_INTEGERS, *_NUMBERS, 'string'])})\b", re.IGNORECASE)
_BLOCK_BYTES = 8 << 20
_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class TableOptions:
    """How the tables of a sampler are read.

    Attributes:
        delimiter: between columns of text, None = tab with a typed header, else comma.
        string_ids: ids are text of any form.
        weight_field: weight column of named columns, None = all rows weigh the same.
    """

    delimiter: str | None = None
    string_ids: bool = False
    weight_field: str | None = None


@dataclass(frozen=True)
class Piece:
    """Rows of a table.

    Attributes:
        row: number of the first, over all files.
        roles: ``id``, ``weight``, ``attrs``, ``user``, ``item``: as far as the table has them.
        columns: named columns, all that are read.
    """

    row: int
    roles: dict[str, pa.Array]
    columns: pa.RecordBatch


class Table(abc.ABC):
    """Rows of a table, read once from its start.

    Attributes:
        total: units in all, for progress.
        done: units that are read.
        unit: what is counted: ``row`` or ``byte``.
    """

    unit = "row"

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    @abc.abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """Yields the rows in pieces of any size.

        Raises:
            DataError: a row cannot be read.
        """

    @abc.abstractmethod
    def place(self, row: int) -> str:
        """Returns words for a row, whose number counts over all files."""


class TypedTable(Table):
    """Text with a header of ``name:type``; the columns are known by their order.

    Args:
        paths: the files, each with a header.
        roles: what the columns are, `NODE` or `EDGE`; the last ones may be missing.
        wanted: roles that are read.
        delimiter: between columns.
    """

    unit = "byte"

    def __init__(
        self, paths: Sequence[str], roles: tuple[str, ...], wanted: Sequence[str], delimiter: str
    ) -> None:
        self._paths, self._delimiter = list(paths), delimiter
        self._first_rows: list[int] = []
        self._sizes = []
        headers = []
        for path in self._paths:
            with open_input(path) as file:
                self._sizes.append(file.size())
            headers.append(_read_header(path, roles, delimiter))
            if headers[-1] != headers[0]:
                raise DataError(
                    f"the headers of {self._paths[0]} and {path} have not the same types"
                )
        super().__init__(sum(self._sizes))
        self.types = headers[0]
        missing = [role for role in wanted if role not in self.types]
        if missing:
            raise DataError(
                f"{self._paths[0]} has no column for {', '.join(missing)}",
                hint=f"its header should be {_SHAPES[roles]}",
            )
        self._wanted = list(wanted)

    def pieces(self) -> Iterator[Piece]:
        """Yields the rows; see `Table.pieces`."""
        row, before = 0, 0
        for path, size in zip(self._paths, self._sizes, strict=True):
            self._first_rows.append(row)
            try:
                for piece in self._read(path):
                    self.done = min(self.done + _BLOCK_BYTES, before + size)
                    roles = {role: piece.column(role) for role in self._wanted}
                    yield Piece(row, roles, piece)
                    row += piece.num_rows
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} cannot be read: {error}") from error
            before += size
            self.done = before

    def _read(self, path: str) -> Iterator[pa.RecordBatch]:
        # Not closed by us: the parser reads ahead in threads of its own, see `CsvReader`.
        file = open_input(path)
        if b"\n" not in file.read(_HEADER_BYTES).rstrip(b"\r\n"):
            return
        file.seek(0)
        reader = csv.open_csv(
            file,
            read_options=csv.ReadOptions(
                column_names=list(self.types), skip_rows=1, block_size=_BLOCK_BYTES
            ),
            parse_options=csv.ParseOptions(delimiter=self._delimiter, quote_char=False),
            convert_options=csv.ConvertOptions(
                column_types=self.types, include_columns=self._wanted, null_values=[""]
            ),
        )
        with reader:
            yield from reader

    def place(self, row: int) -> str:
        """Returns words for a row; see `Table.place`."""
        file = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return f"{self._paths[file]}, row {row - self._first_rows[file] + 1} after the header"


class NamedTable(Table):
    """CSV or Parquet files whose columns are known by name.

    Args:
        reader: reads the columns that are needed.
        roles: role → its column.
    """

    def __init__(self, reader: BaseReader, roles: Mapping[str, str]) -> None:
        super().__init__(reader.total_rows)
        self._reader, self._roles = reader, roles
        self._ends = list(itertools.accumulate(reader.num_rows))

    def pieces(self) -> Iterator[Piece]:
        """Yields the rows; see `Table.pieces`."""
        batches = self._reader.to_batches()
        while True:
            try:
                columns = next(batches, None)
            except DataError as error:
                # Its hint is about the input of a training.
                raise DataError(error.message) from error
            if columns is None:
                return
            roles = {role: columns.column(name) for role, name in self._roles.items()}
            first, self.done = self.done, self.done + columns.num_rows
            yield Piece(first, roles, columns)

    def place(self, row: int) -> str:
        """Returns words for a row; see `Table.place`."""
        file = int(np.searchsorted(self._ends, row, side="right"))
        before = self._ends[file - 1] if file else 0
        return self._reader.place(file, row - before)


def open_nodes(
    path: str,
    id_column: str,
    options: TableOptions,
    *,
    attributes: Mapping[str, pa.DataType] | None = None,
) -> Table:
    """Opens a table of items or users.

    Args:
        path: comma list of files, globs and directories.
        id_column: name of the id column, where columns have names.
        options: how it is read.
        attributes: attributes to read and their types; None for a table of which only the ids
            matter. Pieces have them as the role ``attrs`` or as columns of these names.

    Raises:
        DataError: files or columns are missing, or the header is malformed.
        ConfigError: the options do not fit the table.
    """
    typed = _typed_paths(path)
    if typed:
        wanted = [ID] if attributes is None else [ID, WEIGHT] + [ATTRS] * bool(attributes)
        table = TypedTable(typed, NODE, wanted, options.delimiter or "\t")
        _check_id_types(table, options)
        return table
    roles = {ID: _column_of(path, id_column, options)}
    if options.weight_field and attributes is not None:
        roles[WEIGHT] = options.weight_field
    return _named(path, roles, attributes or {}, options)


def open_edges(path: str, user_column: str, item_column: str, options: TableOptions) -> Table:
    """Opens a table of edges, of which the weight is not read.

    Args:
        path: comma list of files, globs and directories.
        user_column: name of the column of users, where columns have names.
        item_column: name of the column of items.
        options: how it is read.

    Raises:
        DataError: files or columns are missing, or the header is malformed.
        ConfigError: the options do not fit the table.
    """
    typed = _typed_paths(path)
    if typed:
        table = TypedTable(typed, EDGE, [USER, ITEM], options.delimiter or "\t")
        _check_id_types(table, options)
        return table
    roles = {
        USER: _column_of(path, user_column, options),
        ITEM: _column_of(path, item_column, options),
    }
    return _named(path, roles, {}, options)


def _named(
    path: str,
    roles: Mapping[str, str],
    attributes: Mapping[str, pa.DataType],
    options: TableOptions,
) -> Table:
    columns = list(dict.fromkeys([*roles.values(), *attributes]))
    if _is_parquet(path):
        reader = create_reader(path, columns, reader_type="ParquetReader")
        return NamedTable(reader, roles)
    declared = {
        name: pa.string() if types.is_nested(kind) else kind for name, kind in attributes.items()
    }
    for role, name in roles.items():
        if role == WEIGHT:
            declared[name] = pa.float64()
        elif name not in declared or options.string_ids:
            declared[name] = pa.string() if options.string_ids else pa.int64()
    csv_format = CsvFormat(declared, _csv_delimiter(path, options), with_header=True)
    reader = create_reader(path, columns, reader_type="CsvReader", csv_format=csv_format)
    return NamedTable(reader, roles)


def _files(path: str) -> list[str]:
    return expand_paths(path, ".parquet" if format_of(path, "") == "Parquet" else "")


def _is_parquet(path: str) -> bool:
    return all(name.endswith(".parquet") for name in _files(path))


def _typed_paths(path: str) -> list[str]:
    """Returns the files of a table with a typed header, ``[]`` for other tables."""
    files = _files(path)
    if _is_parquet(path) or not _TYPED.search(_first_line(files[0])):
        return []
    return files


def _first_line(path: str) -> str:
    with open_input(path) as file:
        start = file.read(_HEADER_BYTES)
    return str(start.partition(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r"))


def _read_header(path: str, roles: tuple[str, ...], delimiter: str) -> dict[str, pa.DataType]:
    """Returns the roles of the columns of a file and the types to read them as."""
    line = _first_line(path)
    hint = f"it should be {_SHAPES[roles]}, the last columns may be left out; columns are "
    hint += f"separated by {delimiter!r} (field_delimiter)"
    parts = line.split(delimiter)
    if len(parts) > len(roles):
        raise DataError(f"{path}: the header {line!r} has {len(parts)} columns", hint=hint)
    found = {}
    for role, part in zip(roles, parts, strict=False):
        kind = part.partition(":")[2].strip().lower()
        if kind not in _ALLOWED[role]:
            raise DataError(
                f"{path}: {part!r} in the header {line!r} is not name:type with a type of "
                f"{', '.join(_ALLOWED[role])}",
                hint=hint,
            )
        if role == WEIGHT:
            found[role] = pa.float64()
        else:
            found[role] = pa.string() if kind == "string" else pa.int64()
    return found


def _check_id_types(table: TypedTable, options: TableOptions) -> None:
    for role, kind in table.types.items():
        if role in (ID, USER, ITEM) and types.is_string(kind) and not options.string_ids:
            raise ConfigError(
                f"the table says {role}:string, but the sampler has integer ids",
                hint="set string_ids: true in the sampler, or USE_HASH_NODE_ID=1",
            )


def _csv_delimiter(path: str, options: TableOptions) -> str:
    if options.delimiter:
        return options.delimiter
    line = _first_line(_files(path)[0])
    return "\t" if "\t" in line and "," not in line else ","


def _column_of(path: str, name: str, options: TableOptions) -> str:
    """Returns the column of a name, which may have a sequence's prefix that tables do not have."""
    bare = name.rpartition("__")[2]
    if bare == name:
        return name
    if _is_parquet(path):
        found = create_reader(path, None, reader_type="ParquetReader").schema.names
    else:
        header = _first_line(_files(path)[0]).split(_csv_delimiter(path, options))
        found = [part.strip('"') for part in header]
    return bare if bare in found and name not in found else name
