"""Two gloo ranks under torchrun: they stop together, and the one with the cause names it."""

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rank_runs import start, training
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.training.checkpoint.find import list_checkpoints, step_of
from tzrec.training.checkpoint.restore import read_data_position

ROWS = 1000
# torchrun ends the other ranks as soon as it sees that one has; they may be about to say why.
ENDED_BY_TORCHRUN = "exitcode  : -15"


def launch(config, *, ranks=2, **edits):
    edits = {"train_config.num_epochs": 1} | edits
    words = training(config, "--continue_train", edits=edits)
    return start(*words, ranks=ranks, stderr=subprocess.PIPE)


def spoil(path, *rows):
    """Makes the price of rows nan; without shuffling the second half is that of rank 1."""
    table = pq.read_table(path)
    price = table["price"].to_numpy().astype(np.float32)
    price[list(rows)] = np.nan
    table = table.set_column(table.column_names.index("price"), "price", pa.array(price))
    pq.write_table(table, path)


def messages(said):
    """What the ranks say at their end; not torchrun, which dates its lines."""
    return [line for line in said.splitlines() if "rank" in line and "not finite" in line]


@pytest.mark.slow
def test_a_loss_of_one_rank_ends_both(click_config, tmp_path):
    config = click_config(shuffle=False)
    spoil(tmp_path / "train.parquet", 700)
    started = time.monotonic()
    process = launch(config)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "This is a bug" not in said
    own = [line for line in messages(said) if line.startswith("[rank 1] binary_cross_entropy is")]
    assert len(own) == 1, said
    assert f"{tmp_path}/train.parquet: row 700 (counted from 0)" in own[0]
    # The other one knows why, long before a collective would time out.
    told = any(line.startswith("another rank has ended: rank 1: ") for line in messages(said))
    assert told or ENDED_BY_TORCHRUN in said, said
    assert time.monotonic() - started < 100


@pytest.mark.slow
def test_both_leave_the_same_steps_out(click_config, tmp_path):
    config = click_config(shuffle=False)
    spoil(tmp_path / "train.parquet", 700, 10)
    process = launch(config, **{"train_config.max_non_finite_steps": 2})
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "2 steps were left out, a loss or gradient was not finite" in said
    # 500 rows of each rank.
    assert list_checkpoints(tmp_path / "run")[-1].name == "model.ckpt-7"


def weights(checkpoint):
    return _load_state_dict_from_keys(checkpoint_id=str(checkpoint / "model"))


def test_the_other_ends_when_one_is_killed_and_any_number_goes_on(click_config, tmp_path):
    config = click_config()
    process = launch(config, **{"train_config.num_epochs": 500})
    while process.poll() is None and not list_checkpoints(tmp_path / "run"):
        time.sleep(0.02)
    ranks = psutil.Process(process.pid).children()
    ranks[-1].kill()
    _, said = process.communicate(timeout=60)
    assert f"rank      : 1 (local_rank: 1)\n  exitcode  : -9 (pid: {ranks[-1].pid})" in said
    assert psutil.wait_procs(ranks, timeout=10)[1] == []
    assert "another rank does not answer" in said or ENDED_BY_TORCHRUN in said, said
    assert "This is a bug" not in said
    # With a learning rate of 0 others bring back what the last checkpoint holds.
    saved = list_checkpoints(tmp_path / "run")[-1]
    still = {
        "train_config.num_epochs": 0,
        "train_config.num_steps": step_of(saved) + 3,
        "train_config.sparse_optimizer.adagrad_optimizer.lr": 0,
        "train_config.dense_optimizer.adam_optimizer.lr": 0,
    }
    for number in (1, 3):
        run = shutil.copytree(tmp_path / "run", tmp_path / f"by-{number}")
        process = launch(config, ranks=number, **still, model_dir=str(run))
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        newest = list_checkpoints(run)[-1]
        assert step_of(newest) == step_of(saved) + 2
        expected, found = weights(saved), weights(newest)
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["one rank", "torchrun", "torchrun and data workers"])
def test_a_signal_stops_both_after_the_same_step(click_config, tmp_path, whom):
    config = click_config(shuffle=False)
    long = {"train_config.num_epochs": 500, "train_config.save_checkpoints_steps": 50}
    if whom == "torchrun and data workers":  # it signals the process group of each rank
        long |= {"data_config.loader": "PROCESS", "data_config.num_workers": 1}
    process = launch(config, **long)
    while process.poll() is None and not list_checkpoints(tmp_path / "run"):
        time.sleep(0.02)
    assert process.poll() is None
    ranks = psutil.Process(process.pid).children()
    target = ranks[-1].pid if whom == "one rank" else process.pid
    os.kill(target, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert psutil.wait_procs(ranks, timeout=10)[1] == []
    assert "interrupted by" in said, said
    assert "This is a bug" not in said
    checkpoint = list_checkpoints(tmp_path / "run")[-1]
    assert f"is saved in {checkpoint}" in said
    # Both gave the rows of the same number of batches of a pass.
    stored = read_data_position(checkpoint)["position"]
    rows = sum(end - start for part in stored["sources"].values() for start, end in part)
    assert rows == min(2 * 64 * stored["num_batches"], ROWS)
    limit = {"train_config.num_epochs": 0, "train_config.num_steps": 700}
    process = launch(config, **long | limit)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert list_checkpoints(tmp_path / "run")[-1].name == "model.ckpt-699"
