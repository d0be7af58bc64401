"""`DataPosition`: which rows of a pass were delivered, whatever the number of ranks.

The only code that encodes or decodes the position that a checkpoint keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tzrec.datasets import intervals
from tzrec.datasets.intervals import Intervals
from tzrec.errors import CheckpointError

_PENDING_LIMIT = 128
_VERSION = 1


class DataPosition:
    """Consumed row intervals per source file, and the number of batches delivered.

    Rows are counted from 0 within their file, so a position can be continued with another
    number of ranks, workers or another batch size.

    Attributes:
        num_batches: batches that each rank took in this pass.
    """

    def __init__(self) -> None:
        self.num_batches = 0
        self._consumed: dict[str, Intervals] = {}
        self._pending: list[Mapping[str, Sequence[tuple[int, int]]]] = []

    def add(self, checkpoint_info: Mapping[str, Sequence[tuple[int, int]]] | None) -> None:
        """Counts a batch; ``checkpoint_info`` is the batch's (source → intervals)."""
        self.num_batches += 1
        if checkpoint_info:
            self._pending.append(checkpoint_info)
        if len(self._pending) >= _PENDING_LIMIT:
            self._settle()

    def merge(self, other: DataPosition) -> None:
        """Adds the rows that another rank consumed in the same pass."""
        other._settle()
        self._pending.append(other._consumed)  # type: ignore[arg-type]
        self._settle()
        self.num_batches = max(self.num_batches, other.num_batches)

    @property
    def sources(self) -> list[str]:
        """Files of which rows were consumed."""
        self._settle()
        return sorted(self._consumed)

    @property
    def num_rows(self) -> int:
        """Rows consumed in all files."""
        self._settle()
        return sum(intervals.count(rows) for rows in self._consumed.values())

    def consumed(self, source: str) -> Intervals:
        """Returns the consumed rows of a file, sorted intervals (n, 2)."""
        self._settle()
        return self._consumed.get(source, intervals.EMPTY)

    def remaining(self, source: str, num_rows: int) -> Intervals:
        """Returns the rows of a file with ``num_rows`` rows that were not consumed."""
        return intervals.complement(self.consumed(source), num_rows)

    def to_json(self) -> dict[str, Any]:
        """Returns the position as plain values."""
        self._settle()
        return {
            "version": _VERSION,
            "num_batches": self.num_batches,
            "sources": {source: rows.tolist() for source, rows in sorted(self._consumed.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DataPosition:
        """Rebuilds a position from `to_json`.

        Raises:
            CheckpointError: the data is no position of this version.
        """
        position = cls()
        try:
            if data["version"] != _VERSION:
                raise CheckpointError(
                    f"the data position has version {data['version']}; this program reads "
                    f"version {_VERSION}"
                )
            position.num_batches = int(data["num_batches"])
            for source, rows in data["sources"].items():
                position._pending.append({source: rows})
            position._settle()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"the data position cannot be read: {error!r}") from error
        return position

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataPosition) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"DataPosition({self.num_batches} batches, {self.num_rows} rows, {self.sources})"

    def _settle(self) -> None:
        if not self._pending:
            return
        parts: dict[str, list[Intervals]] = {}
        for info in self._pending:
            for source, rows in info.items():
                array = np.asarray(rows, dtype=np.int64).reshape(-1, 2)
                parts.setdefault(source, []).append(array)
        self._pending.clear()
        for source, arrays in parts.items():
            known = self._consumed.get(source, intervals.EMPTY)
            together = intervals.union([known, *arrays])
            if len(together):
                self._consumed[source] = together
