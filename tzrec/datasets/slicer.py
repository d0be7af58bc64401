"""`BatchSlicer`: the Arrow batches of one rank's pass, with the rows they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.datasets import intervals
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.split import PassPlan
from tzrec.features.mask import SAMPLE_MASK

_MASK_STREAM = 2


@dataclass(frozen=True)
class RawBatch:
    """Columns of a batch before they are parsed.

    Attributes:
        columns: B rows.
        source: file number of each row (B,).
        row: row number in its file (B,).
    """

    columns: pa.RecordBatch
    source: NDArray[np.int64]
    row: NDArray[np.int64]


class BatchSlicer:
    """Cuts what a reader yields into the batches of a plan.

    Args:
        reader: where the rows come from.
        plan: the pass; batches are those of its own rank.
        first_batch: batches before it are left out.
        mask_prob: probability of a row to be masked in the extra column ``__SAMPLE_MASK__``;
            0 = no column.
    """

    def __init__(
        self, reader: BaseReader, plan: PassPlan, *, first_batch: int = 0, mask_prob: float = 0.0
    ) -> None:
        self._reader = reader
        self._plan = plan
        self._first_batch = first_batch
        self._mask_prob = mask_prob

    def __iter__(self) -> Iterator[RawBatch]:
        plan, rank = self._plan, self._plan.config.rank
        start, stop = plan.rank_rows(rank)
        rows: _RowStream | None = None
        for window in plan.windows(rank, self._first_batch):
            first_row = start + window.edges[0]
            if rows is None:
                rows = _RowStream(self._reader.read(plan.order.cut(first_row, stop)))
            width = window.edges[-1] - window.edges[0]
            table = rows.take(width)
            index = window.permutation
            if index is None:
                index = np.arange(width)
            for i, (begin, end) in enumerate(pairwise(window.edges)):
                if window.first_batch + i < self._first_batch:
                    continue
                chosen = index[begin - window.edges[0] : end - window.edges[0]]
                columns = table
                if window.permutation is not None:
                    columns = table.take(pa.array(chosen))
                source, row = plan.order.locate(first_row + chosen)
                yield RawBatch(self._mask(columns, window.first_batch + i), source, row)

    def _mask(self, columns: pa.RecordBatch, batch: int) -> pa.RecordBatch:
        if not self._mask_prob:
            return columns
        config, epoch = self._plan.config, self._plan.epoch
        random = np.random.default_rng([config.seed, epoch, _MASK_STREAM, config.rank, batch])
        mask = random.random(columns.num_rows) < self._mask_prob
        return columns.append_column(SAMPLE_MASK, pa.array(mask))


class _RowStream:
    """Takes any number of rows at a time from pieces of any size."""

    def __init__(self, pieces: Iterator[pa.RecordBatch]) -> None:
        self._pieces = pieces
        self._held: pa.RecordBatch | None = None

    def take(self, num_rows: int) -> pa.RecordBatch:
        """Returns the next ``num_rows`` rows in one piece."""
        parts: list[pa.RecordBatch] = []
        missing = num_rows
        while missing:
            piece = self._held if self._held is not None else next(self._pieces)
            self._held = None
            if piece.num_rows > missing:
                self._held = piece.slice(missing)
                piece = piece.slice(0, missing)
            parts.append(piece)
            missing -= piece.num_rows
        return parts[0] if len(parts) == 1 else pa.concat_batches(parts)


def row_origin(raw: RawBatch, paths: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    """Returns file → row intervals of a batch, as `DataPosition.add` takes them."""
    origin = {}
    for source in np.unique(raw.source):
        rows = intervals.from_rows(raw.row[raw.source == source])
        pairs = zip(rows[:, 0].tolist(), rows[:, 1].tolist(), strict=True)
        origin[paths[int(source)]] = list(pairs)
    return origin
