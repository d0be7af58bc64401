"""The planted click log: deterministic, self-consistent, with a Bayes AUC that is right."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tzrec.demo import clicklog
from tzrec.demo.clicklog import Shop, Simulator, exact_auc, write_click_log

SMALL = Shop(num_users=60, num_items=40, num_rounds=(12, 3, 5))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_click_log(tmp_path_factory.mktemp("log"), SMALL)


def read(log, split):
    return pq.read_table(log.paths[split])


def test_same_seed_same_log_other_seed_other_log(log, tmp_path):
    again = write_click_log(tmp_path / "again", SMALL)
    other = write_click_log(tmp_path / "other", Shop(60, 40, num_rounds=(12, 3, 5), seed=8))
    for split in clicklog.SPLITS:
        assert read(again, split) == read(log, split)
        assert read(other, split) != read(log, split)
    assert again.bayes_auc == log.bayes_auc


def test_sizes_and_ids_fit_the_shop(log):
    assert log.num_rows == {"train": 720, "eval": 180, "test": 300}
    table = read(log, "train")
    bounds = {
        "user_id": SMALL.num_users,
        "segment": SMALL.num_segments,
        "hour": 24,
        "item_id": SMALL.num_items,
        "category": SMALL.num_categories,
    }
    for name, size in bounds.items():
        values = table[name].to_numpy()
        assert values.min() >= 0, name
        assert values.max() < size, name
    lengths = np.diff(table["history__category"].combine_chunks().offsets.to_numpy())
    assert lengths.min() >= 3  # everybody starts with three clicks
    assert lengths.max() <= SMALL.max_history
    assert set(table["clicked"].to_pylist()) == {0.0, 1.0}


def test_auc_is_that_of_sklearn_with_ties():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 500)
    for score in (rng.normal(size=500), rng.integers(0, 7, 500), np.zeros(500)):
        assert exact_auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_bayes_auc_is_the_auc_of_the_written_formula(log):
    """Computes each probability again, row by row, from the file and the planted numbers."""
    shop = Simulator(SMALL)
    table = read(log, "test").to_pylist()
    scores = []
    for row in table:
        history = row["history__category"]
        share = history.count(row["category"]) / len(history)
        gap = abs(row["log_price"] - shop.budget[row["segment"]])
        season = 0.0
        if shop.evening[row["category"]]:
            season = clicklog.EVENING if row["hour"] >= 18 else -clicklog.EVENING / 2
        scores.append(
            clicklog.BIAS
            + shop.activity[row["user_id"]]
            + shop.quality[row["item_id"]]
            + clicklog.TASTE * share
            - clicklog.PRICE * gap
            + season
        )
    labels = [row["clicked"] for row in table]
    assert roc_auc_score(labels, scores) == pytest.approx(log.bayes_auc, abs=1e-6)
    assert np.mean(labels) == pytest.approx(log.click_rate)


def test_labels_are_drawn_from_the_probabilities():
    rows = Simulator(Shop(num_rounds=(40, 1, 1))).play(40)
    for low in np.arange(0, 1, 0.2):
        chosen = (rows.probability >= low) & (rows.probability < low + 0.2)
        expected, found = rows.probability[chosen].mean(), rows.label[chosen].mean()
        assert abs(found - expected) < 5 * np.sqrt(0.25 / chosen.sum())


def test_the_history_holds_earlier_clicks_only_and_in_order():
    simulator = Simulator(SMALL)
    clicks = {user: list(items[items >= 0]) for user, items in enumerate(simulator.history)}
    rows = simulator.play(15)
    for user, item, label, history in zip(
        rows.columns["user_id"], rows.columns["item_id"], rows.label, rows.history, strict=True
    ):
        assert list(history[history >= 0]) == clicks[user][-SMALL.max_history :]
        if label:
            clicks[user].append(item)


def test_every_part_of_the_formula_matters():
    simulator = Simulator(SMALL)
    one = np.zeros(1, dtype=int)
    history = np.full((1, SMALL.max_history), -1)

    def logit(user=0, item=0, hour=0, clicks=()):
        seen = history.copy()
        seen[0, SMALL.max_history - len(clicks) :] = clicks
        return float(simulator.true_logit(one + user, one + item, one + hour, seen)[0])

    same = int(np.flatnonzero(simulator.category == simulator.category[0])[1])
    other = int(np.flatnonzero(simulator.category != simulator.category[0])[0])
    assert logit(clicks=[same]) - logit(clicks=[other]) == pytest.approx(clicklog.TASTE)
    assert logit(clicks=[same, other]) - logit(clicks=[other]) == pytest.approx(clicklog.TASTE / 2)
    late_item = int(np.flatnonzero(simulator.evening[simulator.category])[0])
    assert logit(item=late_item, hour=20) - logit(item=late_item, hour=9) == pytest.approx(
        1.5 * clicklog.EVENING
    )
    assert len({logit(user=u) for u in range(5)}) == 5
