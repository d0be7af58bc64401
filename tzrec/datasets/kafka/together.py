"""The same number of batches on every rank, though their partitions hold different rows.

Before each batch the ranks tell each other what they have. A rank without rows gets some of
another one, so that no row is left over and no rank waits for a partition that is quiet.
"""

from __future__ import annotations

import datetime as dt
import enum
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist

from tzrec.datasets.slicer import RawBatch
from tzrec.errors import DistributedError

# A rank may be busy for long with what follows a batch; one that died is noticed at once.
_TIMEOUT = dt.timedelta(days=7)
_CLOSING_SECONDS = 60.0
_POLL_SECONDS = 0.0005
_SOURCE, _CODE = "__SOURCE__", "__CODE__"


class State(enum.IntEnum):
    """What a rank has for the next batch."""

    READY = 0
    PENDING = 1
    IDLE = 2
    ENDED = 3
    INTERRUPTED = 4
    CLOSED = 5
    FAILED = 6


LEAVING = (State.INTERRUPTED, State.CLOSED, State.FAILED)


class Ranks:
    """Lets the loaders of all ranks talk; made on every rank, in the same order.

    Args:
        rank: number of this process.
        world_size: number of processes; 1 = there is nobody to talk to.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size if dist.is_initialized() else 1
        self._group = None
        self._is_broken = False
        if self.world_size > 1:
            self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT)

    def states(self, mine: State, is_closing: Callable[[], bool]) -> list[State]:
        """Returns every rank's state; arguments and errors are those of `gather`."""
        return [State(value) for value in self.gather(mine, is_closing)]

    def gather(self, mine: int, is_closing: Callable[[], bool]) -> list[int]:
        """Returns every rank's number; all ranks call it and wait.

        Args:
            mine: of this rank.
            is_closing: whether nobody here wants the answer any more; then the others are waited
                for a minute only.

        Raises:
            DistributedError: a rank is gone.
        """
        if self.world_size == 1:
            return [int(mine)]
        if self._is_broken:
            raise DistributedError("the ranks have lost each other while they read a stream")
        values = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        try:
            work = dist.all_gather(
                values, torch.tensor([int(mine)]), group=self._group, async_op=True
            )
            end = None
            while not work.is_completed():
                if is_closing():
                    end = end or time.monotonic() + _CLOSING_SECONDS
                if end is not None and time.monotonic() > end:
                    raise DistributedError("the other ranks go on reading a stream")
                time.sleep(_POLL_SECONDS)
            work.wait()
        except RuntimeError as error:
            self._is_broken = True
            if isinstance(error, DistributedError):
                raise
            raise DistributedError(f"another rank does not answer: {error}") from error
        return [int(value) for value in values]

    def send(self, batch: RawBatch, rank: int) -> None:
        """Sends the rows of a batch to another rank, which calls `receive`."""
        columns = batch.columns.append_column(_SOURCE, pa.array(batch.source))
        columns = columns.append_column(_CODE, pa.array(batch.row))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, columns.schema) as writer:
            writer.write_batch(columns)
        data = torch.from_numpy(np.frombuffer(sink.getvalue(), dtype=np.uint8).copy())
        dist.send(torch.tensor([len(data)]), rank, group=self._group)
        dist.send(data, rank, group=self._group)

    def receive(self, rank: int) -> RawBatch:
        """Returns the rows that another rank sends."""
        size = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, rank, group=self._group)
        data = torch.zeros(int(size), dtype=torch.uint8)
        dist.recv(data, rank, group=self._group)
        with pa.ipc.open_stream(pa.py_buffer(data.numpy())) as stream:
            columns = stream.read_next_batch()
        names = [name for name in columns.schema.names if name not in (_SOURCE, _CODE)]
        source, code = (columns.column(name).to_numpy() for name in (_SOURCE, _CODE))
        return RawBatch(columns.select(names), source, code)


def share(
    sizes: Sequence[int], batch_size: int, *, whole: bool
) -> list[tuple[int, int, int]] | None:
    """Returns who gives how many rows to whom, so that every rank has some; None if it cannot be.

    Every rank computes the same.

    Args:
        sizes: rows of each rank; 0 = it needs some.
        batch_size: rows of a full batch; nobody gets more.
        whole: everybody must have a full batch.

    Returns:
        (giver, taker, rows), in the order in which givers give their rows.
    """
    left, moves = list(sizes), []
    for taker in (rank for rank, size in enumerate(sizes) if not size):
        giver = max(
            (rank for rank, size in enumerate(sizes) if size),
            key=lambda rank: left[rank],
            default=taker,
        )
        rows = min(batch_size, left[giver] // 2)
        if rows < (batch_size if whole else 1):
            return None
        left[giver] -= rows
        moves.append((giver, taker, rows))
    return moves
