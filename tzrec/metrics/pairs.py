"""Pairs of rows that two orders agree on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Pairs that are drawn and compared at once, and the seed of the draw.
CHUNK = 1 << 22
SEED = 20220612


def same_order(preds: Tensor, target: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Tells for pairs of rows whether the scores are ordered like the targets; ties are not.

    Args:
        preds: (N,).
        target: (N,).
        first: (M,) row of each pair.
        second: (M,) the other row.

    Returns:
        (M,) bool.
    """
    p, q, s, t = preds[first], preds[second], target[first], target[second]
    return ((p > q) & (s > t)) | ((p < q) & (s < t))


def count_same_order(preds: Tensor, target: Tensor) -> Tensor:
    """Counts the pairs of rows whose scores are ordered like their targets; ties are not.

    Sorted by target (within a target by falling score), these are the pairs of rows with rising
    scores. They are counted on the CPU while merging sorted blocks, in O(N log N) time and about
    20 bytes per row.

    Args:
        preds: (N,), compared as float32.
        target: (N,), compared as float32.

    Returns:
        int64 scalar.
    """
    from tzrec.metrics.kernels import count_rising, ordered_bits

    scores, targets = (ordered_bits(column.float().cpu().numpy()) for column in (preds, target))
    packed = targets.astype(np.uint64) << np.uint64(32) | (~scores).astype(np.uint64)
    packed.sort()
    return torch.tensor(count_rising(~packed.astype(np.uint32)), device=preds.device)


def pair_of_index(index: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the pair ``(i, j)`` with ``j < i`` and ``i(i - 1)/2 + j = index``; exact to 2^61.

    Args:
        index: (M,) int64.
    """
    i = ((1.0 + torch.sqrt(8.0 * index.double() + 1.0)) / 2.0).long()
    # The square root is at most one off.
    i = torch.where(i * (i - 1) // 2 > index, i - 1, i)
    i = torch.where((i + 1) * i // 2 <= index, i + 1, i)
    return i, index - i * (i - 1) // 2
