"""Compiled loops of the metrics, for rows in NumPy arrays on a CPU.

Import this module inside the function that runs a kernel: it loads numba.
"""

from typing import Any

import numpy as np

from tzrec.ops.cpu.jit import kernel


@kernel
def count_bins(scores: Any, labels: Any, edges: Any, counts: Any) -> None:
    """Adds rows to ``counts`` by class and by the last edge that the score reaches.

    Without branches: for random scores a processor would guess half of them wrong.

    Args:
        scores: (B,) float32; one that reaches no edge, and NaN, counts at the first.
        labels: (B,) of any type, positive above 0.5.
        edges: (T + 1,) float32: T from 0 to 1 in even steps, and infinity.
        counts: (2, T) int64.
    """
    last = edges.size - 2
    flat = counts.reshape(-1)
    for i in range(scores.size):
        score = min(np.float32(1), max(np.float32(0), scores[i]))
        # The product is at most one off.
        bin_ = np.int64(score * np.float32(last))
        bin_ += np.int64(score >= edges[bin_ + 1]) - np.int64(score < edges[bin_])
        flat[np.int64(labels[i] > 0.5) * (last + 1) + bin_] += 1


@kernel
def _mixed(key: Any) -> Any:
    """Returns a 64-bit hash of an int64 (the last steps of splitmix64)."""
    bits = np.uint64(key)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@kernel
def sort_into_parts(rows: Any, skip: Any, bits: Any) -> Any:
    """Sorts rows by ``bits`` bits of the hash of their key, so that no group is split.

    Args:
        rows: (N,) of `tzrec.metrics.row_store.ROW`.
        skip: leading bits of the hash that are passed over.
        bits: the parts are 2^bits.

    Returns:
        The rows in a new array, and the (2^bits + 1,) int64 bounds of the parts.
    """
    parts = np.empty(rows.size, np.int32)
    bounds = np.zeros((1 << bits) + 1, np.int64)
    for i in range(rows.size):
        # Shifting by 64 is undefined.
        part = (_mixed(rows[i].key) << np.uint64(skip)) >> np.uint64(32) >> np.uint64(32 - bits)
        parts[i] = part
        bounds[parts[i] + 1] += 1
    bounds = np.cumsum(bounds)
    result = np.empty_like(rows)
    ends = bounds[:-1].copy()
    for i in range(rows.size):
        result[ends[parts[i]]] = rows[i]
        ends[parts[i]] += 1
    return result, bounds


@kernel
def _groups(rows: Any) -> Any:
    """Returns the (N,) rows ordered by group, rows of a group as they came, and (G + 1,) bounds."""
    capacity = 4
    while capacity < 2 * rows.size:
        capacity *= 2
    group_of_slot = np.full(capacity, -1, np.int32)
    keys = np.empty(rows.size, np.int64)
    groups = np.empty(rows.size, np.int32)
    num_groups = 0
    for i in range(rows.size):
        key = rows[i].key
        slot = np.int64(_mixed(key) & np.uint64(capacity - 1))
        while group_of_slot[slot] >= 0 and keys[group_of_slot[slot]] != key:
            slot = (slot + 1) & (capacity - 1)
        if group_of_slot[slot] < 0:
            group_of_slot[slot] = num_groups
            keys[num_groups] = key
            num_groups += 1
        groups[i] = group_of_slot[slot]
    bounds = np.zeros(num_groups + 1, np.int64)
    for i in range(rows.size):
        bounds[groups[i] + 1] += 1
    bounds = np.cumsum(bounds)
    ends = bounds[:-1].copy()
    order = np.empty(rows.size, np.int64)
    for i in range(rows.size):
        order[ends[groups[i]]] = i
        ends[groups[i]] += 1
    return order, bounds


@kernel
def auc_totals(rows: Any, bits: Any) -> Any:
    """Sums the AUCs of the groups that have rows of both classes.

    Args:
        rows: (N,) of `tzrec.metrics.row_store.ROW`; all rows of each of their groups.
        bits: (N,) uint32 of the scores, from `ordered_bits`.

    Returns:
        (3,) float64: sum of the AUCs, their number, sum of their squares.
    """
    order, bounds = _groups(rows)
    packed = np.empty(rows.size, np.uint64)
    for i in range(rows.size):
        row = order[i]
        label = np.uint64(1) if rows[row].target > 0.5 else np.uint64(0)
        packed[i] = (np.uint64(bits[row]) << np.uint64(1)) | label
    totals = np.zeros(3)
    for group in range(bounds.size - 1):
        auc = _auc(packed[bounds[group] : bounds[group + 1]])
        if auc >= 0.0:
            totals += np.array([auc, 1.0, auc * auc])
    return totals


@kernel
def _auc(packed: Any) -> Any:
    """Returns the AUC of (N,) ``2 * score + positive`` as integers, -1 where a class is missing.

    Each positive row beats the negative rows with smaller scores, and by half those that tie.
    """
    packed.sort()
    num_rows, beaten, positives, start = packed.size, 0.0, 0, 0
    while start < num_rows:
        end, tied = start, 0
        while end < num_rows and packed[end] >> np.uint64(1) == packed[start] >> np.uint64(1):
            tied += packed[end] & np.uint64(1)
            end += 1
        beaten += tied * (start - positives + 0.5 * (end - start - tied))
        positives += tied
        start = end
    pairs = float(positives) * (num_rows - positives)
    return beaten / pairs if pairs > 0 else -1.0


@kernel
def _same_order(rows: Any, first: Any, second: Any) -> Any:
    a, b = rows[first], rows[second]
    return (a.score > b.score and a.target > b.target) or (
        a.score < b.score and a.target < b.target
    )


@kernel
def xauc_totals(rows: Any, max_pairs: Any, seed: Any) -> Any:
    """Sums the XAUCs of the groups that have two or more rows, weighted by their rows.

    Args:
        rows: (N,) of `tzrec.metrics.row_store.ROW`; all rows of each of their groups.
        max_pairs: groups with more pairs are sampled that often.
        seed: of the sample, which also depends on the key of the group.

    Returns:
        (3,) float64: weighted sum, number of rows in such groups, weighted sum of squares.
    """
    order, bounds = _groups(rows)
    totals = np.zeros(3)
    for group in range(bounds.size - 1):
        members = order[bounds[group] : bounds[group + 1]]
        size = members.size
        if size < 2:
            continue
        pairs, right = size * (size - 1) // 2, 0
        if pairs <= max_pairs:
            for i in range(1, size):
                for j in range(i):
                    right += _same_order(rows, members[i], members[j])
        else:
            state = _mixed(rows[members[0]].key) + np.uint64(seed)
            pairs = max_pairs
            for _ in range(pairs):
                i, state = _drawn(state, size)
                j, state = _drawn(state, size - 1)
                right += _same_order(rows, members[i], members[j if j < i else j + 1])
        share = right / pairs
        totals += np.array([share * size, float(size), share * share * size])
    return totals


@kernel
def _drawn(state: Any, bound: Any) -> Any:
    """Returns a number below ``bound`` (< 2^32) and the next state of the generator."""
    state += np.uint64(0x9E3779B97F4A7C15)
    high = _mixed(state) >> np.uint64(32)
    return np.int64((high * np.uint64(bound)) >> np.uint64(32)), state


@kernel
def count_rising(values: Any) -> Any:
    """Counts the pairs of (N,) ``values`` of which the later one is larger; sorts them.

    Merging two sorted halves counts for each value of the right one the smaller ones left.
    """
    source, target = values, np.empty_like(values)
    count, width, size = np.int64(0), 1, values.size
    while width < size:
        for start in range(0, size, 2 * width):
            middle, end = min(start + width, size), min(start + 2 * width, size)
            left, right, k = np.int64(start), np.int64(middle), start
            # Without branches: a processor would guess half of them wrong.
            while left < middle and right < end:
                a, b = source[left], source[right]
                rises = np.int64(a < b)
                target[k] = a if rises else b
                count += (1 - rises) * (left - start)
                left += rises
                right += 1 - rises
                k += 1
            count += (end - right) * (middle - start)
            target[k : k + middle - left] = source[left:middle]
            target[k + middle - left : end] = source[right:end]
        source, target = target, source
        width *= 2
    return count


@kernel
def ordered_bits(values: Any) -> Any:
    """Returns (N,) uint32 that are ordered like the (N,) float32 ``values``; 0 and -0 are equal."""
    bits = (values + np.float32(0.0)).view(np.uint32)
    for i in range(bits.size):
        flip = np.uint32(0xFFFFFFFF) if bits[i] >> np.uint32(31) else np.uint32(0x80000000)
        bits[i] ^= flip
    return bits
