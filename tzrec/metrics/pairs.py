"""Pairs of rows that two orders agree on."""

from __future__ import annotations

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
    scores. They are counted while merging sorted blocks, in O(N log^2 N) time.

    Args:
        preds: (N,).
        target: (N,).

    Returns:
        int64 scalar.
    """
    order = torch.argsort(preds, descending=True)
    order = order[torch.argsort(target[order], stable=True)]
    # Ranks from 1; the padding in front is 0 for all, so it rises to every row and is taken off.
    _, rank = torch.unique(preds, return_inverse=True)
    num_rows = preds.numel()
    size = 1 << max(num_rows - 1, 0).bit_length()
    values = torch.nn.functional.pad(rank[order] + 1, (size - num_rows, 0))
    count = -values.new_tensor((size - num_rows) * num_rows)
    width = 1
    while width < size:
        blocks = values.view(-1, 2, width)
        left, right = blocks[:, 0].contiguous(), blocks[:, 1].contiguous()
        count += torch.searchsorted(left, right).sum()
        values = values.view(-1, 2 * width).sort(dim=1).values.view(-1)
        width *= 2
    return count


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
