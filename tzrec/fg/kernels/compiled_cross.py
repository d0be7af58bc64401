"""Compiled Cartesian products of the tokens of a cell."""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tzrec.fg.kernels.compiled_base import (
    BYTES,
    INTS,
    LENGTHS,
    OUT_BYTES,
    OUT_INTS,
    OUT_WORDS,
    copy_bytes,
    helper,
    kernel,
    load_part,
    padded,
)
from tzrec.fg.kernels.compiled_hashing import (
    bucket_text,
    murmur,
    murmur_words,
    remainder,
)
from tzrec.fg.kernels.plain_cross import JOINER, product_lengths

Part = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]

_ZERO, _ALL = np.uint64(0), np.uint64(0xFFFFFFFFFFFFFFFF)
_CELLS = (BYTES, INTS, INTS, LENGTHS)


@helper
def _hash_short(low: Any, high: Any, length: int, tail_low: Any, tail_high: Any, tail: int) -> Any:
    """Hashes two texts of less than 16 bytes together, one behind the other."""
    shift = np.uint64(8 * (length & 7))
    back = np.uint64(64) - shift
    carry = tail_low >> back if shift > _ZERO else _ZERO
    first = tail_low << shift
    second = carry | (tail_high << shift)
    if length >= 8:
        return murmur_words(low, high | first, length + tail)
    return murmur_words(low | first, high | second, length + tail)


@kernel(*_CELLS, *_CELLS, types.uint64, OUT_WORDS)
def _hash_cross(
    data: Any,
    starts: Any,
    ends: Any,
    lengths: Any,
    datb: Any,
    startb: Any,
    endb: Any,
    lengthb: Any,
    buckets: Any,
    out: Any,
) -> None:
    reciprocal = _ALL // buckets
    scratch = np.empty(256, dtype=np.uint8)
    first, second, place = 0, 0, 0
    for cell in range(len(lengths)):
        for i in range(first, first + lengths[cell]):
            size = ends[i] - starts[i] + 1  # with the joiner
            low = high = _ZERO
            if size <= 15:
                low = load_part(data, starts[i], min(8, size - 1))
                high = load_part(data, starts[i] + 8, max(0, size - 9))
                joiner = np.uint64(JOINER) << np.uint64(8 * ((size - 1) & 7))
                if size <= 8:
                    low |= joiner
                else:
                    high |= joiner
            for k in range(second, second + lengthb[cell]):
                tail = endb[k] - startb[k]
                if size + tail <= 15:
                    tail_low = load_part(datb, startb[k], min(8, tail))
                    tail_high = load_part(datb, startb[k] + 8, max(0, tail - 8))
                    value = _hash_short(low, high, size, tail_low, tail_high, tail)
                else:
                    if size + tail > len(scratch):
                        scratch = np.empty(2 * (size + tail), dtype=np.uint8)
                    copy_bytes(data, starts[i], size - 1, scratch, 0)
                    scratch[size - 1] = JOINER
                    copy_bytes(datb, startb[k], tail, scratch, size)
                    value = murmur(scratch, 0, size + tail)
                out[place] = remainder(value, buckets, reciprocal)
                place += 1
        first += lengths[cell]
        second += lengthb[cell]


@kernel(
    *_CELLS,
    *_CELLS,
    types.uint8,
    types.boolean,
    OUT_BYTES,
    OUT_INTS,
    OUT_INTS,
    returns=types.int64,
)
def _join_cross(
    data: Any,
    starts: Any,
    ends: Any,
    lengths: Any,
    datb: Any,
    startb: Any,
    endb: Any,
    lengthb: Any,
    joiner: int,
    write: bool,
    out: Any,
    out_starts: Any,
    out_ends: Any,
) -> Any:
    """Returns the number of bytes of all joined texts, and writes these on request."""
    first, second, place, at = 0, 0, 0, 0
    for cell in range(len(lengths)):
        for i in range(first, first + lengths[cell]):
            size = ends[i] - starts[i]
            for k in range(second, second + lengthb[cell]):
                tail = endb[k] - startb[k]
                if write:
                    copy_bytes(data, starts[i], size, out, at)
                    out[at + size] = joiner
                    copy_bytes(datb, startb[k], tail, out, at + size + 1)
                    out_starts[place] = at
                    out_ends[place] = at + size + 1 + tail
                    place += 1
                at += size + 1 + tail
        first += lengths[cell]
        second += lengthb[cell]
    return at


def bucket_cross(
    parts: tuple[Part, ...], buckets: int, farm: bool
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Returns the buckets of each cell's products, first part slowest, and their number."""
    if farm or len(parts) == 1:
        data, starts, ends, lengths = cross_text(parts, JOINER)
        return bucket_text(data, starts, ends, buckets, farm), lengths
    *before, last = parts
    left = cross_text(tuple(before), JOINER)
    lengths = product_lengths(left[3], last[3])
    out = np.empty(int(lengths.sum(dtype=np.int64)), dtype=np.uint64)
    cells = (padded(left[0]), *left[1:], padded(last[0]), *last[1:])
    _hash_cross(*cells, buckets, out)
    return out.view(np.int64), lengths


def cross_text(parts: tuple[Part, ...], joiner: int) -> Part:
    """Returns each cell's products as text, first part slowest, joined by one byte."""
    product = parts[0]
    for part in parts[1:]:
        product = _join_two(product, part, joiner)
    return product


def _join_two(left: Part, right: Part, joiner: int) -> Part:
    lengths = product_lengths(left[3], right[3])
    cells = (padded(left[0]), *left[1:], padded(right[0]), *right[1:])
    starts = np.empty(int(lengths.sum(dtype=np.int64)), dtype=np.int64)
    ends = np.empty_like(starts)
    none = np.empty(0, dtype=np.uint8)
    size = _join_cross(*cells, joiner, False, none, starts, ends)
    data = np.empty(size, dtype=np.uint8)
    _join_cross(*cells, joiner, True, data, starts, ends)
    return data, starts, ends, lengths
