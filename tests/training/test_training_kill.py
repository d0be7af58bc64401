"""A killed run, continued, ends with the same bits as one that was left alone."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.training.checkpoint.find import list_checkpoints, read_results

EDITS = ["data_config.batch_size=8", "train_config.save_checkpoints_steps=40"]


def _start(config: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tzrec.cli", "train", str(config), "--model_dir", str(run)]
    for edit in EDITS:
        command += ["--set", edit]
    return subprocess.Popen(
        [*command, "--continue_train"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _finish(config: Path, run: Path) -> None:
    process = _start(config, run)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-2000:]


def _kill_somewhere(config: Path, run: Path, rng: random.Random) -> None:
    """Starts or continues the run and kills it a moment after its next checkpoint began."""
    known = len(list_checkpoints(run))
    process = _start(config, run)
    while process.poll() is None and len(list_checkpoints(run)) == known:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert process.stderr is not None
    process.stderr.close()


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return _load_state_dict_from_keys(checkpoint_id=str(list_checkpoints(run)[-1] / "model"))


def _compare(config: Path, tmp_path: Path, kills: int) -> None:
    _finish(config, tmp_path / "whole")
    expected = _weights(tmp_path / "whole")
    rng = random.Random(kills)
    for _ in range(kills):
        _kill_somewhere(config, tmp_path / "killed", rng)
    _finish(config, tmp_path / "killed")
    found = _weights(tmp_path / "killed")
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    assert read_results(tmp_path / "whole")[-1] == read_results(tmp_path / "killed")[-1]


def test_one_kill(click_config, tmp_path):
    _compare(click_config("adam_optimizer"), tmp_path, kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("sparse", ["adagrad_optimizer", "rowwise_adagrad_optimizer"])
def test_many_kills(click_config, tmp_path, sparse):
    _compare(click_config(sparse), tmp_path, kills=8)
