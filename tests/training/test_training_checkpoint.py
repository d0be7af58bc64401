"""Checkpoints: published whole or not at all, found, refused, partly restored."""

import json
import shutil

import pytest
import torch
from torch import nn

from tzrec.errors import CheckpointError
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.training.checkpoint import save as save_module
from tzrec.training.checkpoint.find import (
    best_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    resolve,
    skipped_checkpoints,
)
from tzrec.training.checkpoint.restore import (
    open_checkpoint,
    read_data_position,
    read_trainer_state,
    restore_model,
)
from tzrec.training.checkpoint.save import Snapshot, save_checkpoint, save_data_position


def _snapshot(step, model, optimizer=None):
    return Snapshot(
        step=step,
        model=model.state_dict(),
        optimizer=optimizer or {},
        trainer={"state": {"step": step + 1}},
        data={"epoch": 0, "position": {"a": [[0, 10]]}},
        tables={},
    )


class _Optimizer:
    def __init__(self, value):
        self.state = {"state": {"model.w": {"m": torch.full((2,), value)}}, "param_groups": []}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_a_saved_model_comes_back(tmp_path):
    source = nn.Linear(3, 2)
    path = save_checkpoint(tmp_path, _snapshot(7, source, _Optimizer(3.0).state_dict()))
    assert path.name == "model.ckpt-7"
    target = nn.Linear(3, 2)
    report = restore_model(target, path)
    assert report.exact
    assert torch.equal(target.weight, source.weight)
    optimizer = _Optimizer(0.0)
    with open_checkpoint(target, path) as restorer:
        assert restorer.optimizer(optimizer).exact
    assert torch.equal(optimizer.state["state"]["model.w"]["m"], torch.full((2,), 3.0))
    assert read_trainer_state(path) == {"state": {"step": 8}}
    assert read_data_position(path)["position"] == {"a": [[0, 10]]}
    assert not list(tmp_path.glob(".partial*"))


def test_partial_restore_reports_what_did_not_fit(tmp_path):
    path = save_checkpoint(tmp_path, _snapshot(0, nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))))
    target = nn.Sequential(nn.Linear(3, 2))
    target.add_module("head", nn.Linear(2, 1))
    before = target.head.weight.clone()
    report = restore_model(target, path)
    assert report.matched == ["0.weight", "0.bias"]
    assert report.missing == ["head.weight", "head.bias"]
    assert sorted(report.unexpected) == ["1.bias", "1.weight"]
    assert torch.equal(target.head.weight, before)
    assert "2 missing: head.weight, head.bias" in str(report)


def test_another_shape_is_refused_with_both_sizes(tmp_path):
    path = save_checkpoint(tmp_path, _snapshot(0, nn.Linear(3, 2)))
    with pytest.raises(CheckpointError, match=r"weight: \[2, 3\] there, \[2, 4\] in the model"):
        restore_model(nn.Linear(4, 2), path)


def test_a_stranger_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, _snapshot(0, nn.Linear(3, 2)))
    with pytest.raises(CheckpointError, match="none of the model's parameters"):
        restore_model(nn.Sequential(nn.Linear(3, 2)), path)


@pytest.mark.parametrize("damage", ["truncate", "delete", "no_manifest"])
def test_a_half_written_checkpoint_is_passed_over(tmp_path, damage):
    model = nn.Linear(3, 2)
    good = save_checkpoint(tmp_path, _snapshot(5, model))
    bad = save_checkpoint(tmp_path, _snapshot(10, model))
    data = next((bad / "model").glob("*.distcp"))
    if damage == "truncate":
        data.write_bytes(data.read_bytes()[:-10])
    elif damage == "delete":
        data.unlink()
    else:
        (bad / "manifest.json").unlink()
        (bad / "model" / ".metadata").unlink()
    assert latest_checkpoint(tmp_path) == (good, 5)
    assert list(skipped_checkpoints(tmp_path)) == [bad]
    with pytest.raises(CheckpointError, match="cannot be used"):
        resolve(tmp_path, str(bad))


def test_order_is_by_number(tmp_path):
    for step in (9, 100, 20):
        save_checkpoint(tmp_path, _snapshot(step, nn.Linear(1, 1)))
    assert [p.name for p in list_checkpoints(tmp_path)] == [
        "model.ckpt-9",
        "model.ckpt-20",
        "model.ckpt-100",
    ]
    assert resolve(tmp_path, None)[1] == 100
    assert resolve("unused", str(tmp_path))[1] == 100


def test_nothing_there_says_so(tmp_path):
    assert latest_checkpoint(tmp_path / "none") == (None, -1)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        resolve(tmp_path, "latest")
    with pytest.raises(CheckpointError, match="does not exist"):
        resolve(tmp_path, str(tmp_path / "model.ckpt-3"))


def test_best_follows_the_metric(tmp_path):
    lines = [(10, 0.7, 0.5), (20, 0.8, 0.6), (30, 0.8, 0.4)]
    for step, auc, loss in lines:
        save_checkpoint(tmp_path, _snapshot(step, nn.Linear(1, 1)))
        with (tmp_path / "train_eval_result_v2.txt").open("a") as file:
            file.write(json.dumps({"global_step": step, "auc": auc, "loss": loss}) + "\n")
    assert best_checkpoint(tmp_path, ExportConfig())[1] == 20
    smaller = ExportConfig(best_exporter_metric="loss", metric_larger_is_better=False)
    assert best_checkpoint(tmp_path, smaller)[1] == 30
    assert resolve(tmp_path, None, ExportConfig(exporter_type="best"))[1] == 20
    with pytest.raises(CheckpointError, match="there is auc, loss"):
        best_checkpoint(tmp_path, ExportConfig(best_exporter_metric="gauc"))
    shutil.rmtree(tmp_path / "model.ckpt-20")
    with pytest.raises(CheckpointError, match="it does not exist"):
        best_checkpoint(tmp_path, ExportConfig())


def test_a_failed_write_keeps_the_last_good_one(tmp_path, monkeypatch):
    good = save_checkpoint(tmp_path, _snapshot(1, nn.Linear(1, 1)))

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save_module.torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        save_checkpoint(tmp_path, _snapshot(2, nn.Linear(1, 1)))
    assert f"{good} (step 1) is safe" in str(caught.value)
    assert latest_checkpoint(tmp_path) == (good, 1)
    assert not list(tmp_path.glob(".partial*"))


def test_the_position_of_a_saved_step_can_be_renewed(tmp_path):
    path = save_checkpoint(tmp_path, _snapshot(1, nn.Linear(1, 1)))
    save_data_position(path, {"epoch": 1, "position": {}})
    assert read_data_position(path) == {"epoch": 1, "position": {}}
    assert latest_checkpoint(tmp_path) == (path, 1)
