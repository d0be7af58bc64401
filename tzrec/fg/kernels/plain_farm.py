"""FarmHash Fingerprint64 of many short texts in NumPy; `tzrec.fg.hashing` explains it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.kernels.plain_text import Bytes, Ints
from tzrec.fg.kernels.plain_words import Words, load_part, words

LONGEST = 64  # bytes of a text
_K0 = np.uint64(0xC3A5C85C97CB3127)
_K1 = np.uint64(0xB492B66FBE98F273)
_K2 = np.uint64(0x9AE16A3B2F90404F)
_SHIFT = np.uint64(47)


def farm_hashes(data: Bytes, starts: Ints, sizes: Ints) -> Words:
    """Returns the hash of each text of at most ``LONGEST`` bytes."""
    view = words(data)
    out = np.full(len(starts), _K2, dtype=np.uint64)
    classes = ((1, 3, _to_3), (4, 7, _to_7), (8, 16, _to_16), (17, 64, _to_64))
    for low, high, function in classes:
        chosen = np.flatnonzero((sizes >= low) & (sizes <= high))
        if len(chosen):
            out[chosen] = function(view, starts[chosen], sizes[chosen])
    return out


def _rotate(value: Words, by: int) -> Words:
    return np.asarray(value >> np.uint64(by) | value << np.uint64(64 - by))


def _mix(left: Words, right: Words, multiplier: Words) -> Words:
    state = (left ^ right) * multiplier
    state = (right ^ state ^ state >> _SHIFT) * multiplier
    return np.asarray((state ^ state >> _SHIFT) * multiplier)


def _multipliers(sizes: Ints) -> Words:
    return _K2 + 2 * sizes.astype(np.uint64)


def _to_3(view: Words, starts: Ints, sizes: Ints) -> Words:
    def byte(at: Ints) -> NDArray[np.uint64]:
        return view[at] & np.uint64(0xFF)

    y = byte(starts) + (byte(starts + (sizes >> 1)) << np.uint64(8))
    z = sizes.astype(np.uint64) + (byte(starts + sizes - 1) << np.uint64(2))
    state = y * _K2 ^ z * _K0
    return np.asarray((state ^ state >> _SHIFT) * _K2)


def _to_7(view: Words, starts: Ints, sizes: Ints) -> Words:
    four = np.full_like(sizes, 4)
    first = load_part(view, starts, four) << np.uint64(3)
    last = load_part(view, starts + sizes - 4, four)
    return _mix(sizes.astype(np.uint64) + first, last, _multipliers(sizes))


def _to_16(view: Words, starts: Ints, sizes: Ints) -> Words:
    multipliers = _multipliers(sizes)
    a, b = view[starts] + _K2, view[starts + sizes - 8]
    left = _rotate(b, 37) * multipliers + a
    return _mix(left, (_rotate(a, 25) + b) * multipliers, multipliers)


def _to_64(view: Words, starts: Ints, sizes: Ints) -> Words:
    multipliers = _multipliers(sizes)
    ends = starts + sizes
    a = view[starts] * np.where(sizes <= 32, _K1, _K2)
    b = view[starts + 8]
    c, d = view[ends - 8] * multipliers, view[ends - 16] * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _mix(y, a + _rotate(b + _K2, 18) + c, multipliers)
    long = sizes > 32
    starts, ends, multipliers = starts[long], ends[long], multipliers[long]
    e, f = view[starts + 16] * multipliers, view[starts + 24]
    g = (y[long] + view[ends - 32]) * multipliers
    h = (z[long] + view[ends - 24]) * multipliers
    left = _rotate(e + f, 43) + _rotate(g, 30) + h
    z[long] = _mix(left, e + _rotate(f + a[long], 18) + g, multipliers)
    return z
