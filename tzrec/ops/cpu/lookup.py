"""Kernels of the lookup: rows of a table into the output, and the way back.

Arrays: table (R, D) float32 or uint16 (half floats); ids (n,) int64; offsets (B + 1,) int64,
absolute positions in ids; weights (n,) float32 or empty; everything C-contiguous.
On the way back each distinct row of the batch gets a slot, and its gradients are summed there
in the order of the batch: the same input gives the same bits.
"""

from typing import Any

import numpy as np

from tzrec.ops.cpu.jit import kernel, load, prefetch

# How many rows ahead memory is asked for: lookups are bound by cache misses.
_AHEAD = 16


@kernel
def pool_rows(
    table: Any, ids: Any, offsets: Any, weights: Any, mean: Any, out: Any, column: Any
) -> Any:
    """Writes the pooled rows of each bag to ``out[:, column : column + D]``.

    Returns:
        Position in ids of the first id that is not a row of the table, or -1.
    """
    rows, dim = table.shape
    weighted = weights.shape[0] > 0
    end = offsets[-1]
    for bag in range(offsets.shape[0] - 1):
        first, last = offsets[bag], offsets[bag + 1]
        # A view: indices that might be negative would stop vectorisation.
        target = out[bag, column : column + dim]
        if last - first != 1:
            for j in range(dim):
                target[j] = np.float32(0)
        for i in range(first, last):
            if i + _AHEAD < end:
                prefetch(table, ids[i + _AHEAD] * dim)
            row = ids[i]
            if row < 0 or row >= rows:
                return i
            factor = _factor(weights, weighted, i, mean, last - first)
            if last - first == 1:
                for j in range(dim):
                    target[j] = factor * load(table, row, j)
            else:
                for j in range(dim):
                    target[j] += factor * load(table, row, j)
    return -1


@kernel
def gather_rows(table: Any, ids: Any, out: Any) -> Any:
    """Copies ``table[ids]`` to ``out`` (n, D); returns as `pool_rows`."""
    rows, dim = table.shape
    for i in range(ids.shape[0]):
        if i + _AHEAD < ids.shape[0]:
            prefetch(table, ids[i + _AHEAD] * dim)
        row = ids[i]
        if row < 0 or row >= rows:
            return i
        for j in range(dim):
            out[i, j] = load(table, row, j)
    return -1


@kernel
def sum_bag_gradients(
    gradient: Any,
    column: Any,
    ids: Any,
    offsets: Any,
    weights: Any,
    mean: Any,
    slots: Any,
    base: Any,
    rows: Any,
    sums: Any,
    count: Any,
) -> Any:
    """Adds the gradient of each bag to the sums of its rows.

    gradient is (B, sum of dims), the feature starts at column; slots is (R,) int32, and
    ``slots[row] - base`` is the row's slot unless it is negative (base grows from step to step,
    so that slots need no clearing); rows is (capacity,) int64, the row of each slot; sums is
    (capacity, D) float32, its gradient; count slots are in use.

    Returns:
        Number of slots in use.
    """
    dim = sums.shape[1]
    weighted = weights.shape[0] > 0
    end = offsets[-1]
    for bag in range(offsets.shape[0] - 1):
        first, last = offsets[bag], offsets[bag + 1]
        source = gradient[bag, column : column + dim]
        for i in range(first, last):
            if i + _AHEAD < end:
                prefetch(slots, ids[i + _AHEAD])
            factor = _factor(weights, weighted, i, mean, last - first)
            row = ids[i]
            slot = slots[row] - base
            if slot < 0:
                slot = count
                count += 1
                slots[row] = base + slot
                rows[slot] = row
                for j in range(dim):
                    sums[slot, j] = factor * source[j]
            else:
                for j in range(dim):
                    sums[slot, j] += factor * source[j]
    return count


@kernel
def sum_row_gradients(
    gradient: Any, ids: Any, slots: Any, base: Any, rows: Any, sums: Any, count: Any
) -> Any:
    """Adds ``gradient`` (n, D) to the sums of the rows ``ids``; as `sum_bag_gradients`."""
    dim = sums.shape[1]
    for i in range(ids.shape[0]):
        if i + _AHEAD < ids.shape[0]:
            prefetch(slots, ids[i + _AHEAD])
        row = ids[i]
        slot = slots[row] - base
        if slot < 0:
            slot = count
            count += 1
            slots[row] = base + slot
            rows[slot] = row
            for j in range(dim):
                sums[slot, j] = gradient[i, j]
        else:
            for j in range(dim):
                sums[slot, j] += gradient[i, j]
    return count


@kernel
def _factor(weights: Any, weighted: Any, i: Any, mean: Any, length: Any) -> Any:
    factor = weights[i] if weighted else np.float32(1)
    return factor / np.float32(length) if mean else factor
