"""Compiled hashes of text, integers and crosses."""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tzrec.fg.kernels.compiled_base import (
    BYTES,
    INTS,
    OUT_WORDS,
    WORDS,
    helper,
    high_product,
    kernel,
    load8,
    load_part,
    padded,
)
from tzrec.fg.kernels.compiled_farm import farm_hash
from tzrec.fg.kernels.compiled_numbers import format_ints
from tzrec.fg.kernels.compiled_text import NO_BYTES, concat

_SEED = np.uint64(0xC70F6907)
_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)
_SHIFT = np.uint64(47)
_ZERO, _ONE, _ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)
_HALF, _HALF_BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
_BLOCK = 256  # tokens of a block: its results stay in the first cache


@helper
def murmur_words(low: Any, high: Any, length: int) -> Any:
    """Hashes a text of less than 16 bytes, given as two words; no branch, so it vectorises."""
    rest = np.uint64(8) * np.uint64(length & 7)
    whole = length >= 8
    state = _SEED ^ (np.uint64(length) * _MULTIPLIER)
    block = low * _MULTIPLIER
    block = (block ^ (block >> _SHIFT)) * _MULTIPLIER
    state = (state ^ block) * _MULTIPLIER if whole else state
    tail = (high if whole else low) & ((_ONE << rest) - _ONE)
    state = (state ^ tail) * _MULTIPLIER if rest != _ZERO else state
    state = (state ^ (state >> _SHIFT)) * _MULTIPLIER
    return state ^ (state >> _SHIFT)


@helper
def murmur(data: Any, start: int, length: int) -> Any:
    """Hashes any text."""
    state = _SEED ^ (np.uint64(length) * _MULTIPLIER)
    whole = length & ~7
    for step in range(start, start + whole, 8):
        block = load8(data, step) * _MULTIPLIER
        block = (block ^ (block >> _SHIFT)) * _MULTIPLIER
        state = (state ^ block) * _MULTIPLIER
    if whole < length:
        state = (state ^ load_part(data, start + whole, length - whole)) * _MULTIPLIER
    state = (state ^ (state >> _SHIFT)) * _MULTIPLIER
    return state ^ (state >> _SHIFT)


@helper
def remainder(value: Any, buckets: Any, reciprocal: Any) -> Any:
    """Returns ``value % buckets``; ``reciprocal`` is (2^64 - 1) // buckets.

    The estimated quotient is right or one too small, and buckets < 2^63.
    """
    rest = value - high_product(value, reciprocal) * buckets
    return rest - buckets if rest >= buckets else rest


@helper
def _vector_remainder(value: Any, buckets: Any, reciprocal: Any) -> Any:
    """Does as `remainder`, from products of half words, since those vectorise."""
    low, high = value & _HALF, value >> _HALF_BITS
    other_low, other_high = reciprocal & _HALF, reciprocal >> _HALF_BITS
    cross = low * other_high
    middle = ((low * other_low) >> _HALF_BITS) + (cross & _HALF) + high * other_low
    quotient = high * other_high + (cross >> _HALF_BITS) + (middle >> _HALF_BITS)
    rest = value - quotient * buckets
    return rest - buckets if rest >= buckets else rest


@helper
def _murmur_short(data: Any, starts: Any, ends: Any, out: Any) -> bool:
    """Hashes short tokens; tells whether some are long or too near to the end of the buffer."""
    limit = len(data) - 16
    hard = np.uint64(0)
    for i in range(len(starts)):
        start = starts[i]
        length = ends[i] - start
        hard |= np.uint64(15 - length) | np.uint64(limit - start)  # the sign bit tells
        place = min(start, limit)
        out[i] = murmur_words(load8(data, place), load8(data, place + 8), length)
    return bool(np.int64(hard) < 0)


@helper
def _murmur_rest(data: Any, starts: Any, ends: Any, out: Any) -> None:
    limit = len(data) - 16
    for i in range(len(starts)):
        length = ends[i] - starts[i]
        if length > 15 or starts[i] > limit:
            out[i] = murmur(data, starts[i], length)


@helper
def _take_remainders(values: Any, buckets: Any, reciprocal: Any) -> None:
    for i in range(len(values)):
        values[i] = _vector_remainder(values[i], buckets, reciprocal)


@kernel(BYTES, INTS, INTS, types.uint64, types.boolean, OUT_WORDS)
def _hash_tokens(data: Any, starts: Any, ends: Any, buckets: Any, farm: bool, out: Any) -> None:
    reciprocal = _ALL // buckets if buckets > _ZERO else _ZERO
    for first in range(0, len(starts), _BLOCK):
        last = min(len(starts), first + _BLOCK)
        # Only loops from 0 to the length of an array vectorise: an index may else be negative.
        block = out[first:last]
        if farm:
            for i in range(first, last):
                out[i] = farm_hash(data, starts[i], ends[i] - starts[i])
        elif _murmur_short(data, starts[first:last], ends[first:last], block):
            _murmur_rest(data, starts[first:last], ends[first:last], block)
        if buckets > _ZERO:
            _take_remainders(block, buckets, reciprocal)


def hash_text(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], farm: bool
) -> NDArray[np.uint64]:
    """Returns the unsigned hash of each token."""
    out = np.empty(len(starts), dtype=np.uint64)
    _hash_tokens(padded(data), starts, ends, 0, farm, out)
    return out


def bucket_text(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    buckets: int,
    farm: bool,
) -> NDArray[np.int64]:
    """Returns the hash of each token modulo ``buckets`` (1 to 2^63 - 1)."""
    out = np.empty(len(starts), dtype=np.uint64)
    _hash_tokens(padded(data), starts, ends, buckets, farm, out)
    return out.view(np.int64)


@kernel(BYTES, INTS, INTS, INTS, WORDS, types.boolean, OUT_WORDS)
def _hash_parts(
    data: Any, starts: Any, ends: Any, bounds: Any, buckets: Any, farm: bool, out: Any
) -> None:
    for i in range(len(buckets)):
        first, last = bounds[i], bounds[i + 1]
        part = out[first:last]
        _hash_tokens(data, starts[first:last], ends[first:last], buckets[i], farm, part)


def bucket_parts(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    bounds: NDArray[np.int64],
    buckets: NDArray[np.uint64],
    farm: bool,
) -> NDArray[np.int64]:
    """Returns the hash of each token modulo the ``buckets`` of its part.

    Part i is the tokens ``bounds[i]`` to ``bounds[i + 1]``; the parts are all tokens.
    """
    out = np.empty(len(starts), dtype=np.uint64)
    _hash_parts(padded(data), starts, ends, bounds, buckets, farm, out)
    return out.view(np.int64)


def bucket_ints(values: NDArray[np.int64], buckets: int, farm: bool) -> NDArray[np.int64]:
    """Returns the bucket of the decimal text of each integer."""
    return bucket_text(*format_ints(values), buckets, farm)


def bucket_prefixed(
    prefix: NDArray[np.uint8],
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    buckets: int,
    farm: bool,
) -> NDArray[np.int64]:
    """Returns the bucket of each token with ``prefix`` put before it."""
    zeros = np.zeros(len(starts), dtype=np.int64)
    fixed = (prefix, zeros, zeros + len(prefix))
    return bucket_text(*concat((fixed, (data, starts, ends)), NO_BYTES), buckets, farm)
