"""Where a pass over the data begins: at its start, or after what a position says was delivered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tzrec.datasets import intervals
from tzrec.datasets.intervals import Intervals
from tzrec.datasets.position import DataPosition
from tzrec.datasets.split import Block, CostPlan, PassPlan, SplitConfig, order_rows

Cuts = Callable[[PassPlan, int], list[list[int]]]


@dataclass(frozen=True)
class Start:
    """Where a pass begins.

    Attributes:
        plan: the pass.
        window: number of the first window.
        part: batches of this window that are left out.
    """

    plan: PassPlan
    window: int = 0
    part: int = 0

    @property
    def first_batch(self) -> int:
        """Number of the first batch, of a plan that knows its batches."""
        return self.window * self.plan.window_batches + self.part


def plan_pass(
    blocks: Sequence[Block],
    config: SplitConfig,
    *,
    epoch: int = 0,
    sources: Sequence[str] = (),
    position: DataPosition | None = None,
    cuts: Cuts | None = None,
) -> Start:
    """Plans a pass, possibly one that was interrupted.

    Args:
        blocks: all rows of the input.
        config: how to divide them.
        epoch: number of the pass.
        sources: name of each file, as in ``position``.
        position: rows already delivered in this pass.
        cuts: tells, for batches by cost, where a window's batches begin and end on each rank.

    Returns:
        The plan and where in it to begin. If the position is exactly what this plan delivers
        first, the plan is that of an uninterrupted pass; otherwise (other ranks, other batch
        size, files added) the rest is divided anew, into no batches when it is less than a row
        for each rank.

    Raises:
        DataError: as `PassPlan`.
    """
    kind: type[PassPlan] = PassPlan
    if config.cost_limit:
        kind, config = CostPlan, replace(config, drop_remainder=False)
    whole = kind(order_rows(blocks, config, epoch=epoch), config, epoch=epoch)
    if position is None or position.num_rows == 0:
        return Start(whole)
    consumed = {i: position.consumed(name) for i, name in enumerate(sources)}
    consumed = {i: rows for i, rows in consumed.items() if len(rows)}
    start = _find_start(whole, consumed, cuts)
    if start is not None:
        return start
    sizes = np.zeros(len(sources), dtype=np.int64)
    for block in blocks:
        sizes[block.source] = max(sizes[block.source], block.stop)
    remaining = {
        i: intervals.complement(consumed.get(i, intervals.EMPTY), int(size))
        for i, size in enumerate(sizes)
    }
    rest = order_rows(blocks, config, epoch=epoch, remaining=remaining)
    return Start(kind(rest, config, epoch=epoch, may_be_empty=True))


def _find_start(plan: PassPlan, consumed: dict[int, Intervals], cuts: Cuts | None) -> Start | None:
    """Returns where the plan has delivered exactly ``consumed``, None if nowhere."""
    num_rows = sum(intervals.count(rows) for rows in consumed.values())
    done = bisect_right(range(plan.num_batches + 1), num_rows, key=plan.num_rows) - 1
    rest = num_rows - plan.num_rows(done)
    if not rest and _same(plan.consumed(done), consumed):
        return Start(plan, *divmod(done, plan.window_batches))
    if not rest or cuts is None or done == plan.num_batches:
        return None
    edges = cuts(plan, done)
    taken = [sum(of_rank[part] for of_rank in edges) for part in range(len(edges[0]))]
    if rest not in taken:
        return None
    part = taken.index(rest)
    further = [of_rank[part] for of_rank in edges]
    return Start(plan, done, part) if _same(plan.consumed(done, further), consumed) else None


def _same(left: dict[int, Intervals], right: dict[int, Intervals]) -> bool:
    return left.keys() == right.keys() and all(
        np.array_equal(rows, right[i]) for i, rows in left.items()
    )
