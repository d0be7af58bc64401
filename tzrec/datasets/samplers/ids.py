"""Ids of items and users: 64-bit numbers, and their places in a table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.errors import DataError

_FILLED = 0.6  # of the slots of an id table
_MAX_PLACES = 2**31 - 2


def ids_of(column: pa.Array, name: str, *, string_ids: bool) -> NDArray[np.int64]:
    """Returns the ids of a column as numbers; null and empty text become 0.

    Args:
        column: integers, or text of integers.
        name: of the column, for messages.
        string_ids: ids are text of any form (numbers are written in decimal), and become their
            64-bit hash. Null is the same as empty text.

    Raises:
        DataError: the column cannot be the id.
    """
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        if string_ids:
            return _hashes(pc.fill_null(column.cast(pa.string()), ""))
        if types.is_string(column.type) or types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        numbers = pc.fill_null(column.cast(pa.int64()), 0)
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} ({column.type}) cannot be the sampler's id: {error}",
            hint="ids are integers; for text set string_ids: true in the sampler"
            if not string_ids
            else "ids are text or integers, one in each row",
        ) from error
    values: NDArray[np.int64] = numbers.to_numpy(zero_copy_only=False)
    return values


def _hashes(texts: pa.Array) -> NDArray[np.int64]:
    from tzrec.fg.kernels import kernels

    buffers = texts.buffers()
    offsets = np.frombuffer(buffers[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    offsets = offsets.astype(np.int64)
    data = np.frombuffer(buffers[2] or b"", np.uint8)
    hashes: NDArray[np.uint64] = kernels().hash_text(data, offsets[:-1], offsets[1:], False)
    return hashes.view(np.int64)


class IdTable:
    """The places 0, 1, 2 … of different ids, in the order in which they were added."""

    def __init__(self) -> None:
        self._keys = np.zeros(1024, dtype=np.int64)
        self._slots = np.zeros(2048, dtype=np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Returns the place of each id; new ids get the next places."""
        from tzrec.datasets.samplers.kernels import add_ids

        self._reserve(self._count + len(ids))
        places = np.empty(len(ids), dtype=np.int32)
        self._count = add_ids(ids, self._keys, self._slots, self._count, places)
        return places

    def share(self, arrays: SharedArrays, name: str) -> None:
        """Copies the table to shared arrays, for `SharedIds`."""
        arrays.put(f"{name}.keys", self._keys[: self._count])
        size = slots_for(self._count)
        if size == len(self._slots):
            arrays.put(f"{name}.slots", self._slots)
        else:
            _fill(arrays[f"{name}.keys"], arrays.allocate(f"{name}.slots", size, np.int32))

    def _reserve(self, most: int) -> None:
        if most > _MAX_PLACES:
            raise DataError(f"a sampler's table has {most:,} ids; at most {_MAX_PLACES:,} fit")
        if most > len(self._keys):
            grown = np.zeros(max(most, 2 * len(self._keys)), dtype=np.int64)
            grown[: self._count] = self._keys[: self._count]
            self._keys = grown
        if most > _FILLED * len(self._slots):
            self._slots = np.zeros(slots_for(most), dtype=np.int32)
            _fill(self._keys[: self._count], self._slots)


def slots_for(count: int) -> int:
    """Returns how many slots an id table of so many ids has: a power of two."""
    return 1 << max(4, int(np.ceil(np.log2(max(count, 1) / _FILLED))))


def _fill(keys: NDArray[np.int64], slots: NDArray[np.int32]) -> None:
    from tzrec.datasets.samplers.kernels import fill_slots

    fill_slots(keys, slots)


class SharedIds:
    """An `IdTable` in shared arrays, for look-ups."""

    def __init__(self, arrays: SharedArrays, name: str) -> None:
        self._keys, self._slots = arrays[f"{name}.keys"], arrays[f"{name}.slots"]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Returns the place of each id, -1 where it is not known."""
        from tzrec.datasets.samplers.kernels import find_ids

        places = np.empty(len(ids), dtype=np.int32)
        find_ids(np.ascontiguousarray(ids), self._keys, self._slots, places)
        return places
