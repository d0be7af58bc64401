"""Two processes under torchrun on one topic: killed, interrupted while idle, gone on with."""

import os
import signal
import time

import pytest
from rank_runs import start
from test_training_kill import everything, same
from test_training_stream import EDITS, MESSAGES, PARTITIONS, SIZE, send

from tzrec.training.checkpoint.find import list_checkpoints
from tzrec.training.checkpoint.restore import read_data_position


@pytest.fixture
def launch(click_files, tmp_path):
    """Returns ``begin(run, path, ranks) -> process``; its output is in ``{run}.log``."""
    config = click_files(tmp_path, "adagrad_optimizer", shuffle=False)
    started = []

    def begin(run, path, ranks=2, *edits):
        words = ["train", config, "--model_dir", tmp_path / run, "--train_input_path", path]
        flags = [part for edit in (*EDITS, *edits) for part in ("--set", edit)]
        with (tmp_path / f"{run}.log").open("a") as log:
            process = start(
                *("-m", "tzrec.cli", *words, "--eval_input_path", "", "--continue_train"),
                *("--no-report", *flags),
                ranks=ranks,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_job_is_the_job_that_was_not(brokers, topic, launch, tmp_path):
    name = topic(PARTITIONS)
    send(brokers, name)
    path = brokers.uri(name, "whole", end_offset="latest")
    assert launch("whole", path).wait(240) == 0
    path = brokers.uri(name, "killed", end_offset="latest")
    for known in range(2):
        process = launch("killed", path)
        wait_for(lambda: len(list_checkpoints(tmp_path / "killed")) > known)  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    assert launch("killed", path).wait(240) == 0
    whole, killed = (list_checkpoints(tmp_path / run)[-1] for run in ("whole", "killed"))
    assert whole.name == killed.name
    same(everything(whole), everything(killed))


@pytest.mark.slow
def test_idle_ranks_end_together_and_others_go_on(brokers, topic, launch, tmp_path):
    name = topic(PARTITIONS)
    send(brokers, name)
    log = tmp_path / "idle.log"
    path = brokers.uri(name, auto_offset_reset="earliest")
    process = launch("idle", path, 2, "train_config.log_step_count_steps=1")
    last = SIZE * MESSAGES // 64 - 1  # a rank may wait for the rest of a batch
    wait_for(lambda: f"step {last} " in log.read_text())
    time.sleep(2)
    process.terminate()
    process.wait(60)
    assert log.read_text().count("interrupted by SIGTERM") == 1
    position = read_data_position(list_checkpoints(tmp_path / "idle")[-1])["position"]
    path = brokers.uri(name, end_offset="latest")
    assert launch("idle", path, 3).wait(240) == 0
    assert len(position["offsets"]) == PARTITIONS
    ends = [MESSAGES // PARTITIONS] * PARTITIONS
    assert brokers.committed(name, "g", PARTITIONS) == ends
