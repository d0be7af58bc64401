"""Scores counted in bins say what scikit-learn says of the rows themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn import metrics
from sklearn.calibration import calibration_curve

from tzrec.training.report import scores as scores_module
from tzrec.training.report.scores import ScoreCollector
from tzrec.training.report.statistics import (
    auc,
    binary_facts,
    calibration,
    number_bars,
    number_curve,
    number_facts,
    roc,
    score_bars,
    thinned,
)
from tzrec.training.report.tasks import Task

CLICK = Task("", "", "clk", 1, ("binary",))
N = 4000


def clicks(num_rows=N, seed=0):
    """Scores of rare clicks and labels that follow them."""
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-rng.normal(-3, 1.5, num_rows)))
    return score.astype(np.float32), (rng.uniform(size=num_rows) < score).astype(np.float32)


def collected(tasks, predictions, labels, parts=3):
    """The results of a collector that gets the rows in some batches."""
    collector = ScoreCollector(tasks)
    collector.start()
    num_rows = len(next(iter(labels.values())))
    for rows in np.array_split(np.arange(num_rows), parts):
        batch = SimpleNamespace(labels={k: torch.from_numpy(v[rows]) for k, v in labels.items()})
        collector.add({k: torch.from_numpy(v[rows]) for k, v in predictions.items()}, batch)
    collector.finish()
    return collector.results


def only(results):
    (result,) = results
    return result.scores


def test_roc_and_auc_are_those_of_the_rows():
    # Scores that are far enough apart to have bins of their own.
    rng = np.random.default_rng(1)
    levels = np.linspace(0.01, 0.95, 150).astype(np.float32)
    score = rng.choice(levels, N)
    label = (rng.uniform(size=N) < score).astype(np.float32)
    bins = only(collected([CLICK], {"probs": score}, {"clk": label})).bins
    curve = roc(bins)
    x, y, _ = metrics.roc_curve(label, score, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, x)
    np.testing.assert_allclose(curve.y, y)
    assert auc(bins)[0] == pytest.approx(metrics.roc_auc_score(label, score), abs=1e-12)


def test_any_scores_are_counted_closely():
    score, label = clicks()
    bins = only(collected([CLICK], {"probs": score}, {"clk": label})).bins
    assert bins.num_rows == N
    assert auc(bins)[0] == pytest.approx(metrics.roc_auc_score(label, score), abs=2e-4)
    facts = binary_facts(bins)
    assert facts["positive rows"] == label.sum()
    assert facts["mean score"] == pytest.approx(score.mean(dtype=np.float64))
    assert facts["mean label"] == pytest.approx(label.mean(dtype=np.float64))
    assert facts["score / label"] == pytest.approx(score.mean() / label.mean(), rel=1e-5)


def test_interval_is_that_of_delong():
    score, label = clicks(600)
    bins = only(collected([CLICK], {"probs": score}, {"clk": label})).bins
    positive, negative = score[label == 1], score[label == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    assert auc(bins)[1] == pytest.approx(1.959964 * np.sqrt(variance), rel=0.01)


def test_calibration_is_that_of_sklearn():
    score, label = clicks(9000)
    bins = only(collected([CLICK], {"probs": score}, {"clk": label})).bins
    groups = calibration(bins, 10)
    rate, mean = calibration_curve(label, score, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(groups.score, mean, rtol=0.01)
    np.testing.assert_allclose(groups.rate, rate, atol=0.012)
    np.testing.assert_allclose(groups.rows, 900, rtol=0.05)
    assert groups.rows.sum() == 9000
    assert (groups.low <= groups.rate).all()
    assert (groups.rate <= groups.high).all()
    expected = np.average(np.abs(groups.score - groups.rate), weights=groups.rows)
    assert groups.error == pytest.approx(expected)


def test_interval_of_a_rate_is_wilsons():
    # 3 of 20 rows, by the closed form.
    score = np.full(20, 0.1, np.float32)
    label = np.array([1.0] * 3 + [0.0] * 17, np.float32)
    groups = calibration(only(collected([CLICK], {"probs": score}, {"clk": label})).bins)
    z, n, p = 1.959964, 20, 0.15
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert groups.low.tolist() == pytest.approx([middle - half])
    assert groups.high.tolist() == pytest.approx([middle + half])


def test_soft_labels_count_as_they_are():
    score = np.array([0.2, 0.2, 0.9], np.float32)
    label = np.array([0.25, 0.75, 1.0], np.float32)
    bins = only(collected([CLICK], {"probs": score}, {"clk": label})).bins
    assert bins.positive.tolist() == [1, 1]
    assert calibration(bins, 2).rate.tolist() == pytest.approx([0.5, 1.0])


def test_bars_are_the_shares_of_rows():
    score, label = clicks(50_000)
    bars = score_bars(only(collected([CLICK], {"probs": score}, {"clk": label})).bins)
    for name, value in (("label 0", 0), ("label 1", 1)):
        expected = np.histogram(score[label == value], bars.edges)[0] / (label == value).sum()
        np.testing.assert_allclose(bars.shares[name], expected, atol=0.004)
    assert bars.shares["label 0"].sum() > 0.99


def test_thinning_keeps_the_shape():
    score, label = clicks(20_000)
    whole = roc(only(collected([CLICK], {"probs": score}, {"clk": label})).bins)
    thin = thinned(whole, 100)
    assert len(thin.x) <= 102
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
    area = np.trapezoid(whole.y, whole.x)
    assert np.trapezoid(thin.y, thin.x) == pytest.approx(area, abs=2e-3)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_only(label):
    score, _ = clicks(50)
    bins = only(collected([CLICK], {"probs": score}, {"clk": np.full(50, label, np.float32)})).bins
    assert np.isnan(auc(bins)).all()
    assert len(score_bars(bins).shares) == 1


def test_extreme_scores_have_bins_too():
    score = np.array([0.0, 1.0, np.nan, 1e-30], np.float32)
    label = np.array([0, 1, 0, 0], np.float32)
    bins = only(collected([CLICK], {"probs": score}, {"clk": label}, parts=1)).bins
    assert bins.num_rows == 4
    assert auc(bins)[0] == 1.0
    score_bars(bins)


def test_two_classes_are_one_question():
    score, label = clicks()
    task = Task("", "", "clk", 2, ("multiclass",))
    predictions = {"probs": np.stack([1 - score, score], 1), "probs1": score}
    both = only(collected([task], predictions, {"clk": label.astype(np.int64)}))
    one = only(collected([CLICK], {"probs": score}, {"clk": label}))
    np.testing.assert_array_equal(both.bins.positive, one.bins.positive)


def class_rows(num_class, num_rows=3000):
    rng = np.random.default_rng(2)
    probs = rng.dirichlet(np.ones(num_class), num_rows).astype(np.float32)
    label = np.array([rng.choice(num_class, p=row / row.sum()) for row in probs.astype(float)])
    return probs, label


def test_few_classes_are_asked_one_by_one():
    probs, label = class_rows(4)
    task = Task("kind", "_kind", "kind", 4, ("multiclass",))
    found = only(collected([task], {"probs_kind": probs}, {"kind": label}))
    assert [question.question for question in found.questions] == [f"class {i}" for i in range(4)]
    for index, question in enumerate(found.questions):
        expected = metrics.roc_auc_score(label == index, probs[:, index])
        assert auc(question.bins)[0] == pytest.approx(expected, abs=2e-4)
    expected = metrics.confusion_matrix(label, probs.argmax(1), labels=range(4))
    np.testing.assert_array_equal(found.confusion, expected)


@pytest.mark.parametrize(("num_class", "shows_confusion"), [(20, True), (40, False)])
def test_of_many_classes_the_most_probable_is_asked(num_class, shows_confusion):
    probs, label = class_rows(num_class)
    task = Task("", "", "kind", num_class, ("multiclass",))
    found = only(collected([task], {"probs": probs}, {"kind": label}))
    (question,) = found.questions
    right = probs.argmax(1) == label
    assert question.bins.positive.sum() == right.sum()
    expected = metrics.roc_auc_score(right, probs.max(1))
    assert auc(question.bins)[0] == pytest.approx(expected, abs=5e-4)
    assert (found.confusion is not None) == shows_confusion


def numbers(num_rows):
    rng = np.random.default_rng(3)
    predicted = rng.gamma(2, 10, num_rows).astype(np.float32)
    return predicted, (predicted * rng.lognormal(0, 0.3, num_rows)).astype(np.float32)


PRICE = Task("", "", "price", 1, ("regression",))


def test_errors_of_numbers_are_those_of_sklearn():
    predicted, actual = numbers(5000)
    found = only(collected([PRICE], {"y": predicted}, {"price": actual}))
    facts = number_facts(found)
    assert facts["rows"] == 5000
    expected = {
        "mean absolute error": metrics.mean_absolute_error(actual, predicted),
        "root mean squared error": metrics.root_mean_squared_error(actual, predicted),
        "R²": metrics.r2_score(actual, predicted),
        "correlation": np.corrcoef(actual, predicted)[0, 1],
        "mean label": actual.mean(),
    }
    for name, value in expected.items():
        assert facts[name] == pytest.approx(value, rel=1e-4), name
    np.testing.assert_array_equal(np.sort(found.predicted), np.sort(predicted.astype(float)))
    assert sum(number_bars(found).shares["label"]) > 0.99
    curve = number_curve(found, 5)
    lowest = np.sort(predicted)[:1000]
    assert curve.x[0] == pytest.approx(lowest.mean(), rel=1e-5)
    of_lowest = actual[np.argsort(predicted, kind="stable")[:1000]]
    assert curve.y[0] == pytest.approx(of_lowest.mean(), rel=1e-5)


def test_a_sample_of_numbers_is_fair_and_bounded(monkeypatch):
    monkeypatch.setattr(scores_module, "SAMPLE", 500)
    predicted = np.arange(20_000, dtype=np.float32)
    found = only(collected([PRICE], {"y": predicted}, {"price": predicted}, parts=40))
    assert len(found.predicted) == 500
    assert len(np.unique(found.predicted)) == 500
    assert found.num_rows == 20_000
    # Four standard errors of the mean of a uniform sample.
    assert found.predicted.mean() == pytest.approx(9999.5, abs=4 * 20_000 / np.sqrt(12 * 500))


def test_each_row_is_scored_by_its_domain():
    task = Task("ctr", "_ctr", "clk", 1, ("binary",), domain="where")
    predictions = {
        "probs_ctr_0": np.array([0.1, 0.2, 0.3], np.float32),
        "probs_ctr_1": np.array([0.7, 0.8, 0.9], np.float32),
    }
    labels = {"clk": np.array([0.0, 1.0, 1.0]), "where": np.array([1, 0, 1])}
    bins = only(collected([task], predictions, labels, parts=1)).bins
    np.testing.assert_allclose(bins.score, [0.2, 0.7, 0.9])
    assert bins.positive.tolist() == [1, 0, 1]


def test_rows_and_labels_that_depend_on_another_label():
    clicked, bought = np.array([1.0, 0, 1, 0]), np.array([1.0, 1, 0, 0])
    score = np.array([0.6, 0.5, 0.4, 0.3], np.float32)
    among = Task("cvr", "_cvr", "buy", 1, ("binary",), among="clk")
    both = Task("ctcvr", "_ctcvr", "buy", 1, ("binary",), only_with="clk")
    labels = {"clk": clicked, "buy": bought}
    results = collected([among, both], {"probs_cvr": score, "probs_ctcvr": score}, labels, parts=2)
    np.testing.assert_allclose(results[0].scores.bins.score, [0.4, 0.6])
    assert results[0].scores.bins.positive.tolist() == [0, 1]
    assert results[1].scores.bins.positive.tolist() == [0, 0, 0, 1]
    assert [result.name for result in results] == ["cvr", "ctcvr"]


def test_what_is_not_predicted_is_left_out():
    score, label = clicks(10)
    towers = [CLICK, Task("x", "_x", "clk", 1, ("binary",)), Task("y", "_y", "", 1, ())]
    assert len(collected(towers, {"probs": score}, {"clk": label})) == 1


def test_an_error_is_a_warning(caplog):
    score, label = clicks(10)
    collector = ScoreCollector([CLICK])
    collector.add({"probs": torch.from_numpy(score)}, SimpleNamespace(labels={"clk": "no"}))
    assert "the report will have no scores" in caplog.text
    collector.add({"probs": torch.from_numpy(score)}, SimpleNamespace(labels={"clk": label}))
    collector.finish()
    assert collector.results == []
    assert len(caplog.records) == 1


def test_an_evaluation_that_did_not_end_does_not_count():
    score, label = clicks(10)
    collector = ScoreCollector([CLICK])
    batch = SimpleNamespace(labels={"clk": torch.from_numpy(label)})
    predictions = {"probs": torch.from_numpy(score)}
    collector.start()
    collector.add(predictions, batch)
    collector.start()
    collector.add(predictions, batch)
    collector.finish()
    assert only(collector.results).bins.num_rows == 10


RANKS = (slice(0, 200), slice(200, 300))


def both_tasks(rows=slice(None)):
    """Results of clicks and prices, of some rows."""
    score, label = clicks(300)
    predicted, actual = numbers(300)
    predictions = {"probs": score[rows], "y": predicted[rows]}
    return collected([CLICK, PRICE], predictions, {"clk": label[rows], "price": actual[rows]})


def check_both(sums, facts, one):
    np.testing.assert_allclose(sums, one[0].scores.bins.scores)
    assert facts == pytest.approx(number_facts(one[1].scores))


def test_rows_of_all_ranks_count(monkeypatch):
    told, one = [], both_tasks()

    def gather(of_ranks, own):
        told.append(own)
        of_ranks[:] = [own, told[0]]

    monkeypatch.setattr(scores_module, "num_ranks", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    both_tasks(RANKS[1])
    found = both_tasks(RANKS[0])
    check_both(found[0].scores.bins.scores, number_facts(found[1].scores), one)


def test_rows_count_when_the_first_rank_has_none(monkeypatch):
    told, one = [], both_tasks()

    def gather(of_ranks, own):
        told.append(own)
        of_ranks[:] = [own, told[0]]

    monkeypatch.setattr(scores_module, "num_ranks", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    both_tasks()
    collector = ScoreCollector([CLICK, PRICE])
    collector.start()
    collector.finish()
    found = collector.results
    check_both(found[0].scores.bins.scores, number_facts(found[1].scores), one)


def test_an_error_leaves_no_scores_of_an_earlier_evaluation():
    score, label = clicks(10)
    collector = ScoreCollector([CLICK])
    predictions = {"probs": torch.from_numpy(score)}
    collector.add(predictions, SimpleNamespace(labels={"clk": torch.from_numpy(label)}))
    collector.finish()
    assert len(collector.results) == 1
    collector.start()
    collector.add(predictions, SimpleNamespace(labels=None))
    collector.finish()
    assert collector.results == []


def test_ranks_wait_for_a_broken_one(monkeypatch, caplog):
    asked = []

    def gather(of_ranks, own):
        asked.append(own)
        of_ranks[:] = [own, None]

    monkeypatch.setattr(scores_module, "num_ranks", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    assert both_tasks() == []
    collector = ScoreCollector([CLICK])
    collector.add({"probs": torch.zeros(1)}, SimpleNamespace(labels=None))
    collector.finish()
    assert asked[-1] is None


def _of_rank(rank, port, results):
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = both_tasks(RANKS[rank])
    results.put((found[0].scores.bins.scores, number_facts(found[1].scores)))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_count_what_one_counts():
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    mp.spawn(_of_rank, (store.port, results), nprocs=2)
    for _ in range(2):
        check_both(*results.get(), both_tasks())
