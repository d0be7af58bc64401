"""Several processes of one command on this machine, by torch's elastic launcher."""

from __future__ import annotations

import contextlib
import logging
import signal
import uuid
from collections.abc import Sequence
from typing import Any

import psutil
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tzrec.errors import DistributedError

logger = logging.getLogger("tzrec")

# A run that is asked to stop saves first.
_SECONDS_TO_SAVE = 600
_INTERRUPTED = {128 + signal.SIGINT: signal.SIGINT, 128 + signal.SIGTERM: signal.SIGTERM}
# The end of a rank that lost another one: not what went wrong.
_LOST = 1


class RankError(DistributedError):
    """A process ended, and the launcher ended the others.

    Args:
        message: which one, and how.
        exit_code: its exit code, or 128 + the signal that killed it.
        hint: what to look at.
    """

    def __init__(self, message: str = "", exit_code: int = 1, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


def launch(command: Sequence[str], nproc: int) -> int:
    """Runs ``command`` as ``nproc`` ranks and waits for them.

    Ctrl-C and SIGTERM go to all of them, which then save and leave; a second one ends them at
    once. When one fails, the others are ended.

    Args:
        command: program and arguments.
        nproc: number of processes.

    Returns:
        0, or 128 + the signal that interrupted them.

    Raises:
        RankError: a rank failed; its own message came from itself.
    """
    # What the launcher logs says nothing that is not said here.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        shutdown_timeout=_SECONDS_TO_SAVE,
        signals_to_handle="SIGHUP,SIGQUIT",  # the others are handled here
    )
    program, *arguments = command
    with _Signals():
        try:
            elastic_launch(config, program)(*arguments)
        except SignalException as stop:
            return 128 + stop.sigval
        except ChildFailedError as error:
            return _judge(error)
    return 0


class _Signals:
    """The first signal asks the launcher to stop, which passes it on; the second kills all ranks.

    With its own handlers the launcher would begin to wait once more at the second.
    """

    def __enter__(self) -> None:
        self._others = {child.pid for child in psutil.Process().children()}
        self._came = False
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
            # A process started in the background or with nohup is to ignore Ctrl-C.
            if signal.getsignal(number) != signal.SIG_IGN
        }

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._kill()

    def _handle(self, number: int, frame: Any) -> None:
        if self._came:
            self._kill()
            return
        self._came = True
        raise SignalException(f"{signal.Signals(number).name} was received", signal.Signals(number))

    def _kill(self) -> None:
        with contextlib.suppress(psutil.Error):
            for rank in psutil.Process().children():
                if rank.pid not in self._others:
                    _kill_tree(rank)


def _kill_tree(process: psutil.Process) -> None:
    found = [process]
    with contextlib.suppress(psutil.Error):
        found += process.children(recursive=True)
    for each in found:
        with contextlib.suppress(psutil.Error):
            each.kill()


def _judge(error: ChildFailedError) -> int:
    """Returns the exit code of ranks that a signal interrupted.

    Raises:
        RankError: the rank that failed, if several did the one that did not just lose another.
    """
    rank, failure = min(error.failures.items(), key=lambda item: _order(item[1]))
    code = int(failure.exitcode)
    if code in _INTERRUPTED:
        return code
    if code < 0:
        name = signal.Signals(-code).name
        hint = "the system kills processes when memory runs out; see dmesg"
        raise RankError(
            f"rank {rank} (process {failure.pid}) was killed by {name}; the other ranks were ended",
            128 - code,
            hint=f"{hint}; to go on from the last checkpoint add --continue"
            if -code == signal.SIGKILL
            else "to go on from the last checkpoint add --continue",
        )
    raise RankError(
        f"rank {rank} (process {failure.pid}) failed with exit code {code}; the other ranks were "
        "ended",
        code,
        hint="its own message is above",
    )


def _order(failure: Any) -> tuple[int, float]:
    """Returns how likely a failure is what went wrong first: a kill, an error, a lost peer."""
    code = int(failure.exitcode)
    ended_by_us = code == -signal.SIGTERM
    kind = 3 if ended_by_us else 0 if code < 0 else 2 if code == _LOST else 1
    return kind, failure.timestamp
