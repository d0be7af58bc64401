"""Metrics of ranks against sorting in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.errors import ConfigError
from tzrec.metrics.hitrate_at_k import HitRateAtK
from tzrec.metrics.mrr import MRR
from tzrec.metrics.ndcg_at_k import NDCGAtK
from tzrec.metrics.recall_at_k import RecallAtK
from tzrec.metrics.train_metric_wrapper import TrainMetricWrapper

INF = 10**6


def ranks(scores, positives):
    """Ranks of the positives of one row: the worst place that ties allow, counted one by one."""
    order = sorted(
        range(len(scores)),
        key=lambda i: (
            (-scores[i], positives[i]) if not np.isnan(scores[i]) else
            ((INF, 1) if positives[i] else (-INF, 0))
        ),
    )  # fmt: skip
    return [place + 1 for place, i in enumerate(order) if positives[i]]


def oracle(name, scores, mask, k):
    rows = [ranks(s, m) for s, m in zip(scores, mask, strict=True)]
    rows = [r for r in rows if r]
    if not rows:
        return 0.0
    top = k or INF
    if name == "recall":
        return sum(r <= top for row in rows for r in row) / sum(map(len, rows))
    if name == "hitrate":
        return np.mean([any(r <= top for r in row) for row in rows])
    if name == "mrr":
        return np.mean([max(1 / r if r <= top else 0 for r in row) for row in rows])
    ideal = [sum(1 / np.log2(1 + r) for r in range(1, min(len(row), k) + 1)) for row in rows]
    found = [sum(1 / np.log2(1 + r) for r in row if r <= k) for row in rows]
    return np.mean(np.array(found) / ideal)


METRICS = {"recall": RecallAtK, "hitrate": HitRateAtK, "ndcg": NDCGAtK, "mrr": MRR}


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("name", METRICS)
def test_one_positive_per_row(name, k):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, (200, 12)).astype(np.float32)
    column = rng.integers(0, 12, 200)
    mask = np.eye(12, dtype=bool)[column]
    metric = METRICS[name](top_k=k)
    for part in (slice(0, 70), slice(70, 200)):
        metric.update(torch.from_numpy(scores[part]), torch.from_numpy(column[part]))
    value = float(metric.compute())
    assert value == pytest.approx(oracle(name, scores, mask, k), rel=1e-9)
    whole = METRICS[name](top_k=k)
    whole.update(torch.from_numpy(scores), torch.from_numpy(mask))
    assert float(whole.compute()) == pytest.approx(value, rel=1e-9)
    assert metric.compute().dtype == torch.float64


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 7), st.integers(1, 8))
def test_any_number_of_positives(seed, num_rows, num_columns, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (num_rows, num_columns)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    mask = rng.random(scores.shape) < 0.4
    for name, metric_class in METRICS.items():
        metric = metric_class(top_k=k)
        metric.update(torch.from_numpy(scores), torch.from_numpy(mask))
        assert float(metric.compute()) == pytest.approx(oracle(name, scores, mask, k)), name


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_one_score_for_all_has_found_nothing(name, value):
    metric = METRICS[name](top_k=3)
    metric.update(torch.full((5, 4), value), torch.zeros(5, dtype=torch.int64))
    assert float(metric.compute()) == 0
    metric.reset()
    assert float(metric.compute()) == 0


def test_mrr_without_a_bound_counts_every_rank():
    scores, target = torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([3])
    for k, value in ((0, 1 / 4), (4, 1 / 4), (3, 0)):
        metric = MRR(k)
        metric.update(scores, target)
        assert float(metric.compute()) == value


@pytest.mark.parametrize("metric", [RecallAtK, HitRateAtK, NDCGAtK])
def test_k_is_at_least_one(metric):
    with pytest.raises(ConfigError, match="top_k is 0"):
        metric(0)


def test_half_precision_scores():
    metric = RecallAtK(1)
    metric.update(torch.tensor([[1.0, 0.5]], dtype=torch.bfloat16), torch.tensor([0]))
    assert float(metric.compute()) == 1


def test_in_training_it_decays():
    metric = TrainMetricWrapper(RecallAtK(1, local=True), decay_rate=0.5, decay_step=1)
    for column, value in ((0, 1.0), (1, 0.5)):
        metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([column]))
        assert float(metric.compute()) == value
