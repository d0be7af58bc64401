"""Metrics of groups, pairs and regressions against pandas, scikit-learn and NumPy."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, roc_auc_score

from tzrec.errors import ConfigError
from tzrec.metrics.grouped_auc import GroupedAUC
from tzrec.metrics.grouped_xauc import GroupedXAUC
from tzrec.metrics.mean import RunningMean
from tzrec.metrics.pairs import count_same_order, pair_of_index
from tzrec.metrics.regression import MeanAbsoluteError, MeanSquaredError
from tzrec.metrics.xauc import XAUC

RNG = np.random.default_rng(0)


def feed(metric, *columns, parts=3):
    for index in np.array_split(np.arange(len(columns[0])), parts):
        metric.update(*(torch.from_numpy(c[index]) for c in columns))
    return float(metric.compute())


def test_mean_errors():
    y, p = RNG.normal(size=999), RNG.normal(size=999).astype(np.float32)
    assert feed(MeanAbsoluteError(), p, y) == pytest.approx(mean_absolute_error(y, p))
    assert feed(MeanSquaredError(), p, y) == pytest.approx(mean_squared_error(y, p))


def test_running_mean_is_weighted():
    metric = RunningMean()
    metric.update(torch.tensor(2.0), 3)
    metric.update(torch.tensor(10.0), 1)
    assert float(metric.compute()) == 4.0


def _grouped_rows(num_rows=3000):
    keys = RNG.geometric(0.02, num_rows) * 7 - 50  # many small groups, negative keys too
    labels = RNG.integers(0, 2, num_rows)
    # Few distinct scores, so that many tie.
    scores = (RNG.integers(0, 12, num_rows) + 3 * labels).astype(np.float32) / 15
    return scores, labels, keys


def test_grouped_auc_equals_pandas_and_sklearn():
    scores, labels, keys = _grouped_rows()
    frame = pd.DataFrame({"s": scores, "y": labels, "k": keys})
    both = [g for _, g in frame.groupby("k") if g.y.nunique() == 2]
    assert len(both) < frame.k.nunique()
    expected = np.mean([roc_auc_score(g.y, g.s) for g in both])
    assert feed(GroupedAUC(), scores, labels, keys) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [GroupedAUC, GroupedXAUC])
def test_no_usable_group_gives_zero(metric):
    scores, labels = np.array([0.1, 0.2], np.float32), np.array([0, 1])
    assert feed(metric(), scores, labels, np.array([1, 2]), parts=1) == 0.0


def _xauc(p, t):
    pairs = list(itertools.combinations(range(len(p)), 2))
    return np.mean([(p[i] - p[j]) * (t[i] - t[j]) > 0 for i, j in pairs])


@pytest.mark.parametrize("num_rows", [1, 2, 3, 17, 64, 200])
def test_pairs_of_same_order_are_counted_exactly(num_rows):
    p, t = RNG.integers(0, 20, num_rows) / 4, RNG.integers(0, 9, num_rows)
    expected = sum(
        (p[i] - p[j]) * (t[i] - t[j]) > 0 for i, j in itertools.combinations(range(num_rows), 2)
    )
    assert count_same_order(torch.from_numpy(p), torch.from_numpy(t)) == expected


def test_pair_of_index_is_exact_for_small_and_huge_numbers():
    small = torch.arange(2000 * 1999 // 2)
    i, j = (part.numpy() for part in pair_of_index(small))
    rows, columns = np.tril_indices(2000, -1)
    np.testing.assert_array_equal(i, rows)
    np.testing.assert_array_equal(j, columns)
    for row in (2**26 + 1, 2**30 - 3):
        first = row * (row - 1) // 2
        index = torch.tensor([first - 1, first, first + row - 1, first + row])
        i, j = pair_of_index(index)
        assert i.tolist() == [row - 1, row, row, row + 1]
        assert j.tolist() == [row - 2, 0, row - 1, 0]


def _regression(num_rows):
    target = np.round(RNG.exponential(size=num_rows), 2).astype(np.float32)
    return (target + RNG.normal(size=num_rows)).astype(np.float32), target


def test_xauc_of_all_pairs():
    p, t = _regression(150)
    assert feed(XAUC(sample_ratio=1.0), p, t) == pytest.approx(_xauc(p, t), abs=1e-12)
    assert feed(XAUC(max_pairs=10**9), p, t) == pytest.approx(_xauc(p, t), abs=1e-12)


def test_xauc_of_a_sample_is_near_and_repeatable():
    p, t = _regression(3000)
    exact = feed(XAUC(sample_ratio=1.0), p, t)
    few, again = feed(XAUC(max_pairs=100), p, t), feed(XAUC(max_pairs=100), p, t)
    assert few == again != exact
    assert few == pytest.approx(exact, abs=0.2)
    # 1350 pairs have a standard error of .012.
    by_ratio = feed(XAUC(sample_ratio=3e-4), p, t)
    assert by_ratio == pytest.approx(exact, abs=0.05)
    assert by_ratio not in (few, exact)
    # So many that counting all is cheaper.
    assert feed(XAUC(sample_ratio=0.5), p, t) == exact


def test_sampling_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    p, t = _regression(3000)
    feed(XAUC(max_pairs=100), p, t)
    feed(GroupedXAUC(max_pairs_per_group=5), p, t, np.zeros(3000, np.int64))
    assert torch.equal(before, torch.get_rng_state())


def test_xauc_in_batch_is_the_mean_over_batches():
    p, t = _regression(90)
    expected = np.mean([_xauc(p[i : i + 30], t[i : i + 30]) for i in (0, 30, 60)])
    metric = XAUC(in_batch=True)
    assert feed(metric, p, t) == pytest.approx(expected, abs=1e-12)
    metric.update(torch.ones(1), torch.ones(1))  # a row alone has no pair
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)


def test_xauc_ties_are_wrong():
    p, t = np.array([0.5, 0.5, 0.7], np.float32), np.array([1.0, 2.0, 2.0], np.float32)
    assert feed(XAUC(sample_ratio=1.0), p, t, parts=1) == pytest.approx(1 / 3)


def test_xauc_without_pairs_is_zero():
    assert feed(XAUC(), np.ones(1, np.float32), np.ones(1, np.float32), parts=1) == 0.0


def test_grouped_xauc_of_small_groups_is_exact():
    p, t = _regression(600)
    keys = RNG.integers(0, 80, 600)
    groups = [g for _, g in pd.DataFrame({"p": p, "t": t, "k": keys}).groupby("k") if len(g) > 1]
    shares = [_xauc(g.p.to_numpy(), g.t.to_numpy()) for g in groups]
    expected = np.average(shares, weights=[len(g) for g in groups])
    metric = GroupedXAUC(max_pairs_per_group=1000)
    assert feed(metric, p, t, keys) == pytest.approx(expected, abs=1e-12)


def test_grouped_xauc_samples_large_groups():
    p, t = _regression(2000)
    keys = RNG.integers(0, 10, 2000)
    exact = feed(GroupedXAUC(max_pairs_per_group=10**6), p, t, keys)
    few = feed(GroupedXAUC(max_pairs_per_group=20), p, t, keys)
    many = feed(GroupedXAUC(max_pairs_per_group=10_000), p, t, keys)
    assert abs(many - exact) < 0.01
    assert few != many
    assert abs(few - exact) < 0.2


@pytest.mark.parametrize(
    "make",
    [
        lambda: XAUC(sample_ratio=0.0),
        lambda: XAUC(sample_ratio=1.1),
        lambda: GroupedXAUC(max_pairs_per_group=0),
    ],
)
def test_knobs_out_of_range(make):
    with pytest.raises(ConfigError, match="must be"):
        make()
