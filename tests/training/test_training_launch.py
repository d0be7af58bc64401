"""``tzrec train --nproc``: same results, who died, signals that end all, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from tzrec.cli import main
from tzrec.cli.parser import Parser
from tzrec.cli.train import _arguments, add_arguments
from tzrec.training.checkpoint.find import list_checkpoints, read_results
from tzrec.training.distributed import launch

ROOT = Path(__file__).parents[2]


def failed(**codes):
    failures = {}
    for stamp, (rank, code) in enumerate(codes.items()):
        number = int(rank[1:])
        failures[number] = ProcessFailure(number, 100 + number, code, "")
        failures[number].timestamp = stamp
    return ChildFailedError("train", failures)


@pytest.mark.parametrize(
    ("codes", "rank", "code"),
    [
        ({"r0": 1, "r1": -9}, 1, 137),  # the killed one, though it was noticed later
        ({"r0": 1, "r1": 3, "r2": -15}, 1, 3),  # an error with its own code, not a lost peer
        ({"r2": -15, "r1": 1}, 1, 1),
        ({"r1": 5, "r0": 5}, 1, 5),
    ],
)
def test_the_rank_that_failed_first_is_named(codes, rank, code):
    with pytest.raises(launch.RankError, match=rf"rank {rank} \(process {100 + rank}\)") as caught:
        launch._judge(failed(**codes))
    assert caught.value.exit_code == code


def test_a_rank_that_was_ended_by_force_is_not_what_went_wrong():
    error = failed(r0=-9, r1=3)
    error.failures[0].timestamp = 31
    with pytest.raises(launch.RankError, match="rank 1") as caught:
        launch._judge(error)
    assert caught.value.exit_code == 3
    error = failed(r0=-9, r1=-9)
    error.failures[0].timestamp = 31
    with pytest.raises(launch.RankError, match="rank 1"):
        launch._judge(error)


# A process that says when it is ready, and what it does when it is asked to end.
ASKED = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: %s)
print(flush=True)
for _ in range(600):
    time.sleep(0.1)
"""


def interrupted(monkeypatch, *actions):
    """Sends SIGTERM to a launcher whose ranks do ``actions``; returns its exit code."""
    monkeypatch.setattr(launch, "_SECONDS_TO_END", 0.3)
    ranks = []
    with launch._Signals() as signals:
        for i, action in enumerate(actions):
            given = [sys.executable, "-c", ASKED % action]
            environ = {**environment(), "RANK": str(i)}
            rank = subprocess.Popen(given, stdout=subprocess.PIPE, env=environ)
            rank.stdout.readline()
            ranks.append(rank)
        try:
            with pytest.raises(SignalException):
                signal.raise_signal(signal.SIGTERM)
            codes = [rank.wait(5) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
                rank.stdout.close()
        signals.raise_for_failures()
    return codes


def test_ranks_that_save_are_waited_for(monkeypatch):
    slow = "(time.sleep(0.8), os._exit(143))"
    assert interrupted(monkeypatch, slow, "os._exit(143)") == [143, 143]


def test_a_rank_that_fails_while_it_is_to_save_ends_the_others(monkeypatch):
    began = time.monotonic()
    with pytest.raises(launch.RankError, match=r"rank 1 .* with exit code 5") as caught:
        interrupted(monkeypatch, "None", "os._exit(5)")
    assert caught.value.exit_code == 5
    assert time.monotonic() - began < 15


def test_an_interrupted_run_is_no_failure():
    assert launch._judge(failed(r0=143, r1=143)) == 143
    assert launch._judge(failed(r0=130, r1=130)) == 130


def test_processes_of_others_are_not_killed():
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    parent = f"import subprocess; p = subprocess.Popen({sleep}); print(p.pid, flush=True); p.wait()"
    other = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    below = psutil.Process(int(other.stdout.readline()))
    try:
        with launch._Signals():
            rank = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
            loader = psutil.Process(int(rank.stdout.readline()))
        assert rank.wait(20) == -signal.SIGKILL
        assert psutil.wait_procs([loader], 20)[0]
        assert other.poll() is None
        assert below.is_running()
        assert below.status() != psutil.STATUS_ZOMBIE
    finally:
        below.kill()
        other.wait(20)
        other.stdout.close()
        rank.stdout.close()


def test_a_process_gets_all_flags_but_the_number():
    parser = Parser()
    add_arguments(parser)
    given = ["c.config", "--nproc", "3", "--model-dir", "d", "--eval-input-path=", "--continue"]
    given += ["--set", "a=1", "--set", "b=2", "--on-mismatch", "remap", "--no-report"]
    found = _arguments(parser.parse_args(given))
    again, first = parser.parse_args(found), parser.parse_args(given)
    assert again.nproc == 1
    assert {**vars(again), "nproc": 3} == vars(first)


def test_a_wrong_config_starts_nothing(click_config, capsys, monkeypatch):
    monkeypatch.setattr(launch, "launch", None)
    path = click_config()
    assert main(["train", str(path), "--nproc", "2", "--set", "train_config.seed=x"]) == 2
    assert main(["train", str(path), "--nproc", "0"]) == 2
    assert "0 is too small" in capsys.readouterr().err


def command(config, run, nproc, **edits):
    changes = {"train_config.use_tensorboard": False, **edits}
    flags = ["--model-dir", str(run), "--nproc", str(nproc), "--no-report"]
    changes = [f"--set={name}={value}" for name, value in changes.items()]
    return [sys.executable, "-m", "tzrec.cli", "train", str(config), *flags, *changes]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # noqa: TID251


def start(*arguments, **edits):
    return subprocess.Popen(
        command(*arguments, **edits),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end
        time.sleep(0.2)


def ranks_of(process):
    """Returns rank → process."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            rank = child.environ().get("RANK")
        except psutil.Error:
            continue
        if rank is not None and "train" in child.cmdline():
            found[int(rank)] = child
    return found


FOREVER = {"train_config.num_epochs": 0, "train_config.num_steps": 10**8}


@pytest.mark.slow
def test_one_two_and_three_ranks_begin_and_evaluate_alike(click_config, tmp_path):
    """A learning rate of 0: the initial values of all tables, and the counts of an evaluation."""
    config = click_config()
    results, weights = {}, {}
    edits = {
        "train_config.num_epochs": 0,
        "train_config.num_steps": 2,
        "train_config.sparse_optimizer.adagrad_optimizer.lr": 0,
        "train_config.dense_optimizer.adam_optimizer.lr": 0,
    }
    for nproc in (1, 2, 3):
        run = tmp_path / f"run-{nproc}"
        done = subprocess.run(
            command(config, run, nproc, **edits),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        # Rank 0 alone tells how it goes.
        assert done.stderr.count("Train and Evaluate Finished") == 1
        (results[nproc],) = read_results(run)
        checkpoint = list_checkpoints(run)[-1]
        weights[nproc] = _load_state_dict_from_keys(checkpoint_id=str(checkpoint / "model"))
        assert (run / "plan.json").exists() == (nproc > 1)
    stored = json.loads((tmp_path / "run-2" / "plan.json").read_text())
    assert {table["name"] for table in stored["tables"]} == {"user_id_emb", "item", "tags_emb"}
    for nproc in (2, 3):
        assert weights[nproc].keys() == weights[1].keys()
        for name, value in weights[1].items():
            assert torch.equal(value, weights[nproc][name]), name
        for name, value in results[1].items():
            assert results[nproc][name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_and_is_named(click_config, tmp_path):
    run = tmp_path / "run"
    job = start(click_config(), run, 2, **FOREVER)
    wait_for(lambda: run.exists() and list_checkpoints(run), job)
    children = ranks_of(job)
    assert sorted(children) == [0, 1]
    children[1].send_signal(signal.SIGKILL)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 137
    assert f"rank 1 (process {children[1].pid}) was killed by SIGKILL" in said
    assert "to go on from the last checkpoint add --continue" in said
    assert "This is a bug" not in said
    assert not any(child.is_running() for child in children.values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_all(click_config, tmp_path, number):
    run = tmp_path / "run"
    edits = {**FOREVER, "train_config.save_checkpoints_steps": 10**7}
    job = start(click_config(), run, 2, **edits)
    wait_for(lambda: (run / "plan.json").exists(), job)
    time.sleep(3)
    children = ranks_of(job)
    job.send_signal(number)
    _, said = job.communicate(timeout=200)
    assert job.returncode == 128 + number, said[-3000:]
    assert f"interrupted by {number.name} after" in said
    assert "everything up to here is saved" in said
    assert len(list_checkpoints(run)) == 1
    assert not any(child.is_running() for child in children.values())


@pytest.mark.slow
def test_a_second_signal_ends_at_once(click_config, tmp_path):
    run = tmp_path / "run"
    job = start(click_config(), run, 2, **FOREVER)
    wait_for(lambda: (run / "plan.json").exists(), job)
    children = ranks_of(job)
    for child in children.values():
        child.suspend()  # it can neither save nor leave
    job.send_signal(signal.SIGINT)
    time.sleep(1)
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=60)
    assert job.returncode == 130
    assert not any(child.is_running() for child in children.values())
