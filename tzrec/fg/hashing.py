"""The hashes that turn text into a bucket, in plain Python: the reference of the kernels."""

from __future__ import annotations

_SEED = 0xC70F6907
_MULTIPLIER = 0xC6A4A7935BD1E995
_MASK = (1 << 64) - 1
# Primes between 2^63 and 2^64 that FarmHash is defined with.
_K0 = 0xC3A5C85C97CB3127
_K1 = 0xB492B66FBE98F273
_K2 = 0x9AE16A3B2F90404F


def murmur_hash64a(data: bytes) -> int:
    """Returns the unsigned 64-bit MurmurHash64A (Austin Appleby, 2008) of ``data``.

    With this seed it is ``std::hash<std::string>`` of libstdc++ on 64-bit systems.
    """
    state = _SEED ^ (len(data) * _MULTIPLIER & _MASK)
    whole = len(data) & ~7
    for start in range(0, whole, 8):
        block = int.from_bytes(data[start : start + 8], "little") * _MULTIPLIER & _MASK
        block = (block ^ block >> 47) * _MULTIPLIER & _MASK
        state = (state ^ block) * _MULTIPLIER & _MASK
    if whole < len(data):
        state = (state ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    state = (state ^ state >> 47) * _MULTIPLIER & _MASK
    return state ^ state >> 47


def farm_fingerprint64(data: bytes) -> int:
    """Returns the unsigned 64-bit FarmHash Fingerprint64 (Geoff Pike, 2014) of ``data``.

    TensorFlow's ``string_to_hash_bucket_fast`` uses the same function.
    """
    length = len(data)
    if length <= 16:
        return _farm_to_16(data)
    if length <= 32:
        multiplier = _K2 + 2 * length
        a, b = _word(data, 0) * _K1, _word(data, 8)
        c, d = _word(data, length - 8) * multiplier, _word(data, length - 16) * _K2
        left = _rotate(a + b, 43) + _rotate(c, 30) + d
        return _mix(left, a + _rotate(b + _K2, 18) + c, multiplier)
    return _farm_to_64(data) if length <= 64 else _farm_long(data)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _rotate(value: int, by: int) -> int:
    value &= _MASK
    return (value >> by | value << (64 - by)) & _MASK


def _fold(value: int) -> int:
    value &= _MASK
    return value ^ value >> 47


def _mix(left: int, right: int, multiplier: int) -> int:
    state = _fold((left ^ right & _MASK) * multiplier)
    return _fold((right ^ state) * multiplier) * multiplier & _MASK


def _farm_to_16(data: bytes) -> int:
    length = len(data)
    multiplier = _K2 + 2 * length
    if length >= 8:
        a, b = _word(data, 0) + _K2, _word(data, length - 8)
        left = _rotate(b, 37) * multiplier + a
        return _mix(left, (_rotate(a, 25) + b) * multiplier, multiplier)
    if length >= 4:
        first = int.from_bytes(data[:4], "little")
        return _mix(length + (first << 3), int.from_bytes(data[-4:], "little"), multiplier)
    if length > 0:
        y = data[0] + (data[length >> 1] << 8)
        z = length + (data[-1] << 2)
        return _fold(y * _K2 ^ z * _K0) * _K2 & _MASK
    return _K2


def _farm_to_64(data: bytes) -> int:
    length = len(data)
    multiplier = _K2 + 2 * length
    a, b = _word(data, 0) * _K2, _word(data, 8)
    c, d = _word(data, length - 8) * multiplier, _word(data, length - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _mix(y, a + _rotate(b + _K2, 18) + c, multiplier)
    e, f = _word(data, 16) * multiplier, _word(data, 24)
    g = (y + _word(data, length - 32)) * multiplier
    h = (z + _word(data, length - 24)) * multiplier
    left = _rotate(e + f, 43) + _rotate(g, 30) + h
    return _mix(left, e + _rotate(f + a, 18) + g, multiplier)


def _weak(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = (_word(data, at + step) for step in (0, 8, 16, 24))
    a += w
    b = _rotate(b + a + z, 21)
    c = a
    a += x + y
    b += _rotate(a, 44)
    return (a + z) & _MASK, (b + c) & _MASK


def _farm_long(data: bytes) -> int:
    x = 81 * _K2 + _word(data, 0)
    y = 81 * _K1 + 113
    z = _fold(y * _K2 + 113) * _K2
    v, w = (0, 0), (0, 0)
    last = len(data) - 64
    for at in range(0, (len(data) - 1) // 64 * 64, 64):
        x = _rotate(x + y + v[0] + _word(data, at + 8), 37) * _K1 ^ w[1]
        y = _rotate(y + v[1] + _word(data, at + 48), 42) * _K1 + v[0] + _word(data, at + 40)
        z = _rotate(z + w[0], 33) * _K1
        v = _weak(data, at, v[1] * _K1, x + w[0])
        w = _weak(data, at + 32, z + w[1], y + _word(data, at + 16))
        x, z = z, x
    multiplier = _K1 + ((z & 0xFF) << 1)
    second = w[0] + (len(data) - 1 & 63)
    first = v[0] + second
    second += first
    x = _rotate(x + y + first + _word(data, last + 8), 37) * multiplier ^ w[1] * 9
    y = _rotate(y + v[1] + _word(data, last + 48), 42) * multiplier
    y += first * 9 + _word(data, last + 40)
    z = _rotate(z + second, 33) * multiplier
    v = _weak(data, last, v[1] * multiplier, x + second)
    w = _weak(data, last + 32, z + w[1], y + _word(data, last + 16))
    x, z = z, x
    left = _mix(v[0], w[0], multiplier) + _fold(y) * _K0 + z
    return _mix(left & _MASK, (_mix(v[1], w[1], multiplier) + x) & _MASK, multiplier)
