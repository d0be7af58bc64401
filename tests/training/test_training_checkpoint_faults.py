"""Full disks, vanished directories, kills in the middle: the last good checkpoint stays."""

import errno
import json
import os
import resource
import shutil
import signal

import pytest
import torch
from checkpoint_models import States, Tables, snapshot
from torch.distributed.checkpoint import filesystem

from tzrec.errors import CheckpointError
from tzrec.training.checkpoint import manifest as manifest_module
from tzrec.training.checkpoint import save as save_module
from tzrec.training.checkpoint.find import (
    best_checkpoint,
    latest_checkpoint,
    read_results,
)
from tzrec.training.checkpoint.restore import open_checkpoint, read_data_position
from tzrec.training.checkpoint.save import (
    remove_checkpoint,
    remove_leftovers,
    save_checkpoint,
    save_data_position,
)
from tzrec.training.evaluator import record_result

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def model():
    return Tables({"vocab_list": ["a", "b", "c"]}).fill()


def _save(root, step, model):
    return save_checkpoint(root, snapshot(step, model, States(model, 1.0)))


def _still_good(root, path, model):
    """The checkpoint is found, and its weights are the ones that were saved."""
    assert latest_checkpoint(root)[0] == path
    other = Tables({"vocab_list": ["a", "b", "c"]})
    with open_checkpoint(other, path) as restorer:
        assert restorer.weights().exact
    assert torch.equal(other.rows, model.rows)
    assert {p.name for p in root.iterdir()} == {path.name}


# Every place that writes: torch's writer of shards, its metadata, and our own files.
PLACES = {
    "shards": (filesystem, "_write_item"),
    "metadata": (filesystem.pickle, "dump"),
    "trainer state": (save_module.torch, "save"),
    "manifest": (save_module, "write_manifest"),
    "flush": (save_module.os, "fsync"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_keeps_the_last_good_one(tmp_path, monkeypatch, model, place):
    good = _save(tmp_path, 7, model)

    def fail(*_args, **_kwargs):
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(*PLACES[place], fail)
        with pytest.raises(CheckpointError, match="No space left on device") as caught:
            _save(tmp_path, 9, model)
    assert f"{good} (step 7) is safe" in caught.value.hint
    assert str(tmp_path / "model.ckpt-9") in caught.value.message
    _still_good(tmp_path, good, model)
    later = _save(tmp_path, 9, model)
    assert latest_checkpoint(tmp_path) == (later, 9)


def test_writes_that_the_system_cuts_off(tmp_path, model):
    """The operating system refuses files above a size, in the middle of a write."""
    good = _save(tmp_path, 1, model)
    big = Tables({"num_buckets": 200_000})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="could not be written") as caught:
            _save(tmp_path, 2, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "model.ckpt-1 (step 1) is safe" in caught.value.hint
    _still_good(tmp_path, good, model)


def test_a_vanished_directory_is_not_made_anew(tmp_path, model):
    run = tmp_path / "run"
    run.mkdir()
    _save(run, 1, model)
    shutil.rmtree(run)
    with pytest.raises(CheckpointError, match=f"{run} is gone") as caught:
        _save(run, 2, model)
    assert "no checkpoint of this run is on disk" in caught.value.hint
    assert not run.exists()


def test_a_directory_that_became_a_file(tmp_path, model):
    run = tmp_path / "run"
    run.write_text("")
    with pytest.raises(CheckpointError, match="is gone"):
        _save(run, 2, model)


def test_an_unwritable_directory(tmp_path, monkeypatch, model):
    good = _save(tmp_path, 1, model)

    def refuse(path, *_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(save_module.Path, "mkdir", refuse)
    with pytest.raises(CheckpointError, match=r"Permission denied: .*\.partial-model") as caught:
        _save(tmp_path, 2, model)
    assert "step 1" in caught.value.hint
    _still_good(tmp_path, good, model)


def test_the_position_is_replaced_whole_or_not(tmp_path, monkeypatch, model):
    path = _save(tmp_path, 1, model)
    before = read_data_position(path)

    def fail(*_args):
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(save_module, "_flush", fail)
        with pytest.raises(CheckpointError, match="No space left"):
            save_data_position(path, {"epoch": 5, "position": {}})
    assert read_data_position(path) == before
    save_data_position(path, {"epoch": 5, "position": {"a much longer": "position"}})
    assert read_data_position(path)["epoch"] == 5
    assert latest_checkpoint(tmp_path) == (path, 1)


# Kills at each point of a save: before and after everything that touches the disk.
POINTS = {
    "after the directory was made": (save_module, "_write_states", "before"),
    "between weights and states": (save_module.dcp, "save", "second"),
    "after the states": (save_module, "_publish", "before"),
    "before the manifest": (save_module, "write_manifest", "before"),
    "after the manifest": (save_module, "write_manifest", "after"),
    "before the rename": (save_module.Path, "rename", "before"),
    "after the rename": (save_module.Path, "rename", "after"),
}


def _killed_while(action, owner, name, when):
    """Runs an action in a child that SIGKILLs itself at a point; returns how the child ended."""
    child = os.fork()
    if child == 0:
        original, calls = getattr(owner, name), []

        def deadly(*args, **kwargs):
            if name == "rename" and not args[0].name.startswith(".partial"):
                return original(*args, **kwargs)  # one of torch's
            calls.append(1)
            if when == "before" or (when == "second" and len(calls) == 2):
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **kwargs)
            if when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, deadly)
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_while_saving(tmp_path, model, point):
    good = _save(tmp_path, 1, model)
    assert _killed_while(lambda: _save(tmp_path, 2, model), *POINTS[point]) == -signal.SIGKILL
    found, step = latest_checkpoint(tmp_path)
    if point == "after the rename":
        assert step == 2
        remove_checkpoint(found)
    remove_leftovers(tmp_path)
    _still_good(tmp_path, good, model)
    # What the killed run left is not in the way.
    assert _save(tmp_path, 2, model).name == "model.ckpt-2"
    assert latest_checkpoint(tmp_path)[1] == 2


def test_a_kill_while_removing(tmp_path, model):
    old, good = _save(tmp_path, 1, model), _save(tmp_path, 2, model)
    point = (save_module.shutil, "rmtree", "before")
    assert _killed_while(lambda: remove_checkpoint(old), *point) == -signal.SIGKILL
    remove_leftovers(tmp_path)
    _still_good(tmp_path, good, model)


def test_a_kill_while_replacing_the_position(tmp_path, model):
    path = _save(tmp_path, 1, model)
    for when in ("before", "after"):
        code = _killed_while(
            lambda: save_data_position(path, {"epoch": 3, "position": {}}),
            save_module.Path,
            "replace",
            when,
        )
        assert code == -signal.SIGKILL
        assert latest_checkpoint(tmp_path) == (path, 1)
        assert read_data_position(path)["epoch"] == (0 if when == "before" else 3)


def test_an_unfinished_evaluation_line_is_passed_over(tmp_path, caplog):
    lines = ['{"global_step": 1, "auc": 0.5}', '{"global_step": 2, "auc": 0.7}', '{"global_st']
    (tmp_path / "train_eval_result_v2.txt").write_text("\n".join(lines))
    assert [row["global_step"] for row in read_results(tmp_path)] == [1, 2]
    assert "train_eval_result_v2.txt:3, no evaluation" in caplog.text
    # The next evaluation does not become part of it.
    record_result(tmp_path / "train_eval_result_v2.txt", 3, {"auc": 0.8})
    assert [row["global_step"] for row in read_results(tmp_path)] == [1, 2, 3]


def test_results_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        record_result(tmp_path / "file" / "result", 3, {"auc": 0.8})


def test_nan_is_never_the_best(tmp_path, model):
    from tzrec.protos.export_pb2 import ExportConfig

    for step, auc in ((1, 0.6), (2, float("nan")), (3, 0.5)):
        _save(tmp_path, step, model)
        with (tmp_path / "train_eval_result_v2.txt").open("a") as file:
            file.write(json.dumps({"global_step": step, "auc": auc}) + "\n")
    assert best_checkpoint(tmp_path, ExportConfig())[1] == 1


def test_the_only_metric_is_the_one_that_counts(tmp_path, model):
    from tzrec.protos.export_pb2 import ExportConfig

    for step, value in ((1, 0.6), (2, 0.4)):
        _save(tmp_path, step, model)
        with (tmp_path / "train_eval_result_v2.txt").open("a") as file:
            file.write(json.dumps({"global_step": step, "mse": value}) + "\n")
    assert best_checkpoint(tmp_path, ExportConfig(metric_larger_is_better=False))[1] == 2
    with pytest.raises(CheckpointError, match="'auc' was not evaluated; there is mse"):
        best_checkpoint(tmp_path, ExportConfig(best_exporter_metric="auc"))


def test_a_manifest_that_is_cut_off(tmp_path, model):
    path = _save(tmp_path, 1, model)
    text = (path / "manifest.json").read_text()
    for damaged in (text[: len(text) // 2], "[]", '{"step": 1}'):
        (path / "manifest.json").write_text(damaged)
        assert "manifest.json" in manifest_module.incomplete_because(path)
        assert latest_checkpoint(tmp_path) == (None, -1)
