from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tzrec.datasets.position import DataPosition
from tzrec.datasets.slicer import RawBatch, row_origin
from tzrec.datasets.split import Block, PassPlan, RowOrder, SplitConfig, order_rows
from tzrec.datasets.start import plan_pass
from tzrec.errors import DataError

PATHS = ["a", "b", "c"]


def blocks_of(*sizes: int, width: int = 7) -> list[Block]:
    return [
        Block(source, start, min(start + width, size))
        for source, size in enumerate(sizes)
        for start in range(0, size, width)
    ]


def with_rank(config: SplitConfig, rank: int) -> SplitConfig:
    return SplitConfig(**{**config.__dict__, "rank": rank})


def batches_of(plan: PassPlan, rank: int, first: int = 0) -> list[list[tuple[int, int]]]:
    """(file, row) of each batch, from the definition of windows and edges."""
    start, _ = plan.rank_rows(rank)
    found = []
    for window in plan.windows(rank, first // plan.window_batches):
        for i in range(len(window.edges) - 1):
            if window.number * plan.window_batches + i < first:
                continue
            low, high = window.edges[i] - window.edges[0], window.edges[i + 1] - window.edges[0]
            index = np.arange(low, high)
            if window.permutation is not None:
                index = window.permutation[low:high]
            source, row = plan.order.locate(start + window.edges[0] + index)
            found.append(list(zip(source.tolist(), row.tolist(), strict=True)))
    return found


def info_of(batch: list[tuple[int, int]]) -> dict[str, list[tuple[int, int]]]:
    source, row = (np.array(part) for part in zip(*batch, strict=True))
    return row_origin(RawBatch(None, source, row), PATHS)  # type: ignore[arg-type]


def every_row(*sizes: int) -> list[tuple[int, int]]:
    return [(source, row) for source, size in enumerate(sizes) for row in range(size)]


@pytest.mark.parametrize("shuffle", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 5])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(3,), (20,), (5, 0, 12), (7, 8, 9), (23, 1)])
def test_every_row_once_and_equal_number_of_batches(sizes, world_size, batch_size, shuffle):
    config = SplitConfig(batch_size, world_size=world_size, shuffle_batches=shuffle, seed=3)
    plan = plan_pass(blocks_of(*sizes), config).plan
    ranks = [batches_of(plan, rank) for rank in range(world_size)]
    assert sorted(row for rank in ranks for batch in rank for row in batch) == every_row(*sizes)
    assert {len(rank) for rank in ranks} == {plan.num_batches}
    assert all(batch for rank in ranks for batch in rank)
    longest = max(len(batch) for rank in ranks for batch in rank)
    assert longest <= (2 if batch_size == 1 else batch_size)
    rows = [sum(map(len, rank)) for rank in ranks]
    assert max(rows) - min(rows) <= 1


def test_without_shuffle_ranks_read_contiguous_ranges_in_file_order():
    plan = plan_pass(blocks_of(5, 6), SplitConfig(4, world_size=2)).plan
    flat = [[row for batch in batches_of(plan, rank) for row in batch] for rank in range(2)]
    assert flat == [every_row(5, 6)[:6], every_row(5, 6)[6:]]


def test_a_rank_one_batch_short_splits_its_last():
    plan = PassPlan(RowOrder.of_blocks(blocks_of(17)), SplitConfig(4, world_size=2))
    sizes = [[len(batch) for batch in batches_of(plan, rank)] for rank in range(2)]
    assert sizes == [[4, 4, 1], [4, 2, 2]]


def test_drop_remainder_keeps_only_full_batches():
    config = SplitConfig(4, world_size=2, drop_remainder=True)
    plan = PassPlan(RowOrder.of_blocks(blocks_of(23)), config)
    sizes = [[len(batch) for batch in batches_of(plan, rank)] for rank in range(2)]
    assert sizes == [[4, 4], [4, 4]]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(4, world_size=4), "3 rows cannot be divided over 4 processes"),
        (SplitConfig(4, drop_remainder=True), "no full batch of 4"),
    ],
)
def test_too_few_rows(config, message):
    with pytest.raises(DataError, match=message):
        plan_pass(blocks_of(3), config)


def test_shuffle_depends_on_seed_and_epoch_only():
    def order(seed: int, epoch: int) -> list[list[tuple[int, int]]]:
        config = SplitConfig(4, shuffle_batches=3, seed=seed)
        return batches_of(plan_pass(blocks_of(40, 33), config, epoch=epoch).plan, 0)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_shuffle_mixes_rows_within_and_across_windows():
    config = SplitConfig(10, shuffle_batches=10, seed=0)
    seen = Counter()
    for epoch in range(200):
        first = batches_of(plan_pass(blocks_of(200), config, epoch=epoch).plan, 0)[0]
        seen.update(row for _, row in first)
    # A row is in the first of 20 batches 10 times in 200 epochs; binomial, so sd about 3.
    assert len(seen) == 200
    assert max(seen.values()) < 10 + 6 * 3


@pytest.mark.parametrize("seed", range(25))
def test_resume_with_the_same_config_replays_exactly(seed):
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 40, size=3).tolist()
    sizes[0] += 8
    config = SplitConfig(
        int(random.integers(1, 6)),
        world_size=int(random.integers(1, 4)),
        shuffle_batches=int(random.integers(0, 4)),
        seed=seed,
    )
    epoch = int(random.integers(3))
    whole = plan_pass(blocks_of(*sizes), config, epoch=epoch).plan
    stop = int(random.integers(1, whole.num_batches + 1))
    position = DataPosition()
    for step in range(stop):
        for rank in range(config.world_size):
            other = DataPosition()
            other.add(info_of(batches_of(whole, rank)[step]))
            position.merge(other)
    position.num_batches = stop
    position = DataPosition.from_json(position.to_json())
    for rank in range(config.world_size):
        start = plan_pass(
            blocks_of(*sizes),
            with_rank(config, rank),
            epoch=epoch,
            sources=PATHS,
            position=position,
        )
        assert start.first_batch == stop
        assert batches_of(start.plan, rank, start.first_batch) == batches_of(whole, rank)[stop:]


@pytest.mark.parametrize("seed", range(25))
def test_resume_with_other_ranks_and_batches_reads_the_rest_once(seed):
    random = np.random.default_rng(100 + seed)
    sizes = [30, 41, 12]
    shuffle = int(random.integers(0, 4))
    before = SplitConfig(3, world_size=2, shuffle_batches=shuffle, seed=seed)
    whole = plan_pass(blocks_of(*sizes), before).plan
    stop = int(random.integers(1, whole.num_batches))
    position, consumed = DataPosition(), []
    for step in range(stop):
        for rank in range(2):
            batch = batches_of(whole, rank)[step]
            consumed += batch
            position.add(info_of(batch))
    after = SplitConfig(
        int(random.integers(1, 6)),
        world_size=int(random.integers(1, 4)),
        shuffle_batches=shuffle,
        seed=seed,
    )
    start = plan_pass(blocks_of(*sizes), after, sources=PATHS, position=position)
    rest = [
        row
        for rank in range(after.world_size)
        for batch in batches_of(start.plan, rank, start.first_batch)
        for row in batch
    ]
    if len(every_row(*sizes)) - len(consumed) >= after.world_size:
        assert sorted(consumed + rest) == every_row(*sizes)


def test_resume_with_a_new_file_reads_it_whole():
    position = DataPosition()
    position.add({"a": [(0, 20)], "elsewhere": [(0, 5)]})
    start = plan_pass(blocks_of(20, 6), SplitConfig(4), sources=PATHS, position=position)
    assert [row for batch in batches_of(start.plan, 0, start.first_batch) for row in batch] == [
        (1, row) for row in range(6)
    ]


def test_resume_at_the_end_of_a_pass_has_nothing_left():
    position = DataPosition()
    for start in (0, 4, 8):
        position.add({"a": [(start, min(start + 4, 10))]})
    start = plan_pass(blocks_of(10), SplitConfig(4), sources=PATHS, position=position)
    assert batches_of(start.plan, 0, start.first_batch) == []


def test_cut_locate_and_runs_equal_a_list():
    random = np.random.default_rng(0)
    order = order_rows(blocks_of(30, 12, 9), SplitConfig(4, shuffle_batches=2, seed=5))
    source, row = order.locate(np.arange(len(order)))
    rows = list(zip(source.tolist(), row.tolist(), strict=True))
    assert sorted(rows) == every_row(30, 12, 9)
    for _ in range(50):
        start, stop = sorted(random.integers(0, len(order) + 1, size=2).tolist())
        part = order.cut(start, stop)
        source, row = part.locate(np.arange(len(part)))
        assert list(zip(source.tolist(), row.tolist(), strict=True)) == rows[start:stop]
        by_run = [(s, r) for s, run in part.runs() for a, b in run.tolist() for r in range(a, b)]
        assert by_run == rows[start:stop]
