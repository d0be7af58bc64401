"""Work on all rows of some files, by several processes, with progress."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.datasets.bad_rows import BadRows, find_failures
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.split import RowOrder
from tzrec.errors import DataError, DistributedError, TzrecError
from tzrec.utils.memory import keep_freed_memory
from tzrec.utils.progress import Progress

logger = logging.getLogger("tzrec")

T = TypeVar("T", covariant=True)
R = TypeVar("R")

_ROWS_WORTH_A_PROCESS = 200_000
_POLL_SECONDS = 0.5
_IN_BATCH = re.compile(r"(?: in)?:? row \d+ of the batch\b")


class Work(Protocol[T]):
    """The work on one shard."""

    def compute(self, batch: pa.RecordBatch) -> Any:
        """Returns what becomes of a batch, and changes nothing."""

    def keep(self, result: Any) -> None:
        """Takes what `compute` gave, in the order of rows."""

    def finish(self) -> T:
        """Ends the work."""

    def abort(self) -> None:
        """Ends it after an error and leaves nothing behind."""


class Task(Protocol[T]):
    """What is done with all rows; must pickle."""

    def start(self, number: int) -> Work[T]:
        """Returns the work on shard ``number``."""


class _Stopped(Exception):  # noqa: N818 — no error: another shard had one
    """The others have been told to stop."""


class _Control:
    """What processes tell each other: rows that are done, and whether to stop."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.rows = context.Value("q", 0)
        self.stop = context.Event()

    def done(self, rows: int) -> None:
        """Counts rows.

        Raises:
            _Stopped: the work is to end.
        """
        if self.stop.is_set():
            raise _Stopped
        with self.rows.get_lock():
            self.rows.value += rows


class _Shared(Generic[T]):
    """What a worker process keeps."""

    def __init__(self, task: Task[T], reader: BaseReader, batch_size: int, control: _Control):
        self.task, self.reader = task, reader
        self.batch_size, self.control = batch_size, control

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the count of bad rows, which each process has for itself."""
        reader = copy.copy(self.reader)
        limit = reader.bad_rows.limit
        del reader.bad_rows
        return {**self.__dict__, "reader": reader, "limit": limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts a count of bad rows."""
        limit = state.pop("limit")
        self.__dict__.update(state)
        self.reader.bad_rows = BadRows(limit)

    def run(self, number: int, order: RowOrder, show: Callable[[], None]) -> tuple[T, int]:
        """Does the work of one shard; calls ``show`` after each batch.

        Returns:
            What the work gives, and the rows that were left out.
        """
        work = self.task.start(number)
        try:
            for batch, source, row in self._batches(order):
                self._add(work, batch, (source, row))
                self.control.done(batch.num_rows)
                show()
            return work.finish(), self.reader.bad_rows.count
        except BaseException:
            work.abort()
            raise

    def _batches(self, order: RowOrder) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        """Yields batches, and the file and the row where each begins."""
        first = 0
        for piece in self.reader.read(order):
            for start in range(0, piece.num_rows, self.batch_size):
                sources, rows = order.locate(np.array([first + start]))
                yield piece.slice(start, self.batch_size), int(sources[0]), int(rows[0])
            first += piece.num_rows

    def _add(self, work: Work[T], batch: pa.RecordBatch, place: tuple[int, int]) -> None:
        """Takes the rows of a batch that can be used; the first one that cannot is an error,
        or is left out as the reader allows.
        """
        source, first = place
        numbers = np.arange(first, first + batch.num_rows)
        bad = self.reader.bad_rows.among(np.full(len(numbers), source), numbers)
        if bad is not None:  # the reader could not read them
            batch, numbers = batch.filter(pa.array(~bad)), numbers[~bad]
        try:
            result = work.compute(batch)
        except TzrecError as error:
            good = self._good(work, batch, (source, numbers))
            if good.all():
                # Without rows it fails too: what is said then is not about a row.
                error = _error_of(work, batch.slice(0, 0)) or error
                raise _prefixed(f"in {self.reader.paths[source]}", error) from error
            result = work.compute(batch.filter(pa.array(good)))
        work.keep(result)

    def _good(
        self, work: Work[T], batch: pa.RecordBatch, place: tuple[int, NDArray[np.int64]]
    ) -> NDArray[np.bool_]:
        """Returns which rows can be used; raises the error of one that may not be left out."""
        source, numbers = place
        good = np.ones(batch.num_rows, dtype=bool)

        def attempt(start: int, stop: int) -> TzrecError | None:
            return _error_of(work, batch.slice(start, stop - start))

        for index, error in find_failures(batch.num_rows, attempt):
            assert isinstance(error, TzrecError)
            row = int(numbers[index])
            named = _prefixed(self.reader.place(source, row), error)
            self.reader.bad_rows.add(source, row, named)
            good[index] = False
        return good


def _prefixed(where: str, error: TzrecError) -> TzrecError:
    inner = "".join(f"{part}: " for part in [".".join(error.location)] if part)
    # The row of the batch says nothing beside the row of the file.
    message = _IN_BATCH.sub("", error.message)
    return type(error)(f"{where}: {inner}{message}", hint=error.hint)


def _error_of(work: Work[Any], batch: pa.RecordBatch) -> TzrecError | None:
    try:
        work.compute(batch)
    except TzrecError as error:
        return error
    return None


def num_processes(wanted: int | None, rows: int) -> int:
    """Returns how many processes to use, by default as many as are worth their start."""
    if wanted is not None:
        return max(1, min(wanted, rows))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, rows // _ROWS_WORTH_A_PROCESS))


def run_shards(
    task: Task[R], reader: BaseReader, *, processes: int, batch_size: int, what: str
) -> tuple[list[R], int]:
    """Divides all rows into as many neighbouring parts as there are processes.

    Args:
        task: what to do with a part.
        reader: the rows.
        processes: 1 works in this process.
        batch_size: rows per batch at most.
        what: names the work in the progress line.

    Returns:
        What the task returns for each part, in the order of rows; and the rows that were left
        out because they cannot be used.

    Raises:
        TzrecError: what the task or the reader raised first, with the file and row where the
            batch begins; the other processes end.
        DistributedError: a process died.
    """
    order = RowOrder.of_blocks(reader.blocks())
    edges = [len(order) * number // processes for number in range(processes + 1)]
    shards = [order.cut(edges[i], edges[i + 1]) for i in range(processes)]
    control = _Control()
    shared = _Shared(task, reader, batch_size, control)
    with Progress(what, len(order), lambda: int(control.rows.value)) as progress:
        if processes == 1:
            done = [shared.run(0, shards[0], progress.show)]
        else:
            done = _run_pool(shared, shards, progress)
    bad, limit = sum(count for _, count in done), reader.bad_rows.limit
    if bad > limit:
        raise DataError(f"{bad} rows cannot be used, more than data_config.max_bad_rows: {limit}")
    return [result for result, _ in done], bad


def _run_pool(
    shared: _Shared[R], shards: list[RowOrder], progress: Progress
) -> list[tuple[R, int]]:
    # Spawned, not forked: a fork of a process with running threads may hang.
    executor = ProcessPoolExecutor(
        len(shards),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(shared,),
    )
    try:
        futures = [executor.submit(_run, number, order) for number, order in enumerate(shards)]
        pending: set[Future[Any]] = set(futures)
        while pending:
            done, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()
            progress.show()
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise DistributedError(
            "a process died; often it ran out of memory", hint="lower --workers or --batch-size"
        ) from error
    finally:
        shared.control.stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


_worker: _Shared[Any] | None = None


def _start(shared: _Shared[Any]) -> None:
    """Sets a worker process up; an interrupt ends it through the process that started it."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    _worker = shared


def _run(number: int, order: RowOrder) -> Any:
    assert _worker is not None
    return _worker.run(number, order, lambda: None)
