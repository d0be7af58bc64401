"""`ItemTable`: ids, attributes and weights of the items, in shared memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from tzrec.datasets.bad_rows import find_failures
from tzrec.datasets.samplers.attributes import Attributes
from tzrec.datasets.samplers.ids import IdTable, SharedIds, ids_of
from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.datasets.samplers.tables import ATTRS, ID, WEIGHT, Piece, Table
from tzrec.errors import DataError
from tzrec.utils.progress import Progress

logger = logging.getLogger("tzrec")

_MAX_SHORT_BYTES = 2**31 - 1


@dataclass(frozen=True)
class _Items:
    """Rows of an item table whose ids are all different and new."""

    weights: NDArray[np.float64]
    attributes: list[pa.Array]


def progress_of(what: str, table: Table) -> Progress:
    """Returns the progress of reading a table."""
    return Progress(what, table.total, lambda: table.done, unit=table.unit)


def node_ids(piece: Piece, role: str, table: Table, *, string_ids: bool) -> NDArray[np.int64]:
    """Returns the ids of rows of a table.

    Raises:
        DataError: a row has none, or one that is no integer.
    """
    column = piece.roles[role]
    empty = column.is_null()
    if types.is_string(column.type):
        empty = pc.or_(empty, pc.fill_null(pc.equal(column, ""), True))
    row = pc.index(empty, True).as_py()
    if row >= 0:
        raise DataError(f"{table.place(piece.row + row)}: the {role} is empty")
    try:
        return ids_of(column, role, string_ids=string_ids)
    except DataError as error:
        failures = find_failures(len(column), partial(_id_error, column, role, string_ids))
        found = next(failures, None)
        if found is None:
            raise
        where = table.place(piece.row + found[0])
        raise DataError(f"{where}: {error.message}", hint=error.hint) from error


def _id_error(
    column: pa.Array, role: str, string_ids: bool, start: int, stop: int
) -> DataError | None:
    try:
        ids_of(column.slice(start, stop - start), role, string_ids=string_ids)
    except DataError as error:
        return error
    return None


def build_items(
    arrays: SharedArrays, table: Table, attributes: Attributes, *, string_ids: bool
) -> None:
    """Reads the items into shared arrays, for `ItemTable`.

    Of items with the same id the first counts.

    Raises:
        DataError: a row cannot be read; a weight is negative, missing or not finite; no item has
            a weight.
    """
    ids = IdTable()
    parts: list[_Items] = []
    num_rows, repeated = 0, ""
    with progress_of("reading items", table) as progress:
        for piece in table.pieces():
            new_ids = node_ids(piece, ID, table, string_ids=string_ids)
            before = len(ids)
            places = ids.add(new_ids)
            part = _Items(_weights(piece, table), _attributes(piece, table, attributes))
            if len(ids) - before < len(places):
                fresh = _first_of_each(places, before)
                repeated = repeated or table.place(piece.row + int(np.argmin(fresh)))
                part = _Items(part.weights[fresh], [a.filter(fresh) for a in part.attributes])
            parts.append(part)
            num_rows += len(places)
            progress.show()
    if repeated:
        logger.warning(
            "%s of %s items have the id of an earlier item and are left out, the first is %s",
            f"{num_rows - len(ids):,}",
            f"{num_rows:,}",
            repeated,
        )
    if not len(ids):
        raise DataError("the item table has no rows")
    ids.share(arrays, "items")
    _share_weights(arrays, np.concatenate([part.weights for part in parts]))
    columns = [[part.attributes[i] for part in parts] for i in range(len(attributes.types))]
    parts.clear()
    for i, pieces in enumerate(columns):
        _share_column(arrays, f"items.column.{i}", pieces)


def _first_of_each(places: NDArray[np.int32], before: int) -> NDArray[np.bool_]:
    """Returns which places are new, each the first time that it occurs."""
    highest = np.maximum.accumulate(np.append(np.int32(before - 1), places))
    return np.asarray(places > highest[:-1])


def _weights(piece: Piece, table: Table) -> NDArray[np.float64]:
    if WEIGHT not in piece.roles:
        return np.ones(piece.columns.num_rows)
    column = piece.roles[WEIGHT]
    try:
        weights = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise DataError(f"the weights ({column.type}) are no numbers: {error}") from error
    wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(wrong):
        raise DataError(
            f"{table.place(piece.row + int(wrong[0]))}: the weight is {column[int(wrong[0])]}",
            hint="weights are 0 (never drawn) or more",
        )
    found: NDArray[np.float64] = weights
    return found


def _attributes(piece: Piece, table: Table, attributes: Attributes) -> list[pa.Array]:
    if not attributes.types:
        return []
    try:
        if ATTRS in piece.roles:
            return attributes.parse(piece.roles[ATTRS])
        return attributes.convert(piece.columns)
    except DataError as error:
        if error.row is None:
            raise
        where = table.place(piece.row + error.row)
        raise DataError(f"{where}: {error.message}", hint=error.hint) from error


def _share_weights(arrays: SharedArrays, weights: NDArray[np.float64]) -> None:
    """Shares an alias table and the logs of the probabilities; nothing when all weigh the same."""
    total = float(weights.sum())
    if not (total > 0 and np.isfinite(total)):
        raise DataError(
            f"the weights of the items sum to {total}: no item can be drawn",
            hint="at least one weight must be above 0",
        )
    if weights.min() == weights.max():
        return
    from tzrec.datasets.samplers.kernels import build_alias

    build_alias(weights, total, arrays.allocate("items.cells", len(weights), np.uint64))
    with np.errstate(divide="ignore"):
        np.log(weights, out=weights)
    weights -= np.log(total)
    arrays.put("items.log_q", weights.astype(np.float32))


def _share_column(arrays: SharedArrays, name: str, pieces: list[pa.Array]) -> None:
    """Copies a column, in one piece, as an Arrow stream that is read without a copy."""
    kind = pieces[0].type
    size = sum(piece.nbytes for piece in pieces)
    if types.is_string(kind) and size > _MAX_SHORT_BYTES:
        pieces = [piece.cast(pa.large_string()) for piece in pieces]
    column = pa.concat_arrays(pieces)
    pieces.clear()
    batch = pa.record_batch([column], ["values"])
    counted = pa.MockOutputStream()
    _write(counted, batch)
    buffer = arrays.allocate(name, counted.size(), np.uint8)
    _write(pa.FixedSizeBufferWriter(pa.py_buffer(buffer)), batch)


def _write(sink: pa.NativeFile, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


class ItemTable:
    """The items that `build_items` has shared.

    Attributes:
        ids: their ids.
        cells: alias table of their weights, empty where all weigh the same.
        types: attribute → type.
    """

    def __init__(self, arrays: SharedArrays, attributes: dict[str, pa.DataType]) -> None:
        self.ids = SharedIds(arrays, "items")
        self.types = attributes
        weighted = "items.cells" in arrays
        self.cells = arrays["items.cells"] if weighted else np.empty(0, dtype=np.uint64)
        self._log_q: NDArray[np.float32] | None = arrays["items.log_q"] if weighted else None
        self._columns = [_column(arrays[f"items.column.{i}"]) for i in range(len(attributes))]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: NDArray[np.int32]) -> dict[str, pa.Array]:
        """Returns the attributes of items."""
        index = pa.array(places)
        return dict(self._taken(index))

    def column(self, name: str) -> pa.Array:
        """Returns one attribute of all items."""
        return self._columns[list(self.types).index(name)]

    def _taken(self, index: pa.Array) -> Iterator[tuple[str, pa.Array]]:
        for (name, kind), column in zip(self.types.items(), self._columns, strict=True):
            taken = column.take(index)
            yield name, taken if taken.type == kind else taken.cast(kind)

    def log_q(self, places: NDArray[np.int32]) -> NDArray[np.float32]:
        """Returns the log of the probability that a weighted draw gives each item.

        Items that are never drawn and those that are not known (place -1) get that of a uniform
        draw.
        """
        uniform = np.float32(-np.log(len(self)))
        if self._log_q is None:
            return np.full(len(places), uniform, dtype=np.float32)
        found = self._log_q[places]
        return np.where((places < 0) | np.isneginf(found), uniform, found)

    def probabilities(self) -> NDArray[np.float64]:
        """Returns the probability of each item in a weighted draw."""
        if self._log_q is None:
            return np.full(len(self), 1 / len(self))
        return np.exp(self._log_q, dtype=np.float64)

    def share_of(self, places: NDArray[np.int32]) -> float:
        """Returns the probability that a weighted draw gives one of different known items."""
        if self._log_q is None:
            return len(places) / len(self)
        return float(np.exp(self._log_q[places], dtype=np.float64).sum())


def _column(buffer: NDArray[np.uint8]) -> pa.Array:
    return pa.ipc.open_stream(pa.py_buffer(buffer)).read_next_batch().column(0)
