"""Runs `tzrec train` in forks of a warm process, and kills them at chosen points.

Started as a script it answers one JSON request a line; `Runs` is its client. A point is one of

- ``{"step": n, "when": "start" | "backward" | "end"}``: the n-th step of this process;
- ``{"save": n, "call": m}``: before the m-th call into the file system of its n-th save;
- ``{"evaluation": n, "batch": m}``: in a batch of the n-th evaluation.

``"signals"`` of a point are what it gets there instead of SIGKILL.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

# Calls that change what is on the disk: between two of them nothing that a kill could show.
CALLS = {
    *("write", "writelines", "flush", "close", "fsync", "fdatasync", "truncate"),
    *("open", "mkdir", "rename", "replace", "link", "symlink", "unlink", "remove", "rmdir"),
}


class Runs:
    """The warm process.

    Args:
        warm_up: arguments of a command that it runs first.
    """

    def __init__(self, warm_up):
        root = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "LOG_LEVEL": "ERROR"},  # noqa: TID251
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._ask({"arguments": warm_up, "here": True}) == 0

    def run(self, arguments, *, point=None, log=os.devnull):
        """Runs a command; returns its exit code, negative for a signal.

        Args:
            arguments: of ``tzrec``.
            point: where it is killed.
            log: file to append what each step and save did to, as JSON lines.
        """
        return self._ask({"arguments": arguments, "point": point, "log": str(log)})

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def serve():
    """Answers requests until the input ends."""
    from tzrec.cli import main

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("here"):
            code = main(request["arguments"])
        else:
            child = os.fork()
            if child == 0:
                _instrument(request["point"] or {}, request["log"])
                os._exit(main(request["arguments"]))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.write(f"{code}\n")
        answers.flush()


def _die(point):
    for number in point.get("signals", [signal.SIGKILL]):
        os.kill(os.getpid(), number)


def _instrument(point, log):
    """Makes this process write its log, and die at the point."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(**values):
        os.write(handle, (json.dumps(values) + "\n").encode())

    _watch_steps(point, say)
    _watch_saves(point, say)
    _watch_evaluations(point)


def _watch_steps(point, say):
    from tzrec.optim.optimizer import TZRecOptimizer
    from tzrec.training.trainer import Trainer

    run_step, update, call = Trainer._run_step, TZRecOptimizer.step, Trainer._call
    count = 0

    def step(trainer, batch):
        nonlocal count
        count += 1
        here = point.get("step") == count
        if here and point["when"] == "start":
            _die(point)
        run_step(trainer, batch)
        if here and point["when"] == "end":
            _die(point)

    def after_backward(optimizer):
        if point.get("step") == count and point["when"] == "backward":
            _die(point)
        return update(optimizer)

    def note(trainer, method, *args):
        if method == "after_step":  # before a hook of it saves
            (result,) = args
            state, rows = trainer.state, result.batch.checkpoint_info
            say(step=state.step, epoch=state.epoch, rows=rows)
        return call(trainer, method, *args)

    Trainer._run_step = step
    Trainer._call = note
    TZRecOptimizer.step = after_backward


def _watch_saves(point, say):
    from tzrec.training.hooks import checkpoint

    count = 0

    def watched(function):
        def save(*args, **kwargs):
            nonlocal count
            count += 1
            calls = 0

            def profile(frame, event, called):
                nonlocal calls
                if event == "c_call" and called.__name__ in CALLS:
                    if point.get("save") == count and point["call"] == calls:
                        _die(point)
                    calls += 1

            sys.setprofile(profile)
            try:
                return function(*args, **kwargs)
            finally:
                sys.setprofile(None)
                say(save=count, calls=calls)

        return save

    checkpoint.save_checkpoint = watched(checkpoint.save_checkpoint)
    checkpoint.save_data_position = watched(checkpoint.save_data_position)


def _watch_evaluations(point):
    from tzrec.training import job

    run_evaluation = job.run_evaluation
    count = 0

    def evaluate(model, loader, **kwargs):
        nonlocal count
        count += 1
        if point.get("evaluation") == count:
            loader = _DyingLoader(loader, point)
        return run_evaluation(model, loader, **kwargs)

    job.run_evaluation = evaluate


class _DyingLoader:
    def __init__(self, loader, point):
        self._loader = loader
        self._point = point

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def __iter__(self):
        for i, batch in enumerate(self._loader):
            if i == self._point["batch"]:
                _die(self._point)
            yield batch
        if i < self._point["batch"]:
            _die(self._point)


if __name__ == "__main__":
    serve()
