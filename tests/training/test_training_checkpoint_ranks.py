"""Several ranks save, fail, find the time and change in number together."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rank_runs import environment, torchrun, training
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.training.checkpoint.files import write_rows
from tzrec.training.checkpoint.find import list_checkpoints, read_results

# Rank 1 is a fork of rank 0, made before there is any thread: torch is loaded once.
RANKS = """
import os, sys, traceback
root, remote = sys.argv[1], sys.argv[2]
import torch, torch.distributed as dist
from torch.distributed.checkpoint import filesystem
from checkpoint_models import States, Tables, snapshot
from tzrec.errors import CheckpointError
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.checkpoint import files, save
from tzrec.training.checkpoint.cadence import EventTimeCadence
from tzrec.training.checkpoint.find import latest_checkpoint
from tzrec.training.checkpoint.restore import open_checkpoint
from tzrec.training.checkpoint.together import run_together

child = os.fork()
rank = 0 if child else 1
torch.manual_seed(0)
model = Tables({"vocab_list": ["a", "b"]})

def write(where, step):
    return save.save_checkpoint(where, snapshot(step, model, States(model, 1.0)))

def fails(step, text):
    try:
        write(root, step)
    except CheckpointError as error:
        assert text in str(error), error
        assert "model.ckpt-1 (step 1) is safe" in error.hint, error.hint
    else:
        raise AssertionError("the failure of a rank was not told to the other")

def full(*_args, **_kwargs):
    raise OSError(28, "No space left on device")

def together():
    assert run_together(lambda: rank * 10) == [0, 10]
    assert run_together(lambda: "only", here=rank == 1) == [None, "only"]
    try:
        run_together(full, here=rank == 1)
    except (OSError, CheckpointError) as error:
        assert "No space left" in str(error)
    else:
        raise AssertionError("the failure was not told")

def local():
    good = write(root, 1)
    kept = filesystem.FileSystemWriter.write_data
    if rank == 1:
        filesystem.FileSystemWriter.write_data = full
    fails(2, "No space left on device")
    filesystem.FileSystemWriter.write_data = kept
    kept = save.torch.save
    if rank == 0:
        save.torch.save = full
    fails(2, "No space left on device")
    save.torch.save = kept
    assert latest_checkpoint(root) == (good, 1)
    later = write(root, 2)
    assert latest_checkpoint(root) == (later, 2)

def far():
    path = write(remote, 5)
    assert latest_checkpoint(remote) == (path, 5)
    copies = []
    download = files.storage.download_tree
    files.storage.download_tree = lambda *a: (copies.append(a), download(*a))
    other = Tables({"vocab_list": ["a", "b"]})
    with open_checkpoint(other, path) as restorer:
        assert restorer.weights().exact
    assert torch.equal(other.rows, model.rows)
    assert len(copies) == (1 if rank == 0 else 0), "one copy for both ranks of a machine"

def event_time():
    for quorum, saved in ((0.5, True), (1.0, False)):
        config = TrainConfig(
            save_checkpoints_timestamp_interval=10, save_checkpoints_timestamp_quorum=quorum
        )
        cadence = EventTimeCadence(config)
        assert not cadence.is_due(1.0)
        assert cadence.is_due(25.0 if rank == 0 else 3.0) == saved
        assert cadence.watermark == (25.0 if saved else 3.0)

try:
    dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2)
    for case in (together, local, far, event_time):
        case()
        dist.barrier()
    error = "none"
except BaseException:
    error = traceback.format_exc()
with open(f"{root}/error-{rank}", "w") as file:
    file.write(error)
sys.stdout.flush()
if rank == 0:
    os.waitpid(child, 0)
os._exit(0)
"""


def test_two_ranks(tmp_path, s3_url):
    command = [sys.executable, "-c", RANKS, str(tmp_path), f"{s3_url}/run"]
    variables = environment(Path(__file__).parent)
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    errors = [(tmp_path / f"error-{rank}").read_text() for rank in range(2)]
    assert errors == ["none", "none"], done.stderr[-2000:]


def _shard(tensor, row, column):
    return SimpleNamespace(tensor=tensor, metadata=SimpleNamespace(shard_offsets=[row, column]))


def test_rows_go_into_shards():
    source = torch.arange(12.0).reshape(4, 3)
    rows = torch.tensor([3, -1, 0, 2, -1])
    whole = torch.full((5, 3), -1.0)
    write_rows(whole, source, rows)
    expected = [source[row].tolist() if row >= 0 else [-1.0] * 3 for row in rows.tolist()]
    assert whole.tolist() == expected
    # By rows, and by columns.
    for cuts in ([(0, 2, 0, 3), (2, 5, 0, 3)], [(0, 5, 0, 2), (0, 5, 2, 3)]):
        pieces = [
            torch.full((bottom - top, right - left), -1.0) for top, bottom, left, right in cuts
        ]
        shards = [_shard(p, cut[0], cut[2]) for p, cut in zip(pieces, cuts, strict=True)]
        write_rows(SimpleNamespace(local_shards=lambda shards=shards: shards), source, rows)
        for piece, (top, bottom, left, right) in zip(pieces, cuts, strict=True):
            assert torch.equal(piece, torch.tensor(expected)[top:bottom, left:right])


def _train(config, run, ranks, steps, *flags, **edits):
    changes = {"train_config.num_epochs": 0, "train_config.num_steps": steps, **edits}
    torchrun(*training(config, "--model_dir", run, *flags, edits=changes), ranks=ranks)


def _weights(checkpoint):
    return _load_state_dict_from_keys(checkpoint_id=str(checkpoint / "model"))


@pytest.mark.slow
@pytest.mark.parametrize("saved_by", [1, 2, 3])
def test_any_number_of_ranks_goes_on(click_config, tmp_path, saved_by):
    """A step with the learning rate 0 changes nothing: same weights, same evaluation."""
    config = click_config()
    run = tmp_path / "run"
    _train(config, run, saved_by, 3)
    (saved,) = list_checkpoints(run)
    expected, (result,) = _weights(saved), read_results(run)
    still = {
        "train_config.sparse_optimizer.adagrad_optimizer.lr": 0,
        "train_config.dense_optimizer.adam_optimizer.lr": 0,
    }
    for loaded_by in {1, 2, 3} - {saved_by}:
        copy = shutil.copytree(run, tmp_path / f"by-{loaded_by}")
        _train(config, copy, loaded_by, 4, "--continue_train", **still)
        found = _weights(list_checkpoints(copy)[-1])
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
        again = read_results(copy)[-1]
        assert again["global_step"] == 3
        assert again["auc"] == pytest.approx(result["auc"], abs=1e-6)


@pytest.mark.slow
def test_two_ranks_remap_a_table(click_config, tmp_path):
    config = click_config()
    run = tmp_path / "run"
    _train(config, run, 1, 3)
    still = {
        "train_config.sparse_optimizer.adagrad_optimizer.lr": 0,
        "train_config.on_table_mismatch": "REMAP",
        "feature_configs[0].id_feature.num_buckets": 45,
        "train_config.global_embedding_constraints": 'sharding_types: "row_wise"',
    }
    _train(config, run, 2, 4, "--continue_train", **still)
    name = "model.embedding_group.emb_impls.__BASE__.ebc.embedding_bags.user_id_emb.weight"
    before, after = (_weights(path)[name] for path in list_checkpoints(run))
    assert after.shape == (45, 8)
    assert torch.equal(after[:40], before)
