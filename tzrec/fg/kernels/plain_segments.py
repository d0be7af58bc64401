"""Work on the values of cells in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.combiners import COMBINERS, COUNT, GAP_MIN, MEAN, MIN, SUM
from tzrec.fg.kernels.plain_text import Ints, Lengths, ranges

Floats = NDArray[np.float64]

_LONG = 64  # values of a cell that is combined on its own


def fill_empty_ids(
    values: Ints, lengths: Lengths, default: Ints
) -> tuple[NDArray[np.int64], Lengths]:
    """Gives every empty cell the values of ``default``; without one the inputs come back."""
    return fill_empty_numbers(values, lengths, default)


def fill_empty_numbers(
    values: NDArray[Any], lengths: Lengths, default: NDArray[Any]
) -> tuple[NDArray[Any], Lengths]:
    """Gives every empty cell the values of ``default``; see `fill_empty_ids`.

    Args:
        values: (n, …) flat values.
        lengths: values per cell.
        default: (d, …) values of an empty cell.

    Returns:
        The new values and lengths.
    """
    empty = lengths == 0
    num_empty = int(np.count_nonzero(empty))
    if not num_empty:
        return values, lengths
    new_lengths = np.where(empty, np.int32(len(default)), lengths).astype(np.int32)
    shape = (len(values) + num_empty * len(default), *values.shape[1:])
    filled = np.empty(shape, dtype=values.dtype)
    is_default = np.repeat(empty, new_lengths)
    filled[is_default] = np.tile(default, (num_empty, *[1] * (values.ndim - 1)))
    filled[~is_default] = values
    return filled, new_lengths


def take_first(lengths: Lengths, k: int) -> tuple[NDArray[np.int64], Lengths]:
    """Returns the positions of the first ``k`` values of each cell, and their number."""
    taken = np.minimum(lengths, k).astype(np.int32)
    return ranges(np.cumsum(lengths, dtype=np.int64) - lengths, taken), taken


def check_combiner(how: int) -> None:
    """Raises ValueError unless ``how`` is the number of a combiner."""
    if how not in COMBINERS.values():
        raise ValueError(f"combiner {how} is not one of 0 to {max(COMBINERS.values())}")


def combine(values: Floats, lengths: Lengths, how: int) -> Floats:
    """Combines the values of each cell; an empty cell gives NaN.

    Args:
        values: flat values.
        lengths: values per cell.
        how: as in `tzrec.fg.combiners`. Sums run from the first value to the last; NaN makes
            all but the count NaN. A gap is the absolute difference of neighbouring values, 0
            where there is one value only.

    Returns:
        One number per cell.
    """
    check_combiner(how)
    first = np.cumsum(lengths, dtype=np.int64) - lengths
    counts = lengths.astype(np.int64)
    with np.errstate(invalid="ignore", over="ignore"):
        if how == COUNT:
            out = counts.astype(np.float64)
        elif how >= GAP_MIN:
            gaps = np.abs(values[1:] - values[:-1])
            out = _reduce(gaps, first, np.maximum(counts - 1, 0), how - GAP_MIN + MIN)
            out[counts == 1] = 0.0
        else:
            out = _reduce(values, first, counts, how)
            if how == MEAN:
                out /= np.maximum(counts, 1)
    out[counts == 0] = np.nan
    return out


def _reduce(values: Floats, first: Ints, counts: Ints, how: int) -> Floats:
    """Combines from the first value of a cell to the last, as a loop does: one bit counts."""
    out = np.full(len(counts), np.nan)
    filled = counts > 0
    out[filled] = values[first[filled]]
    active = np.flatnonzero((counts > 1) & (counts <= _LONG))
    step = 1
    while len(active):
        total, value = out[active], values[first[active] + step]
        if how in (SUM, MEAN):
            out[active] = total + value
        else:
            better = value < total if how == MIN else value > total
            out[active] = np.where(better | np.isnan(value), value, total)
        step += 1
        active = active[counts[active] > step]
    for cell in np.flatnonzero(counts > _LONG).tolist():
        part = values[first[cell] : first[cell] + counts[cell]]
        if how in (SUM, MEAN):
            out[cell] = np.add.accumulate(part)[-1]
        else:
            out[cell] = part[np.argmin(part) if how == MIN else np.argmax(part)]
    return out


def bucket_boundaries(
    values: NDArray[np.float32], boundaries: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Returns for each value how many boundaries are not above it; for NaN all of them."""
    return np.searchsorted(boundaries, values, side="right").astype(np.int64, copy=False)


def bucket_number(
    values: NDArray[np.int64], status: NDArray[np.uint8], buckets: int
) -> NDArray[np.int64]:
    """Returns the values that were read (status 0) and lie in the buckets, 0 for the others."""
    return np.where((status == 0) & (values >= 0) & (values < buckets), values, 0)
