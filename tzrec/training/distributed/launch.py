"""Several processes of one command on this machine, by torch's elastic launcher."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
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
# What torch's launcher gives ranks to end that have lost another one.
_SECONDS_TO_END = 30
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
    once. When one fails, the others are ended, half a minute later by force.

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
        shutdown_timeout=_SECONDS_TO_END,
        signals_to_handle="SIGHUP,SIGQUIT",  # the others are handled here
    )
    program, *arguments = command
    with _Signals() as signals:
        try:
            elastic_launch(config, program)(*arguments)
        except SignalException as stop:
            signals.raise_for_failures()
            return 128 + stop.sigval
        except ChildFailedError as error:
            return _judge(error)
    return 0


class _Signals:
    """The first signal is passed on and the ranks end; the second kills all of them.

    With its own handlers the launcher would begin to wait once more at the second, and nobody
    would know how the ranks have ended.
    """

    def __enter__(self) -> _Signals:
        self._others = {child.pid for child in psutil.Process().children()}
        self._came = False
        self._forced = False
        self._failed: list[tuple[str, int]] = []
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
            # A process started in the background or with nohup is to ignore Ctrl-C.
            if signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._kill()

    def _handle(self, number: int, frame: Any) -> None:
        if self._came:
            self._forced = True
            self._kill()
            return
        self._came = True
        self._stop(number)
        raise SignalException(f"{signal.Signals(number).name} was received", signal.Signals(number))

    def raise_for_failures(self) -> None:
        """Raises RankError if a rank did not end as it was asked to, the first one that did not."""
        if self._failed and not self._forced:
            name, code = min(self._failed, key=lambda failed: failed[1] == _LOST)
            raise RankError(
                f"{name} did not end as it was asked to, but with exit code {code}; the other "
                "ranks were ended",
                code,
                hint="its own message is above; to go on from the last checkpoint add --continue",
            )

    def _stop(self, number: int) -> None:
        """Passes a signal on and waits: as long as ranks save, but not for what one has lost.

        The launcher does not run meanwhile, so that how the ranks end is left for it to see.
        """
        names = {child.pid: _name(child) for child in self._children()}
        running = {pid: name for pid, name in names.items() if name}
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + _SECONDS_TO_SAVE
        while running and time.monotonic() < end:
            for pid, code in _ended(running):
                name = running.pop(pid)
                if code not in (0, *_INTERRUPTED):
                    self._failed.append((name, code))
                    end = min(end, time.monotonic() + _SECONDS_TO_END)
            time.sleep(0.05)
        if running:
            self._failed += [(name, 128 + signal.SIGKILL) for name in running.values()]
            self._kill()

    def _children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [p for p in psutil.Process().children() if p.pid not in self._others]
        return []

    def _kill(self) -> None:
        for child in self._children():
            _kill_tree(child)


def _name(child: psutil.Process) -> str:
    """Returns how a rank is called, "" for a process that is none."""
    try:
        rank = child.environ().get("RANK", "")
    except psutil.Error:  # it has just ended
        return f"process {child.pid}"
    return f"rank {rank} (process {child.pid})" if rank else ""


def _ended(pids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yields (process, exit code or 128 + signal) of those that have ended, and leaves them so."""
    for pid in list(pids):
        try:
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # the launcher has seen its end already
            yield pid, 0
            continue
        if found is not None:
            killed = found.si_code != os.CLD_EXITED
            yield pid, found.si_status + (128 if killed else 0)


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
    first = min(failure.timestamp for failure in error.failures.values())
    rank, failure = min(error.failures.items(), key=lambda item: _order(item[1], first))
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


def _order(failure: Any, first: float) -> tuple[int, float]:
    """Returns how likely a failure is what went wrong first: a kill, an error, a lost peer.

    Args:
        failure: of a rank.
        first: when the first one was seen, in seconds.
    """
    code = int(failure.exitcode)
    ended_by_us = code == -signal.SIGTERM
    if code == -signal.SIGKILL:  # at the end of its time
        ended_by_us = failure.timestamp >= first + _SECONDS_TO_END - 1
    kind = 3 if ended_by_us else 0 if code < 0 else 2 if code == _LOST else 1
    return kind, failure.timestamp
