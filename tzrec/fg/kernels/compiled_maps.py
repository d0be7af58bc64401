"""Compiled searches: words of a vocabulary, keys of the maps of cells."""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tzrec.fg.kernels.compiled_base import (
    BYTES,
    INTS,
    LENGTHS,
    OUT_INTS,
    OUT_WORDS,
    WORDS,
    helper,
    kernel,
    load8,
    padded,
    same_bytes,
)
from tzrec.fg.kernels.compiled_hashing import hash_text, murmur
from tzrec.fg.kernels.compiled_text import gather_text
from tzrec.fg.kernels.plain_maps import Table, table_size

_LONG = np.uint64(1 << 63)
_LINEAR = 64  # entries of a map up to which each key is compared with all of them


@helper
def _find_slot(
    slots: Any, hashes: Any, words: Any, word_starts: Any, word_ends: Any, code: Any, text: Any
) -> Any:
    """Returns the slot of a text ``(data, start, length)``, or the free one where it belongs."""
    data, start, length = text
    mask = len(slots) - 1
    slot = np.int64(code) & mask
    while slots[slot] >= 0:
        word = slots[slot]
        if (
            hashes[slot] == code
            and word_ends[word] - word_starts[word] == length
            and same_bytes(words, word_starts[word], data, start, length)
        ):
            break
        slot = (slot + 1) & mask
    return slot


@kernel(BYTES, INTS, INTS, WORDS, INTS, OUT_INTS, OUT_WORDS, OUT_INTS)
def _build(
    data: Any, starts: Any, ends: Any, codes: Any, ids: Any, slots: Any, hashes: Any, word_ids: Any
) -> None:
    for i in range(len(starts)):
        text = (data, starts[i], ends[i] - starts[i])
        slot = _find_slot(slots, hashes, data, starts, ends, codes[i], text)
        if slots[slot] < 0:
            slots[slot] = i
            hashes[slot] = codes[i]
        word_ids[slots[slot]] = ids[i]


@kernel(
    *(INTS, WORDS, BYTES, INTS, INTS, INTS),
    *(BYTES, INTS, INTS, WORDS, types.int64, OUT_INTS),
)
def _lookup(
    slots: Any,
    hashes: Any,
    words: Any,
    word_starts: Any,
    word_ends: Any,
    word_ids: Any,
    data: Any,
    starts: Any,
    ends: Any,
    codes: Any,
    missing_id: int,
    out: Any,
) -> None:
    for i in range(len(starts)):
        text = (data, starts[i], ends[i] - starts[i])
        word = slots[_find_slot(slots, hashes, words, word_starts, word_ends, codes[i], text)]
        out[i] = word_ids[word] if word >= 0 else missing_id


def build_vocabulary(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    ids: NDArray[np.int64],
) -> Table:
    """Builds the table of `lookup_vocabulary`; the last of equal words wins."""
    data, starts, ends = gather_text(data, starts, ends)
    codes = hash_text(data, starts, ends, False)
    size = table_size(len(starts))
    slots, hashes = np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=np.uint64)
    word_ids = np.zeros(len(starts), dtype=np.int64)
    _build(padded(data), starts, ends, codes, ids, slots, hashes, word_ids)
    return slots, hashes, data, starts, ends, word_ids


def lookup_vocabulary(
    table: Table,
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    missing_id: int,
) -> NDArray[np.int64]:
    """Returns the id of each token."""
    slots, hashes, words, *rest = table
    out = np.empty(len(starts), dtype=np.int64)
    codes = hash_text(data, starts, ends, False)
    text = (padded(data), starts, ends, codes)
    _lookup(slots, hashes, padded(words), *rest, *text, missing_id, out)
    return out


@helper
def _signature(data: Any, start: int, length: int) -> Any:
    """Mixes the first 8 bytes and the length; equal texts have equal signatures.

    Texts of less than 8 bytes have signatures of their own.
    """
    place = min(start, len(data) - 8)
    word = load8(data, place) >> np.uint64(8 * ((start - place) & 7))
    count = min(length, 8)
    keep = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64((64 - 8 * count) & 63)
    word = word & keep if count > 0 else np.uint64(0)
    tag = np.uint64(length) << np.uint64(56)
    return word | tag if length < 8 else (word ^ tag) | _LONG


@helper
def _mark(data: Any, starts: Any, ends: Any, marks: Any) -> None:
    for j in range(len(starts)):  # from 0 to the length of an array, so it vectorises
        marks[j] = _signature(data, starts[j], ends[j] - starts[j])


@helper
def _confirm(data: Any, starts: Any, ends: Any, first: int, marks: Any, text: Any) -> int:
    """Returns the first of a few entries that equals ``(data, start, length)``, -1 for none."""
    keys, start, length = text
    wanted = _signature(keys, start, length)
    for j in range(len(marks)):
        entry = first + j
        if (
            marks[j] == wanted
            and ends[entry] - starts[entry] == length
            and same_bytes(data, starts[entry], keys, start, length)
        ):
            return entry
    return -1


@helper
def _fill_table(data: Any, starts: Any, ends: Any, first: int, last: int) -> Any:
    """Returns the slots and hashes of one large map; the first of equal keys stays."""
    size = 2 * _LINEAR
    while size < 2 * (last - first):
        size *= 2
    slots, hashes = np.empty(size, np.int64), np.empty(size, np.uint64)
    for slot in range(size):  # np.full would take longer to compile
        slots[slot] = -1
    for entry in range(first, last):
        length = ends[entry] - starts[entry]
        code = murmur(data, starts[entry], length)
        text = (data, starts[entry], length)
        slot = _find_slot(slots, hashes, data, starts, ends, code, text)
        if slots[slot] < 0:
            slots[slot] = entry
            hashes[slot] = code
    return slots, hashes


@helper
def _find_in_table(entries: Any, wanted: Any, key: int, last_key: int, positions: Any) -> None:
    """Finds the keys of a cell in its large map, the entries ``first`` to ``last``."""
    data, starts, ends, first, last = entries
    keys, key_starts, key_ends = wanted
    slots, hashes = _fill_table(data, starts, ends, first, last)
    for k in range(key, last_key):
        length = key_ends[k] - key_starts[k]
        text = (keys, key_starts[k], length)
        code = murmur(keys, key_starts[k], length)
        positions[k] = slots[_find_slot(slots, hashes, data, starts, ends, code, text)]


@kernel(
    *(BYTES, INTS, INTS, LENGTHS, BYTES, INTS, INTS, LENGTHS),
    OUT_INTS,
)
def _find_keys(
    data: Any,
    starts: Any,
    ends: Any,
    lengths: Any,
    keys: Any,
    key_starts: Any,
    key_ends: Any,
    key_lengths: Any,
    positions: Any,
) -> None:
    marks = np.empty(_LINEAR, dtype=np.uint64)
    first, key = 0, 0
    for cell in range(len(lengths)):
        count = int(lengths[cell])
        last, last_key = first + count, key + key_lengths[cell]
        if count > _LINEAR and key < last_key:
            entries, wanted = (data, starts, ends, first, last), (keys, key_starts, key_ends)
            _find_in_table(entries, wanted, key, last_key, positions)
        elif key < last_key:
            _mark(data, starts[first:last], ends[first:last], marks)
            for k in range(key, last_key):
                length = key_ends[k] - key_starts[k]
                mark = _signature(keys, key_starts[k], length)
                found = count
                for j in range(count):  # without a way out, so it vectorises
                    found = min(found, j if marks[j] == mark else count)
                positions[k] = first + found if found < count else -1
                if length >= 8 and found < count:
                    text = (keys, key_starts[k], length)
                    positions[k] = _confirm(data, starts, ends, first, marks[:count], text)
        first, key = last, last_key


def find_keys(
    map_data: NDArray[np.uint8],
    map_starts: NDArray[np.int64],
    map_ends: NDArray[np.int64],
    map_lengths: NDArray[np.int32],
    key_data: NDArray[np.uint8],
    key_starts: NDArray[np.int64],
    key_ends: NDArray[np.int64],
    key_lengths: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Finds the keys of each cell in its map; see `tzrec.fg.kernels.plain_maps.find_keys`."""
    positions = np.empty(len(key_starts), dtype=np.int64)
    entries = (padded(map_data), map_starts, map_ends, map_lengths)
    keys = (padded(key_data), key_starts, key_ends, key_lengths)
    _find_keys(*entries, *keys, positions)
    return positions
