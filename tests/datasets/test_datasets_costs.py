from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_fakes import IdFake
from datasets_table import all_ids, ids_of, loader_of

from tzrec.constant import Mode
from tzrec.datasets.costs import cut_by_cost, equalise
from tzrec.datasets.position import DataPosition
from tzrec.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("nothing_left")

ROWS, LIMIT = 500, 20


@pytest.fixture
def costs(tmp_path):
    """Costs of 500 rows in two files; row i has id i."""
    found = np.random.default_rng(0).integers(0, 9, ROWS)
    for number, (start, stop) in enumerate([(0, 180), (180, ROWS)]):
        ids = range(start, stop)
        table = pa.table({"id": ids, "label": [i % 2 for i in ids], "cost": found[start:stop]})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=64)
    return found


def loader(folder, text: str = "", *, limit: int = LIMIT, **kwargs):
    text = f'sample_cost_field: "cost" batch_cost_size: {limit} {text}'
    return loader_of(folder, text, features=[IdFake("id")], **kwargs)


def greedy(costs: list[float], limit: float, max_rows: int) -> list[int]:
    """The definition: a batch is closed when the next row would not fit."""
    edges, total = [0], 0.0
    for row, cost in enumerate(costs):
        started = row > edges[-1]
        if started and (total + cost > limit or row - edges[-1] == max_rows):
            edges.append(row)
            total = 0.0
        total += cost
    return [*edges, len(costs)]


@pytest.mark.parametrize("seed", range(20))
def test_batches_are_the_longest_that_the_limit_allows(seed):
    random = np.random.default_rng(seed)
    costs = random.integers(0, 12, size=random.integers(1, 60)).astype(float)
    limit, max_rows = float(random.integers(1, 30)), int(random.integers(1, 12))
    assert cut_by_cost(costs, limit, max_rows) == greedy(costs.tolist(), limit, max_rows)


@pytest.mark.parametrize("seed", range(20))
def test_ranks_get_the_same_number_of_batches(seed):
    random = np.random.default_rng(seed)
    rows = int(random.integers(1, 40))
    ranks = []
    for _ in range(3):
        inner = np.flatnonzero(random.random(rows - 1) < random.random()) + 1
        ranks.append([0, *inner.tolist(), rows + int(random.integers(0, 2))])
    equal = equalise(ranks)
    assert len({len(edges) for edges in equal}) == 1
    for before, after in zip(ranks, equal, strict=True):
        assert (after[0], after[-1]) == (0, before[-1])
        assert after == sorted(set(after))
        if len(after) >= len(before):
            assert set(before) <= set(after)  # only split


@pytest.mark.parametrize("text", ["", "shuffle: true shuffle_buffer_size: 3"])
@pytest.mark.parametrize("mode", [Mode.TRAIN, Mode.EVAL, Mode.PREDICT])
def test_every_row_once_and_no_batch_above_the_limit(text, mode, costs, tmp_path):
    with loader(tmp_path, text, batch_size=16, mode=mode) as found:
        assert found.num_batches is None
        batches = all_ids(found)
    assert sorted(i for batch in batches for i in batch) == list(range(ROWS))
    assert max(costs[batch].sum() for batch in batches) <= LIMIT
    assert max(map(len, batches)) <= 16
    if not text or mode is not Mode.TRAIN:
        assert batches[0] == list(range(greedy(costs.tolist(), LIMIT, 16)[1]))
        # One window ends with what is left of it; all others are as long as they can be.
        windows = -(-ROWS // (16 * 32))
        assert len(batches) <= len(greedy(costs.tolist(), LIMIT, 16)) - 1 + windows


def test_the_limit_changes_the_batches(costs, tmp_path):
    sizes = []
    for limit in (10, 40):
        with loader(tmp_path, batch_size=64, limit=limit) as found:
            sizes.append(len(all_ids(found)))
    assert sizes[0] > 2 * sizes[1]


def test_a_row_above_the_limit_is_a_batch_of_its_own_and_said_once(costs, tmp_path, caplog):
    with loader(tmp_path, limit=7) as found:
        batches = all_ids(found)
        all_ids(found)
    above = np.flatnonzero(costs > 7).tolist()
    assert len(above) > 10
    assert [batch for batch in batches if costs[batch].sum() > 7] == [[row] for row in above]
    assert sorted(i for batch in batches for i in batch) == list(range(ROWS))
    assert caplog.text.count("is a batch of its own") == 2  # once a pass
    assert f"row {above[0]} (counted from 0) costs 8, more than batch_cost_size 7" in caplog.text


@pytest.mark.parametrize("text", ["", "shuffle: true shuffle_buffer_size: 2"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_agree_without_talking(text, world_size, costs, tmp_path):
    ranks = []
    for rank in range(world_size):
        kwargs = {"rank": rank, "world_size": world_size, "batch_size": 12}
        with loader(tmp_path, text, **kwargs) as found:
            ranks.append(all_ids(found))
    assert len({len(rank) for rank in ranks}) == 1
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(ROWS))
    assert all(batch for rank in ranks for batch in rank)
    assert max(costs[batch].sum() for rank in ranks for batch in rank) <= LIMIT


@pytest.mark.parametrize("seed", range(6))
def test_killed_and_resumed_equals_uninterrupted(seed, costs, tmp_path):
    random = np.random.default_rng(seed)
    text = f"shuffle: {'true' if seed % 2 else 'false'} shuffle_buffer_size: 2"
    world_size = 1 + seed // 2
    stop = int(random.integers(1, 20))

    def fresh(rank: int):
        kwargs = {"rank": rank, "world_size": world_size, "batch_size": 10, "seed": seed}
        return loader(tmp_path, text, **kwargs)

    position, seen, expected = DataPosition(), [], []
    for rank in range(world_size):
        part = DataPosition()
        with fresh(rank) as whole:
            batches = list(whole)
        expected.append([ids_of(batch) for batch in batches])
        seen.append(expected[-1][:stop])
        for batch in itertools.islice(batches, stop):
            part.add(batch.checkpoint_info)
        position.merge(part)
    for rank in range(world_size):
        with fresh(rank) as rest:
            rest.resume(DataPosition.from_json(position.to_json()))
            assert seen[rank] + all_ids(rest) == expected[rank]


def test_resume_with_another_limit_reads_the_rest_once(costs, tmp_path):
    position, seen = DataPosition(), []
    with loader(tmp_path, batch_size=10) as found:
        for batch in itertools.islice(found, 7):
            position.add(batch.checkpoint_info)
            seen += ids_of(batch)
    with loader(tmp_path, batch_size=10, limit=33) as found:
        found.resume(position)
        seen += [i for batch in all_ids(found) for i in batch]
    assert sorted(seen) == list(range(ROWS))


@pytest.mark.parametrize("cost", [None, float("nan"), -1.0])
def test_a_row_without_a_cost_is_a_bad_row(cost, tmp_path):
    costs = [1.0] * 30
    costs[12] = cost
    pq.write_table(
        pa.table({"id": range(30), "label": [0] * 30, "cost": costs}), tmp_path / "a.parquet"
    )
    named = r"row 12 \(counted from 0\): sample_cost_field 'cost' is null, negative or not finite"
    with loader(tmp_path, limit=5) as strict, pytest.raises(DataError, match=named):
        list(strict)
    for world_size in (1, 2):
        ids = []
        for rank in range(world_size):
            kwargs = {"rank": rank, "world_size": world_size, "limit": 5}
            with loader(tmp_path, "max_bad_rows: 1", **kwargs) as lenient:
                ids += [i for batch in all_ids(lenient) for i in batch]
        assert ids == [i for i in range(30) if i != 12]


def test_the_cost_column_is_checked_before_the_first_batch(tmp_path):
    pq.write_table(pa.table({"id": [1], "label": [0], "cost": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="sample_cost_field 'cost' is string"):
        loader(tmp_path)
    with pytest.raises(DataError, match="did you mean 'cost'"):
        loader_of(tmp_path, 'sample_cost_field: "cots" batch_cost_size: 9', features=[IdFake("id")])
    with pytest.raises(ConfigError, match="needs sample_cost_field"):
        loader_of(tmp_path, "batch_cost_size: 9", features=[IdFake("id")])
