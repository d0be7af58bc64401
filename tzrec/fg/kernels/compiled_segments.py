"""Compiled work on the values of cells."""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tzrec.fg.combiners import COUNT, GAP_MIN, MAX, MEAN, MIN
from tzrec.fg.kernels.compiled_base import (
    FLOATS,
    LENGTHS,
    OUT_FLOATS,
    OUT_INTS,
    OUT_LENGTHS,
    OUT_UNITS,
    UNITS,
    kernel,
)
from tzrec.fg.kernels.plain_segments import check_combiner

_UNIT = 4  # bytes: values of 4 and of 8 bytes are copied by the same code


@kernel(UNITS, LENGTHS, UNITS, types.int64, types.int32, OUT_UNITS, OUT_LENGTHS)
def _fill(
    values: Any, lengths: Any, default: Any, width: int, added: int, out: Any, out_lengths: Any
) -> None:
    at, place = 0, 0
    for cell in range(len(lengths)):
        if lengths[cell] == 0:
            out_lengths[cell] = added
            for i in range(len(default)):
                out[place + i] = default[i]
            place += len(default)
        else:
            out_lengths[cell] = lengths[cell]
            count = width * lengths[cell]
            for i in range(count):
                out[place + i] = values[at + i]
            at += count
            place += count


@kernel(LENGTHS, types.int64, OUT_INTS, OUT_LENGTHS, returns=types.int64)
def _take_first(lengths: Any, most: int, positions: Any, out_lengths: Any) -> Any:
    first, count = 0, 0
    for cell in range(len(lengths)):
        taken = min(most, int(lengths[cell]))
        for i in range(taken):
            positions[count + i] = first + i
        count += taken
        out_lengths[cell] = taken
        first += lengths[cell]
    return count


@kernel(FLOATS, LENGTHS, types.int64, OUT_FLOATS)
def _combine(values: Any, lengths: Any, how: int, out: Any) -> None:
    first = 0
    for cell in range(len(lengths)):
        last = first + lengths[cell]
        total = math.nan if first == last else values[first]
        if how <= MEAN:
            for i in range(first + 1, last):
                total += values[i]
            if how == MEAN:
                total /= max(1, last - first)
        elif how == COUNT:
            total = math.nan if first == last else float(last - first)
        elif how <= MAX:
            for i in range(first + 1, last):
                better = values[i] < total if how == MIN else values[i] > total
                total = values[i] if better or math.isnan(values[i]) else total
        elif first < last:
            total = 0.0 if last - first == 1 else abs(values[first + 1] - values[first])
            for i in range(first + 2, last):
                gap = abs(values[i] - values[i - 1])
                better = gap < total if how == GAP_MIN else gap > total
                total = gap if better or math.isnan(gap) else total
        out[cell] = total
        first = last


def fill_empty_ids(
    values: NDArray[np.int64], lengths: NDArray[np.int32], default: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Gives every empty cell the values of ``default``; without one the inputs come back."""
    return fill_empty_numbers(values, lengths, default)


def fill_empty_numbers(
    values: NDArray[Any], lengths: NDArray[np.int32], default: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Gives every empty cell the values of ``default``; see `fill_empty_ids`."""
    num_empty = len(lengths) - int(np.count_nonzero(lengths))
    if not num_empty:
        return values, lengths
    shape = (len(values) + num_empty * len(default), *values.shape[1:])
    out = np.empty(shape, dtype=values.dtype)
    width = values.dtype.itemsize // _UNIT * math.prod(values.shape[1:])
    out_lengths = np.empty_like(lengths)
    source = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
    filling = np.ascontiguousarray(default, dtype=values.dtype).reshape(-1).view(np.uint32)
    target = out.reshape(-1).view(np.uint32)
    _fill(source, lengths, filling, width, len(default), target, out_lengths)
    return out, out_lengths


def take_first(lengths: NDArray[np.int32], k: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Returns the positions of the first ``k`` values of each cell, and their number."""
    positions = np.empty(int(lengths.sum(dtype=np.int64)), dtype=np.int64)
    out_lengths = np.empty_like(lengths)
    count = _take_first(lengths, k, positions, out_lengths)
    return positions[:count], out_lengths


def combine(
    values: NDArray[np.float64], lengths: NDArray[np.int32], how: int
) -> NDArray[np.float64]:
    """Combines the values of each cell; see `tzrec.fg.kernels.plain_segments.combine`."""
    check_combiner(how)
    out = np.empty(len(lengths), dtype=np.float64)
    _combine(values, lengths, how, out)
    return out
