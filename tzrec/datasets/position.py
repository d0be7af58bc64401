"""`DataPosition`: which rows of a pass were delivered, whatever the number of ranks.

The only code that encodes or decodes the position that a checkpoint keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tzrec.datasets import intervals
from tzrec.datasets.intervals import Intervals
from tzrec.errors import CheckpointError

_PENDING_LIMIT = 128
_VERSION = 1


class StreamMark(NamedTuple):
    """A place in a partition of a stream: all before it was consumed.

    Attributes:
        offset: of the message that is read next.
        rows: rows of it that were consumed.
    """

    offset: int
    rows: int = 0


Consumed: TypeAlias = Mapping[str, Sequence[tuple[int, int]] | StreamMark]


class DataPosition:
    """Consumed row intervals per source file, and the number of batches delivered.

    Rows are counted from 0 within their file, so a position can be continued with another
    number of ranks, workers or another batch size. Of a stream it keeps a mark per partition.

    Attributes:
        num_batches: batches that each rank took in this pass.
    """

    def __init__(self) -> None:
        self.num_batches = 0
        self._consumed: dict[str, Intervals] = {}
        self._marks: dict[str, StreamMark] = {}
        self._pending: list[Consumed] = []

    def add(self, checkpoint_info: Consumed | None) -> None:
        """Counts a batch; ``checkpoint_info`` is the batch's (source → intervals or mark)."""
        self.num_batches += 1
        if checkpoint_info:
            self._pending.append(checkpoint_info)
        if len(self._pending) >= _PENDING_LIMIT:
            self._settle()

    def merge(self, other: DataPosition) -> None:
        """Adds the rows that another rank consumed in the same pass."""
        other._settle()
        self._pending += [other._consumed, other._marks]  # type: ignore[list-item]
        self._settle()
        self.num_batches = max(self.num_batches, other.num_batches)

    @property
    def sources(self) -> list[str]:
        """Files of which rows were consumed."""
        self._settle()
        return sorted(self._consumed)

    @property
    def num_rows(self) -> int:
        """Rows consumed in all files; those of streams are not counted."""
        self._settle()
        return sum(intervals.count(rows) for rows in self._consumed.values())

    @property
    def marks(self) -> dict[str, StreamMark]:
        """``{topic}:{partition}`` → where it is read next, of streams."""
        self._settle()
        return dict(self._marks)

    def __str__(self) -> str:
        """Words for what was consumed."""
        marks = [f"{name} before offset {mark.offset:,}" for name, mark in self.marks.items()]
        more = f" and {len(marks) - 4} more partitions" if len(marks) > 4 else ""
        return ", ".join(marks[:4]) + more if marks else f"{self.num_rows:,} rows"

    def consumed(self, source: str) -> Intervals:
        """Returns the consumed rows of a file, sorted intervals (n, 2)."""
        self._settle()
        return self._consumed.get(source, intervals.EMPTY)

    def remaining(self, source: str, num_rows: int) -> Intervals:
        """Returns the rows of a file with ``num_rows`` rows that were not consumed."""
        return intervals.complement(self.consumed(source), num_rows)

    def to_json(self) -> dict[str, Any]:
        """Returns the position as plain values.

        Of a partition ``offsets`` has the last message that was consumed whole, ``rows`` how many
        were of the one after it.
        """
        self._settle()
        data = {
            "version": _VERSION,
            "num_batches": self.num_batches,
            "sources": {source: rows.tolist() for source, rows in sorted(self._consumed.items())},
        }
        if self._marks:
            marks = sorted(self._marks.items())
            data["offsets"] = {source: mark.offset - 1 for source, mark in marks}
            data["rows"] = {source: mark.rows for source, mark in marks if mark.rows}
        return data

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
            rows_of = data.get("rows", {})
            for source, offset in data.get("offsets", {}).items():
                mark = StreamMark(int(offset) + 1, int(rows_of.get(source, 0)))
                position._pending.append({source: mark})
            position._settle()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"the data position cannot be read: {error!r}") from error
        return position

    @classmethod
    def of_offsets(cls, offsets: Mapping[str, int]) -> DataPosition:
        """Returns the position after messages: ``{topic}:{partition}`` → the last one's offset."""
        position = cls()
        position.add({name: StreamMark(offset + 1) for name, offset in offsets.items()})
        return position

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataPosition) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"DataPosition({self.num_batches} batches, {self}, {self.sources})"

    def _settle(self) -> None:
        if not self._pending:
            return
        parts: dict[str, list[Intervals]] = {}
        for info in self._pending:
            for source, rows in info.items():
                if isinstance(rows, StreamMark):
                    self._marks[source] = max(rows, self._marks.get(source, rows))
                    continue
                array = np.asarray(rows, dtype=np.int64).reshape(-1, 2)
                parts.setdefault(source, []).append(array)
        self._pending.clear()
        for source, arrays in parts.items():
            known = self._consumed.get(source, intervals.EMPTY)
            together = intervals.union([known, *arrays])
            if len(together):
                self._consumed[source] = together
