"""How many different ids there are, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EXACT = 1 << 20
_SLOTS = 1 << 16
_LEVELS = 6
_FULL = 0.9


class DistinctCount:
    """Counts different ids of one table.

    Small tables are counted exactly. For large ones this is linear counting (Whang et al. 1990)
    on six levels, each of which sees one in 16 ids of the level before: ids set slots of a
    bitmap at their hash, and the share of free slots tells how many there are. The error is
    about 1 %.

    Args:
        rows: ids are below it.
    """

    def __init__(self, rows: int) -> None:
        self._exact = rows <= _EXACT
        shape = rows if self._exact else (_LEVELS, _SLOTS)
        self._seen: NDArray[np.bool_] = np.zeros(shape, dtype=bool)

    def add(self, ids: NDArray[np.int64]) -> None:
        """Counts ids."""
        if self._exact:
            self._seen[ids] = True
            return
        hashes = _mix(ids)
        for level in self._seen:
            level[hashes >> np.uint64(48)] = True
            hashes = hashes[hashes & np.uint64(15) == 0]
            hashes = _mix(hashes)
            if not len(hashes):
                return

    def merge(self, other: DistinctCount) -> None:
        """Adds what another count of the same table has seen."""
        self._seen |= other._seen

    @property
    def estimate(self) -> float:
        """Number of different ids."""
        if self._exact:
            return float(np.count_nonzero(self._seen))
        used = np.count_nonzero(self._seen, axis=1) / _SLOTS
        fitting = np.flatnonzero(used <= _FULL)
        level = int(fitting[0]) if len(fitting) else _LEVELS - 1
        free = max(1.0 - float(used[level]), 1.0 / _SLOTS)
        return float(-_SLOTS * np.log(free) * 16.0**level)


def _mix(ids: NDArray[np.int64] | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns well mixed bits of ids (the finaliser of SplitMix64)."""
    bits = ids.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
