"""How often generated features are missing or unknown, counted while training reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tzrec.fg.ragged import Counts

# Parse key of the counts of a batch: (features, 5) int64, see `counts_tensor`.
FEATURE_COUNTS = "__FEATURE_COUNTS__"
_FIELDS = ("rows", "missing", "cells", "values", "unknown")


def counts_tensor(counts: Iterable[Counts]) -> Tensor:
    """Returns the counts of features as (features, 5), so that they travel with a batch."""
    return torch.tensor([[getattr(one, name) for name in _FIELDS] for one in counts])


@dataclasses.dataclass(frozen=True)
class FeatureCount:
    """Sums of one feature.

    Attributes:
        name: the feature.
        missing: share of rows without a value, before defaults.
        unknown: share of values without an id of their own (out of vocabulary).
    """

    name: str
    missing: float
    unknown: float


class FeatureCounts:
    """Sums of the counts of batches.

    Args:
        names: the features that are counted, in the order of the tensors.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._sums = torch.zeros(len(self._names), len(_FIELDS), dtype=torch.int64)

    def add(self, counts: Tensor) -> None:
        """Adds a batch."""
        self._sums += counts

    def shares(self) -> list[FeatureCount]:
        """Returns the shares of each feature, [] before the first batch."""
        if not self._sums.any():
            return []
        rows, missing, _, values, unknown = self._sums.double().unbind(1)
        return [
            FeatureCount(name, float(m / r.clamp(min=1)), float(u / v.clamp(min=1)))
            for name, r, m, v, u in zip(self._names, rows, missing, values, unknown, strict=True)
        ]

    def lines(self, most: int = 10) -> list[str]:
        """Returns a line per feature that is ever missing or unknown, the worst first."""
        found = [one for one in self.shares() if one.missing or one.unknown]
        found.sort(key=lambda one: -max(one.missing, one.unknown))
        lines = [
            f"{one.name}: {100 * one.missing:.1f}% missing, {100 * one.unknown:.1f}% unknown"
            for one in found[:most]
        ]
        more = len(found) - most
        return [*lines, f"and {more} more (tzrec fg CONFIG --stats DATA)"] if more > 0 else lines
