from __future__ import annotations

import json

import numpy as np
import pytest

from tzrec.datasets import intervals
from tzrec.datasets.position import DataPosition
from tzrec.errors import CheckpointError


def rows_of(array: np.ndarray) -> set[int]:
    return {row for start, stop in array.tolist() for row in range(start, stop)}


def is_canonical(array: np.ndarray) -> bool:
    return bool((array[:, 0] < array[:, 1]).all() and (array[1:, 0] > array[:-1, 1]).all())


@pytest.mark.parametrize("seed", range(30))
def test_interval_operations_equal_sets(seed):
    random = np.random.default_rng(seed)
    starts = random.integers(0, 60, size=8)
    parts = [np.array([[s, s + random.integers(0, 9)]]) for s in starts]
    together = intervals.union(parts)
    expected = set().union(*(rows_of(part) for part in parts))
    assert rows_of(together) == expected
    assert is_canonical(together)
    assert intervals.count(together) == len(expected)
    rest = intervals.complement(together, 50)
    assert rows_of(rest) == set(range(50)) - expected
    assert rows_of(intervals.clip(together, 10, 30)) == expected & set(range(10, 30))
    rows = random.permutation(np.array(sorted(expected), dtype=np.int64))
    assert np.array_equal(intervals.from_rows(rows), together)


def test_empty_intervals():
    assert len(intervals.union([])) == 0
    assert len(intervals.from_rows(np.array([], dtype=np.int64))) == 0
    assert intervals.complement(intervals.EMPTY, 3).tolist() == [[0, 3]]
    assert len(intervals.complement(np.array([[0, 3]]), 3)) == 0


def test_position_counts_batches_and_joins_neighbours():
    position = DataPosition()
    for batch in range(300):
        position.add({"a.csv": [(batch * 4, batch * 4 + 4)]})
    position.add({"a.csv": [(1300, 1310)], "b.csv": [(0, 2)]})
    assert position.num_batches == 301
    assert position.num_rows == 1212
    assert position.consumed("a.csv").tolist() == [[0, 1200], [1300, 1310]]
    assert position.remaining("a.csv", 1400).tolist() == [[1200, 1300], [1310, 1400]]
    assert position.remaining("c.csv", 5).tolist() == [[0, 5]]
    assert position.sources == ["a.csv", "b.csv"]


def test_json_round_trip_is_plain_and_exact():
    position = DataPosition()
    position.add({"a": [(5, 7)], "b": [(0, 3)]})
    text = json.dumps(position.to_json())
    again = DataPosition.from_json(json.loads(text))
    assert again == position
    assert again.num_batches == 1
    again.add({"a": [(0, 5)]})
    assert again.consumed("a").tolist() == [[0, 7]]
    assert position.consumed("a").tolist() == [[5, 7]]


def test_merge_of_ranks_is_the_union():
    left, right = DataPosition(), DataPosition()
    left.add({"a": [(0, 4)]})
    right.add({"a": [(10, 14)], "b": [(0, 1)]})
    right.add({"a": [(4, 5)]})
    left.merge(right)
    assert left.consumed("a").tolist() == [[0, 5], [10, 14]]
    assert left.num_batches == 2
    assert right.consumed("a").tolist() == [[4, 5], [10, 14]]


def test_a_batch_without_rows_counts():
    position = DataPosition()
    position.add(None)
    position.add({"a": [(3, 3)]})
    assert (position.num_batches, position.num_rows, position.sources) == (2, 0, [])


@pytest.mark.parametrize(
    "data", [{}, {"version": 9, "num_batches": 0, "sources": {}}, {"version": 1}, [], None]
)
def test_unreadable_position(data):
    with pytest.raises(CheckpointError, match="data position"):
        DataPosition.from_json(data)
