"""`SeenIds`: the ids that came since the map of a hash table last changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from tzrec.config.threshold_text import Threshold

# Ids that are kept as they came before they are counted, and of counted steps before they are
# put together.
_ROOM = 1 << 20


@dataclasses.dataclass(frozen=True)
class Counted:
    """Ids, each once.

    Attributes:
        ids: (n,) int64, ascending.
        counts: (n,) int64, how often each came.
        last_steps: (n,) int64, the step at which each came last.
    """

    ids: Tensor
    counts: Tensor
    last_steps: Tensor

    @classmethod
    def none(cls, device: torch.device | None = None) -> Counted:
        """Returns no ids."""
        return cls(*(torch.empty(0, dtype=torch.int64, device=device) for _ in range(3)))

    @classmethod
    def merge(cls, parts: Iterable[Counted]) -> Counted:
        """Returns the ids of all parts: counts are added, the latest step stays."""
        found = list(parts)
        if len(found) == 1:
            return found[0]
        if not found:
            return cls.none()
        ids, places = torch.unique(torch.cat([part.ids for part in found]), return_inverse=True)
        counts, last_steps = torch.zeros_like(ids), torch.zeros_like(ids)
        counts.index_add_(0, places, torch.cat([part.counts for part in found]))
        steps = torch.cat([part.last_steps for part in found])
        last_steps.scatter_reduce_(0, places, steps, "amax", include_self=True)
        return cls(ids, counts, last_steps)

    def select(self, chosen: Tensor | slice) -> Counted:
        """Returns the ids that a mask or an index chooses, in its order."""
        return Counted(self.ids[chosen], self.counts[chosen], self.last_steps[chosen])

    def to(self, device: torch.device) -> Counted:
        """Returns the same on another device."""
        return Counted(self.ids.to(device), self.counts.to(device), self.last_steps.to(device))


class SeenIds:
    """Collects the ids of training steps."""

    def __init__(self) -> None:
        self._parts: list[Counted] = []
        self._raw: list[Tensor] = []
        self._step = 0
        self._num_raw = 0

    def add(self, ids: Tensor, step: int) -> None:
        """Adds the ids (n,) of a step; steps ascend."""
        if step != self._step or self._num_raw > _ROOM:
            self._count()
        self._step = step
        self._raw.append(ids.detach().to(torch.int64))
        self._num_raw += ids.numel()

    def counted(self) -> Counted:
        """Returns everything that was added."""
        self._count()
        self._parts = [Counted.merge(self._parts)] if self._parts else []
        return self._parts[0] if self._parts else Counted.none()

    def replace(self, counted: Counted | None = None) -> None:
        """Forgets everything, and takes ``counted`` instead."""
        self._parts = [] if counted is None else [counted]
        self._raw, self._num_raw = [], 0

    def _count(self) -> None:
        if self._raw:
            ids, counts = torch.unique(torch.cat(self._raw), return_counts=True)
            self._parts.append(Counted(ids, counts, torch.full_like(ids, self._step)))
            # Memory follows the number of different ids, however long the interval is.
            sizes = [part.ids.numel() for part in self._parts]
            if sum(sizes[1:]) > max(_ROOM, sizes[0]):
                self._parts = [Counted.merge(self._parts)]
        self._raw, self._num_raw = [], 0


def passing(threshold: Threshold, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Returns (n,) bool: which ids a filter lets through.

    Args:
        threshold: the filter. With n ids of which id i came cᵢ times: ``dynamic`` lets i through
            if ``cᵢ > value · Σc / n``, ``average`` if ``cᵢ > Σc / n``, ``probabilistic`` with the
            probability ``1 - (1 - value)^cᵢ``; comparisons compare cᵢ.
        counts: (n,) int64.
        generator: of the probabilities, on the CPU.
    """
    if threshold.rule == ">":
        return counts > threshold.value
    if threshold.rule == ">=":
        return counts >= threshold.value
    if threshold.rule == "probabilistic_threshold_filter":
        draws = torch.rand(counts.numel(), generator=generator, dtype=torch.float64)
        chance = 1 - torch.pow(1 - threshold.value, counts.to(torch.float64))
        return draws.to(counts.device) < chance
    skew = threshold.value if threshold.rule == "dynamic_threshold_filter" else 1.0
    mean = counts.sum().to(torch.float64) / max(counts.numel(), 1)
    return counts > skew * mean
