"""Compiled conversions between numbers and text."""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tzrec.fg.kernels.compiled_base import (
    BYTES,
    FLOATS,
    INTS,
    OUT_BYTES,
    OUT_FLOATS,
    OUT_INTS,
    helper,
    kernel,
)
from tzrec.fg.kernels.compiled_text import Text, copy_to, gather_text
from tzrec.fg.kernels.plain_numbers import float_texts, join_texts

_STATUS = types.uint8[::1]
_SLOT = 24  # the longest text of a float64 or an int64
_GOOD, _BAD, _OVERFLOW = 0, 1, 2
_SLOW = 2
_ZERO, _TEN = np.uint64(0), np.uint64(10)
_POWERS = np.array([float(10**i) for i in range(23)])
_WHOLE_POWERS = np.array([10**i for i in range(20)], dtype=np.uint64)
_INFINITY, _NAN = np.frombuffer(b"infinity", np.uint8), np.frombuffer(b"nan", np.uint8)


@helper
def _is_blank(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13


@helper
def _strip(data: Any, start: int, end: int) -> Any:
    while start < end and _is_blank(data[start]):
        start += 1
    while start < end and _is_blank(data[end - 1]):
        end -= 1
    return start, end


@helper
def _digits(data: Any, at: int, end: int, value: Any, used: int) -> Any:
    """Reads digits into ``value`` while 19 of them, leading zeros aside, hold them all.

    Returns:
        Where the digits end, the value, and the number of significant digits.
    """
    while at < end:
        digit = data[at] - 48
        if digit < 0 or digit > 9:
            break
        used += used > 0 or digit > 0
        if used <= 19:
            value = value * _TEN + np.uint64(digit)
        at += 1
    return at, value, used


@kernel(BYTES, INTS, INTS, OUT_INTS, _STATUS)
def _parse_ints(data: Any, starts: Any, ends: Any, values: Any, status: Any) -> None:
    most = np.uint64(0x7FFFFFFFFFFFFFFF)
    for i in range(len(starts)):
        at, end = _strip(data, starts[i], ends[i])
        negative = at < end and data[at] == 45
        at += at < end and (negative or data[at] == 43)
        stop, value, used = _digits(data, at, end, _ZERO, 0)
        values[i] = 0
        if stop == at or stop < end:
            status[i] = _BAD
        elif used > 19 or value > most + np.uint64(negative):
            status[i] = _OVERFLOW
        else:
            status[i] = _GOOD
            values[i] = np.int64(_ZERO - value if negative else value)


@helper
def _is_word(data: Any, at: int, end: int, word: Any, count: int) -> bool:
    if end - at != count:
        return False
    same = True
    for i in range(count):
        same &= data[at + i] | 32 == word[i]
    return same


@helper
def _exponent(data: Any, at: int, end: int) -> Any:
    """Reads ``e±digits``; returns whether it is well formed, and the exponent within ±9999."""
    at += 1
    negative = at < end and data[at] == 45
    at += at < end and (negative or data[at] == 43)
    good = at < end
    exponent = 0
    while at < end:
        digit = data[at] - 48
        good = good and 0 <= digit <= 9
        exponent = min(10 * exponent + digit, 9999)
        at += 1
    return good, -exponent if negative else exponent


@helper
def _halves(value: float) -> Any:
    """Splits a float64 into two of 26 bits (Veltkamp); their products are exact."""
    scaled = 134217729.0 * value
    high = scaled - (scaled - value)
    return high, value - high


@helper
def _divide(dividend: Any, divisor: float) -> Any:
    """Divides an integer of 64 bits in twice the precision of a float64 (Dekker).

    Returns:
        The quotient, and whether its rounding is certain or left to Python.
    """
    low = float(dividend & np.uint64(0x7FF))
    high = float(dividend & ~np.uint64(0x7FF))
    quotient = high / divisor
    a, b = _halves(quotient)
    c, d = _halves(divisor)
    product = quotient * divisor
    error = ((a * c - product) + a * d + b * c) + b * d
    more = ((high - product) - error + low) / divisor
    value = quotient + more
    rest = (quotient - value) + more
    doubt = 1e-15 * abs(more) + 1e-29 * value
    certain = value + (rest + doubt) == value and value + (rest - doubt) == value
    return value, _GOOD if certain else _SLOW


@helper
def parse_float(data: Any, at: int, end: int) -> Any:
    """Returns the value of an unsigned number, and whether it is good, bad or left to Python."""
    begin = at
    stop, mantissa, used = _digits(data, at, end, _ZERO, 0)
    count = stop - at
    exponent = 0
    if stop < end and data[stop] == 46:
        at = stop + 1
        stop, mantissa, used = _digits(data, at, end, mantissa, used)
        exponent = at - stop
        count += stop - at
    good = count > 0
    if good and stop < end and data[stop] | 32 == 101:
        good, explicit = _exponent(data, stop, end)
        exponent += explicit
        stop = end
    if not good or stop < end:
        if _is_word(data, begin, end, _NAN, 3):
            return np.nan, _GOOD
        if _is_word(data, begin, end, _INFINITY, 3) or _is_word(data, begin, end, _INFINITY, 8):
            return np.inf, _GOOD
        return 0.0, _BAD
    if used == 0:
        return 0.0, _GOOD
    if used > 19 or not -22 <= exponent <= 22:
        return 0.0, _SLOW
    if mantissa <= np.uint64(1 << 53):
        # Both factors are exact, so the one product or quotient is rounded correctly.
        value = float(mantissa)
        value = value / _POWERS[-exponent] if exponent < 0 else value * _POWERS[exponent]
        return value, _GOOD
    if exponent <= 0:
        return _divide(mantissa, _POWERS[-exponent])
    return 0.0, _SLOW


@kernel(BYTES, INTS, INTS, OUT_FLOATS, _STATUS, returns=types.int64)
def _parse_floats(data: Any, starts: Any, ends: Any, values: Any, status: Any) -> Any:
    slow = 0
    for i in range(len(starts)):
        at, end = _strip(data, starts[i], ends[i])
        negative = at < end and data[at] == 45
        at += at < end and (negative or data[at] == 43)
        value, code = parse_float(data, at, end)
        values[i] = -value if negative and code == _GOOD else value
        status[i] = code
        slow += code == _SLOW
    return slow


@helper
def _write_digits(value: Any, count: int, out: Any, at: int) -> None:
    """Writes the last ``count`` decimal digits of ``value``."""
    for place in range(at + count - 1, at - 1, -1):
        rest = value // _TEN
        out[place] = np.uint8(np.uint64(48) + value - rest * _TEN)
        value = rest


@helper
def _num_digits(value: Any) -> int:
    count = 1
    while count < 20 and value >= _WHOLE_POWERS[count]:
        count += 1
    return count


@kernel(INTS, OUT_BYTES, OUT_INTS, OUT_INTS, returns=types.int64)
def _format_ints(values: Any, out: Any, starts: Any, ends: Any) -> Any:
    at = 0
    for i in range(len(values)):
        starts[i] = at
        value = np.uint64(values[i])
        if values[i] < 0:
            value = _ZERO - value
            out[at] = 45
            at += 1
        count = _num_digits(value)
        _write_digits(value, count, out, at)
        at += count
        ends[i] = at
    return at


@helper
def _decimals(value: float, single: bool) -> Any:
    """Finds the fewest decimals that tell a positive number from its neighbours.

    Returns:
        The digits as an integer, and the number of decimals, -1 where Python must find them.
    """
    if not (1e-4 <= value < (1e7 if single else 1e15)):
        return _ZERO, -1
    fraction, exponent = math.frexp(value)
    half = math.ldexp(1.0, exponent - 25)  # half the distance to the next float32
    for decimals in range(20):
        scaled = value * _POWERS[decimals]
        if scaled >= 1e15:
            break
        digits = np.rint(scaled)
        if not single:
            # Numbers of at most 15 digits are all different as float64.
            if digits < 1e15 and digits / _POWERS[decimals] == value:
                return np.uint64(digits), decimals
            continue
        reach = half * _POWERS[decimals]
        error, doubt = abs(digits - scaled), 1e-6 + 1e-6 * reach
        if fraction == 0.5:  # a power of two: its neighbour below is nearer, so only exactly
            if error == 0.0 and digits < 1e6:
                return np.uint64(digits), decimals
            continue
        if error == 0.0 or error <= min(reach, 0.5) - doubt:
            return np.uint64(digits), decimals
        if error <= reach + doubt:
            break
    return _ZERO, -1


@helper
def _write_word(word: Any, out: Any, at: int) -> int:
    for i in range(3):
        out[at + i] = word[i]
    return at + 3


@kernel(FLOATS, types.boolean, OUT_BYTES, OUT_INTS, returns=types.int64)
def _format_floats(values: Any, single: bool, out: Any, ends: Any) -> Any:
    slow = 0
    for i in range(len(values)):
        value, at = values[i], _SLOT * i
        if math.isnan(value):
            ends[i] = _write_word(_NAN, out, at)
            continue
        if math.copysign(1.0, value) < 0.0:
            out[at] = 45
            at += 1
            value = -value
        if math.isinf(value):
            ends[i] = _write_word(_INFINITY, out, at)
            continue
        digits, decimals = (_ZERO, 0) if value == 0.0 else _decimals(value, single)
        if decimals < 0:
            ends[i] = -1
            slow += 1
            continue
        whole = digits // _WHOLE_POWERS[decimals]
        count = _num_digits(whole)
        _write_digits(whole, count, out, at)
        at += count
        if decimals > 0:
            out[at] = 46
            _write_digits(digits - whole * _WHOLE_POWERS[decimals], decimals, out, at + 1)
            at += 1 + decimals
        ends[i] = at
    return slow


def parse_ints(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Reads decimal integers; see `tzrec.fg.kernels.plain_numbers.parse_ints`."""
    values = np.empty(len(starts), dtype=np.int64)
    status = np.empty(len(starts), dtype=np.uint8)
    _parse_ints(data, starts, ends, values, status)
    return values, status


def parse_floats(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Reads decimal numbers; see `tzrec.fg.kernels.plain_numbers.parse_floats`."""
    values = np.empty(len(starts), dtype=np.float64)
    status = np.empty(len(starts), dtype=np.uint8)
    if _parse_floats(data, starts, ends, values, status):
        for i in np.flatnonzero(status == _SLOW).tolist():
            values[i] = float(data[starts[i] : ends[i]].tobytes())
    return values, status != _BAD


def format_ints(values: NDArray[np.int64]) -> Text:
    """Writes integers as decimal text."""
    out = np.empty(20 * len(values), dtype=np.uint8)
    starts = np.empty(len(values), dtype=np.int64)
    ends = np.empty(len(values), dtype=np.int64)
    size = _format_ints(values, out, starts, ends)
    return out[:size], starts, ends


def format_floats(values: NDArray[np.float64]) -> Text:
    """Writes float64; see `tzrec.fg.kernels.plain_numbers.format_floats`."""
    return _format(values, False)


def format_floats32(values: NDArray[np.float32]) -> Text:
    """Writes float32; see `tzrec.fg.kernels.plain_numbers.format_floats32`."""
    return _format(values, True)


def _format(values: NDArray[Any], single: bool) -> Text:
    out = np.empty(_SLOT * len(values), dtype=np.uint8)
    starts = np.arange(0, _SLOT * len(values), _SLOT, dtype=np.int64)
    ends = np.empty(len(values), dtype=np.int64)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        doubles = values.astype(np.float64, copy=False)
    if _format_floats(doubles, single, out, ends):
        slow = np.flatnonzero(ends < 0)
        data, slow_starts, slow_ends = join_texts(float_texts(values[slow]))
        copy_to(data, slow_starts, slow_ends, out, starts[slow])
        ends[slow] = starts[slow] + slow_ends - slow_starts
    return gather_text(out, starts, ends)
