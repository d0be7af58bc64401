"""Sets of row numbers as sorted, disjoint intervals ``[start, stop)``: int64 arrays (n, 2)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Intervals = NDArray[np.int64]

EMPTY: Intervals = np.zeros((0, 2), dtype=np.int64)


def from_rows(rows: NDArray[np.int64]) -> Intervals:
    """Returns the intervals that hold exactly ``rows`` (any order, no duplicates)."""
    if rows.size == 0:
        return EMPTY
    rows = np.sort(rows)
    breaks = np.flatnonzero(np.diff(rows) != 1)
    starts = rows[np.concatenate(([0], breaks + 1))]
    stops = rows[np.concatenate((breaks, [rows.size - 1]))] + 1
    return np.stack([starts, stops], axis=1)


def to_rows(intervals: Intervals) -> NDArray[np.int64]:
    """Returns the row numbers in ``intervals``, in their order."""
    lengths = intervals[:, 1] - intervals[:, 0]
    first = np.repeat(intervals[:, 0] - (np.cumsum(lengths) - lengths), lengths)
    return first + np.arange(int(lengths.sum()))


def union(parts: Iterable[Intervals]) -> Intervals:
    """Returns the union of intervals that may overlap and come in any order."""
    arrays = [part for part in parts if len(part)]
    if not arrays:
        return EMPTY
    every = np.concatenate(arrays).astype(np.int64, copy=False)
    every = every[every[:, 1] > every[:, 0]]
    if not len(every):
        return EMPTY
    every = every[np.argsort(every[:, 0], kind="stable")]
    reach = np.maximum.accumulate(every[:, 1])
    first = np.concatenate(([True], every[1:, 0] > reach[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.stack([every[first, 0], reach[last]], axis=1)


def complement(taken: Intervals, num_rows: int) -> Intervals:
    """Returns the rows of ``[0, num_rows)`` that are not in ``taken`` (a `union`)."""
    starts = np.concatenate(([0], taken[:, 1]))
    stops = np.concatenate((taken[:, 0], [num_rows]))
    stops = np.minimum(stops, num_rows)
    keep = stops > starts
    return np.stack([starts[keep], stops[keep]], axis=1)


def clip(intervals: Intervals, start: int, stop: int) -> Intervals:
    """Returns the part of ``intervals`` that lies in ``[start, stop)``."""
    clipped = np.clip(intervals, start, stop)
    return clipped[clipped[:, 1] > clipped[:, 0]]


def count(intervals: Intervals) -> int:
    """Returns the number of rows."""
    return int((intervals[:, 1] - intervals[:, 0]).sum())
