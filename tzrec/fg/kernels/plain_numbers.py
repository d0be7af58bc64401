"""Conversions between numbers and text in NumPy and plain Python."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.kernels.plain_text import Bytes, Ints, Text, gather_text, pick

_BLANKS = rb"[ \t-\r]*"
_INTEGER = re.compile(_BLANKS + rb"([+-]?)0*([0-9]*)" + _BLANKS)
_DECIMAL = rb"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_FLOAT = re.compile(_BLANKS + rb"[+-]?(?:" + _DECIMAL + rb"|(?i:inf|infinity|nan))" + _BLANKS)
_GOOD, _BAD, _OVERFLOW = 0, 1, 2
_INT64 = np.iinfo(np.int64)
_MOST_DIGITS = 19


def _parse_int(text: bytes) -> tuple[int, int]:
    match = _INTEGER.fullmatch(text)
    # The pattern lets the digits be absent when there are none at all.
    if match is None or not text[match.end(1) :].strip():
        return 0, _BAD
    sign, digits = match.groups()
    if len(digits) > _MOST_DIGITS:  # Python refuses to read thousands of digits
        return 0, _OVERFLOW
    value = int(sign + (digits or b"0"))
    return (value, _GOOD) if _INT64.min <= value <= _INT64.max else (0, _OVERFLOW)


def parse_ints(
    data: Bytes, starts: Ints, ends: Ints
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Reads decimal integers: a sign, leading zeros and ASCII blanks around them may stand.

    Returns:
        The values, 0 where there is none, and a status: 0 read, 1 no integer, 2 too large.
    """
    texts = pick(data, starts, ends, slice(None))
    parsed = np.array([_parse_int(text) for text in texts], dtype=np.int64).reshape(-1, 2)
    return np.ascontiguousarray(parsed[:, 0]), parsed[:, 1].astype(np.uint8)


def parse_floats(
    data: Bytes, starts: Ints, ends: Ints
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Reads decimal numbers, inf and nan as Python does, but no underscores.

    Returns:
        The values, 0 where there is none, and whether there is one.
    """
    texts = pick(data, starts, ends, slice(None))
    good = np.array([_FLOAT.fullmatch(text) is not None for text in texts], dtype=np.bool_)
    values = np.zeros(len(texts))
    values[good] = [float(text) for text, fine in zip(texts, good.tolist(), strict=True) if fine]
    return values, good


def format_ints(values: NDArray[np.int64]) -> Text:
    """Writes integers as decimal text."""
    width = 20  # of the longest int64
    slots = values.astype(f"S{width}")
    starts = np.arange(0, width * len(values), width, dtype=np.int64)
    sizes = np.char.str_len(slots).astype(np.int64)
    return gather_text(slots.view(np.uint8), starts, starts + sizes)


def float_texts(values: NDArray[Any]) -> list[bytes]:
    """Returns the shortest texts that read back the same, without ``.0`` at the end."""
    if values.dtype == np.float64:
        return [repr(value).removesuffix(".0").encode() for value in values.tolist()]
    return [_single_text(value).encode() for value in values]


def _single_text(value: Any) -> str:
    # str of a numpy.float32 changes to an exponent at a limit of its own, which moved between
    # versions of NumPy; the limits of Python's repr stay.
    if 1e-4 <= abs(value) < 1e16 or value == 0:
        return str(np.format_float_positional(value, trim="-"))
    return str(np.format_float_scientific(value, trim="-", exp_digits=2))


def format_floats(values: NDArray[np.float64]) -> Text:
    """Writes the shortest text that reads back as the same float64; 5.0 becomes ``5``."""
    return join_texts(float_texts(values))


def format_floats32(values: NDArray[np.float32]) -> Text:
    """Writes the shortest text that reads back as the same float32."""
    return join_texts(float_texts(values))


def join_texts(texts: list[bytes]) -> Text:
    """Lays texts one behind the other."""
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1]
    return np.frombuffer(b"".join(texts), dtype=np.uint8), starts, ends
