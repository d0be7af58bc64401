"""`Engine`: between the HTTP application and the model."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tzrec.errors import DataError, FeatureError
from tzrec.serving.batcher import Batcher, Columns, Job
from tzrec.serving.faults import DeadlineExceeded, Fault
from tzrec.serving.inline_batcher import InlineBatcher
from tzrec.serving.observer import Observer
from tzrec.serving.options import ServeOptions
from tzrec.serving.slot import Load, Slot
from tzrec.serving.versions import Source


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of a request, all by one version.

    Attributes:
        version: that made them.
        outputs: output → array with one entry a row.
    """

    version: str
    outputs: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class State:
    """How the engine is.

    Attributes:
        is_ready: it answers, and new requests should come here.
        reason: why it is not ready, for people; empty when it is.
        version: that answers, empty before the first.
        queued_rows: rows that wait.
        busy_seconds: for how long the oldest running model call has been running.
    """

    is_ready: bool
    reason: str
    version: str
    queued_rows: int
    busy_seconds: float


class Engine:
    """Runs requests through the current version, merged, bounded and in time.

    ::

        engine = Engine("models/", ServeOptions(), load=load_servable)
        engine.start()
        servable = engine.servable  # what a request is decoded for must also score it
        scored = await engine.predict(columns, rows=200, servable=servable)
        found = await engine.call(servable.retrieve, users, 10, rows=3)

    Args:
        source: directory, see `Source`.
        options: bounds.
        load: ``(directory, version=name) → servable`` with ``version``, ``predict(columns)``
            and ``warm_up()``; the name is empty for a directory without versions.
        observer: told of batches, faults and versions; may be set until `start`.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Source,
        options: ServeOptions,
        *,
        load: Load,
        observer: Observer | None = None,
    ) -> None:
        self.options = options
        self.source = source if isinstance(source, Source) else Source(source)
        self._observer = observer or Observer()
        kind = Batcher if options.threads else InlineBatcher
        self._batcher = kind(options, self._observer)
        self._slot = Slot(
            self.source,
            load,
            observer=self._observer,
            reload_seconds=options.reload_seconds,
        )
        self._is_draining = False

    @property
    def observer(self) -> Observer:
        """What is told of batches, faults and versions."""
        return self._observer

    @observer.setter
    def observer(self, observer: Observer) -> None:
        self._observer = self._batcher.observer = self._slot.observer = observer

    def start(self) -> None:
        """Starts the threads, of which one loads the model; `servable` fails until it has."""
        self._batcher.start()
        self._slot.start()

    def wait(self, seconds: float | None = None) -> None:
        """Waits until the model is loaded.

        Raises:
            TzrecError: it cannot be loaded.
            NotReady: it takes longer.
        """
        self._slot.wait(seconds)

    def drain(self) -> None:
        """Says that no more requests should come; those that do are still answered."""
        self._is_draining = True

    def close(self, seconds: float = 5.0) -> None:
        """Ends the threads; requests that wait get `NotReady`."""
        self._is_draining = True
        self._slot.close()
        self._batcher.close(seconds)

    @property
    def servable(self) -> Any:
        """The version that answers now. A request holds on to one, from decoding to its answer.

        Raises:
            NotReady: none is loaded yet.
        """
        return self._slot.servable

    @property
    def is_loaded(self) -> bool:
        """Whether loading the first version has ended, well or not: `wait` tells."""
        return self._slot.is_loaded

    @property
    def is_stuck(self) -> bool:
        """Whether a model call has been running for longer than the watchdog allows."""
        return self._batcher.busy_seconds() > self.options.watchdog_seconds

    def state(self) -> State:
        """Returns whether requests should come here, and why not."""
        busy = self._batcher.busy_seconds()
        reason = ""
        if self._is_draining:
            reason = "the server is going"
        elif not self._slot.version:
            reason = "the model is being loaded"
        elif busy > self.options.watchdog_seconds:
            reason = f"a model call has been running for {busy:.0f} s"
        return State(not reason, reason, self._slot.version, self._batcher.queued_rows, busy)

    def tell_state(self) -> None:
        """Tells the observer how the engine is."""
        state = self.state()
        self._observer.on_state(
            version=state.version, is_ready=state.is_ready, queued_rows=state.queued_rows
        )

    async def predict(
        self, columns: Columns, *, rows: int, servable: Any = None, end: float | None = None
    ) -> Scored:
        """Scores columns, merged with other requests; a large request goes in slices.

        Args:
            columns: Arrow arrays of ``rows`` entries.
            rows: how many.
            servable: that the columns were decoded for; None takes the current one.
            end: time of `time.monotonic` at which the request is given up; None = after the
                time that a request has, from now on.

        Raises:
            Overloaded: too much waits.
            DeadlineExceeded: there was no answer in time.
            NotReady: no model is loaded, or the server is going.
            TzrecError: what the servable raises: the rows are wrong.
        """
        servable = self.servable if servable is None else servable
        end = self.end() if end is None else end
        step = self.options.max_batch_rows
        submit = functools.partial(self._submit, deadline=end, model=servable)
        if rows <= step or not self._batcher.is_row_wise(servable):
            return Scored(servable.version, await submit(rows, columns=columns))
        parts: list[dict[str, np.ndarray]] = []
        # One after the other: small requests of others come in between.
        for start in range(0, rows, step):
            num = min(step, rows - start)
            own = {name: column.slice(start, num) for name, column in columns.items()}
            try:
                parts.append(await submit(num, columns=own, admitted=start > 0))
            except (DataError, FeatureError) as error:  # it counts rows from the slice
                error.location.insert(0, f"rows {start} to {start + num - 1}")
                raise
            if not self._batcher.is_row_wise(servable):
                return Scored(servable.version, await submit(rows, columns=columns, admitted=True))
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Scored(servable.version, outputs)

    def end(self) -> float:
        """Returns the time of `time.monotonic` at which a request of now is given up."""
        return time.monotonic() + self.options.request_timeout

    async def call(
        self, function: Callable[..., Any], *args: Any, rows: int = 1, end: float | None = None
    ) -> Any:
        """Runs a function where the model runs, bounded and in time like `predict`, unmerged.

        Args:
            function: e.g. a method of the servable that the request holds.
            args: its arguments.
            rows: how many rows it counts for in the queue.
            end: as in `predict`.

        Raises:
            Overloaded, DeadlineExceeded, NotReady: as `predict`.
            Exception: what the function raises.
        """
        end = self.end() if end is None else end
        return await self._submit(rows, deadline=end, function=functools.partial(function, *args))

    async def _submit(
        self, rows: int, *, deadline: float, admitted: bool = False, **work: Any
    ) -> Any:
        loop = asyncio.get_running_loop()
        job = Job(rows, loop.create_future(), loop, deadline, **work)
        timer = None
        try:
            self._batcher.submit(job, admitted=admitted)
            timer = loop.call_later(deadline - time.monotonic(), self._expire, job)
            return await job.future
        except Fault as fault:
            self._observer.on_fault(fault.code)
            fault.is_counted = True
            raise
        finally:
            if timer is not None:
                timer.cancel()
            job.future.cancel()  # nobody waits any more: a thread need not run it

    def _expire(self, job: Job) -> None:
        if not job.future.done():
            job.future.set_exception(
                DeadlineExceeded(f"no answer within {self.options.request_timeout:g} s")
            )
