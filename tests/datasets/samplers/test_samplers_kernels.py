"""The compiled loops, against plain Python."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.datasets.samplers import kernels
from tzrec.datasets.samplers.ids import IdTable, SharedIds
from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.errors import DataError

quick = settings(max_examples=60, deadline=None)
NUMBERS = st.integers(-(2**63), 2**63 - 1)


def probabilities(cells):
    """What an alias table draws, from its cells."""
    found = np.zeros(len(cells))
    for place, cell in enumerate(cells.tolist()):
        limit, other = cell >> 32, cell & 0xFFFFFFFF
        share = 1.0 if limit == 0xFFFFFFFF and other == place else limit / 2**32
        found[place] += share / len(cells)
        found[other] += (1 - share) / len(cells)
    return found


@quick
@given(
    st.lists(
        st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.sampled_from([1.0, 1e-30, 1e30])),
        min_size=1,
        max_size=60,
    ).filter(any)
)
def test_alias_tables_have_the_probabilities(weights):
    weights = np.array(weights)
    cells = np.zeros(len(weights), dtype=np.uint64)
    kernels.build_alias(weights, weights.sum(), cells)
    found = probabilities(cells)
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-6, atol=1e-9)
    assert (found[weights == 0] == 0).all()


def test_an_alias_table_of_many_weights():
    weights = np.random.default_rng(0).pareto(1.1, 100_000)
    cells = np.zeros(len(weights), dtype=np.uint64)
    kernels.build_alias(weights, weights.sum(), cells)
    np.testing.assert_allclose(probabilities(cells), weights / weights.sum(), rtol=1e-6, atol=1e-13)


def test_draws_are_those_of_the_generator():
    """SplitMix64 of the seed, a place by the upper half of the product, the alias by the lower."""
    mask = 2**64 - 1

    def words(state, count):
        for _ in range(count):
            state = state + 0x9E3779B97F4A7C15 & mask
            word = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
            word = (word ^ word >> 27) * 0x94D049BB133111EB & mask
            yield word ^ word >> 31

    weights = np.arange(1.0, 8.0)
    cells = np.zeros(7, dtype=np.uint64)
    kernels.build_alias(weights, weights.sum(), cells)
    expected = []
    for word in words(12345, 200):
        place, rest = divmod(word * 7, 2**64)
        limit, other = divmod(int(cells[place]), 2**32)
        expected.append(other if rest >> 32 >= limit else place)
    out = np.empty(200, dtype=np.int32)
    none = np.empty(0, dtype=np.int32)
    kernels.draw_weighted(cells, 7, none, 12345, np.zeros(2, dtype=np.int32), out)
    assert out.tolist() == expected


@quick
@given(st.data())
def test_drawing_what_a_list_does_not_have(data):
    """Every place that is left, and no other, with equal chances of its number."""
    count = data.draw(st.integers(1, 12))
    lists = data.draw(st.lists(st.sets(st.integers(0, count - 1)), min_size=1, max_size=4))
    users = data.draw(st.lists(st.integers(-1, len(lists) - 1), min_size=1, max_size=5))
    own = data.draw(st.lists(st.integers(-1, count - 1), min_size=len(users), max_size=len(users)))
    stops = np.cumsum([len(part) for part in lists])
    starts = stops - [len(part) for part in lists]
    places = np.array([place for part in lists for place in sorted(part)], dtype=np.int32)
    repeat, seed = 60, data.draw(st.integers(0, 2**64 - 1))
    out = np.empty(repeat * len(users), dtype=np.int32)
    failed = kernels.draw_missing(
        starts.astype(np.int64),
        stops.astype(np.int64),
        places,
        np.array(users, dtype=np.int32),
        np.array(own, dtype=np.int32),
        count,
        repeat,
        seed,
        out,
    )
    expected_failures = 0
    for row, user in enumerate(users):
        taken = (lists[user] if user >= 0 else set()) | {own[row]}
        left = set(range(count)) - taken
        drawn = set(out[row * repeat : (row + 1) * repeat].tolist())
        if left:
            assert drawn <= left
        else:
            expected_failures += repeat
            assert drawn <= set(range(count))
    assert failed == expected_failures


@quick
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 60)), max_size=200), st.integers(1, 9))
def test_lists_of_edges(edges, size):
    starts, counts = np.zeros(7, dtype=np.int64), np.zeros(7, dtype=np.int64)
    users, items = (np.array([e[i] for e in edges], dtype=np.int32) for i in (0, 1))
    pieces = [slice(i, i + size) for i in range(0, len(edges), size)]
    for piece in pieces:
        kernels.count_edges(users[piece], counts)
    starts[1:] = np.cumsum(counts)[:-1]
    stops, places = starts.copy(), np.zeros(len(edges), dtype=np.int32)
    for piece in pieces:
        kernels.scatter_edges(users[piece], items[piece], stops, places)
    kernels.sort_lists(starts, stops, places)
    for user in range(7):
        expected = sorted({item for u, item in edges if u == user})
        assert places[starts[user] : stops[user]].tolist() == expected


@quick
@given(st.lists(st.lists(NUMBERS, max_size=30), max_size=6), st.lists(NUMBERS, max_size=10))
def test_places_of_ids(pieces, others):
    table, known = IdTable(), {}
    for piece in pieces:
        expected = [known.setdefault(i, len(known)) for i in piece]
        assert table.add(np.array(piece, dtype=np.int64)).tolist() == expected
    assert len(table) == len(known)
    arrays = SharedArrays()
    table.share(arrays, "x")
    arrays.freeze()
    shared = SharedIds(arrays, "x")
    assert len(shared) == len(known)
    asked = [*known, *others]
    found = shared.find(np.array(asked, dtype=np.int64)).tolist()
    assert found == [known.get(i, -1) for i in asked]


def test_an_id_table_grows():
    ids = np.random.default_rng(0).permutation(50_000).astype(np.int64) << 20
    table = IdTable()
    for start in range(0, len(ids), 777):
        table.add(ids[start : start + 777])
    arrays = SharedArrays()
    table.share(arrays, "x")
    shared = SharedIds(arrays, "x")
    np.testing.assert_array_equal(shared.find(ids), np.arange(len(ids)))
    assert (shared.find(ids + 1) == -1).all()


def test_too_many_ids(monkeypatch):
    from tzrec.datasets.samplers import ids

    monkeypatch.setattr(ids, "_MAX_PLACES", 10)
    with pytest.raises(DataError, match="at most 10 fit"):
        IdTable().add(np.arange(11))


@quick
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**64 - 1))
def test_neighbours_are_chosen_without_repetition(degree, most, seed):
    places = np.arange(100, 100 + degree, dtype=np.int32)
    starts, stops = np.array([0]), np.array([degree])
    users = np.array([0, -1, 0], dtype=np.int32)
    number = min(degree, most)
    out, rows = np.zeros(2 * number, dtype=np.int32), np.zeros(4 * number, dtype=np.int32)
    kernels.draw_neighbours(starts, stops, places, users, most, seed, out, rows)
    assert rows.reshape(-1, 2).tolist() == [[row, i] for row in (0, 2) for i in range(number)]
    for chosen in out.reshape(2, number).tolist():
        assert max(collections.Counter(chosen).values()) == 1
        assert set(chosen) <= set(places.tolist())
