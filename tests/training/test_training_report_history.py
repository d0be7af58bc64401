"""The curves of a run: what is noted when, after a resume, a kill, on a full disk, over there."""

import json
import uuid
from types import SimpleNamespace

import fsspec
import pytest
import torch
from test_training_trainer import _trainer

from tzrec.training.hooks.base import StepResult
from tzrec.training.location import location
from tzrec.training.report import history as history_module
from tzrec.training.report import hook as hook_module
from tzrec.training.report.history import HISTORY_FILENAME, History
from tzrec.training.report.hook import HistoryHook


def point(history, step, loss, *, steps=1, auc=0.5):
    history.add_train(step, steps=steps, losses={"bce": loss}, metrics={"auc": auc}, lr=[0.1])


def series(history):
    return [(record["step"], record["losses"]["bce"]) for record in history.train]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / HISTORY_FILENAME
    history = History(path)
    point(history, 0, 0.7)
    history.flush()
    point(history, 10, 0.6, steps=10)
    history.add_evaluation(10, {"auc": 0.8}, {"auc": 0.01})
    history.add_time(10, rows=640, seconds={"data": 1.5})
    history.flush()
    again = History.read(path, 10)
    assert (again.train, again.evaluations) == (history.train, history.evaluations)
    assert again.times == history.times


def test_a_resume_drops_what_is_made_again(tmp_path):
    path = tmp_path / HISTORY_FILENAME
    history = History(path)
    for step in (0, 10, 20, 30):
        point(history, step, 1.0 / (step + 1))
        history.add_evaluation(step, {"auc": step / 100}, {})
        history.add_time(step, rows=step, seconds={"data": float(step)})
    history.flush()
    resumed = History.read(path, 20)
    assert [step for step, _ in series(resumed)] == [0, 10, 20]
    assert [record["step"] for record in resumed.evaluations] == [0, 10, 20]
    assert resumed.times[-1]["rows"] == 20
    point(resumed, 25, 0.5)
    resumed.flush()
    # The file has forgotten the dropped points too.
    assert [step for step, _ in series(History.read(path, 99))] == [0, 10, 20, 25]


def test_a_line_that_a_kill_cut_off_is_passed_over(tmp_path):
    path = tmp_path / HISTORY_FILENAME
    history = History(path)
    point(history, 0, 0.7)
    history.flush()
    with path.open("a") as file:
        file.write('[1]\n{"kind": "other", "step": 1}\n{"kind": "train", "step": 5, "los')
    resumed = History.read(path, 99)
    point(resumed, 10, 0.6)
    resumed.flush()
    assert series(History.read(path, 99)) == [(0, 0.7), (10, 0.6)]


def test_an_evaluation_made_again_replaces_the_first(tmp_path):
    path = tmp_path / HISTORY_FILENAME
    history = History(path)
    history.add_evaluation(5, {"auc": 0.6}, {})
    history.flush()
    history.add_evaluation(5, {"auc": 0.7}, {"auc": 0.1})
    history.flush()
    for found in (history, History.read(path, 9)):
        (record,) = found.evaluations
        assert (record["metrics"], record["half_widths"]) == ({"auc": 0.7}, {"auc": 0.1})


def test_points_stay_bounded_and_means_stay_right(tmp_path, monkeypatch):
    monkeypatch.setattr(history_module, "_MOST_POINTS", 8)
    path = tmp_path / HISTORY_FILENAME
    history = History(path)
    for step in range(100):
        point(history, step, float(step), auc=step / 100)
        history.flush()
    assert len(history.train) < 16
    assert history.stride > 1
    assert sum(record["steps"] for record in history.train) == 100
    total = sum(record["steps"] * record["losses"]["bce"] for record in history.train)
    assert total == pytest.approx(sum(range(100)))
    # The later of two points says the metric.
    assert all(record["metrics"]["auc"] == record["step"] / 100 for record in history.train)
    assert History.read(path, 99).train == history.train
    assert len(path.read_text().splitlines()) < 16


def test_points_differ_in_their_losses(monkeypatch, tmp_path):
    monkeypatch.setattr(history_module, "_MOST_POINTS", 1)
    history = History(tmp_path / HISTORY_FILENAME)
    history.add_train(0, steps=1, losses={}, metrics={}, lr=[])
    history.add_train(1, steps=1, losses={"bce": 0.5}, metrics={}, lr=[])
    assert history.train[0]["losses"] == {"bce": 0.5}


def test_an_object_store_gets_the_whole_file():
    path = location(f"memory://{uuid.uuid4().hex}") / HISTORY_FILENAME
    history = History(path)
    for step in range(3):
        point(history, step, 0.5)
        history.flush()
    assert len(History.read(path, 99).train) == 3
    fsspec.filesystem("memory").store.clear()


def result(loss, *, skipped=False, rows=2):
    value = torch.tensor(loss)
    return StepResult(value, {"bce": value}, {}, None, rows, skipped)


class _Run:
    """A trainer as the hook sees it."""

    def __init__(self, hook, *, step=0, auc=0.5):
        self.hook = hook
        self.state = SimpleNamespace(step=step, last_step=step - 1)
        self.timer = SimpleNamespace(seconds={"data": 2.0})
        self.optimizer = SimpleNamespace(learning_rates=lambda: [0.1, 0.2])
        self.base_model = SimpleNamespace(
            compute_train_metric=lambda: {"auc": torch.tensor(auc)},
            metric_half_widths=lambda: {"auc": 0.02},
        )
        hook.on_train_start(self)

    def steps(self, *results):
        for one in results:
            self.state.step += 1
            self.state.last_step += 1
            self.hook.after_step(self, one)


def test_a_point_is_the_mean_since_the_last(tmp_path):
    hook = HistoryHook(tmp_path, 3)
    run = _Run(hook)
    run.steps(*(result(loss) for loss in (1.0, 2.0, 4.0, 6.0, 9.0)))
    assert series(hook.history) == [(0, 1.0), (3, 4.0)]
    assert hook.history.train[-1]["metrics"] == {"auc": 0.5}
    assert hook.history.train[-1]["lr"] == [0.1, 0.2]
    assert not (tmp_path / HISTORY_FILENAME).exists()
    hook.after_save(run)
    assert len(History.read(tmp_path / HISTORY_FILENAME, 99).train) == 2
    assert hook.num_rows() == 10


def test_steps_left_out_do_not_count(tmp_path):
    hook = HistoryHook(tmp_path, 2)
    run = _Run(hook)
    run.steps(result(1.0), result(float("nan"), skipped=True), result(3.0))
    assert series(hook.history) == [(0, 1.0), (2, 3.0)]
    run.steps(result(0.0, skipped=True), result(0.0, skipped=True))
    assert len(hook.history.train) == 2


@pytest.mark.parametrize(("more", "points"), [(1, [0]), (2, [0, 2])])
def test_the_end_makes_a_point_of_enough_steps(tmp_path, more, points):
    hook = HistoryHook(tmp_path, 4)
    run = _Run(hook)
    run.steps(*(result(1.0) for _ in range(1 + more)))
    hook.on_train_end(run)
    assert [step for step, _ in series(hook.history)] == points


def test_a_resumed_run_goes_on(tmp_path):
    first = HistoryHook(tmp_path, 1)
    run = _Run(first)
    run.steps(result(1.0), result(2.0))
    first.after_save(run)
    first.after_evaluation(run, {"auc": 0.7})
    run.steps(result(5.0))
    first.after_save(run)
    again = HistoryHook(tmp_path, 1)
    resumed = _Run(again, step=2)
    # The run is told the evaluation of its checkpoint, whose interval it knows no more.
    resumed.base_model.metric_half_widths = dict
    again.after_evaluation(resumed, {"auc": 0.7})
    assert again.history.evaluations[0]["half_widths"] == {"auc": 0.02}
    resumed.steps(result(3.0))
    assert series(again.history) == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert again.num_rows() == 6
    assert again.seconds(resumed) == {"data": 4.0}


def test_evaluations_that_only_the_result_file_has(tmp_path):
    rows = [{"global_step": step, "auc": step / 10} for step in (1, 3, 5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train_eval_result_v2.txt").write_text(lines)
    known = History(tmp_path / HISTORY_FILENAME)
    known.add_evaluation(3, {"auc": 0.3}, {})
    known.flush()
    hook = HistoryHook(tmp_path, 1)
    _Run(hook, step=4)
    assert [(r["step"], r["metrics"]) for r in hook.history.evaluations] == [
        (1, {"auc": 0.1}),
        (3, {"auc": 0.3}),
    ]


def test_rows_are_of_all_ranks_even_when_their_number_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(hook_module, "num_ranks", lambda: 4)
    first = HistoryHook(tmp_path, 1)
    run = _Run(first)
    run.steps(result(1.0, rows=10), result(1.0, rows=10))
    first.after_save(run)
    monkeypatch.setattr(hook_module, "num_ranks", lambda: 1)
    again = HistoryHook(tmp_path, 1)
    _Run(again, step=2).steps(result(1.0, rows=10))
    assert again.num_rows() == 4 * 20 + 10


def test_a_new_run_forgets_an_old_file(tmp_path):
    old = History(tmp_path / HISTORY_FILENAME)
    point(old, 50, 0.1)
    old.flush()
    hook = HistoryHook(tmp_path, 1)
    run = _Run(hook)
    run.steps(result(1.0))
    hook.after_save(run)
    assert series(History.read(tmp_path / HISTORY_FILENAME, 99)) == [(0, 1.0)]


def test_a_file_that_cannot_be_written_is_told_once(tmp_path, caplog):
    (tmp_path / HISTORY_FILENAME).mkdir()
    hook = HistoryHook(tmp_path, 1)
    run = _Run(hook)
    for _ in range(2):
        run.steps(result(1.0))
        hook.after_save(run)
    (record,) = caplog.records
    assert "no longer written" in record.message
    assert len(hook.history.train) == 2


def test_a_file_that_cannot_be_read_is_told(tmp_path, caplog):
    (tmp_path / HISTORY_FILENAME).mkdir()
    _Run(HistoryHook(tmp_path, 1), step=5)
    assert "the report will start at this step" in caplog.text


def test_the_trainer_calls_it(tmp_path):
    hook = HistoryHook(tmp_path, 2)
    trainer = _trainer([hook], num_epochs=2)
    trainer.fit()
    # Rows are (value, 1): the losses are means of them times the weight before each step.
    assert [record["step"] for record in hook.history.train] == [0, 2, 4, 5]
    assert hook.history.train[0]["losses"]["l2_loss"] == pytest.approx(1.0)
    assert hook.history.times[-1]["rows"] == 12
    assert History.read(tmp_path / HISTORY_FILENAME, 99).train == hook.history.train
