"""Exact search and lists of positions, against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.retrieval import exact, merge
from tzrec.retrieval.exact import Found, exact_top_k
from tzrec.retrieval.row_lists import RowLists


def vectors(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def oracle(queries, items, k, metric="ip", exclude=None):
    """Sorts all scores of every query."""
    positions, scores = [], []
    for row, query in enumerate(np.asarray(queries, np.float64)):
        interests = [q for q in np.atleast_2d(query) if q.any()]
        each = [
            items @ q if metric == "ip" else -((items.astype(np.float64) - q) ** 2).sum(1)
            for q in interests
        ]
        best = np.max(each, axis=0) if each else np.full(len(items), -np.inf)
        best[list(exclude[row]) if exclude else []] = -np.inf
        order = np.argsort(-best, kind="stable")[:k]
        positions.append(np.where(np.isfinite(best[order]), order, -1))
        scores.append(best[order])
    return np.array(positions), np.array(scores)


@pytest.fixture(params=[(256, 65536), (3, 7)], ids=["one tile", "many tiles"])
def tiles(request, monkeypatch):
    monkeypatch.setattr(exact, "_TILE_ROWS", request.param[0])
    monkeypatch.setattr(exact, "_TILE_ITEMS", request.param[1])


@pytest.mark.usefixtures("tiles")
class TestExact:
    @pytest.mark.parametrize("metric", ["ip", "l2"])
    @pytest.mark.parametrize("shape", [(11, 5), (11, 3, 5)], ids=["vector", "interests"])
    @pytest.mark.parametrize("k", [1, 10, 60])
    def test_against_sorting(self, metric, shape, k):
        queries, items = vectors(*shape), vectors(50, 5, seed=1)
        found = exact_top_k(queries, items, k, metric=metric)
        positions, scores = oracle(queries, items, k, metric)
        np.testing.assert_array_equal(found.positions, positions)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("metric", ["ip", "l2"])
    def test_excluded_items_are_not_found(self, metric):
        queries, items = vectors(9, 4), vectors(30, 4, seed=1)
        rng = np.random.default_rng(2)
        seen = [set(map(int, rng.integers(0, 30, n))) for n in (0, 1, 5, 29, 40, 3, 0, 2, 8)]
        found = exact_top_k(queries, items, 12, metric=metric, exclude=RowLists.of(map(list, seen)))
        positions, _ = oracle(queries, items, 12, metric, seen)
        np.testing.assert_array_equal(found.positions, positions)

    def test_all_items_excluded(self):
        found = exact_top_k(vectors(2, 4), vectors(3, 4), 2, exclude=RowLists.of([[0, 1, 2], [1]]))
        assert found.positions[0].tolist() == [-1, -1]
        assert found.scores[0].tolist() == [-np.inf, -np.inf]
        assert sorted(found.positions[1].tolist()) == [0, 2]

    def test_zero_vectors_are_no_interest(self):
        queries, items = vectors(4, 3, 5), -np.abs(vectors(20, 5, seed=1))
        queries = np.abs(queries)
        queries[0, 1:] = 0  # all scores are negative: a zero would win
        queries[2] = 0
        found = exact_top_k(queries, items, 20)
        positions, scores = oracle(queries, items, 20)
        np.testing.assert_array_equal(found.positions, positions)
        assert (found.positions[2] == -1).all()
        assert (found.scores[0] < 0).all()
        np.testing.assert_allclose(found.scores, scores, rtol=1e-5)

    def test_nothing_to_search(self):
        assert exact_top_k(vectors(0, 4), vectors(3, 4), 2).positions.shape == (0, 2)
        assert exact_top_k(vectors(2, 4), vectors(0, 4), 2).positions.shape == (2, 0)


LISTS = st.lists(st.lists(st.integers(-1, 9), max_size=6), max_size=5)


class TestRowLists:
    @settings(max_examples=60, deadline=None)
    @given(LISTS, st.integers(0, 5))
    def test_as_sets(self, lists, start):
        made = RowLists.of(lists)
        sets = [{v for v in one if v >= 0} for one in lists]
        cut = np.split(made.values, made.offsets[1:-1]) if lists else []
        assert [one.tolist() for one in cut] == [sorted(one) for one in sets]
        assert made.lengths.tolist() == [len(one) for one in sets]
        start = min(start, len(lists))
        part = made.slice(start, len(lists))
        assert part.lengths.tolist() == made.lengths[start:].tolist()
        back = made.take(np.arange(len(lists))[::-1])
        assert back.lengths.tolist() == made.lengths[::-1].tolist()
        if lists:
            wanted = np.tile(np.arange(-1, 12), (len(lists), 1))
            expected = [[int(v) in one for v in wanted[0]] for one in sets]
            assert made.contains(wanted).tolist() == expected
            assert back.contains(wanted).tolist() == expected[::-1]
            assert part.contains(wanted[start:]).tolist() == expected[start:]

    def test_pairs_in_any_order(self):
        rows, values = np.array([2, 0, 2, -1, 2]), np.array([4, 1, 3, 7, 4])
        made = RowLists.from_pairs(rows, values, 4)
        assert made.offsets.tolist() == [0, 1, 1, 3, 3]
        assert made.values.tolist() == [1, 3, 4]

    def test_empty(self):
        assert len(RowLists.empty(3)) == 3
        assert not RowLists.empty(2).contains(np.array([[0, 1], [2, -1]])).any()


class TestMerge:
    def test_interests(self):
        positions = np.array([[3, 1], [1, 2], [5, -1], [-1, -1]])
        scores = np.array([[0.9, 0.2], [0.7, 0.1], [0.3, -np.inf], [-np.inf, -np.inf]], np.float32)
        merged = merge.merge_interests(Found(positions, scores), 2, 3)
        assert merged.positions.tolist() == [[3, 1, 2], [5, -1, -1]]
        np.testing.assert_allclose(merged.scores[0], [0.9, 0.7, 0.1])
        assert merged.scores.dtype == np.float32

    def test_keep_is_stable(self):
        found = Found(np.array([[4, 3, 2, 1]]), np.array([[4.0, 3, 2, 1]], np.float32))
        kept = merge.keep(found, np.array([[False, True, False, True]]), 3)
        assert kept.positions.tolist() == [[3, 1, -1]]
