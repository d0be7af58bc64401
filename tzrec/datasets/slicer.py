"""`BatchSlicer`: the Arrow batches of one rank's pass, with the rows they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.datasets import intervals
from tzrec.datasets.costs import CostCutter
from tzrec.datasets.reader import BaseReader, RowStream
from tzrec.datasets.split import Window
from tzrec.datasets.start import Start
from tzrec.features.mask import SAMPLE_MASK

_MASK_STREAM = 2
_DRAW_STREAM = 3
_NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class RawBatch:
    """Columns of a batch before they are parsed.

    Attributes:
        columns: B rows.
        source: file number of each row (B,).
        row: row number in its file (B,).
        left_out: file numbers and row numbers of rows that were read for this batch but are not
            in it.
        stream: seeds what is drawn for the batch, wherever it is parsed.
    """

    columns: pa.RecordBatch
    source: NDArray[np.int64]
    row: NDArray[np.int64]
    left_out: tuple[NDArray[np.int64], NDArray[np.int64]] = (_NO_ROWS, _NO_ROWS)
    stream: tuple[int, ...] = ()

    @property
    def num_rows(self) -> int:
        """B."""
        return int(self.columns.num_rows)

    def without(self, bad: NDArray[np.bool_]) -> RawBatch:
        """Returns the batch without the rows marked in ``bad`` (B,)."""
        columns = self.columns.filter(pa.array(~bad))
        good = RawBatch(columns, self.source[~bad], self.row[~bad], stream=self.stream)
        return good.after(replace(self, source=self.source[bad], row=self.row[bad]))

    def after(self, other: RawBatch) -> RawBatch:
        """Returns the batch with all rows of ``other`` counted as left out before it."""
        sources = (other.source, other.left_out[0], self.left_out[0])
        rows = (other.row, other.left_out[1], self.left_out[1])
        return replace(self, left_out=(np.concatenate(sources), np.concatenate(rows)))

    def parts(self, number: int) -> list[RawBatch]:
        """Returns the batch in ``number`` parts, B at least; the first has what was left out."""
        edges = [self.num_rows * i // number for i in range(number + 1)]
        parts = [
            RawBatch(
                self.columns.slice(a, b - a),
                self.source[a:b],
                self.row[a:b],
                stream=(*self.stream, part),
            )
            for part, (a, b) in enumerate(pairwise(edges))
        ]
        return [replace(parts[0], left_out=self.left_out), *parts[1:]]


class BatchSlicer:
    """Cuts what a reader yields into the batches of a plan.

    Args:
        reader: where the rows come from.
        start: the pass and where in it to begin; batches are those of its own rank.
        mask_prob: probability of a row to be masked in the extra column ``__SAMPLE_MASK__``;
            0 = no column.
        cutter: cuts the plan's batches into smaller ones by the cost of their rows.
    """

    def __init__(
        self,
        reader: BaseReader,
        start: Start,
        *,
        mask_prob: float = 0.0,
        cutter: CostCutter | None = None,
    ) -> None:
        self._reader = reader
        self._start = start
        self._plan = start.plan
        self._mask_prob = mask_prob
        self._cutter = cutter

    def __iter__(self) -> Iterator[RawBatch]:
        plan, rank = self._plan, self._plan.config.rank
        first_row, stop = plan.rank_rows(rank)
        rows: RowStream | None = None
        for window in plan.windows(rank, self._start.window):
            begin = first_row + window.edges[0]
            if rows is None:
                rows = RowStream(self._reader.read(plan.order.cut(begin, stop)))
            table = rows.take(window.num_rows)
            source, row = plan.order.locate(begin + window.order)
            edges = window.edges
            if self._cutter is not None:
                edges = self._cutter.cut(window, table, (source, row))
            skipped = self._start.part if window.number == self._start.window else 0
            for part, (left, right) in enumerate(pairwise(edges)):
                if part >= skipped:
                    cut = slice(left - edges[0], right - edges[0])
                    columns = self._columns(table, window, cut)
                    stream = self._stream(_DRAW_STREAM, window.number, part)
                    columns = self._mask(columns, window.number, part)
                    yield RawBatch(columns, source[cut], row[cut], stream=stream)

    def _columns(self, table: pa.RecordBatch, window: Window, cut: slice) -> pa.RecordBatch:
        if window.permutation is not None:
            return table.take(pa.array(window.permutation[cut]))
        return table.slice(cut.start, cut.stop - cut.start)

    def _mask(self, columns: pa.RecordBatch, window: int, part: int) -> pa.RecordBatch:
        if not self._mask_prob:
            return columns
        random = np.random.default_rng(self._stream(_MASK_STREAM, window, part))
        mask = random.random(columns.num_rows) < self._mask_prob
        return columns.append_column(SAMPLE_MASK, pa.array(mask))

    def _stream(self, kind: int, window: int, part: int) -> tuple[int, ...]:
        config = self._plan.config
        return (config.seed, self._plan.epoch, kind, config.rank, window, part)


def row_origin(raw: RawBatch, sources: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    """Returns file → row intervals read for a batch, as `DataPosition.add` takes them."""
    source = np.concatenate([raw.source, raw.left_out[0]])
    row = np.concatenate([raw.row, raw.left_out[1]])
    origin = {}
    for number in np.unique(source):
        rows = intervals.from_rows(row[source == number])
        pairs = zip(rows[:, 0].tolist(), rows[:, 1].tolist(), strict=True)
        origin[sources[int(number)]] = list(pairs)
    return origin
