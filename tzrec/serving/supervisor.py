"""`Supervisor`: keeps several worker processes running at one port."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from tzrec.serving.acceptor import Shares
from tzrec.serving.options import ServeOptions
from tzrec.serving.worker import Assignment

logger = logging.getLogger("tzrec")

_POLL_SECONDS = 0.1
# A worker that dies sooner than this, again and again, is started later and later.
_SOON_SECONDS = 30.0
_LONGEST_PAUSE = 30.0
# After the time for running requests, for what a worker has to close itself.
_GRACE_SECONDS = 10.0


class _Worker:
    """One place for a process, and the process that fills it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[str] | None = None
        self.is_ready = False
        self.ready_fd = -1
        self.started = 0.0
        self.start_at = 0.0
        self.pause = 0.0

    def poll_ready(self) -> bool:
        """Returns whether the worker said just now that its model is loaded."""
        if self.is_ready or self.process is None:
            return False
        with contextlib.suppress(BlockingIOError):
            self.is_ready = os.read(self.ready_fd, 1) == b"1"
        return self.is_ready

    def forget_process(self) -> None:
        """Closes what belonged to a process that has ended."""
        if self.process is not None:
            os.close(self.ready_fd)
            with contextlib.suppress(OSError):
                assert self.process.stdin is not None
                self.process.stdin.close()
        self.process = None
        self.is_ready = False


class Supervisor:
    """Starts workers, starts those that die again, and passes on the signal to end.

    The first worker loads the model alone, so that one that cannot be loaded says so once; the
    others follow when it is ready, and answer when they are.

    Args:
        source: directory to serve.
        options: of the server, with ``metrics_dir``.
        sock: listens; the workers share it.
        command: starts a process that reads an `Assignment` from its input.
        on_death: called with the id of a worker that has ended.
    """

    def __init__(
        self,
        source: str,
        options: ServeOptions,
        sock: socket.socket,
        *,
        command: Sequence[str],
        on_death: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._options = options
        self._socket = sock
        self._command = list(command)
        self._on_death = on_death
        self._workers = [_Worker(number) for number in range(options.workers)]
        self._signals = 0
        self._was_ready = False
        self._shares = Shares(options.metrics_dir, options.workers)

    def run(self) -> int:
        """Runs the workers until SIGTERM or SIGINT; a second signal does not wait for requests.

        Returns:
            0, or the exit code of the first worker if it never became ready.
        """
        with self._listening_to_signals():
            try:
                code = self._watch()
            finally:
                self._end()
        return code

    @property
    def processes(self) -> list[int]:
        """Ids of the worker processes that run."""
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    def _watch(self) -> int:
        while not self._signals:
            for worker in self._workers:
                if worker.process is None:
                    if worker.number == 0 or self._was_ready:
                        self._start(worker)
                    continue
                if worker.poll_ready():
                    self._was_ready = True
                    logger.info("worker %d is ready", worker.process.pid)
                code = worker.process.poll()
                if code is not None:
                    self._bury(worker, code)
                    if not self._was_ready:
                        return code if code > 0 else 1
            time.sleep(_POLL_SECONDS)
        return 0

    def _start(self, worker: _Worker) -> None:
        if time.monotonic() < worker.start_at:
            return
        worker.ready_fd, ready = os.pipe()
        os.set_blocking(worker.ready_fd, False)
        assignment = Assignment(
            self._source,
            self._options,
            socket_fd=self._socket.fileno(),
            ready_fd=ready,
            place=worker.number,
            is_first=not self._was_ready,
        )
        try:
            worker.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                pass_fds=(assignment.socket_fd, ready),
                # Ctrl-C of the terminal is for the supervisor, which passes it on once.
                start_new_session=True,
                text=True,
            )
        finally:
            os.close(ready)
        worker.started = time.monotonic()
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is seen soon enough
            worker.process.stdin.write(assignment.to_json())
            worker.process.stdin.flush()

    def _bury(self, worker: _Worker, code: int) -> None:
        assert worker.process is not None
        lived = time.monotonic() - worker.started
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._on_death(worker.process.pid)
        self._shares.close(worker.number)
        pid = worker.process.pid
        worker.forget_process()
        pause = 0.0 if lived > _SOON_SECONDS else worker.pause
        worker.start_at = time.monotonic() + pause
        worker.pause = min(max(1.0, pause * 2), _LONGEST_PAUSE)
        if self._was_ready:
            logger.error("worker %d ended (%s); a new one starts in %g s", pid, how, pause)

    def _end(self) -> None:
        self._socket.close()  # else connections that no worker takes any more would wait
        self._tell(signal.SIGTERM)
        end = time.monotonic() + self._options.drain_seconds + _GRACE_SECONDS
        is_hurried = False
        while self.processes and time.monotonic() < end:
            if self._signals > 1 and not is_hurried:
                is_hurried = True
                self._tell(signal.SIGTERM)
            self._collect()
            time.sleep(_POLL_SECONDS)
        self._tell(signal.SIGKILL)
        self._collect(wait=True)

    def _tell(self, what: signal.Signals) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.send_signal(what)

    def _collect(self, *, wait: bool = False) -> None:
        for worker in self._workers:
            if worker.process is None:
                continue
            if wait:
                worker.process.wait()
            if worker.process.poll() is not None:
                worker.forget_process()

    @contextlib.contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        old = {one: signal.signal(one, self._note) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in old.items():
                signal.signal(one, handler)

    def _note(self, *_: object) -> None:
        self._signals += 1
