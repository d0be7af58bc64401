"""Worker processes that parse batches; reading and order stay with the process that asks."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tzrec.datasets.batch_parser import BatchParser
from tzrec.datasets.data_parser import to_tensor
from tzrec.datasets.locate import RowParser
from tzrec.datasets.sampled import Stream
from tzrec.datasets.slicer import RawBatch
from tzrec.errors import DistributedError, TzrecError
from tzrec.utils.memory import keep_freed_memory

logger = logging.getLogger("tzrec")

_AHEAD_PER_WORKER = 2

_parser: BatchParser | None = None

_Parsed: TypeAlias = Future[dict[str, np.ndarray]]
_Pending: TypeAlias = tuple[RawBatch, _Parsed]


def usable_workers(wanted: int) -> int:
    """Returns ``wanted``, at most the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    usable = max(1, min(wanted, cores or 1))
    if usable < wanted:
        logger.info("num_workers %d: using %d, one for each core", wanted, usable)
    return usable


class ParserPool:
    """Processes with a copy of the parser each.

    They are spawned, not forked: a fork of a process with running threads may hang.

    Args:
        parser: must pickle.
        num_workers: number of processes.
    """

    def __init__(self, parser: BatchParser, num_workers: int) -> None:
        self._needed = frozenset(parser.input_columns)
        self._ahead = _AHEAD_PER_WORKER * num_workers
        self._executor = ProcessPoolExecutor(
            num_workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(parser,),
        )

    def parse(
        self, batches: Iterator[RawBatch], rows: RowParser, *, in_order: bool = True
    ) -> Iterator[tuple[RawBatch, dict[str, Tensor]]]:
        """Yields each batch with its parsed tensors, a few batches ahead.

        Args:
            batches: what to parse.
            rows: names or leaves out the rows that a worker failed at.
            in_order: as ``batches`` come; else whichever batch is parsed first.

        Raises:
            TzrecError: as `RowParser.parse`.
            DistributedError: a worker died.
        """
        pending: list[_Pending] = []
        try:
            for raw in batches:
                usable = rows.usable(raw)
                pending.append((usable, self._submit(usable)))
                if len(pending) >= self._ahead:
                    yield self._finish(*_take(pending, in_order), rows)
            while pending:
                yield self._finish(*_take(pending, in_order), rows)
        finally:
            for _, future in pending:
                future.cancel()

    def _submit(self, raw: RawBatch) -> _Parsed:
        # What is only kept for the output stays here.
        if not raw.num_rows:
            nothing: _Parsed = Future()
            nothing.set_result({})
            return nothing
        batch = raw.columns.select([n for n in raw.columns.schema.names if n in self._needed])
        sink = pa.BufferOutputStream()
        with contextlib.closing(pa.ipc.new_stream(sink, batch.schema)) as writer:
            writer.write_batch(batch)
        # A process that is just starting inherits this until `_leave_group`.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            return self._executor.submit(_parse, bytes(sink.getvalue()), raw.stream)
        except BrokenProcessPool as error:
            raise _death() from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def close(self) -> None:
        """Ends the processes."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _finish(
        self, raw: RawBatch, future: _Parsed, rows: RowParser
    ) -> tuple[RawBatch, dict[str, Tensor]]:
        try:
            arrays = future.result()
        except BrokenProcessPool as error:
            raise _death() from error
        except (TzrecError, ValueError):
            # Again here: it fails the same way, and here the rows' files are known.
            return rows.parse(raw)
        return rows.check(raw, {key: to_tensor(array) for key, array in arrays.items()})


def _take(pending: list[_Pending], in_order: bool) -> _Pending:
    """Removes and returns the first batch, or the first that is parsed, waiting for it."""
    index = 0
    if not in_order:
        wait([future for _, future in pending], return_when=FIRST_COMPLETED)
        index = next(i for i, (_, future) in enumerate(pending) if future.done())
    return pending.pop(index)


def _death() -> DistributedError:
    return DistributedError(
        "a data worker process died; often it ran out of memory",
        hint="lower data_config.num_workers or batch_size, or set loader: THREAD",
    )


def _start_worker(parser: BatchParser) -> None:
    global _parser
    _parser = parser
    _leave_group()
    keep_freed_memory()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _leave_group() -> None:
    """Keeps signals to the whole process group (Ctrl-C, torchrun's SIGTERM) from this process.

    The process that asks needs it to end tidily; `_end_with_parent` ends it then.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # not on macOS
        came = signal.sigtimedwait({signal.SIGTERM}, 0)
        if came is not None and came.si_pid == os.getppid():
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _parse(data: bytes, stream: Stream) -> dict[str, Any]:
    assert _parser is not None
    with pa.ipc.open_stream(data) as reader:
        parsed = _parser.parse(reader.read_next_batch(), stream)
    return {key: tensor.numpy() for key, tensor in parsed.items()}
