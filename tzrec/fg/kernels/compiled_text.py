"""Compiled scans and copies of text."""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tzrec.fg.kernels.compiled_base import (
    BYTES,
    INTS,
    OUT_BYTES,
    OUT_INTS,
    OUT_LENGTHS,
    copy_bytes,
    count_ones,
    helper,
    kernel,
    match_bytes,
    padded,
    trailing_zeros,
)
from tzrec.fg.kernels.plain_text import EMPTY, MANY, SINGLE, Text, join_pieces

NO_BYTES = np.empty(0, dtype=np.uint8)
_ZERO, _ONE, _ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


@helper
def _window(data: Any, at: int, end: int, first: int, second: int) -> Any:
    """Returns which of the up to 64 bytes from ``at`` to ``end`` are separators."""
    place = min(at, len(data) - 64)
    mask = match_bytes(data, place, first, second) >> np.uint64(at - place)
    width = min(end - at, 64)
    return mask & (_ALL >> np.uint64(64 - width))


@kernel(BYTES, INTS, INTS, types.uint8, types.uint8, returns=types.int64)
def _survey(data: Any, starts: Any, ends: Any, first: int, second: int) -> Any:
    size, shortest, low, high = 0, 1, len(data), 0
    for i in range(len(starts)):
        length = ends[i] - starts[i]
        size += length
        shortest = min(shortest, length)
        low, high = min(low, starts[i]), max(high, ends[i])
    if high - low > 2 * size + len(starts):  # mostly bytes of no text
        return MANY
    for at in range(low, high, 64):
        if _window(data, at, high, first, second) != _ZERO:
            return MANY
    return SINGLE if shortest > 0 else EMPTY


@kernel(BYTES, INTS, INTS, types.uint8, types.uint8, returns=types.int64)
def _count_separators(data: Any, starts: Any, ends: Any, first: int, second: int) -> Any:
    count = 0
    for i in range(len(starts)):
        for at in range(starts[i], ends[i], 64):
            count += count_ones(_window(data, at, ends[i], first, second))
    return count


@kernel(
    *(BYTES, INTS, INTS, types.uint8, types.uint8, types.boolean),
    *(OUT_INTS, OUT_INTS, OUT_LENGTHS),
    returns=types.int64,
)
def _split(
    data: Any,
    starts: Any,
    ends: Any,
    first: int,
    second: int,
    keep_empty: bool,
    out_starts: Any,
    out_ends: Any,
    lengths: Any,
) -> Any:
    count = 0
    for i in range(len(starts)):
        before = count
        token, end = starts[i], ends[i]
        for at in range(token, end, 64):
            mask = _window(data, at, end, first, second)
            while mask != _ZERO:
                # Written in any case, kept by counting it: a branch would be mispredicted.
                stop = at + trailing_zeros(mask)
                out_starts[count] = token
                out_ends[count] = stop
                count += keep_empty or stop > token
                token = stop + 1
                mask &= mask - _ONE
        if starts[i] < end:
            out_starts[count] = token
            out_ends[count] = end
            count += keep_empty or end > token
        lengths[i] = count - before
    return count


@kernel(BYTES, INTS, INTS, types.uint8, OUT_INTS, OUT_INTS, types.boolean[::1])
def _split_pairs(
    data: Any, starts: Any, ends: Any, separator: int, keys: Any, values: Any, found: Any
) -> None:
    for i in range(len(starts)):
        end = ends[i]
        keys[i] = end
        values[i] = end
        found[i] = False
        for at in range(starts[i], end, 64):
            mask = _window(data, at, end, separator, separator)
            if mask != _ZERO:
                keys[i] = at + trailing_zeros(mask)
                values[i] = keys[i] + 1
                found[i] = True
                break


@kernel(BYTES, INTS, INTS, OUT_BYTES, INTS)
def _scatter(data: Any, starts: Any, ends: Any, out: Any, places: Any) -> None:
    for i in range(len(starts)):
        copy_bytes(data, starts[i], ends[i] - starts[i], out, places[i])


def survey(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    sep1: int,
    sep2: int,
) -> int:
    """Tells whether texts must be split; see `tzrec.fg.kernels.plain_text.survey`."""
    return int(_survey(padded(data), starts, ends, sep1, sep1 if sep2 < 0 else sep2))


def split(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    sep1: int,
    sep2: int,
    keep_empty: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Splits each text on either byte; see `tzrec.fg.kernels.plain_text.split`."""
    data = padded(data)
    second = sep1 if sep2 < 0 else sep2
    most = len(starts) + _count_separators(data, starts, ends, sep1, second)
    # One place more: the last token is written before it is known whether it counts.
    out_starts = np.empty(most + 1, dtype=np.int64)
    out_ends = np.empty(most + 1, dtype=np.int64)
    lengths = np.empty(len(starts), dtype=np.int32)
    count = _split(data, starts, ends, sep1, second, keep_empty, out_starts, out_ends, lengths)
    return out_starts[:count], out_ends[:count], lengths


def split_pairs(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], sep: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Finds the first separator of each token; see `tzrec.fg.kernels.plain_text.split_pairs`."""
    keys = np.empty(len(starts), dtype=np.int64)
    values = np.empty(len(starts), dtype=np.int64)
    found = np.empty(len(starts), dtype=np.bool_)
    _split_pairs(padded(data), starts, ends, sep, keys, values, found)
    return keys, values, found


def gather_text(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Text:
    """Returns a copy of the tokens, one behind the other."""
    return concat(((data, starts, ends),), NO_BYTES)


def concat(pieces: tuple[Text, ...], joiner: NDArray[np.uint8]) -> Text:
    """Joins the i-th tokens of all pieces, with ``joiner`` between them."""
    return join_pieces(pieces, joiner, copy_to)


def copy_to(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    out: NDArray[np.uint8],
    places: NDArray[np.int64],
) -> None:
    """Copies each token to its place in ``out``."""
    _scatter(padded(data), starts, ends, out, places)
