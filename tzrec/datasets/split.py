"""Which rows each rank reads in a pass, in which order and in which batches.

Everything here is arithmetic on row counts: no rank talks to another and no row is read. All
ranks see the same plan, so each can tell what the others have delivered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tzrec.datasets import intervals
from tzrec.datasets.intervals import Intervals
from tzrec.errors import DataError

_ORDER_STREAM = 0
_WINDOW_STREAM = 1
_COST_WINDOW_BATCHES = 32


@dataclass(frozen=True)
class Block:
    """Neighbouring rows ``[start, stop)`` of one file that are cheap to read together."""

    source: int
    start: int
    stop: int


@dataclass(frozen=True)
class SplitConfig:
    """How rows become batches.

    Attributes:
        batch_size: rows of a batch.
        rank: number of this process.
        world_size: number of processes.
        drop_remainder: only full batches.
        shuffle_batches: rows are shuffled among this many batches' worth of rows, 0 = not.
        seed: of the shuffle order, together with the epoch and the rank.
        cost_limit: most that the rows of a batch may cost, 0 = batches are full; then
            ``drop_remainder`` has no meaning.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    drop_remainder: bool = False
    shuffle_batches: int = 0
    seed: int = 0
    cost_limit: float = 0.0


class RowOrder:
    """A sequence of rows: the concatenation of row intervals of several files.

    Args:
        source: file number of each interval (n,).
        rows: the intervals (n, 2).
    """

    def __init__(self, source: NDArray[np.int64], rows: Intervals) -> None:
        self.source = source
        self.rows = rows
        self._ends = np.cumsum(rows[:, 1] - rows[:, 0])

    @classmethod
    def of_blocks(
        cls, blocks: Sequence[Block], remaining: dict[int, Intervals] | None = None
    ) -> RowOrder:
        """Returns the rows of the blocks in this order, only those in ``remaining`` if given."""
        sources: list[NDArray[np.int64]] = []
        rows: list[Intervals] = []
        for block in blocks:
            part = np.array([[block.start, block.stop]], dtype=np.int64)
            if remaining is not None:
                part = intervals.clip(remaining[block.source], block.start, block.stop)
            rows.append(part)
            sources.append(np.full(len(part), block.source, dtype=np.int64))
        if not rows:
            return cls(np.zeros(0, dtype=np.int64), intervals.EMPTY)
        return cls(np.concatenate(sources), np.concatenate(rows))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def cut(self, start: int, stop: int) -> RowOrder:
        """Returns rows number ``start`` to ``stop`` (exclusive) of this order."""
        if stop <= start:
            return RowOrder(self.source[:0], self.rows[:0])
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._ends, stop, side="left"))
        rows = self.rows[first : last + 1].copy()
        rows[-1, 1] -= self._ends[last] - stop
        rows[0, 0] = self.rows[first, 1] - (self._ends[first] - start)
        return RowOrder(self.source[first : last + 1], rows)

    def rotate(self, start: int) -> RowOrder:
        """Returns the order that begins at row number ``start`` and ends before it."""
        head, tail = self.cut(start, len(self)), self.cut(0, start)
        return RowOrder(
            np.concatenate([head.source, tail.source]), np.concatenate([head.rows, tail.rows])
        )

    def locate(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns file numbers and row numbers of the rows at ``index`` of this order."""
        where = np.searchsorted(self._ends, index, side="right")
        return self.source[where], self.rows[where, 1] - (self._ends[where] - index)

    def by_source(self, index: NDArray[np.int64] | None = None) -> dict[int, Intervals]:
        """Returns file number → rows, of all rows or of those at ``index``."""
        if index is None:
            return {
                int(source): intervals.union([self.rows[self.source == source]])
                for source in np.unique(self.source)
            }
        sources, rows = self.locate(index)
        return {
            int(source): intervals.from_rows(rows[sources == source])
            for source in np.unique(sources)
        }

    def runs(self) -> Iterator[tuple[int, Intervals]]:
        """Yields the longest stretches that one file can be read for in one go, front to back."""
        breaks = (np.diff(self.source) != 0) | (self.rows[1:, 0] < self.rows[:-1, 1])
        edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(self.rows)]
        for first, last in pairwise(edges):
            if last > first:
                yield int(self.source[first]), self.rows[first:last]


@dataclass(frozen=True)
class Window:
    """Batches whose rows are shuffled together.

    Attributes:
        number: of the window in the pass.
        edges: row numbers, in the order of this rank, where its batches begin and end.
        permutation: order of the window's rows, or None as they are.
    """

    number: int
    edges: list[int]
    permutation: NDArray[np.int64] | None

    @property
    def num_rows(self) -> int:
        """Rows of the window."""
        return self.edges[-1] - self.edges[0]

    @property
    def order(self) -> NDArray[np.int64]:
        """Order of the window's rows."""
        return np.arange(self.num_rows) if self.permutation is None else self.permutation


class PassPlan:
    """One pass over all rows, for all ranks.

    Every rank has the same number of batches and every row is in exactly one batch (without
    ``drop_remainder``): rows are divided evenly, and a rank that would have one batch less
    because of that splits its last one. With batches of one row the longer ranks put two rows
    into their last batch instead.

    Args:
        order: the rows of the pass.
        config: how they are divided.
        epoch: number of the pass, for the shuffle.
        may_be_empty: a plan of no batches instead of an error.

    Raises:
        DataError: there are fewer rows than ranks, or no full batch though
            ``drop_remainder`` is on.
    """

    def __init__(
        self, order: RowOrder, config: SplitConfig, *, epoch: int = 0, may_be_empty: bool = False
    ) -> None:
        self.order = order
        self.config = config
        self.epoch = epoch
        self._share, self._extra = divmod(len(order), config.world_size)
        self.num_batches = self._count_batches(may_be_empty)

    @property
    def window_batches(self) -> int:
        """Batches of a window."""
        return self.config.shuffle_batches or 1

    def _count_batches(self, may_be_empty: bool) -> int:
        size, rows = self.config.batch_size, len(self.order)
        needed = size if self.config.drop_remainder else 1
        if self._share < needed and may_be_empty:
            return 0
        if self._share == 0:
            raise DataError(
                f"{rows} rows cannot be divided over {self.config.world_size} processes",
                hint="start fewer processes or give more rows",
            )
        if self.config.drop_remainder:
            if self._share < needed:
                raise DataError(
                    f"{self._share} rows for each process make no full batch of {size}, "
                    "and data_config.drop_remainder drops the rest",
                    hint="set drop_remainder: false or a smaller batch_size",
                )
            return self._share // size
        if size == 1:
            return self._share
        longest = self._share + (1 if self._extra else 0)
        return -(-longest // size)

    def rank_rows(self, rank: int) -> tuple[int, int]:
        """Returns the range in `order` that a rank reads."""
        start = rank * self._share + min(rank, self._extra)
        stop = start + self._share + (1 if rank < self._extra else 0)
        if self.config.drop_remainder:
            stop = start + self.num_batches * self.config.batch_size
        return start, stop

    def edge(self, rank: int, batch: int) -> int:
        """Returns the row, counted from the rank's first, where a batch begins."""
        start, stop = self.rank_rows(rank)
        size, rows = self.config.batch_size, stop - start
        if batch == self.num_batches:
            return rows
        if batch == self.num_batches - 1 and batch * size >= rows:
            return rows - size // 2
        return batch * size

    def windows(self, rank: int, first_window: int = 0) -> Iterator[Window]:
        """Yields the windows of a rank from number ``first_window`` on."""
        width = self.window_batches
        for number in range(first_window, -(-self.num_batches // width)):
            first = number * width
            last = min(first + width, self.num_batches)
            edges = [self.edge(rank, batch) for batch in range(first, last + 1)]
            permutation = None
            if self.config.shuffle_batches:
                random = self._random(_WINDOW_STREAM, rank, number)
                permutation = random.permutation(edges[-1] - edges[0])
            yield Window(number, edges, permutation)

    def num_rows(self, num_batches: int) -> int:
        """Returns the rows that all ranks' first ``num_batches`` batches hold."""
        return sum(self.edge(rank, num_batches) for rank in range(self.config.world_size))

    def consumed(
        self, num_batches: int, further: Sequence[int] | None = None
    ) -> dict[int, Intervals]:
        """Returns file number → the rows that all ranks' first ``num_batches`` batches hold.

        Args:
            num_batches: batches of each rank.
            further: rows that each rank took of the window that begins there.
        """
        parts: dict[int, list[Intervals]] = {}
        for rank in range(self.config.world_size):
            start, _ = self.rank_rows(rank)
            whole, index = self._delivered(rank, num_batches)
            if further is not None:
                index = whole + next(self.windows(rank, num_batches)).order[: further[rank]]
            found = [self.order.cut(start, start + whole).by_source()]
            if index.size:
                found.append(self.order.by_source(start + index))
            for by_source in found:
                for source, rows in by_source.items():
                    parts.setdefault(source, []).append(rows)
        return {source: intervals.union(rows) for source, rows in parts.items()}

    def _delivered(self, rank: int, num_batches: int) -> tuple[int, NDArray[np.int64]]:
        """Returns how many leading rows are all delivered, and further delivered ones."""
        nothing = np.zeros(0, dtype=np.int64)
        if num_batches >= self.num_batches or not self.config.shuffle_batches:
            return self.edge(rank, min(num_batches, self.num_batches)), nothing
        number, in_window = divmod(num_batches, self.window_batches)
        window = next(self.windows(rank, number))
        taken = window.edges[in_window] - window.edges[0]
        return window.edges[0], window.edges[0] + window.order[:taken]

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, self.epoch, *stream])


class CostPlan(PassPlan):
    """A pass whose batches are cut by cost (`tzrec.datasets.costs`) when their rows are read.

    What counts as a batch here is a window: rows that are shuffled and cut into batches
    together. The windows of two ranks differ by one row at most.
    """

    @property
    def window_batches(self) -> int:
        """One."""
        return 1

    def _count_batches(self, may_be_empty: bool) -> int:
        if self._share == 0:
            return super()._count_batches(may_be_empty)
        longest = self._share + (1 if self._extra else 0)
        rows = self.config.batch_size * (self.config.shuffle_batches or _COST_WINDOW_BATCHES)
        return min(-(-longest // rows), self._share)

    def edge(self, rank: int, batch: int) -> int:
        """Returns the row, counted from the rank's first, where a window begins."""
        start, stop = self.rank_rows(rank)
        return (stop - start) * batch // max(self.num_batches, 1)


def order_rows(
    blocks: Sequence[Block],
    config: SplitConfig,
    *,
    epoch: int = 0,
    remaining: dict[int, Intervals] | None = None,
) -> RowOrder:
    """Returns the rows of a pass in reading order.

    With shuffling the blocks are permuted and the whole is rotated by a random number of rows,
    so that other rows meet in a window in every epoch.
    """
    if not config.shuffle_batches:
        return RowOrder.of_blocks(blocks, remaining)
    random = np.random.default_rng([config.seed, epoch, _ORDER_STREAM])
    order = RowOrder.of_blocks([blocks[i] for i in random.permutation(len(blocks))], remaining)
    return order.rotate(int(random.integers(len(order)))) if len(order) else order
