"""The maps of hash tables: against plain Python, against TorchRec's, and what they must refuse."""

import numpy as np
import pytest
import torch
from hash_oracle import Oracle
from torchrec.modules.mc_modules import (
    DistanceLFU_EvictionPolicy,
    LFU_EvictionPolicy,
    LRU_EvictionPolicy,
    MCHManagedCollisionModule,
)
from torchrec.sparse.jagged_tensor import JaggedTensor

from tzrec.config.threshold_text import Threshold
from tzrec.features.hash_table import Admission, Constants, HashTableSpec
from tzrec.modules.hash_tables import seen as seen_module
from tzrec.modules.hash_tables.id_map import EMPTY, IdMap
from tzrec.modules.hash_tables.seen import Counted, SeenIds, passing

CAPACITY, STEPS = 12, 60


def spec(policy="lfu", *, capacity=CAPACITY, interval=1, **more):
    """A zch table of a few rows."""
    return HashTableSpec("zch", capacity, 1, interval, policy, **more)


def batches(seed, *, spread=30, size=30, steps=STEPS):
    """Ids of each step: some often, some once, other ones later."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        drawn = rng.zipf(1.4, size) % spread + step // 2
        yield (drawn * 1_000_003 * 2**20 % (2**63 - 1)).tolist()


def step_of(id_map, ids):
    """One training step; returns the rows that have another owner, None before it is time."""
    id_map.observe(torch.tensor(ids, dtype=torch.int64))
    if not id_map.is_due:
        return None
    rows = id_map.change(id_map.seen.counted(), torch.Generator().manual_seed(0))
    id_map.seen.replace()
    return rows.tolist()


def rows_by_id(id_map):
    owned = torch.nonzero(id_map.ids != EMPTY).flatten().tolist()
    return {int(id_map.ids[row]): row for row in owned}


CASES = {
    "lfu": {"policy": "lfu"},
    "lru": {"policy": "lru", "interval": 2},
    "distance_lfu": {"policy": "distance_lfu", "interval": 3},
    "slow decay": {"policy": "distance_lfu", "decay": 0.5},
    "fast decay": {"policy": "distance_lfu", "decay": 2.0, "interval": 5},
    "no decay": {"policy": "lru", "decay": 0.0, "interval": 4},
    "comparison": {"policy": "lfu", "interval": 2, "threshold": Threshold(">", 2.0)},
    "at least": {"policy": "lfu", "interval": 2, "threshold": Threshold(">=", 2.0)},
    "average": {"policy": "lru", "threshold": Threshold("average_threshold_filter", 0)},
    "dynamic": {"policy": "lru", "threshold": Threshold("dynamic_threshold_filter", 1.5)},
    "admission": {"policy": "lru", "admission": Admission(3, 8)},
    "admission by frequency": {"policy": "lfu", "admission": Admission(2, 100)},
    "few are counted": {"policy": "lfu", "interval": 2, "admission": Admission(2, 5)},
}
PASSES = {
    "comparison": lambda count, _: count > 2,
    "at least": lambda count, _: count >= 2,
    "average": lambda count, counts: count > sum(counts) / len(counts),
    "dynamic": lambda count, counts: count > 1.5 * sum(counts) / len(counts),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_the_map_is_that_of_plain_python(case, seed):
    given = dict(CASES[case])
    id_map = IdMap(spec(given.pop("policy"), **given))
    given = dict(CASES[case])
    given.pop("threshold", None)
    if "admission" in given:
        admission = given["admission"]
        given["admission"] = (admission.threshold, admission.counter_capacity)
    oracle = Oracle(CAPACITY, passes=PASSES.get(case), **given)
    evicted = 0
    for ids in batches(seed):
        oracle.observe(ids)
        before = set(oracle.row)
        expected = oracle.change()
        evicted += len(before - set(oracle.row))
        found = step_of(id_map, ids)
        assert (found or []) == expected
        assert rows_by_id(id_map) == oracle.row
        for i, row in oracle.row.items():
            assert int(id_map.counts[row]) == oracle.count[i]
            assert int(id_map.last_steps[row]) == oracle.last[i]
        if id_map.spec.admission is not None:
            waiting = zip(id_map.counter_ids.tolist(), id_map.counter_counts.tolist(), strict=True)
            assert {i: c for i, c in waiting if i != EMPTY} == oracle.waiting
        looked_up = id_map(torch.tensor(ids)).tolist()
        assert looked_up == [oracle.row.get(i, CAPACITY) for i in ids]
    assert evicted == 0 if case == "no decay" else evicted >= 3


POLICIES = {
    "lfu": LFU_EvictionPolicy(),
    "lru": LRU_EvictionPolicy(decay_exponent=1.0),
    "distance_lfu": DistanceLFU_EvictionPolicy(decay_exponent=1.0),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("interval", [1, 3])
def test_the_same_ids_have_rows_as_in_torchrec(policy, interval):
    """Which rows they have is another matter."""
    torchrec = MCHManagedCollisionModule(
        CAPACITY + 1, torch.device("cpu"), POLICIES[policy], eviction_interval=interval
    )
    id_map = IdMap(spec(policy, interval=interval))
    for ids in batches(0):
        values, length = torch.tensor(ids), torch.tensor([len(ids)])
        torchrec({"t": JaggedTensor(values=values, lengths=length, weights=length)})
        step_of(id_map, ids)
        kept = torchrec._mch_sorted_raw_ids
        assert set(kept[kept != EMPTY].tolist()) == set(rows_by_id(id_map))
    assert id_map.num_used == CAPACITY


def test_an_interval_counts_all_its_steps():
    id_map = IdMap(spec("lfu", interval=3))
    assert step_of(id_map, [7, 7]) is None
    assert step_of(id_map, [8]) is None
    assert id_map(torch.tensor([7, 8])).tolist() == [CAPACITY, CAPACITY]
    assert step_of(id_map, [7, 9]) == [0, 1, 2]
    assert rows_by_id(id_map) == {7: 0, 8: 1, 9: 2}
    assert id_map.counts[:3].tolist() == [3, 1, 1]
    assert id_map.last_steps[:3].tolist() == [3, 2, 3]


def test_an_id_that_loses_the_contest_is_counted_on():
    """Else it could never come so often as those that have the rows."""
    id_map = IdMap(spec("lfu", capacity=1, admission=Admission(2, 4)))
    for _ in range(4):
        step_of(id_map, [7])
    assert rows_by_id(id_map) == {7: 0}
    for _ in range(5):
        step_of(id_map, [8])
    assert rows_by_id(id_map) == {8: 0}
    assert int(id_map.counts[0]) == 5


def test_probabilities_of_the_filter():
    counts = torch.tensor([1, 5, 100]).repeat(20_000)
    threshold = Threshold("probabilistic_threshold_filter", 0.02)
    found = passing(threshold, counts, torch.Generator().manual_seed(1)).view(-1, 3).double()
    expected = 1 - 0.98 ** np.array([1, 5, 100])
    assert found.mean(0).numpy() == pytest.approx(expected, abs=0.01)
    again = passing(threshold, counts, torch.Generator().manual_seed(1))
    assert torch.equal(again, found.bool().flatten())


def test_no_id_is_never_given_a_row():
    id_map = IdMap(spec("lfu"))
    step_of(id_map, [EMPTY, 3])
    assert id_map(torch.tensor([EMPTY, 3])).tolist() == [CAPACITY, 0]
    assert id_map.num_used == 1


def test_spare_rows_of_training_and_of_evaluation():
    id_map = IdMap(HashTableSpec("dynamicemb", 4, 2, 1, "lru", constants=Constants(1.0, 2.0)))
    step_of(id_map, [5])
    assert id_map.train()(torch.tensor([5, 6])).tolist() == [0, 4]
    assert id_map.eval()(torch.tensor([5, 6])).tolist() == [0, 5]


def test_a_state_dict_brings_the_map_back():
    one, two = IdMap(spec("lru")), IdMap(spec("lru"))
    for ids in batches(1, steps=10):
        step_of(one, ids)
    two(torch.tensor([1]))
    two.load_state_dict(one.state_dict())
    ids = one.ids[one.ids != EMPTY]
    assert torch.equal(two(ids), one(ids))
    assert sorted(two(ids).tolist()) == list(range(CAPACITY))


def test_parts_of_seen_ids_are_one():
    rng = np.random.default_rng(0)
    whole, parts = SeenIds(), [SeenIds(), SeenIds()]
    for step in range(1, 5):
        ids = torch.from_numpy(rng.integers(0, 9, 12))
        whole.add(ids, step)
        for part, own in zip(parts, ids.split(6), strict=True):
            part.add(own, step)
    merged = Counted.merge([part.counted() for part in parts])
    for name in ("ids", "counts", "last_steps"):
        assert torch.equal(getattr(merged, name), getattr(whole.counted(), name))
    assert int(merged.counts.sum()) == 48
    whole.replace()
    assert whole.counted().ids.numel() == 0


def test_a_long_interval_takes_the_memory_of_its_different_ids(monkeypatch):
    monkeypatch.setattr(seen_module, "_ROOM", 50)
    seen, rng = SeenIds(), np.random.default_rng(0)
    steps = [torch.from_numpy(rng.integers(0, 30, 20)) for _ in range(100)]
    for step, ids in enumerate(steps, 1):
        seen.add(ids, step)
        assert sum(part.ids.numel() for part in seen._parts) <= 30 + 50 + 20
    found = seen.counted()
    expected, counts = torch.cat(steps).unique(return_counts=True)
    assert torch.equal(found.ids, expected)
    assert torch.equal(found.counts, counts)
    last = [max(s for s, ids in enumerate(steps, 1) if i in ids) for i in expected]
    assert found.last_steps.tolist() == last
