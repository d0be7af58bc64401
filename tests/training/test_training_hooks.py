"""What a run shows: lines, a bar, TensorBoard, its summaries."""

import logging
import re
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training_trainer import _trainer

from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.hooks.progress import ProgressHook
from tzrec.training.hooks.tensorboard import TensorBoardHook
from tzrec.training.summary import final_summary, start_facts, start_summary
from tzrec.training.timing import PartTimer


def test_lines_tell_step_share_speed_rest_and_values(caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    _trainer([ProgressHook(2, bar=False)], num_epochs=2).fit()
    lines = [r.message for r in caplog.records if r.message.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1/6", "3/6", "5/6"]
    assert re.fullmatch(
        r"step 5/6 \(83%\) [\d,]+ rows/s eta 0:00 lr_g0:0.1 l2_loss:\S+ total_loss:\S+", lines[2]
    )
    assert "eta" not in lines[0]


def test_without_a_known_end_there_is_no_share(caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    trainer = _trainer([ProgressHook(1, bar=False)], num_epochs=1)
    trainer.loader.num_batches = None
    trainer.fit()
    lines = [r.message for r in caplog.records if r.message.startswith("step ")]
    assert lines[1].startswith("step 2 ")
    assert "%" not in lines[1]


def test_the_bar_stands_in_for_lines(caplog, capsys):
    caplog.set_level(logging.INFO, logger="tzrec")
    _trainer([ProgressHook(1, bar=True)], num_epochs=2).fit()
    assert not [r for r in caplog.records if r.message.startswith("step ")]
    shown = capsys.readouterr().err
    assert "train" in shown
    assert "6/6" in shown
    assert "rows/s" in shown


def test_saving_and_evaluation_do_not_count_as_training(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("tzrec.training.timing.time.perf_counter", lambda: clock[0])
    timer = PartTimer()
    for part, now in [("data", 1.0), ("forward", 10.0), ("saving", 12.0), ("evaluation", 70.0)]:
        clock[0] = now
        timer.lap(part)
    clock[0] = 72.0
    timer.start()
    clock[0] = 75.0
    timer.lap("data")
    assert timer.seconds["data"] == 4.0
    assert timer.seconds["evaluation"] == 58.0
    assert timer.training == 13.0


def test_tensorboard_tags_and_values(tmp_path):
    train_config = TrainConfig(log_step_count_steps=2)
    trainer = _trainer([TensorBoardHook(tmp_path, train_config)], num_epochs=1)
    trainer.fit()
    again = TensorBoardHook(tmp_path, train_config)
    again.after_evaluation(trainer, {"auc": 0.75})
    again.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"loss/l2_loss", "loss/total", "lr/g0"}
    points = events.Scalars("loss/total")
    assert [point.step for point in points] == [0, 2]
    # The first loss is mean(x * w) of the rows (1, 1) with w = 1.
    assert points[0].value == pytest.approx(1.0)
    (metric,) = EventAccumulator(str(tmp_path / "eval_val")).Reload().Scalars("metric/auc")
    assert (metric.step, metric.value) == (2, 0.75)


def test_summaries_fit_a_screen_and_say_what_matters():
    progress = ProgressHook(1, bar=False)
    trainer = _trainer([progress], num_epochs=2)
    feature = SimpleNamespace(is_sparse=True, is_sequence=False)
    facts = start_facts(
        trainer,
        features=[feature, feature],
        model_dir="runs/a",
        batch_size=2,
        eval_loader=None,
        precision="BF16",
    )
    start = start_summary(facts)
    assert len(start.splitlines()) <= 10
    for part in (
        "6 train, no evaluation, batch 2",
        "2 sparse",
        "1 dense",
        "6 (3 per pass)",
        "BF16",
    ):
        assert part in start
    trainer.fit()
    trainer.stop("auc has not improved")
    end = final_summary(trainer, progress, metrics={"auc": 0.5}, model_dir="runs/a")
    for part in ("rows/s", "auc has not improved", "total_loss", "auc:0.50000", "model.ckpt-5"):
        assert part in end
