"""`Batcher`: a bounded queue of requests, and threads that run them through the model, merged."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tzrec.serving.faults import NotReady, Overloaded
from tzrec.serving.observer import Observer
from tzrec.serving.options import ServeOptions

logger = logging.getLogger("tzrec")

Columns = Mapping[str, pa.Array]
Outputs = Mapping[str, np.ndarray]

# What older batches count in the mean time of a row, against each newer one.
_OLDER = 0.9


class Model(Protocol):
    """What scores columns: output → array with one entry a row."""

    def predict(self, columns: Any) -> Outputs:
        """Returns the scores."""
        ...


@dataclasses.dataclass(eq=False)
class Job:
    """One request, or a slice of one, on its way through the queue.

    Attributes:
        rows: how many rows it stands for.
        future: gets the result; belongs to ``loop``.
        loop: event loop of the request.
        deadline: time of `time.monotonic` after which nobody waits for the result.
        model: scores ``columns``; None for a call of ``function``.
        columns: one array a column, of ``rows`` rows.
        function: called alone.
        arrived: when it was submitted.
    """

    rows: int
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    deadline: float
    model: Model | None = None
    columns: Columns = dataclasses.field(default_factory=dict)
    function: Callable[[], Any] | None = None
    arrived: float = dataclasses.field(default_factory=time.monotonic)

    def is_wanted(self) -> bool:
        """Returns whether somebody still waits for the result."""
        return not self.future.done() and time.monotonic() < self.deadline

    def fits(self, other: Job) -> bool:
        """Returns whether the model can score both at once."""
        return (
            self.model is not None
            and self.model is other.model
            and self.columns.keys() == other.columns.keys()
            and all(
                column.type == other.columns[name].type for name, column in self.columns.items()
            )
        )


class Batcher:
    """Runs jobs on threads of its own; `submit` never waits.

    A thread that becomes free takes the oldest job and merges those behind it that fit, up to
    ``max_batch_rows``. When a merged batch fails its jobs are run one by one, so that only the
    faulty one fails.

    Args:
        options: threads and bounds.
        observer: told of every batch; called by the threads.
    """

    def __init__(self, options: ServeOptions, observer: Observer) -> None:
        self.observer = observer
        self._options = options
        self._queue: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        # Held by the one thread that waits for jobs to merge, so that others do not take them.
        self._collecting = threading.Lock()
        self._queued_rows = 0
        self._running: dict[int, float] = {}
        self._spent_seconds = 0.0
        self._spent_rows = 1.0
        self._closed = False
        # Models whose outputs are not one entry a row: each request goes alone, and whole.
        self._whole: weakref.WeakSet[Model] = weakref.WeakSet()
        # Daemons, so that one that hangs cannot keep the process alive.
        self._threads = [
            threading.Thread(target=self._work, name=f"model-{i}", daemon=True)
            for i in range(options.threads)
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """Refuses what waits, and gives what runs some seconds to end."""
        with self._changed:
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
            self._queued_rows = 0
            self._changed.notify_all()
        self._deliver([(job, NotReady("the server is going")) for job in waiting])
        end = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._queued_rows

    def busy_seconds(self) -> float:
        """Returns for how long the oldest running model call has been running."""
        started = list(self._running.values())
        return time.monotonic() - min(started) if started else 0.0

    def is_row_wise(self, model: Model) -> bool:
        """Returns whether the model gives one entry a row, as far as it is known."""
        return model not in self._whole

    def submit(self, job: Job, *, admitted: bool = False) -> None:
        """Puts a job in the queue.

        Args:
            job: its future gets the result.
            admitted: it is the next slice of a request that was let in before.

        Raises:
            Overloaded: the queue is full, or too slow for the job's deadline.
            NotReady: the batcher is closed.
        """
        with self._changed:
            if self._closed:
                raise NotReady("the server is going")
            if not admitted and self._queue:
                self._refuse_if_full(job)
            self._queue.append(job)
            self._queued_rows += job.rows
            self._wake(job.loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has somebody take from the queue, whose lock is held."""
        self._changed.notify()

    def _refuse_if_full(self, job: Job) -> None:
        row_seconds = self._spent_seconds / self._spent_rows
        wait = self._queued_rows * row_seconds / max(1, self._options.threads)
        if self._queued_rows + job.rows <= self._options.max_queue_rows:
            if time.monotonic() + wait < job.deadline:
                return
            why = f"the rows that wait need {wait:.1f} s"
        else:
            why = f"{self._queued_rows} rows wait; at most {self._options.max_queue_rows} may"
        raise Overloaded(why, hint="try again later", retry_after=max(1, int(wait + 0.999)))

    def _work(self) -> None:
        while True:
            with self._collecting:
                batch = self._take()
            if batch is None:
                return
            self._run_safely(batch)
            # Else the last batch stays alive until the next one comes.
            del batch

    def _run_safely(self, batch: Sequence[Job]) -> None:
        try:
            self._run(batch)
        except Exception:  # an observer's: the thread has to go on
            logger.exception("after a model call")
        finally:
            self._running.pop(threading.get_ident(), None)

    def _take(self, *, wait: bool = True) -> list[Job] | None:
        """Takes jobs that go together.

        Args:
            wait: for a first job, and for others to merge with it.

        Returns:
            The jobs; None when the batcher is closed, or without waiting there is none.
        """
        with self._changed:
            first = self._next(wait)
            if first is None:
                return None
            batch, rows = [first], first.rows
            patience = first.arrived + self._options.max_wait_ms / 1000
            can_merge = first.model is not None and self.is_row_wise(first.model)
            while can_merge and rows < self._options.max_batch_rows:
                if not self._queue:
                    left = patience - time.monotonic()
                    if left <= 0 or self._closed or not wait:
                        break
                    self._changed.wait(left)
                    continue
                following = self._queue[0]
                too_many = rows + following.rows > self._options.max_batch_rows
                if too_many or not following.fits(first):
                    break
                self._pop()
                if following.is_wanted():
                    batch.append(following)
                    rows += following.rows
            return batch

    def _next(self, wait: bool) -> Job | None:
        while not self._closed:
            if not self._queue:
                if not wait:
                    return None
                self._changed.wait()
                continue
            job = self._pop()
            if job.is_wanted():
                return job
        return None

    def _pop(self) -> Job:
        job = self._queue.popleft()
        self._queued_rows -= job.rows
        return job

    def _run(self, batch: Sequence[Job]) -> None:
        started = self._running[threading.get_ident()] = time.monotonic()
        rows = sum(job.rows for job in batch)
        try:
            results: list[Any] = self._results(batch, rows)
        except Exception as error:  # handed to the requests, whatever it is
            if len(batch) == 1:
                results = [error]
            else:
                for job in batch:
                    if job.is_wanted():
                        self._run([job])
                return
        seconds = time.monotonic() - started
        self._spent_seconds = self._spent_seconds * _OLDER + seconds
        self._spent_rows = self._spent_rows * _OLDER + rows
        self._deliver(list(zip(batch, results, strict=True)))
        self.observer.on_batch(
            requests=len(batch), rows=rows, seconds=seconds, waited=started - batch[0].arrived
        )

    def _results(self, batch: Sequence[Job], rows: int) -> list[Any]:
        first = batch[0]
        if first.function is not None:
            return [first.function()]
        assert first.model is not None
        if len(batch) == 1:
            outputs = first.model.predict(first.columns)
            self._note_shape(first.model, outputs, rows)
            return [outputs]
        merged = {
            name: pa.concat_arrays([job.columns[name] for job in batch]) for name in first.columns
        }
        outputs = first.model.predict(merged)
        if not self._note_shape(first.model, outputs, rows):
            return [job.model.predict(job.columns) for job in batch if job.model is not None]
        return _cut(outputs, [job.rows for job in batch])

    def _deliver(self, results: Sequence[tuple[Job, Any]]) -> None:
        """Hands results to the event loop that waits for them, with one wake-up."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, Any]]] = {}
        for job, result in results:
            by_loop.setdefault(job.loop, []).append((job, result))
        for loop, own in by_loop.items():
            try:
                loop.call_soon_threadsafe(resolve, own)
            except RuntimeError:  # the loop is closed: nobody waits
                logger.debug("%d results came after the server had gone", len(own))

    def _note_shape(self, model: Model, outputs: Outputs, rows: int) -> bool:
        is_row_wise = all(value.shape[:1] == (rows,) for value in outputs.values())
        if not is_row_wise:
            self._whole.add(model)
        return is_row_wise


def _cut(outputs: Outputs, lengths: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """Returns the rows of each request."""
    ends = np.cumsum(lengths)
    return [
        {name: value[end - length : end] for name, value in outputs.items()}
        for length, end in zip(lengths, ends, strict=True)
    ]


def resolve(results: Sequence[tuple[Job, Any]]) -> None:
    """Gives results to those that still wait for them; for the event loop."""
    for job, result in results:
        if job.future.done():
            continue
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
