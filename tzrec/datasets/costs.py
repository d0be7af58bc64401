"""Batches by cost: as many rows as a budget allows, the same number of batches on every rank."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from tzrec.datasets.reader import BaseReader, RowStream
from tzrec.datasets.split import PassPlan, Window
from tzrec.errors import DataError

logger = logging.getLogger("tzrec")


class CostCutter:
    """Cuts the windows of a plan into batches by the cost of their rows.

    A batch has the longest run of rows whose costs add up to at most the limit, and at most
    ``batch_size`` rows. A row that costs more than the limit is a batch of its own. Every rank
    reads the cost column of all others' windows, so that all agree on the number of batches
    without talking; a rank with fewer batches than another splits its longest ones.

    Args:
        reader: the input.
        plan: the pass.
        column: what a row costs; no cost is negative.
    """

    def __init__(self, reader: BaseReader, plan: PassPlan, column: str) -> None:
        self._reader = reader
        self._plan = plan
        self._column = column
        self._others: dict[int, RowStream] = {}
        self._costly_rows = 0

    def cut(
        self,
        window: Window,
        table: pa.RecordBatch,
        origin: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> list[int]:
        """Returns where the batches of this rank's window begin and end, in `Window.edges`' terms.

        Called for every window from the first that is wanted on.

        Args:
            window: of this rank.
            table: its rows, unshuffled.
            origin: file numbers and row numbers of the rows, shuffled as in the window.

        Raises:
            DataError: a row has no cost, and no (more) rows may be left out.
        """
        plan, config = self._plan, self._plan.config
        costs, bad = cost_numbers(table.column(self._column))
        self._refuse(bad[window.order], origin)
        costs = costs[window.order]
        self._warn(costs, origin)
        edges = self._edges(costs)
        if config.world_size > 1:
            found = [edges if r == config.rank else self._of_rank(r, window.number)
                     for r in range(config.world_size)]  # fmt: skip
            edges = equalise(found)[config.rank]
        return [plan.edge(config.rank, window.number) + edge for edge in edges]

    def of_all(self, number: int) -> list[list[int]]:
        """Returns the batches of a window of each rank, counted from the window's first row."""
        ranks = range(self._plan.config.world_size)
        found = [self._of_rank(rank, number) for rank in ranks]
        self._others.clear()
        return equalise(found)

    def _of_rank(self, rank: int, number: int) -> list[int]:
        plan = self._plan
        window = next(plan.windows(rank, number))
        if rank not in self._others:
            first, stop = plan.rank_rows(rank)
            order = plan.order.cut(first + window.edges[0], stop)
            self._others[rank] = RowStream(self._reader.only(self._column).read(order))
        table = self._others[rank].take(window.num_rows)
        return self._edges(cost_numbers(table.column(0))[0][window.order])

    def _edges(self, costs: NDArray[np.float64]) -> list[int]:
        return cut_by_cost(costs, self._plan.config.cost_limit, self._plan.config.batch_size)

    def _refuse(
        self, bad: NDArray[np.bool_], origin: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> None:
        for index in np.flatnonzero(bad).tolist():
            source, row = int(origin[0][index]), int(origin[1][index])
            error = DataError(
                f"{self._reader.place(source, row)}: sample_cost_field {self._column!r} is null, "
                "negative or not finite"
            )
            self._reader.bad_rows.add(source, row, error)

    def _warn(
        self, costs: NDArray[np.float64], origin: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> None:
        limit = self._plan.config.cost_limit
        costly = np.flatnonzero(costs > limit)
        if len(costly) and not self._costly_rows:
            source, row = int(origin[0][costly[0]]), int(origin[1][costly[0]])
            logger.warning(
                "%s costs %g, more than batch_cost_size %g: such a row is a batch of its own",
                self._reader.place(source, row),
                costs[costly[0]],
                limit,
            )
        self._costly_rows += len(costly)


def check_cost_type(name: str, found: pa.DataType) -> None:
    """Raises a DataError if a column cannot hold costs."""
    if not (types.is_integer(found) or types.is_floating(found)):
        raise DataError(
            f"sample_cost_field {name!r} is {found}; a cost is an integer or a float",
            hint="for CSV, declare its type in data_config.input_fields",
        )


def cut_by_cost(costs: NDArray[np.float64], limit: float, max_rows: int) -> list[int]:
    """Returns the edges of the longest batches that cost at most ``limit``.

    Args:
        costs: of each row (n,), not negative.
        limit: cost of a batch; only a single row may cost more.
        max_rows: rows of a batch.

    Returns:
        0, …, n: row numbers where batches begin and end.
    """
    total = np.cumsum(costs)
    edges = [0]
    while edges[-1] < len(costs):
        start = edges[-1]
        before = total[start - 1] if start else 0.0
        stop = int(np.searchsorted(total, before + limit, side="right"))
        edges.append(min(max(stop, start + 1), start + max_rows, len(costs)))
    return edges


def equalise(ranks: Sequence[list[int]]) -> list[list[int]]:
    """Returns edges with the same number of batches on each rank.

    The longest batches of a rank with too few are halved. Where a rank has not enough rows for
    that, the others put their last ones together.
    """
    wanted = min(max(len(edges) - 1 for edges in ranks), min(edges[-1] for edges in ranks))
    return [_with_batches(list(edges), wanted) for edges in ranks]


def _with_batches(edges: list[int], wanted: int) -> list[int]:
    del edges[wanted:-1]
    while len(edges) - 1 < wanted:
        longest = int(np.argmax(np.diff(edges)))
        edges.insert(longest + 1, (edges[longest] + edges[longest + 1]) // 2)
    return edges


def cost_numbers(column: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns the costs, 0 where there is none, and where there is none."""
    costs = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    bad = ~(np.isfinite(costs) & (costs >= 0))
    return np.where(bad, 0.0, costs), bad
