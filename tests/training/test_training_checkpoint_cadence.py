"""When a checkpoint is saved by the time of the data, and which checkpoints stay."""

import json
import logging
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_training_trainer import _trainer
from torch import nn

from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.checkpoint import prune as prune_module
from tzrec.training.checkpoint.cadence import EventTimeCadence, reconcile
from tzrec.training.checkpoint.find import list_checkpoints
from tzrec.training.checkpoint.prune import Pruner
from tzrec.training.checkpoint.restore import read_data_position
from tzrec.training.checkpoint.save import Snapshot, remove_leftovers, save_checkpoint
from tzrec.training.hooks.checkpoint import CheckpointHook
from tzrec.training.resume import Origin, restore_trainer

times_of_ranks = st.lists(st.integers(-1, 50), min_size=1, max_size=9)


@given(times_of_ranks, st.floats(0.01, 1.0))
def test_the_largest_time_that_enough_ranks_reached(times, quorum):
    count = len(times)
    enough = min(max(math.ceil(quorum * count - 1e-9), 1), count)
    expected = max(t for t in times if sum(other >= t for other in times) >= enough)
    assert reconcile(times, quorum) == expected


@pytest.mark.parametrize(
    ("quorum", "expected"), [(0.01, 40), (0.25, 40), (0.5, 30), (0.51, 20), (0.75, 20), (1.0, -1)]
)
def test_quorum_by_hand(quorum, expected):
    assert reconcile([30, -1, 40, 20], quorum) == expected


def _due(times, **config):
    cadence = EventTimeCadence(TrainConfig(**config))
    return [time for time in times if cadence.is_due(time)], cadence


def test_an_interval_is_aligned_to_1970():
    times = [3595.0, 3599.0, 3600.0, 3601.0, 7199.5, 7200.0, 20000.0, 20001.0]
    due, cadence = _due(times, save_checkpoints_timestamp_interval=3600)
    assert due == [3600.0, 7200.0, 20000.0]
    assert cadence.watermark == 20001.0


def test_the_first_time_is_only_the_reference():
    assert _due([7200.0], save_checkpoints_timestamp_interval=3600)[0] == []
    assert _due([-1.0, -1.0, 7200.0, 7201.0], save_checkpoints_timestamps=[7200])[0] == []


def test_targets_are_passed_once():
    due, _ = _due([5.0, 9.0, 10.0, 11.0, 25.0, 30.0], save_checkpoints_timestamps=[10, 20, 30])
    assert due == [10.0, 25.0, 30.0]


def test_late_rows_and_batches_without_a_time_save_nothing_twice():
    due, _ = _due([90.0, 101.0, 99.0, -1.0, 102.0], save_checkpoints_timestamp_interval=100)
    assert due == [101.0]


def test_a_new_pass_starts_anew():
    cadence = EventTimeCadence(TrainConfig(save_checkpoints_timestamp_interval=10))
    assert [cadence.is_due(t) for t in (5.0, 15.0)] == [False, True]
    cadence.start_pass()
    assert [cadence.is_due(t) for t in (5.0, 15.0)] == [False, True]


def test_without_a_config_nothing_is_asked():
    cadence = EventTimeCadence(TrainConfig())
    assert not cadence.is_set
    assert not cadence.is_due(1e9)


def _timed_trainer(tmp_path, times, config, **limits):
    hook = CheckpointHook(tmp_path, config, export_config=ExportConfig(), evaluate=None)
    trainer = _trainer([hook], values=[1.0] * len(times), **limits)
    batches = type(trainer.loader).__iter__

    class Timed(type(trainer.loader)):
        def __iter__(self):
            for batch, time in zip(batches(self), times, strict=True):
                batch.data_timestamp = time
                yield batch

        def resume(self, position):
            pass

    trainer.loader.__class__ = Timed
    return trainer, hook


def _steps(run):
    return [int(path.name.split("-")[1]) for path in list_checkpoints(run)]


def test_a_run_saves_by_event_time_and_keeps_the_watermark(tmp_path):
    config = TrainConfig(save_checkpoints_steps=0, save_checkpoints_timestamp_interval=10)
    trainer, _ = _timed_trainer(tmp_path, [3.0, 8.0, 11.0, 12.0, 25.0, 26.0], config, num_epochs=1)
    trainer.fit()
    assert _steps(tmp_path) == [2, 4, 5]
    stored = read_data_position(tmp_path / "model.ckpt-4")
    assert stored["__data_ts_watermark__"] == 25.0
    # The pass is over: the next one starts with the oldest rows.
    assert "__data_ts_watermark__" not in read_data_position(tmp_path / "model.ckpt-5")


def test_a_resumed_run_knows_the_time(tmp_path):
    config = TrainConfig(save_checkpoints_steps=0, save_checkpoints_timestamp_interval=10)
    times = [3.0, 8.0, 11.0, 12.0]
    trainer, _ = _timed_trainer(tmp_path, times, config, num_steps=4)
    trainer.fit()
    resumed, hook = _timed_trainer(tmp_path, [19.0, 21.0, 22.0], config, num_steps=7)
    for kind in ("train_metric_state", "load_train_metric_state"):
        setattr(resumed.base_model, kind, lambda *_: {})
    resumed.optimizer.init_state = lambda: None
    resumed.optimizer.schedulers = []
    restore_trainer(resumed, Origin(tmp_path / "model.ckpt-3", own=True))
    assert hook.event_time.watermark == 12.0
    resumed.fit()
    # 19 after 12 passes no multiple of ten, 21 does.
    assert _steps(tmp_path) == [2, 3, 5, 6]


def _save(root, *steps):
    model = nn.Linear(1, 1)
    for step in steps:
        save_checkpoint(root, Snapshot(step, model.state_dict(), {}, {}, {}))


def _pruned(root, keep, **export):
    pruner = Pruner(root, keep, ExportConfig(**export))
    pruner.prune()
    pruner.close()
    return _steps(root)


def test_the_newest_stay(tmp_path):
    _save(tmp_path, 1, 2, 10, 30)
    assert _pruned(tmp_path, 0) == [1, 2, 10, 30]
    assert _pruned(tmp_path, 5) == [1, 2, 10, 30]
    assert _pruned(tmp_path, 2) == [10, 30]
    assert {path.name for path in tmp_path.iterdir()} == {"model.ckpt-10", "model.ckpt-30"}


def test_a_damaged_checkpoint_does_not_count(tmp_path):
    _save(tmp_path, 1, 2, 3, 4)
    (tmp_path / "model.ckpt-3" / "manifest.json").unlink()
    assert _pruned(tmp_path, 2) == [2, 3, 4]


def test_the_best_stays(tmp_path):
    _save(tmp_path, 1, 2, 3, 4)
    values = {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.8}
    lines = [json.dumps({"global_step": step, "auc": auc}) for step, auc in values.items()]
    (tmp_path / "train_eval_result_v2.txt").write_text("\n".join(lines) + "\n")
    assert _pruned(tmp_path, 1, exporter_type="best") == [2, 4]
    assert _pruned(tmp_path, 1) == [4]


def test_an_unknown_metric_prunes_nothing(tmp_path, caplog):
    _save(tmp_path, 1, 2)
    (tmp_path / "train_eval_result_v2.txt").write_text('{"global_step": 1, "a": 1, "b": 2}\n')
    assert _pruned(tmp_path, 1, exporter_type="best") == [1, 2]
    assert "no checkpoint was pruned" in caplog.text


def test_one_failed_removal_does_not_stop_the_others(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger="tzrec")
    _save(tmp_path, 1, 2, 3, 4)
    remove = prune_module.remove_checkpoint

    def failing(path):
        if path.name == "model.ckpt-1":
            raise PermissionError(13, "Permission denied")
        remove(path)

    monkeypatch.setattr(prune_module, "remove_checkpoint", failing)
    assert _pruned(tmp_path, 1) == [1, 4]
    assert "could not remove" in caplog.text
    assert "Permission denied" in caplog.text


def test_removal_happens_elsewhere_and_is_waited_for(tmp_path, monkeypatch):
    _save(tmp_path, 1, 2)
    started, go_on = threading.Event(), threading.Event()

    def slow(path):
        assert threading.current_thread().name == "tzrec-prune"
        started.set()
        assert go_on.wait(10)

    monkeypatch.setattr(prune_module, "remove_checkpoint", slow)
    pruner = Pruner(tmp_path, 1, ExportConfig())
    pruner.prune()
    assert started.wait(10)
    closing = threading.Thread(target=pruner.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert not [t for t in threading.enumerate() if t.name == "tzrec-prune"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    _save(tmp_path, 1)
    for name in (".partial-model.ckpt-2", ".old-model.ckpt-0"):
        (tmp_path / name / "model").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.ckpt-1", "notes"}
