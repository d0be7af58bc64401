"""Runs in directories with a scheme: saved, found, continued, evaluated, pruned."""

import json
import uuid

import fsspec
import pytest
import torch
from checkpoint_models import States, Tables, snapshot
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.main import evaluate, train_and_evaluate
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.training.checkpoint import save as save_module
from tzrec.training.checkpoint.find import (
    latest_checkpoint,
    list_checkpoints,
    read_results,
    resolve,
    skipped_checkpoints,
)
from tzrec.training.checkpoint.prune import Pruner
from tzrec.training.checkpoint.restore import open_checkpoint, read_data_position, restore_model
from tzrec.training.checkpoint.save import remove_checkpoint, save_checkpoint, save_data_position
from tzrec.training.location import RemotePath, location

WORDS = {"vocab_list": ["a", "b", "c"]}


@pytest.fixture(params=["memory", "s3"])
def root(request):
    """An empty directory with a scheme."""
    if request.param == "memory":
        yield f"memory://{uuid.uuid4().hex}"
        fsspec.filesystem("memory").store.clear()
    else:
        yield request.getfixturevalue("s3_url") + "/runs"


def _save(root, step, model):
    return save_checkpoint(root, snapshot(step, model, States(model, 1.0)))


def _weights(path, tmp_path):
    local = tmp_path / uuid.uuid4().hex
    storage.download_tree(str(path), local)
    return _load_state_dict_from_keys(checkpoint_id=str(local / "model"))


def test_locations():
    assert location("s3://b/run/") == RemotePath("s3://b/run")
    assert str(location("s3://b/run") / "x" / "y") == "s3://b/run/x/y"
    assert (location("s3://b/run/x").name, str(location("s3://b/run/x").parent)) == (
        "x",
        "s3://b/run",
    )
    assert str(location("file:///tmp/run")) == "/tmp/run"
    assert str(location("runs/a")) == "runs/a"


def test_a_checkpoint_goes_there_and_back(root):
    model = Tables(WORDS).fill()
    path = _save(root, 7, model)
    assert str(path) == f"{root}/model.ckpt-7"
    assert latest_checkpoint(root) == (path, 7)
    assert resolve("unused", str(path)) == (path, 7)
    assert resolve(root, None)[1] == 7
    other, states = Tables(WORDS), None
    states = States(other)
    with open_checkpoint(other, path) as restorer:
        assert restorer.weights().exact
        assert restorer.optimizer(states).exact
    assert torch.equal(other.rows, model.rows)
    assert states.table["t.row"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    save_data_position(path, {"epoch": 4, "position": {}})
    assert read_data_position(path)["epoch"] == 4
    assert latest_checkpoint(root) == (path, 7)


def test_a_changed_vocabulary_is_seen_there_too(root):
    path = _save(root, 7, Tables(WORDS))
    with pytest.raises(CheckpointError, match=r"1 word added \(d\), 1 removed \(c\)"):
        restore_model(Tables({"vocab_list": ["a", "b", "d"]}), path)


@pytest.mark.parametrize("missing", ["model/__0_0.distcp", "manifest.json", "optimizer/.metadata"])
def test_a_half_copied_one_is_passed_over(root, missing):
    good, bad = (_save(root, step, Tables(WORDS)) for step in (1, 2))
    system, inner = storage.file_system(bad / missing)
    system.rm_file(inner)
    assert latest_checkpoint(root) == (good, 1)
    assert list(skipped_checkpoints(root)) == [bad]


def test_a_failed_copy_keeps_the_last_good_one(root, monkeypatch):
    good = _save(root, 1, Tables(WORDS))

    def fail(*_args, **_kwargs):
        raise ConnectionResetError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(save_module.storage, "upload_tree", fail)
        with pytest.raises(CheckpointError, match="the line is dead") as caught:
            _save(root, 2, Tables(WORDS))
    assert f"{good} (step 1) is safe" in caught.value.hint
    assert latest_checkpoint(root) == (good, 1)


def test_the_manifest_comes_last(root, monkeypatch):
    """Whatever copy is the last one that works, no half checkpoint is taken for a whole one."""
    good = _save(root, 1, Tables(WORDS))
    system, _ = storage.file_system(root)
    put, opened, left = system.put_file, system.open, [0]

    def count():
        if left[0] == 0:
            raise OSError("cut off")
        left[0] -= 1

    def limited_put(*args, **kwargs):
        count()
        return put(*args, **kwargs)

    def limited_open(path, mode="rb", **kwargs):
        if "w" in mode:
            count()
        return opened(path, mode, **kwargs)

    limit = 0
    while True:
        left[0] = limit
        with monkeypatch.context() as patch:
            patch.setattr(system, "put_file", limited_put)
            patch.setattr(system, "open", limited_open)
            try:
                path = _save(root, 2, Tables(WORDS))
                break
            except CheckpointError:
                pass
        assert latest_checkpoint(root) == (good, 1)
        limit += 1
    assert limit > 5
    assert latest_checkpoint(root) == (path, 2)


def test_removing_and_pruning(root):
    first, second, third = (_save(root, step, Tables(WORDS)) for step in (1, 2, 3))
    remove_checkpoint(first)
    assert list_checkpoints(root) == [second, third]
    pruner = Pruner(location(root), 1, ExportConfig())
    pruner.prune()
    pruner.close()
    assert list_checkpoints(root) == [third]


def test_what_is_not_there(root, monkeypatch):
    assert latest_checkpoint(root) == (None, -1)
    with pytest.raises(CheckpointError, match="does not exist"):
        resolve("unused", f"{root}/nothing")

    def fail(_path):
        raise ConnectionResetError("the line is dead")

    monkeypatch.setattr(storage, "list_directory", fail)
    with pytest.raises(CheckpointError, match=r"cannot be listed: the line is dead"):
        latest_checkpoint(root)


def test_a_run_lives_there(root, click_config, tmp_path):
    config, run = str(click_config()), f"{root}/run"
    common = ["train_config.num_epochs=0", "train_config.use_tensorboard=true"]
    train_and_evaluate(config, model_dir=run, edits=[*common, "train_config.num_steps=8"])
    first = [path.name for path in list_checkpoints(run)]
    assert first == ["model.ckpt-5", "model.ckpt-7"]
    with pytest.raises(CheckpointError, match=r"already holds model\.ckpt-7"):
        train_and_evaluate(config, model_dir=run, edits=[*common, "train_config.num_steps=8"])
    keep = "train_config.keep_checkpoint_max=2"
    train_and_evaluate(
        config,
        model_dir=run,
        continue_train=True,
        edits=[*common, "train_config.num_steps=12", keep],
    )
    local = tmp_path / "local"
    train_and_evaluate(config, model_dir=str(local), edits=[*common, "train_config.num_steps=12"])
    # Continued there, it is the run that was never interrupted here.
    assert [path.name for path in list_checkpoints(run)] == ["model.ckpt-10", "model.ckpt-11"]
    expected = _load_state_dict_from_keys(checkpoint_id=str(local / "model.ckpt-11" / "model"))
    found = _weights(location(run) / "model.ckpt-11", tmp_path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert read_results(run)[-1] == read_results(local)[-1]
    names = storage.list_directory(run)
    assert {"pipeline.config", "version", "train_eval_result_v2.txt", "eval_val"} <= set(names)
    assert [name for name in names if name.startswith("events.out")]
    metrics = evaluate(f"{run}/pipeline.config")
    assert metrics == pytest.approx(
        {key: value for key, value in read_results(run)[-1].items() if key != "global_step"}
    )
    with storage.open_file(f"{run}/eval_result.txt", "r") as stream:
        assert json.loads(stream.read())["global_step"] == 11


def test_fine_tuning_from_there(root, click_config, tmp_path):
    config = str(click_config())
    steps = ["train_config.num_epochs=0", "train_config.num_steps=3"]
    train_and_evaluate(config, model_dir=f"{root}/old", edits=steps)
    train_and_evaluate(
        config,
        model_dir=str(tmp_path / "new"),
        fine_tune_checkpoint=f"{root}/old",
        edits=[*steps, "train_config.sparse_optimizer.adagrad_optimizer.lr=0"],
    )
    old = _weights(location(f"{root}/old") / "model.ckpt-2", tmp_path)
    new = _load_state_dict_from_keys(checkpoint_id=str(tmp_path / "new/model.ckpt-2/model"))
    tables = [key for key in old if "embedding" in key and "weight" in key and "group" in key]
    assert tables
    for key in tables:
        assert torch.equal(old[key], new[key]), key
