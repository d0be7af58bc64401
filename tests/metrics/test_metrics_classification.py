"""AUC, accuracy and normalized entropy against scikit-learn, torchmetrics and NumPy."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score, top_k_accuracy_score
from torchmetrics.classification import BinaryAUROC

from tzrec.errors import ConfigError
from tzrec.metrics.accuracy import Accuracy
from tzrec.metrics.auc import AUC, MulticlassAUC, threshold_bins
from tzrec.metrics.normalized_entropy import NormalizedEntropy

RNG = np.random.default_rng(0)


def clicks(num_rows=4000):
    """Labels and scores that know something about them."""
    labels = RNG.integers(0, 2, num_rows)
    scores = 1 / (1 + np.exp(-(RNG.normal(size=num_rows) + labels - 1)))
    return scores.astype(np.float32), labels


def feed(metric, *columns, parts=3):
    for index in np.array_split(np.arange(len(columns[0])), parts):
        metric.update(*(torch.from_numpy(c[index]) for c in columns))
    return float(metric.compute())


@pytest.mark.parametrize("thresholds", [2, 7, 200])
def test_auc_equals_torchmetrics_at_the_same_thresholds(thresholds):
    scores, labels = clicks()
    scores[:50] = np.linspace(0, 0.999, 50)  # on the thresholds, too
    other = BinaryAUROC(thresholds=thresholds)
    other.update(torch.from_numpy(scores), torch.from_numpy(labels))
    assert feed(AUC(thresholds), scores, labels) == pytest.approx(float(other.compute()), abs=1e-6)


def test_auc_equals_sklearn_on_binned_scores_and_nears_it_on_exact_ones():
    scores, labels = clicks()
    binned = np.floor(scores * 199)
    assert feed(AUC(200), scores, labels) == pytest.approx(roc_auc_score(labels, binned), abs=1e-9)
    few = abs(feed(AUC(10), scores, labels) - roc_auc_score(labels, scores))
    many = abs(feed(AUC(5000), scores, labels) - roc_auc_score(labels, scores))
    assert many < 1e-5 < few


def test_auc_counts_scores_of_exactly_one():
    scores, labels = np.array([1, 1, 0, 0], np.float32), np.array([1, 0, 1, 0])
    assert feed(AUC(), scores, labels, parts=1) == 0.5


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float64, np.uint8, np.bool_])
def test_auc_takes_labels_of_any_type(dtype):
    scores, labels = clicks(500)
    expected = feed(AUC(), scores, labels)
    assert feed(AUC(), scores, labels.astype(dtype)) == expected


@pytest.mark.parametrize("thresholds", [2, 3, 200, 1001])
def test_bins_of_the_kernel_are_those_of_torch(thresholds):
    edges = torch.linspace(0, 1, thresholds)
    around = [edges, edges.nextafter(torch.tensor(2.0)), edges.nextafter(torch.tensor(-1.0))]
    scores = torch.cat([*around, torch.rand(2000), torch.tensor([-1.0, 2.0, math.nan])])
    labels = torch.arange(len(scores)) % 2
    metric = AUC(thresholds)
    metric.update(scores, labels)
    expected = np.zeros((2, thresholds), np.int64)
    np.add.at(expected, (labels.numpy(), threshold_bins(scores, edges).numpy()), 1)
    np.testing.assert_array_equal(metric.histogram, expected)


def test_confidence_interval_of_the_auc():
    scores, labels = clicks(3000)
    metric = AUC()
    scores = metric.edges.numpy()[np.floor(scores * 199).astype(int)]
    value = feed(metric, scores, labels)
    # DeLong's estimate, pair by pair.
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None]
    wins = (positive > negative) + 0.5 * (positive == negative)
    variance = wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1]
    assert wins.mean() == pytest.approx(value)
    assert metric.half_width == pytest.approx(1.959964 * variance**0.5, rel=1e-6)


def test_confidence_interval_holds_the_truth_as_often_as_it_says():
    inside = 0
    for _ in range(300):
        labels = RNG.integers(0, 2, 400)
        logits = RNG.normal(size=400) + labels
        metric = AUC(1000)
        value = feed(metric, (1 / (1 + np.exp(-logits))).astype(np.float32), labels, parts=1)
        # P(N(1, 1) > N(0, 1))
        inside += abs(value - 0.7602499) <= metric.half_width
    assert 0.91 <= inside / 300 <= 0.99


def test_no_interval_without_rows_of_both_classes():
    metric = AUC()
    feed(metric, np.array([0.2, 0.7, 0.9], np.float32), np.array([1, 1, 0]), parts=1)
    assert metric.half_width is None


def test_auc_of_one_class_is_zero_and_reset_forgets():
    metric = AUC()
    assert feed(metric, np.array([0.2, 0.7], np.float32), np.array([1, 1]), parts=1) == 0
    metric.reset()
    assert feed(metric, np.array([0.2, 0.7], np.float32), np.array([0, 1]), parts=1) == 1


def test_auc_takes_half_precision_and_float_labels():
    scores, labels = clicks(100)
    metric = AUC()
    metric.update(torch.from_numpy(scores).bfloat16(), torch.from_numpy(labels).float())
    assert 0.5 < float(metric.compute()) < 1


def _multiclass(num_class=4):
    labels = RNG.choice(num_class, 3000, p=[0.5, 0.3, 0.15, 0.05])
    logits = RNG.normal(size=(3000, num_class)) + 1.5 * np.eye(num_class)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return scores.astype(np.float32), labels


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_multiclass_auc(average):
    scores, labels = _multiclass()
    binned = np.floor(scores * 199)
    aucs = [roc_auc_score(labels == c, binned[:, c]) for c in range(4)]
    weights = np.bincount(labels) if average == "weighted" else np.ones(4)
    metric = MulticlassAUC(4, average=average)
    assert feed(metric, scores, labels) == pytest.approx(
        np.average(aucs, weights=weights), abs=1e-9
    )


def test_multiclass_auc_leaves_missing_classes_out():
    scores, labels = _multiclass()
    keep = labels < 2
    aucs = [roc_auc_score(labels[keep] == c, np.floor(scores[keep, c] * 199)) for c in (0, 1)]
    value = feed(MulticlassAUC(4), scores[keep], labels[keep])
    assert value == pytest.approx(np.mean(aucs), abs=1e-9)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_binary_accuracy(threshold):
    scores, labels = clicks()
    expected = accuracy_score(labels, scores > threshold)
    assert feed(Accuracy(threshold=threshold), scores, labels) == pytest.approx(expected)


@pytest.mark.parametrize("top_k", [1, 2])
def test_multiclass_accuracy(top_k):
    scores, labels = _multiclass()
    expected = top_k_accuracy_score(labels, scores, k=top_k)
    assert feed(Accuracy(top_k=top_k), scores, labels) == pytest.approx(expected)


def test_normalized_entropy():
    scores, labels = clicks()
    constant = np.full(len(labels), labels.mean())
    expected = log_loss(labels, scores.astype(np.float64)) / log_loss(labels, constant)
    assert feed(NormalizedEntropy(), scores, labels) == pytest.approx(expected, rel=1e-6)


def test_normalized_entropy_eta_bounds_the_logarithm():
    scores, labels = np.array([0, 1, 0.5], np.float32), np.array([1, 1, 0])
    near, far = (feed(NormalizedEntropy(eta), scores, labels) for eta in (1e-3, 1e-12))
    base = -(2 * np.log(2 / 3) + np.log(1 / 3))
    assert near == pytest.approx((-np.log(1e-3) - np.log(0.5) - np.log(1 - 1e-3)) / base)
    assert far == pytest.approx((-np.log(1e-12) - np.log(0.5)) / base, rel=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AUC(1),
        lambda: MulticlassAUC(3, average="micro"),
        lambda: Accuracy(threshold=1.5),
        lambda: Accuracy(top_k=0),
        lambda: NormalizedEntropy(0.0),
    ],
)
def test_knobs_out_of_range(make):
    with pytest.raises(ConfigError, match="must"):
        make()
