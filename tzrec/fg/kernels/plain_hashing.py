"""Hashes of text and integers in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.hashing import farm_fingerprint64, murmur_hash64a
from tzrec.fg.kernels.plain_farm import LONGEST as LONGEST_FARM
from tzrec.fg.kernels.plain_farm import farm_hashes
from tzrec.fg.kernels.plain_numbers import format_ints
from tzrec.fg.kernels.plain_text import Bytes, Ints, concat, pick
from tzrec.fg.kernels.plain_words import load_part, words

_SEED = np.uint64(0xC70F6907)
_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)
_SHIFT = np.uint64(47)
_LONGEST = 512  # bytes up to which all tokens are hashed block by block together


def hash_text(data: Bytes, starts: Ints, ends: Ints, farm: bool) -> NDArray[np.uint64]:
    """Returns the unsigned hash of each token."""
    sizes = ends - starts
    long = np.flatnonzero(sizes > (LONGEST_FARM if farm else _LONGEST))
    if not len(long):
        return (farm_hashes if farm else _murmur)(data, starts, sizes)
    out = np.empty(len(starts), dtype=np.uint64)
    short = np.setdiff1d(np.arange(len(starts)), long, assume_unique=True)
    out[short] = hash_text(data, starts[short], ends[short], farm)
    texts = pick(data, starts, ends, long)
    out[long] = [_slow_hash(text, farm) for text in texts]
    return out


def _slow_hash(text: bytes, farm: bool) -> int:
    return farm_fingerprint64(text) if farm else murmur_hash64a(text)


def _murmur(data: Bytes, starts: Ints, sizes: Ints) -> NDArray[np.uint64]:
    view = words(data)
    states = _SEED ^ sizes.astype(np.uint64) * _MULTIPLIER
    blocks = sizes >> 3
    active = np.flatnonzero(blocks)
    done = 0
    while len(active):
        mixed = view[starts[active] + 8 * done] * _MULTIPLIER
        mixed = (mixed ^ mixed >> _SHIFT) * _MULTIPLIER
        states[active] = (states[active] ^ mixed) * _MULTIPLIER
        done += 1
        active = active[blocks[active] > done]
    rest = sizes & 7
    tails = load_part(view, starts + 8 * blocks, rest)
    states = np.where(rest > 0, (states ^ tails) * _MULTIPLIER, states)
    states = (states ^ states >> _SHIFT) * _MULTIPLIER
    return np.asarray(states ^ states >> _SHIFT)


def bucket_text(
    data: Bytes, starts: Ints, ends: Ints, buckets: int, farm: bool
) -> NDArray[np.int64]:
    """Returns the hash of each token modulo ``buckets`` (1 to 2^63 - 1)."""
    return (hash_text(data, starts, ends, farm) % np.uint64(buckets)).view(np.int64)


def bucket_parts(
    data: Bytes, starts: Ints, ends: Ints, bounds: Ints, buckets: NDArray[np.uint64], farm: bool
) -> NDArray[np.int64]:
    """Returns the hash of each token modulo the ``buckets`` of its part.

    Part i is the tokens ``bounds[i]`` to ``bounds[i + 1]``; the parts are all tokens.
    """
    sizes = np.repeat(buckets, np.diff(bounds))
    return (hash_text(data, starts, ends, farm) % sizes).view(np.int64)


def bucket_ints(values: NDArray[np.int64], buckets: int, farm: bool) -> NDArray[np.int64]:
    """Returns the bucket of the decimal text of each integer."""
    return bucket_text(*format_ints(values), buckets, farm)


def bucket_prefixed(
    prefix: Bytes, data: Bytes, starts: Ints, ends: Ints, buckets: int, farm: bool
) -> NDArray[np.int64]:
    """Returns the bucket of each token with ``prefix`` put before it."""
    zeros = np.zeros(len(starts), dtype=np.int64)
    pieces = ((prefix, zeros, zeros + len(prefix)), (data, starts, ends))
    return bucket_text(*concat(pieces, np.empty(0, dtype=np.uint8)), buckets, farm)
