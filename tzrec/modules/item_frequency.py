"""How often an item comes by, estimated from the stream of batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Odd numbers that mix the bits of an id, one per hash.
_FACTORS = (0x9E3779B97F4A7C15 - (1 << 64), 0xC2B2AE3D27D4EB4F - (1 << 64))


class ItemFrequency(nn.Module):
    """Streaming estimate of the probability that a row's item is a given one.

    Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations"
    (RecSys 2019), algorithm 2: an item's probability is 1 over the mean gap between two of its
    occurrences, a moving mean per entry of a hash array; of several arrays the largest gap is the
    one that other items disturb least. Two things are different. Gaps are counted in rows and not
    in batches, and an item that a batch holds c times counts as c occurrences at equal distances:
    so the estimate depends neither on the batch size nor on the number of ranks, and holds for
    items that occur in every batch. And the first occurrences are weighted equally, so that the
    start does not matter for long.

    All that is known is in buffers: a checkpoint holds it, and a resumed run goes on with it.

    Args:
        num_ids: ids are below it, 0 = unknown.
        num_entries: size of an array. With at most so many ids there is one array and no hash.
        decay: weight of a new gap in the moving mean.
    """

    num_rows: Tensor
    last_row: Tensor
    gap: Tensor
    num_seen: Tensor

    def __init__(self, num_ids: int, *, num_entries: int = 1 << 20, decay: float = 0.01) -> None:
        super().__init__()
        self._hashed = not 0 < num_ids <= num_entries
        self._log_keep = math.log1p(-decay) if decay < 1.0 else -math.inf
        shape = (len(_FACTORS), num_entries) if self._hashed else (1, num_ids)
        self.register_buffer("num_rows", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_row", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("gap", torch.zeros(shape))
        self.register_buffer("num_seen", torch.zeros(shape, dtype=torch.int32))

    def _entries(self, ids: Tensor, array: int) -> Tensor:
        """Returns the entries (R,) of ids in an array."""
        if not self._hashed:
            return ids
        mixed = ids * _FACTORS[array]
        return ((mixed >> 32) ^ mixed) % self.gap.size(1)

    @torch.no_grad()
    def update(self, ids: Tensor) -> None:
        """Adds the items (R,) of a batch; negative ids are unknown ones and only take a row."""
        self.num_rows += ids.numel()
        ids = ids[ids >= 0]
        for array in range(self.gap.size(0)):
            entries, counts = torch.unique(self._entries(ids, array), return_counts=True)
            gap, seen = self.gap[array], self.num_seen[array]
            new = (self.num_rows - self.last_row[array][entries]) / counts
            before = seen[entries]
            weight = torch.maximum(
                counts / (before + counts), -torch.expm1(counts * self._log_keep)
            )
            gap[entries] = torch.lerp(gap[entries], new, weight)
            seen[entries] = (before + counts).clamp(max=1 << 30).int()
            self.last_row[array][entries] = self.num_rows

    def log_probability(self, ids: Tensor) -> Tensor:
        """Returns the log of the estimated probability (R,) of items.

        One that was never seen, or is not known (negative), has that of an item whose first
        occurrence comes next.
        """
        unknown, ids = ids < 0, ids.clamp(min=0)
        gaps = []
        for array in range(self.gap.size(0)):
            entries = self._entries(ids, array)
            unseen = unknown | (self.num_seen[array][entries] == 0)
            gaps.append(torch.where(unseen, self.num_rows.float(), self.gap[array][entries]))
        return -torch.stack(gaps).amax(dim=0).clamp(min=1.0).log()
