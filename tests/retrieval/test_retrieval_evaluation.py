"""Ranking metrics against a loop over queries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.errors import ConfigError, DataError
from tzrec.retrieval.evaluation import (
    RankingMetrics,
    evaluate_candidates,
    evaluate_ranking,
)
from tzrec.retrieval.row_lists import RowLists


def oracle(lists, relevant, ks, num_items):
    """One query after the other, as the definitions read."""
    values = {}
    asked = [(found, right) for found, right in zip(lists, relevant, strict=True) if right]
    for k in ks:
        recall = ndcg = hit = mrr = precision = 0.0
        for found, right in asked:
            top = [item for item in found[:k] if item >= 0]
            hits = [item in right for item in top]
            recall += sum(hits) / len(right)
            precision += sum(hits) / k
            hit += any(hits)
            mrr += 1 / (hits.index(True) + 1) if any(hits) else 0
            gained = sum(1 / math.log2(i + 2) for i, h in enumerate(hits) if h)
            ndcg += gained / sum(1 / math.log2(i + 2) for i in range(min(len(right), k)))
        n = len(asked)
        values |= {
            f"recall@{k}": recall / n,
            f"ndcg@{k}": ndcg / n,
            f"hitrate@{k}": hit / n,
            f"mrr@{k}": mrr / n,
            f"precision@{k}": precision / n,
            f"coverage@{k}": len({i for f in lists for i in f[:k] if i >= 0}) / num_items,
        }
    return values


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 25))
def test_against_a_loop(seed, rows, width):
    rng = np.random.default_rng(seed)
    found = np.array([rng.permutation(30)[:width] for _ in range(rows)])
    lengths = rng.integers(0, width + 1, rows)
    found[np.arange(width) >= lengths[:, None]] = -1
    relevant = [set(map(int, rng.integers(0, 30, rng.integers(0, 6)))) for _ in range(rows)]
    relevant[0].add(7)
    ks = (1, 5, 20)
    total = RankingMetrics(30, ks)
    lists = RowLists.of(map(list, relevant))
    cut = rows // 2
    total.update(found[:cut], lists.slice(0, cut))
    total.update(found[cut:], lists.slice(cut, rows))
    result = total.result()
    assert result.num_queries == sum(map(bool, relevant))
    assert result.num_skipped == rows - result.num_queries
    expected = oracle(found.tolist(), relevant, ks, 30)
    assert result.metrics == pytest.approx(expected, abs=1e-12)


def test_known_numbers():
    """Items 2 and 9 are right; the list is 5, 2, 7."""
    total = RankingMetrics(10, (1, 3))
    total.update(np.array([[5, 2, 7]]), RowLists.of([[2, 9]]))
    metrics = total.result().metrics
    assert metrics["recall@1"] == metrics["ndcg@1"] == metrics["mrr@1"] == 0
    assert metrics["recall@3"] == 0.5
    assert metrics["precision@3"] == pytest.approx(1 / 3)
    assert metrics["hitrate@3"] == 1
    assert metrics["mrr@3"] == 0.5
    assert metrics["ndcg@3"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert metrics["coverage@3"] == pytest.approx(0.3)


def test_right_items_outside_the_index_count_as_missed():
    total = RankingMetrics(10, (2,))
    total.update(np.array([[1, 2], [3, 4]]), RowLists.of([[1], []]), np.array([2, 1]))
    assert total.result().metrics["recall@2"] == pytest.approx(0.25)
    assert total.result().num_queries == 2


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_full_ranking_without_seen_items(metric):
    rng = np.random.default_rng(3)
    users, items = rng.normal(size=(40, 6)), rng.normal(size=(25, 6))
    relevant = [set(map(int, rng.integers(0, 25, 3))) for _ in range(40)]
    seen = [set(map(int, rng.integers(0, 25, 6))) for _ in range(40)]
    scores = users @ items.T
    if metric == "l2":
        scores = -((users[:, None] - items[None]) ** 2).sum(2)
    for row, one in enumerate(seen):
        scores[row, list(one)] = -np.inf
    lists = [[i for i in np.argsort(-row) if np.isfinite(row[i])] for row in scores]
    result = evaluate_ranking(
        users.astype(np.float32),
        items.astype(np.float32),
        RowLists.of(map(list, relevant)),
        seen=RowLists.of(map(list, seen)),
        ks=(5, 25),
        metric=metric,
    )
    assert result.metrics == pytest.approx(oracle(lists, relevant, (5, 25), 25), abs=1e-12)
    assert "recall" in result.table()
    assert f"{result.metrics['ndcg@5']:.5f}" in result.table()


def test_candidates():
    """Right item first; ranks 1, 3 (a tie counts against it), none of −inf."""
    scores = np.array([[3.0, 1, 2], [1.0, 1, 2], [5.0, -np.inf, -np.inf]])
    result = evaluate_candidates(scores, ks=(1, 3))
    assert result.metrics["hitrate@1"] == pytest.approx(2 / 3)
    assert result.metrics["hitrate@3"] == 1
    assert result.metrics["mrr@3"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert result.metrics["ndcg@3"] == pytest.approx((1 + 1 / math.log2(4) + 1) / 3)
    assert "coverage@1" not in result.metrics


def test_mistakes():
    with pytest.raises(ConfigError, match="at least 1"):
        RankingMetrics(5, (0, 10))
    with pytest.raises(DataError, match="none of the 2 queries"):
        evaluate_ranking(np.ones((2, 3)), np.ones((4, 3)), RowLists.empty(2))
    with pytest.raises(DataError, match="2 queries, but seen has 3 lists"):
        evaluate_ranking(
            np.ones((2, 3)), np.ones((4, 3)), RowLists.of([[1], [2]]), seen=RowLists.empty(3)
        )
