"""Ctrl-C and SIGTERM end a run tidily; nothing stays behind after any end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from kill_runs import Runs
from test_training_kill import everything, same
from test_training_trainer import _trainer

from tzrec.cli.console import run_command
from tzrec.errors import TrainingError
from tzrec.main import train_and_evaluate
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.checkpoint.find import list_checkpoints, read_results
from tzrec.training.hooks.base import Hook
from tzrec.training.hooks.checkpoint import CheckpointHook
from tzrec.training.hooks.nonfinite import NonFiniteGuard
from tzrec.training.hooks.signals import Interrupted, SignalHook

ROOT = Path(__file__).parents[2]


class _Send(Hook):
    """Sends this process a signal in a step, or while a checkpoint is written."""

    def __init__(self, number, *, step, saving=False):
        self._number, self._step, self._saving = number, step, saving

    def after_step(self, trainer, result):
        if not self._saving and trainer.state.step == self._step:
            signal.raise_signal(self._number)

    def before_save(self, trainer):
        if self._saving and trainer.state.step == self._step:
            signal.raise_signal(self._number)


def handlers():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("saving", [False, True])
def test_the_step_is_finished_and_saved_but_not_evaluated(tmp_path, caplog, number, saving):
    before, evaluated = handlers(), []
    save = CheckpointHook(
        tmp_path,
        TrainConfig(save_checkpoints_steps=2),
        export_config=ExportConfig(),
        evaluate=lambda trainer: evaluated.append(trainer.state.step) or {},
    )
    signals = SignalHook("runs/a")
    hooks = [signals, _Send(number, step=3, saving=saving), save]
    trainer = _trainer(hooks, values=(1.0,) * 9, num_epochs=1)
    trainer.fit()
    assert trainer.state.step == 3
    assert trainer.interrupted == number
    # Finished by the formula: three updates of mean(x) = 1.
    assert trainer.base_model.w.item() == pytest.approx(1 - 3 * 0.1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["model.ckpt-2"]
    assert evaluated == []
    assert handlers() == before
    assert f"{signal.Signals(number).name}: finishing the step" in caplog.text
    assert signals.message(trainer) == (
        f"interrupted by {signal.Signals(number).name} after 3 steps; everything up to here is "
        "saved in runs/a/model.ckpt-2\n  to go on: tzrec train runs/a/pipeline.config --continue"
    )


def test_an_evaluation_is_left_at_once(tmp_path):
    """Its checkpoint is there; the evaluation is made when the run goes on."""
    before, seen = handlers(), []
    signals = SignalHook(tmp_path)

    def evaluate(trainer):
        for batch in signals.watched(range(5), trainer):
            seen.append(batch)
            if batch == 1:
                signal.raise_signal(signal.SIGTERM)

    save = CheckpointHook(
        tmp_path,
        TrainConfig(save_checkpoints_steps=2),
        export_config=ExportConfig(),
        evaluate=evaluate,
    )
    trainer = _trainer([signals, save], values=(1.0,) * 9, num_epochs=1)
    with pytest.raises(Interrupted, match="interrupted by SIGTERM after 3 steps") as caught:
        trainer.fit()
    assert caught.value.exit_code == 143
    assert seen == [0, 1]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["model.ckpt-2"]
    assert handlers() == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = _trainer([SignalHook("run"), _Send(signal.SIGINT, step=1)], num_epochs=1)
        trainer.fit()
        assert trainer.state.step == 3
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_cannot_have_handlers():
    trainer = _trainer([SignalHook("run")], num_epochs=1)
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    assert trainer.state.step == 3


def test_exit_codes(capsys):
    def raises(error):
        def command():
            raise error

        return run_command(command)

    assert raises(Interrupted("saved in a", signal.SIGTERM)) == 143
    assert raises(Interrupted("saved in b", signal.SIGINT)) == 130
    assert raises(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "saved in a\nsaved in b\ninterrupted\n"


def arguments(config, run, *, num_workers=0):
    edits = ["train_config.save_checkpoints_steps=3"]
    if num_workers:
        edits += [f"data_config.num_workers={num_workers}", "data_config.loader=PROCESS"]
    flags = [part for edit in edits for part in ("--set", edit)]
    return ["train", str(config), "--model_dir", str(run), "--continue_train", *flags]


def test_a_command_goes_on_with_the_same_bits(tmp_path, click_files):
    config = click_files(tmp_path, "adam_optimizer", num_rows=400)
    runs = Runs(arguments(config, tmp_path / "whole"))
    stopped = tmp_path / "stopped"
    try:
        # In a step; in the step after; while saving; in an evaluation; twice in one step.
        for point, code in (
            ({"step": 3, "when": "backward", "signals": [signal.SIGINT]}, 130),
            ({"step": 1, "when": "end", "signals": [signal.SIGTERM]}, 143),
            ({"save": 1, "call": 3, "signals": [signal.SIGTERM]}, 143),
            ({"evaluation": 1, "batch": 2, "signals": [signal.SIGINT]}, 130),
            ({"step": 1, "when": "start", "signals": [signal.SIGTERM] * 2}, -signal.SIGTERM),
            ({"step": 1, "when": "start", "signals": [signal.SIGINT] * 2}, -signal.SIGINT),
        ):
            command = arguments(config, stopped)
            assert runs.run(command, point=point) == code, point
        assert runs.run(arguments(config, stopped)) == 0
    finally:
        runs.close()
    whole = list_checkpoints(tmp_path / "whole")[-1]
    assert list_checkpoints(stopped)[-1].name == whole.name
    same(everything(whole), everything(list_checkpoints(stopped)[-1]))
    # The stops were saved as well, but not evaluated.
    assert read_results(stopped)[-1] == read_results(tmp_path / "whole")[-1]


def left_behind(before):
    """Threads and child processes of this process that were not there before."""
    threads, children = before
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        new = [t for t in threading.enumerate() if t not in threads]
        new += [c for c in psutil.Process().children(recursive=True) if c not in children]
        # multiprocessing keeps one process to clean up after all others, until this one ends.
        new = [each for each in new if "resource_tracker" not in _command(each)]
        if not new:
            break
        time.sleep(0.05)
    return new


def _command(process):
    try:
        return " ".join(process.cmdline()) if isinstance(process, psutil.Process) else ""
    except psutil.Error:
        return ""


@pytest.mark.parametrize("end", ["ends", "fails", "is interrupted"])
def test_no_thread_and_no_process_stays(click_config, tmp_path, monkeypatch, end):
    before = threading.enumerate(), psutil.Process().children(recursive=True)
    config = str(click_config(num_rows=400))
    edits = ["train_config.num_epochs=1", "train_config.use_tensorboard=true"]
    if end == "fails":  # only here with worker processes, which take seconds to start
        edits += ["data_config.num_workers=2", "data_config.loader=PROCESS"]
    step = NonFiniteGuard.before_update

    def in_step(guard, trainer, total_loss, losses, batch):
        if trainer.state.step == 2 and end == "fails":
            return step(guard, trainer, total_loss * torch.nan, losses, batch)
        if trainer.state.step == 2 and end == "is interrupted":
            signal.raise_signal(signal.SIGTERM)
        return step(guard, trainer, total_loss, losses, batch)

    monkeypatch.setattr(NonFiniteGuard, "before_update", in_step)
    expected = {"fails": TrainingError, "is interrupted": Interrupted}.get(end)
    if expected is None:
        train_and_evaluate(config, edits=edits)
    else:
        with pytest.raises(expected):
            train_and_evaluate(config, edits=edits)
    assert left_behind(before) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_a_signal_to_all_processes(click_config, tmp_path, number, delay):
    """As a terminal or a batch system sends it: the workers get it too."""
    run = tmp_path / "run"
    command = arguments(click_config(num_rows=4000), run, num_workers=2)
    parent = subprocess.Popen(
        [sys.executable, "-m", "tzrec.cli", *command, "--set", "train_config.num_epochs=500"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # noqa: TID251
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while parent.poll() is None and not list_checkpoints(run):
        time.sleep(0.02)
    time.sleep(delay)
    os.killpg(parent.pid, number)
    said = parent.communicate(timeout=60)[1].decode()
    assert parent.returncode == 128 + number, said
    assert f"is saved in {list_checkpoints(run)[-1]}" in said
    assert "Traceback" not in said


def shared_memory(processes):
    """Names below /dev/shm that the processes have mapped, unlinked or not."""
    names = set()
    for process in processes:
        with open(f"/proc/{process.pid}/maps") as maps:
            names |= {line.split()[5] for line in maps if "/dev/shm/" in line}
    return names


def test_a_killed_parent_leaves_nothing(click_config, tmp_path):
    run = tmp_path / "run"
    command = arguments(click_config(num_rows=4000), run, num_workers=2)
    parent = subprocess.Popen(
        # Without an evaluation, whose loader has workers of its own.
        [sys.executable, "-m", "tzrec.cli", *command, "--eval-input-path", ""],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # noqa: TID251
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while parent.poll() is None and not list_checkpoints(run):
        time.sleep(0.02)
    assert parent.poll() is None, parent.stderr.read()
    process = psutil.Process(parent.pid)
    children = process.children(recursive=True)
    assert len(children) >= min(2, len(os.sched_getaffinity(0)))
    names = shared_memory([process, *children])
    parent.kill()
    parent.wait(timeout=10)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert [name for name in names if Path(name).exists()] == []
    said = parent.stderr.read().decode()
    parent.stderr.close()
    assert "Traceback" not in said
