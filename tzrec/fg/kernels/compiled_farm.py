"""Compiled FarmHash Fingerprint64; `tzrec.fg.hashing` holds the plain Python form."""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np

from tzrec.fg.kernels.compiled_base import helper, load8, load_part

_K0 = np.uint64(0xC3A5C85C97CB3127)
_K1 = np.uint64(0xB492B66FBE98F273)
_K2 = np.uint64(0x9AE16A3B2F90404F)
_SHIFT = np.uint64(47)


@helper
def _rotate(value: Any, by: int) -> Any:
    return (value >> np.uint64(by)) | (value << np.uint64(64 - by))


@helper
def _fold(value: Any) -> Any:
    return value ^ (value >> _SHIFT)


@helper
def _mix(left: Any, right: Any, multiplier: Any) -> Any:
    state = _fold((left ^ right) * multiplier)
    return _fold((right ^ state) * multiplier) * multiplier


@helper
def _to_16(data: Any, start: int, length: int) -> Any:
    multiplier = _K2 + np.uint64(2 * length)
    if length >= 8:
        a = load8(data, start) + _K2
        b = load8(data, start + length - 8)
        left = _rotate(b, 37) * multiplier + a
        return _mix(left, (_rotate(a, 25) + b) * multiplier, multiplier)
    if length >= 4:
        first = load_part(data, start, 4) << np.uint64(3)
        last = load_part(data, start + length - 4, 4)
        return _mix(np.uint64(length) + first, last, multiplier)
    if length > 0:
        y = np.uint64(data[start]) + (np.uint64(data[start + (length >> 1)]) << np.uint64(8))
        z = np.uint64(length) + (np.uint64(data[start + length - 1]) << np.uint64(2))
        return _fold((y * _K2) ^ (z * _K0)) * _K2
    return _K2


@helper
def _to_64(data: Any, start: int, length: int) -> Any:
    multiplier = _K2 + np.uint64(2 * length)
    end = start + length
    a = load8(data, start) * (_K1 if length <= 32 else _K2)
    b = load8(data, start + 8)
    c = load8(data, end - 8) * multiplier
    d = load8(data, end - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _mix(y, a + _rotate(b + _K2, 18) + c, multiplier)
    if length <= 32:
        return z
    e = load8(data, start + 16) * multiplier
    f = load8(data, start + 24)
    g = (y + load8(data, end - 32)) * multiplier
    h = (z + load8(data, end - 24)) * multiplier
    left = _rotate(e + f, 43) + _rotate(g, 30) + h
    return _mix(left, e + _rotate(f + a, 18) + g, multiplier)


@helper
def _long(data: Any, start: int, length: int) -> Any:
    seed = np.uint64(81)
    x = seed * _K2 + load8(data, start)
    y = seed * _K1 + np.uint64(113)
    z = _fold(y * _K2 + np.uint64(113)) * _K2
    v0 = v1 = w0 = w1 = np.uint64(0)
    multiplier, nine = _K1, np.uint64(1)
    rounds = (length - 1) // 64
    # All rounds but the last mix with _K1; the last takes the last 64 bytes, whatever the
    # rounds before have read of them, and its own multiplier.
    for i in range(rounds + 1):
        at = start + 64 * i
        if i == rounds:
            at = start + length - 64
            multiplier = _K1 + ((z & np.uint64(0xFF)) << np.uint64(1))
            nine = np.uint64(9)
            w0 += np.uint64((length - 1) & 63)
            v0 += w0
            w0 += v0
        x = _rotate(x + y + v0 + load8(data, at + 8), 37) * multiplier
        y = _rotate(y + v1 + load8(data, at + 48), 42) * multiplier
        x ^= w1 * nine
        y += v0 * nine + load8(data, at + 40)
        z = _rotate(z + w0, 33) * multiplier
        v0, v1 = _weak(data, at, v1 * multiplier, x + w0)
        w0, w1 = _weak(data, at + 32, z + w1, y + load8(data, at + 16))
        x, z = z, x
    left = _mix(v0, w0, multiplier) + _fold(y) * _K0 + z
    return _mix(left, _mix(v1, w1, multiplier) + x, multiplier)


@helper
def _weak(data: Any, at: int, a: Any, b: Any) -> Any:
    a += load8(data, at)
    b = _rotate(b + a + load8(data, at + 24), 21)
    c = a
    a += load8(data, at + 8) + load8(data, at + 16)
    b += _rotate(a, 44)
    return a + load8(data, at + 24), b + c


@helper
def farm_hash(data: Any, start: int, length: int) -> Any:
    """Hashes any text."""
    if length <= 16:
        return _to_16(data, start, length)
    if length <= 64:
        return _to_64(data, start, length)
    return _long(data, start, length)
