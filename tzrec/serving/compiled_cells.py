"""Finds the cells of JSON rows, compiled by numba: no value becomes a Python object.

Import this module inside the function that needs it: it loads numba. What is read ends with a
byte 0, which is no part of any JSON, so that nothing has to look where the end is.
"""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np
from numba import types

from tzrec.fg.kernels.compiled_base import (
    BYTES,
    INTS,
    OUT_BYTES,
    OUT_FLOATS,
    OUT_LENGTHS,
    copy_bytes,
    helper,
    kernel,
    same_bytes,
)
from tzrec.fg.kernels.compiled_numbers import parse_float

TEXT, WHOLE, NUMBER, OTHER = 0, 1, 2, 3
# Where a cell begins and ends that is null; no other one begins with the body.
NULL = 0
_ODD = -1
_TABLE = types.int64[:, ::1]
_TAB, _NEWLINE, _RETURN, _BLANK, _QUOTE = 9, 10, 13, 32, 34
_PLUS, _COMMA, _MINUS, _DOT, _ZERO, _NINE, _COLON = 43, 44, 45, 46, 48, 57, 58
_BACKSLASH, _OPEN_LIST, _CLOSE_LIST, _OPEN, _CLOSE = 92, 91, 93, 123, 125
_E, _N, _U, _L = 101, 110, 117, 108


@helper
def _blanks(body: Any, at: int) -> int:
    """Returns where the next token begins."""
    while body[at] <= _BLANK and (
        body[at] == _BLANK or body[at] == _NEWLINE or body[at] == _RETURN or body[at] == _TAB
    ):
        at += 1
    return at


@helper
def _text_end(body: Any, at: int) -> int:
    """Returns where the quote is that ends a text; odd are escapes and control characters."""
    while body[at] != _QUOTE:
        if body[at] < _BLANK or body[at] == _BACKSLASH:
            return _ODD
        at += 1
    return at


@helper
def _digits_end(body: Any, at: int) -> int:
    while _ZERO <= body[at] <= _NINE:
        at += 1
    return at


@helper
def _number_end(body: Any, at: int, is_whole: bool) -> int:
    """Returns where a number ends as JSON writes it, an integer before its fraction."""
    negative = body[at] == _MINUS
    begin = at + negative
    at = _digits_end(body, begin)
    # A leading zero stands alone; a negative one is odd, as it is a float but no integer.
    is_leading = body[begin] == _ZERO and (at > begin + 1 or (negative and body[at] != _DOT))
    if at == begin or is_leading:
        return _ODD
    if is_whole:
        return at
    if body[at] == _DOT:
        begin = at + 1
        at = _digits_end(body, begin)
        if at == begin:
            return _ODD
    if body[at] | 32 == _E:
        begin = at + 1
        begin += body[begin] == _PLUS or body[begin] == _MINUS
        at = _digits_end(body, begin)
        if at == begin:
            return _ODD
    return at


@helper
def _read_cell(body: Any, at: int, kind: int) -> Any:
    """Reads a value of its column's kind.

    Returns:
        Where it begins, without its quote, or `NULL`; where it ends; what comes behind it, or
        `_ODD`.
    """
    if kind == TEXT and body[at] == _QUOTE:
        end = _text_end(body, at + 1)
        return at + 1, end, end + 1 if end >= 0 else _ODD
    if body[at] == _N:
        is_null = body[at + 1] == _U and body[at + 2] == _L and body[at + 3] == _L
        return NULL, NULL, at + 4 if is_null else _ODD
    if kind in (WHOLE, NUMBER):
        end = _number_end(body, at, kind == WHOLE)
        return at, end, end
    return at, at, _ODD


@helper
def _is_name(body: Any, at: int, names: Any, start: int, end: int) -> bool:
    count = end - start
    if at + count >= len(body) or body[at + count] != _QUOTE:
        return False
    return same_bytes(body, at, names, start, count)


@helper
def _read_name(body: Any, at: int, names: Any, bounds: Any, guess: int) -> Any:
    """Reads a key and its colon.

    Returns:
        Which column it names, `_ODD` for none, and where its value begins.
    """
    count = len(bounds) - 1
    if body[at] != _QUOTE:
        return _ODD, at
    column = guess if guess < count else 0
    tried = 0
    while not _is_name(body, at + 1, names, bounds[column], bounds[column + 1]):
        tried += 1
        if tried > count:
            return _ODD, at
        column = column + 1 if column + 1 < count else 0
    at = _blanks(body, at + bounds[column + 1] - bounds[column] + 2)
    if body[at] != _COLON:
        return _ODD, at
    return column, _blanks(body, at + 1)


@helper
def _take_cell(
    body: Any, at: int, kinds: Any, column: int, row: int, starts: Any, ends: Any, found: Any
) -> Any:
    """Reads a value into its cell; returns what comes behind it and blanks, or `_ODD`."""
    starts[column, row], ends[column, row], at = _read_cell(body, at, kinds[column])
    if at < 0:
        return _ODD
    found[1, column] += ends[column, row] == NULL
    return _blanks(body, at)


@kernel(BYTES, types.int64, BYTES, INTS, INTS, _TABLE, _TABLE, _TABLE, returns=types.int64)
def read_objects(
    body: Any, at: int, names: Any, bounds: Any, kinds: Any, starts: Any, ends: Any, found: Any
) -> int:
    """Reads a list of objects that have the same keys.

    Args:
        body: uint8, with a 0 at the end.
        at: where the list begins.
        names: of all columns, one behind the other.
        bounds: (C + 1,) of the names.
        kinds: (C,) `TEXT`, `WHOLE`, `NUMBER`; cells of `OTHER` are odd, unless null.
        starts: (C, N) gets where each cell begins, without quotes; `NULL`.
        ends: (C, N) gets where they end.
        found: (2, C) zeros; gets how many rows and nulls each column has.

    Returns:
        Where the list ends; -1 for anything odd: it is left to who can say what is wrong.
    """
    order = np.arange(len(kinds))
    # What stands before the values of the first row, from { or the comma on: most rows repeat it.
    gaps, sizes = np.zeros_like(order), np.zeros_like(order)
    width = row = 0
    if body[at] != _OPEN_LIST:
        return _ODD
    while True:
        at = _blanks(body, at + 1)
        if body[at] != _OPEN or row == starts.shape[1]:
            return _ODD
        count = 0
        while True:
            if count == len(order):
                return _ODD
            begin, column, size = at, order[count], sizes[count]
            if size and at + size < len(body) and same_bytes(body, at, body, gaps[count], size):
                at += size
            else:
                column, at = _read_name(body, _blanks(body, at + 1), names, bounds, column)
                gaps[count], sizes[count] = begin, at - begin
            # Twice in this row, or not in those before.
            if column < 0 or found[0, column] != row:
                return _ODD
            found[0, column] = row + 1
            order[count] = column
            at = _take_cell(body, at, kinds, column, row, starts, ends, found)
            if at < 0:
                return _ODD
            count += 1
            if body[at] != _COMMA:
                break
        if body[at] != _CLOSE or (row > 0 and count != width):
            return _ODD
        width = count
        row += 1
        at = _blanks(body, at + 1)
        if body[at] != _COMMA:
            return at + 1 if body[at] == _CLOSE_LIST else _ODD


@kernel(BYTES, types.int64, BYTES, INTS, INTS, _TABLE, _TABLE, _TABLE, returns=types.int64)
def read_lists(
    body: Any, at: int, names: Any, bounds: Any, kinds: Any, starts: Any, ends: Any, found: Any
) -> int:
    """Reads an object of lists that have values; else as `read_objects`."""
    guess = 0
    if body[at] != _OPEN:
        return _ODD
    while True:
        column, at = _read_name(body, _blanks(body, at + 1), names, bounds, guess)
        if column < 0 or found[0, column] or body[at] != _OPEN_LIST:
            return _ODD
        row = 0
        while True:
            if row == starts.shape[1]:
                return _ODD
            at = _blanks(body, at + 1)
            at = _take_cell(body, at, kinds, column, row, starts, ends, found)
            if at < 0:
                return _ODD
            row += 1
            if body[at] != _COMMA:
                break
        if body[at] != _CLOSE_LIST:
            return _ODD
        found[0, column] = row
        guess = column + 1
        at = _blanks(body, at + 1)
        if body[at] != _COMMA:
            return at + 1 if body[at] == _CLOSE else _ODD


@kernel(BYTES, INTS, _TABLE, _TABLE, OUT_BYTES, OUT_LENGTHS, returns=types.int64)
def gather_texts(body: Any, columns: Any, starts: Any, ends: Any, out: Any, offsets: Any) -> int:
    """Copies the texts of columns, one column behind the other.

    Args:
        body: as in `read_objects`.
        columns: which ones.
        starts: (C, N) as found, of N rows.
        ends: (C, N) as found.
        out: gets the bytes; as large as the body.
        offsets: (columns * N + 1,) gets where each begins.

    Returns:
        Bytes of the longest one.
    """
    at = cell = longest = 0
    for column in columns:
        for row in range(starts.shape[1]):
            start = starts[column, row]
            count = ends[column, row] - start
            longest = max(longest, count)
            copy_bytes(body, start, count, out, at)
            offsets[cell] = at
            at += count
            cell += 1
    offsets[cell] = at
    return longest


@kernel(BYTES, INTS, _TABLE, _TABLE, OUT_FLOATS, returns=types.boolean)
def parse_numbers(body: Any, columns: Any, starts: Any, ends: Any, values: Any) -> bool:
    """Parses the numbers of columns; 0 for nulls, and not a number for what is left to Python.

    Args:
        body: as in `read_objects`.
        columns: which ones.
        starts: (C, N) as found, of N rows.
        ends: (C, N) as found.
        values: (columns * N,) gets the numbers.

    Returns:
        Whether something is left to Python.
    """
    cell, is_left = 0, False
    for column in columns:
        for row in range(starts.shape[1]):
            start, end = starts[column, row], ends[column, row]
            value, code = 0.0, 0
            if start != NULL:
                negative = body[start] == _MINUS
                value, code = parse_float(body, start + negative, end)
                value = -value if negative else value
            values[cell] = np.nan if code else value
            is_left = is_left or code != 0
            cell += 1
    return is_left
