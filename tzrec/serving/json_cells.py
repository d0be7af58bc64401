"""Rows of JSON → typed columns without a Python object for each value.

For columns of texts and numbers, which are most. Whatever is unusual, right or wrong, is left to
`tzrec.serving.decode`, which reads the whole document again and says what is wrong with it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from tzrec.fg.kernels import kernels
from tzrec.serving.errors import RequestError
from tzrec.serving.json_body import parse_json
from tzrec.serving.options import ServeOptions

if TYPE_CHECKING:
    from tzrec.serving.schema import Column

ROWS, COLUMNS, CONTEXT, ITEMS = "rows", "columns", "context", "items"
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_SHAPE = re.compile(rb'"(rows|columns|items)"[ \t\r\n]*:[ \t\r\n]*')
_OBJECTS, _LISTS = b"[", b"{"
# Places for cells, as a multiple of the bytes of the body: those not used take no memory.
_MOST_CELLS = 4
# What the kernels read beyond a text has to lie in memory.
_MARGIN = bytes(64)

_Table = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Cells:
    """Rows that are read already; they stand in a document where the rows stood.

    Attributes:
        arrays: typed columns.
        num_rows: at least one.
        is_columns: they came as lists, one a column.
    """

    arrays: Mapping[str, pa.Array]
    num_rows: int
    is_columns: bool


class CellReader:
    """Reads documents for certain columns.

    Args:
        columns: of the rows and the context; what must be where is not known before.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        from tzrec.serving import compiled_cells

        self._compiled = compiled_cells
        self._columns = tuple(columns)
        self._wanted = frozenset(column.name for column in columns)
        # In JSON these characters are written as others.
        self._is_plain = not any(_ESCAPED.search(column.name) for column in columns)
        names = [column.name.encode() for column in columns]
        self._names = np.frombuffer(b"".join(names) + _MARGIN, np.uint8)
        self._bounds = np.cumsum([0, *map(len, names)], dtype=np.int64)
        self._kinds = np.array([self._kind(column.type) for column in columns], np.int64)
        self._strict = np.flatnonzero([not column.nullable for column in columns])
        groups: dict[str, list[int]] = {}
        for number, column in enumerate(columns):
            if self._kinds[number] != compiled_cells.OTHER:
                groups.setdefault(str(column.type), []).append(number)
        self._groups = [(columns[group[0]].type, np.array(group)) for group in groups.values()]

    def _kind(self, wanted: pa.DataType | None) -> int:
        if wanted is None:
            return self._compiled.OTHER
        if types.is_string(wanted):
            return self._compiled.TEXT
        if types.is_integer(wanted):
            return self._compiled.WHOLE
        is_number = types.is_float32(wanted) or types.is_float64(wanted)
        return self._compiled.NUMBER if is_number else self._compiled.OTHER

    def read(self, body: bytes, options: ServeOptions) -> dict[str, Any] | None:
        """Returns a document whose rows are `Cells`; None for what is unusual.

        Args:
            body: of a request.
            options: limits.
        """
        found = _SHAPE.search(body)
        if found is None or not self._is_plain or not _is_utf8(body):
            return None
        shape = found[1].decode()
        cells, end = self._cells(body, found.end(), options)
        if cells is None:
            return None
        # What is around the rows is short, and goes the usual way, with all of its checks.
        rest = body[: found.end()] + b"null" + body[end:]
        if b"\\" in rest or rest.count(b'"%b"' % found[1]) != 1:
            return None
        try:
            document = parse_json(rest)
        except RequestError:
            return None
        context = document.get(CONTEXT, {}) if shape == ITEMS else {}
        is_whole = type(context) is dict and len(context) + len(cells.arrays) == len(self._wanted)
        if document.get(shape, 0) is not None or not is_whole:
            return None
        if (context.keys() | cells.arrays.keys()) != self._wanted:
            return None
        return {**document, shape: cells}

    def _cells(self, body: bytes, at: int, options: ServeOptions) -> tuple[Cells | None, int]:
        """Returns the rows that begin at some place, and where they end."""
        is_columns = body[at : at + 1] == _LISTS
        if is_columns:
            most = body.count(b",", at, body.find(b"]", at)) + 1
        else:
            most = body.count(_LISTS, at)
        size = (len(self._columns), min(most, options.max_rows))
        if size[0] * size[1] > _MOST_CELLS * len(body):
            return None, 0
        starts, ends = np.empty(size, np.int64), np.empty(size, np.int64)
        found = np.zeros((2, size[0]), np.int64)
        read = self._compiled.read_lists if is_columns else self._compiled.read_objects
        data = np.frombuffer(body + _MARGIN, np.uint8)
        end = read(data, at, self._names, self._bounds, self._kinds, starts, ends, found)
        rows, nulls = found
        # Nulls, of columns whose other values are not read here.
        if rows[self._kinds == self._compiled.OTHER].any():
            return None, 0
        num_rows = int(rows.max())
        if end < 0 or not num_rows or np.count_nonzero(rows) * num_rows != rows.sum():
            return None, 0
        if nulls[self._strict].any():
            return None, 0
        if num_rows < size[1]:
            starts, ends = starts[:, :num_rows].copy(), ends[:, :num_rows].copy()
        arrays: dict[str, pa.Array] = {}
        for kind, group in self._groups:
            own = group[rows[group] > 0]
            if not len(own):
                continue
            missing = (starts[own] == self._compiled.NULL).ravel() if nulls[own].any() else None
            part = _Part(data, own, starts, ends, missing)
            together = self._together(kind, part, options)
            if together is None:
                return None, 0
            for place, number in enumerate(own.tolist()):
                arrays[self._columns[number].name] = together.slice(place * num_rows, num_rows)
        return Cells(arrays, num_rows, is_columns), end

    def _together(self, kind: pa.DataType, part: _Part, options: ServeOptions) -> pa.Array | None:
        """Returns columns of a type, one behind the other; None if one is not as it must be."""
        if types.is_string(kind):
            return self._texts(part, options.max_text)
        return _wholes(part, kind) if types.is_integer(kind) else self._numbers(part, kind)

    def _texts(self, part: _Part, longest: int) -> pa.Array | None:
        count = part.starts.shape[1] * len(part.own)
        out, offsets = np.empty(len(part.data), np.uint8), np.empty(count + 1, np.int32)
        places = (part.own, part.starts, part.ends)
        if self._compiled.gather_texts(part.data, *places, out, offsets) > longest:
            return None
        # The bytes are as many as the body's; what the texts need of them is kept.
        kept = out[: offsets[-1]].copy()
        valid = None if part.missing is None else pa.array(~part.missing).buffers()[1]
        buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(kept)]
        return pa.Array.from_buffers(pa.string(), count, buffers)

    def _numbers(self, part: _Part, kind: pa.DataType) -> pa.Array | None:
        values = np.empty(part.starts.shape[1] * len(part.own))
        if self._compiled.parse_numbers(part.data, part.own, part.starts, part.ends, values):
            starts, ends = part.places()
            for i in np.flatnonzero(np.isnan(values)).tolist():
                values[i] = float(part.data[starts[i] : ends[i]].tobytes())
        if types.is_float32(kind):
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
        return pa.array(values, mask=part.missing) if np.isfinite(values).all() else None


@dataclasses.dataclass(frozen=True)
class _Part:
    """Cells of some columns: (C, N) places of all of them, and which of the own are null."""

    data: NDArray[np.uint8]
    own: NDArray[np.int64]
    starts: _Table
    ends: _Table
    missing: NDArray[np.bool_] | None

    def places(self) -> tuple[_Table, _Table]:
        """Returns where the own cells begin and end, one column behind the other."""
        return self.starts[self.own].ravel(), self.ends[self.own].ravel()


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _wholes(part: _Part, kind: pa.DataType) -> pa.Array | None:
    values, status = kernels().parse_ints(part.data, *part.places())
    is_bad = status != 0
    if part.missing is not None:
        is_bad &= ~part.missing
    if is_bad.any():
        return None
    try:
        return pa.array(values, mask=part.missing).cast(kind)
    except pa.ArrowInvalid:  # out of range
        return None
