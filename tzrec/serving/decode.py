"""Documents of requests → typed columns and arguments.

Rows come in one of three shapes::

    {"rows": [{"user_id": 7, "price": 0.5}, …]}
    {"columns": {"user_id": [7, …], "price": [0.5, …]}}
    {"context": {"user_id": 7}, "items": [{"price": 0.5}, …]}      items may also be columns

Every column of the model must be there, and no other one; null is a missing value.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from tzrec.errors import did_you_mean
from tzrec.serving.errors import RequestError, invalid
from tzrec.serving.json_body import kind_of, shorten
from tzrec.serving.json_cells import COLUMNS, CONTEXT, ITEMS, ROWS, Cells
from tzrec.serving.options import ServeOptions
from tzrec.serving.schema import Column
from tzrec.serving.values import read_values

SHAPES = (ROWS, COLUMNS, CONTEXT, ITEMS)
_SHAPES_HINT = (
    'send {"rows": [{…}, …]}, {"columns": {"name": […]}} or {"context": {…}, "items": [{…}, …]}'
)

# Size of a context that is repeated for each item, as a multiple of the largest body.
_MOST_REPEATED = 16

Where = Callable[[str, "int | None"], str]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a request.

    Attributes:
        columns: typed arrays of ``num_rows`` entries.
        num_rows: how many.
        where: (column, row or None) → where in the request that is; "" for other columns.
        context: typed arrays of one entry, which stands for all rows.
    """

    columns: Mapping[str, pa.Array]
    num_rows: int
    where: Where
    context: dict[str, pa.Array] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def all_columns(self) -> Mapping[str, pa.Array]:
        """All columns with ``num_rows`` entries."""
        if not self.context:
            return self.columns
        first = pa.array(np.zeros(self.num_rows, np.int64))
        repeated = {
            # The quicker way, except for lists.
            name: one.take(first) if types.is_nested(one.type) else pa.repeat(one[0], self.num_rows)
            for name, one in self.context.items()
        }
        return {**repeated, **self.columns}


def read_rows(
    document: Mapping[str, Any], columns: Sequence[Column], options: ServeOptions
) -> Rows:
    """Reads the rows of a document in any of the shapes.

    Raises:
        RequestError: 413 or 422 that names what is wrong.
    """
    given = [shape for shape in SHAPES if shape in document]
    wanted = {column.name: column for column in columns}
    if given == [ROWS]:
        arrays, num_rows = _read_objects(document[ROWS], wanted, ROWS, options)
        return Rows(arrays, num_rows, _of_objects(ROWS, wanted))
    if given == [COLUMNS]:
        arrays, num_rows = _read_columns(document[COLUMNS], wanted, COLUMNS, options)
        return Rows(arrays, num_rows, _of_columns(COLUMNS, wanted))
    if given == [CONTEXT, ITEMS]:
        return _read_request(document[CONTEXT], document[ITEMS], wanted, options)
    found = " and ".join(given) if given else f"none of {', '.join(SHAPES)}"
    raise invalid("bad_shape", f"rows are given as {found}", "", _SHAPES_HINT)


def _read_request(
    context: Any, items: Any, wanted: Mapping[str, Column], options: ServeOptions
) -> Rows:
    if type(context) is not dict:
        raise invalid("wrong_type", f"{kind_of(context)}, must be an object", CONTEXT)
    for name in context:
        _refuse_unknown(name, wanted, CONTEXT)
    rest = {name: column for name, column in wanted.items() if name not in context}
    as_columns = items.is_columns if type(items) is Cells else type(items) is dict
    if not rest:
        raise invalid(
            "bad_shape", "the context has all columns", CONTEXT, 'send it as one of "rows"'
        )
    read = _read_columns if as_columns else _read_objects
    arrays, num_rows = read(items, rest, ITEMS, options, also=context)
    once, size = _read_context(context, wanted, options)
    size *= num_rows
    if size > _MOST_REPEATED * options.max_body_bytes:
        raise RequestError(
            413,
            "body_too_large",
            f"the context, repeated for {num_rows} items, has {size} bytes",
            field=CONTEXT,
            hint="send several requests",
        )
    of_items = (_of_columns if as_columns else _of_objects)(ITEMS, rest)

    def where(name: str, row: int | None) -> str:
        return f"{CONTEXT}.{name}" if name in context else of_items(name, row)

    return Rows(arrays, num_rows, where, once)


def _read_context(
    context: Mapping[str, Any], wanted: Mapping[str, Column], options: ServeOptions
) -> tuple[dict[str, pa.Array], int]:
    """Reads values that came once; those of a type together, unless one of them is wrong.

    Returns:
        Columns of one row, and how many bytes they have.
    """
    groups: dict[Any, list[str]] = {}
    for name in context:
        kind = wanted[name].type
        key = name if kind is None or types.is_nested(kind) else kind.id
        groups.setdefault(key, []).append(name)
    once: dict[str, pa.Array] = {}
    size = 0
    try:
        for names in groups.values():
            nullable = all(wanted[name].nullable for name in names)
            column = Column(names[0], wanted[names[0]].type, nullable=nullable)
            found = read_values([context[name] for name in names], column, _Once(""), options)
            once |= {name: found.slice(row, 1) for row, name in enumerate(names)}
            size += found.nbytes
    except RequestError:
        once = {
            name: read_values([value], wanted[name], _Once(f"{CONTEXT}.{name}"), options)
            for name, value in context.items()
        }
        size = sum(array.nbytes for array in once.values())
    return once, size


def _read_objects(
    rows: Any,
    wanted: Mapping[str, Column],
    path: str,
    options: ServeOptions,
    *,
    also: Iterable[str] = (),
) -> tuple[Mapping[str, pa.Array], int]:
    if type(rows) is Cells:
        return rows.arrays, rows.num_rows
    if type(rows) is not list:
        raise invalid("wrong_type", f"{kind_of(rows)}, must be a list of objects", path)
    refuse_too_many(len(rows), path, options)
    names = list(wanted)
    try:
        if not set(map(type, rows)) <= {dict} or not set(map(len, rows)) <= {len(names)}:
            raise KeyError
        # With one name itemgetter gives the value, not a tuple.
        cells = list(zip(*map(itemgetter(*names, names[0]), rows), strict=True))
    except KeyError:
        raise _odd_row(rows, wanted, path, also) from None
    if not rows:
        return {name: read_values([], wanted[name], str, options) for name in names}, 0
    arrays = {
        name: read_values(values, wanted[name], _Place(path, name), options)
        for name, values in zip(names, cells, strict=False)
    }
    return arrays, len(rows)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Row → where its value of a column is; a class, as most are never asked."""

    path: str
    name: str

    def __call__(self, row: int) -> str:
        return f"{self.path}[{row}].{self.name}"


@dataclasses.dataclass(frozen=True)
class _Cell:
    """Row → where its value of a column is that came as a list."""

    path: str

    def __call__(self, row: int) -> str:
        return f"{self.path}[{row}]"


@dataclasses.dataclass(frozen=True)
class _Once:
    """Where a value is that came once for all rows."""

    path: str

    def __call__(self, row: int) -> str:
        return self.path


def _odd_row(
    rows: Sequence[Any], wanted: Mapping[str, Column], path: str, also: Iterable[str]
) -> RequestError:
    """Returns the error of the first row that has not the columns."""
    for number, row in enumerate(rows):
        place = f"{path}[{number}]"
        if type(row) is not dict:
            return invalid("wrong_type", f"{kind_of(row)}, must be an object", place)
        try:
            _refuse_other_names(row, wanted, place, also)
        except RequestError as error:
            return error
    raise AssertionError("every row has the columns")


def _refuse_other_names(
    row: Mapping[str, Any], wanted: Mapping[str, Column], place: str, also: Iterable[str]
) -> None:
    for name in row:
        if name in also:
            raise invalid(
                "repeated_column",
                f"{name} is a column of the context, and of the items",
                f"{place}.{name}",
            )
        _refuse_unknown(name, wanted, place)
    for name in wanted:
        if name not in row:
            other = f" in {CONTEXT} or {ITEMS}" if place.startswith(ITEMS) else ""
            raise invalid(
                "missing_field",
                f"the column {name} is missing{other}",
                f"{place}.{name}",
                "send null for a missing value" if wanted[name].nullable else "",
            )


def _refuse_unknown(name: str, wanted: Mapping[str, Column], place: str) -> None:
    if name not in wanted:
        known = list(wanted)
        short = shorten(name)
        raise invalid(
            "unknown_field",
            f"the model reads no column {short!r}{did_you_mean(short, known)}",
            f"{place}.{short}",
            "GET /v1/schema lists the columns",
        )


def _read_columns(
    columns: Any,
    wanted: Mapping[str, Column],
    path: str,
    options: ServeOptions,
    *,
    also: Iterable[str] = (),
) -> tuple[Mapping[str, pa.Array], int]:
    if type(columns) is Cells:
        return columns.arrays, columns.num_rows
    if type(columns) is not dict:
        raise invalid("wrong_type", f"{kind_of(columns)}, must be an object of lists", path)
    _refuse_other_names(columns, wanted, path, also)
    num_rows = -1
    arrays = {}
    for name, column in wanted.items():
        values = columns[name]
        place = f"{path}.{name}"
        if type(values) is not list:
            raise invalid("wrong_type", f"{kind_of(values)}, must be a list of values", place)
        if num_rows < 0:
            num_rows = len(values)
            refuse_too_many(num_rows, place, options)
        if len(values) != num_rows:
            raise invalid(
                "wrong_length",
                f"{len(values)} values; {next(iter(wanted))} has {num_rows}",
                place,
                "columns have the same number of rows",
            )
        arrays[name] = read_values(values, column, _Cell(place), options)
    return arrays, num_rows


def refuse_too_many(num_rows: int, path: str, options: ServeOptions) -> None:
    """Refuses more rows than a request may have.

    Raises:
        RequestError: 413.
    """
    if num_rows > options.max_rows:
        raise RequestError(
            413,
            "too_many_rows",
            f"{num_rows} rows; a request may have {options.max_rows}",
            field=path,
            hint="send several requests",
        )


def _of_objects(path: str, wanted: Mapping[str, Column]) -> Where:
    def where(name: str, row: int | None) -> str:
        if name not in wanted:
            return ""
        return f"{path}.{name}" if row is None else f"{path}[{row}].{name}"

    return where


def _of_columns(path: str, wanted: Mapping[str, Column]) -> Where:
    def where(name: str, row: int | None) -> str:
        if name not in wanted:
            return ""
        return f"{path}.{name}" if row is None else f"{path}.{name}[{row}]"

    return where
