"""Profiling of a few batches of a prediction."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from tzrec.batch import Batch
from tzrec.training.profiling import StepProfiler

_FORWARD = "forward, threads added up"

Forward = Callable[[Batch], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Profiled:
    """What a prediction uses in the place of its own functions.

    Attributes:
        forward: the model, with its time taken.
        on_batch: to call after each batch was written.
    """

    forward: Forward
    on_batch: Callable[[], object] | None


@contextlib.contextmanager
def profiled(forward: Forward, directory: str | os.PathLike[str] | None) -> Iterator[Profiled]:
    """Profiles batches 3 to 12 of a prediction; None as directory = no profile.

    Operators of all forward threads are recorded. The summary adds the time of the
    threads up, so ``forward`` can be more than the whole.
    """
    if directory is None:
        yield Profiled(forward, None)
        return
    seconds = {_FORWARD: 0.0}
    lock = threading.Lock()

    def timed(batch: Batch) -> Mapping[str, Tensor]:
        began = time.perf_counter()
        scores = forward(batch)
        with lock:
            seconds[_FORWARD] += time.perf_counter() - began
        return scores

    profiler = StepProfiler(directory, parts=lambda: seconds, all_threads=True)
    profiler.start()
    try:
        yield Profiled(timed, profiler.step)
    finally:
        profiler.close()
