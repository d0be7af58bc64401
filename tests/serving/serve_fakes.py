"""A servable without a model: it doubles numbers, and can be made to wait, fail or hang."""

import asyncio
import contextlib
import threading

import numpy as np
import pyarrow as pa

from tzrec.errors import DataError
from tzrec.serving.engine import Engine
from tzrec.serving.observer import Observer
from tzrec.serving.options import ServeOptions


class FakeServable:
    """``predict`` gives 2x, and the version in ``by``; a negative x is an error of the data."""

    def __init__(self, version="v1", *, factor=2.0, gate=None, warm_up_error=None):
        self.version = version
        self.factor = factor
        self.gate = gate
        self.calls = []
        self.started = threading.Semaphore(0)
        self.is_warm = False
        self._warm_up_error = warm_up_error

    def predict(self, columns):
        x = columns["x"].to_numpy(zero_copy_only=False)
        self.calls.append(len(x))
        self.started.release()
        if self.gate is not None:
            assert self.gate.wait(20)
        if (x < 0).any():
            raise DataError(f"row {int((x < 0).argmax())} is negative")
        return {"y": x * self.factor, "pair": np.stack([x, -x], axis=1)}

    def warm_up(self):
        if self._warm_up_error is not None:
            raise self._warm_up_error
        self.is_warm = True


class Recorder(Observer):
    """Remembers what it is told."""

    def __init__(self):
        self.batches, self.faults, self.reloads = [], [], []

    def on_batch(self, *, requests, rows, seconds, waited):
        self.batches.append((requests, rows))

    def on_fault(self, code):
        self.faults.append(code)

    def on_reload(self, version, *, is_loaded, seconds):
        self.reloads.append((version, is_loaded))


def columns_of(*values, kind=None):
    """Returns the column x of these numbers."""
    return {"x": pa.array(values, kind or pa.float64())}


@contextlib.contextmanager
def running(tmp_path, servable, observer=None, **options):
    """An engine that has loaded the servable; closed at the end."""
    engine = Engine(
        tmp_path,
        ServeOptions(**options),
        load=lambda directory, *, version: servable,
        observer=observer,
    )
    engine.start()
    engine.wait(10)
    try:
        yield engine
    finally:
        if servable.gate is not None:
            servable.gate.set()
        engine.close()


async def asleep(tasks):
    """Lets tasks run until they wait for the engine."""
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def tasks_of(engine, *requests):
    """Returns a task for each request, a list of values."""
    return [
        asyncio.create_task(engine.predict(columns_of(*values), rows=len(values)))
        for values in requests
    ]
