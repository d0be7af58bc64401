"""What the ranks of a job tell each other beside tensors: a wish to stop, and why one ended.

A rank that ends takes the others with it: their next collective fails within moments. So that
they can name the cause, it leaves its message in the store of the process group first.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

import torch
import torch.distributed as dist

from tzrec.errors import DistributedError, TzrecError

_FAILURE = "tzrec/failure"
_CLOSE_SECONDS = 5
# How gloo and NCCL begin their messages; gloo's errors are plain RuntimeErrors.
_TRANSPORT = ("gloo", "connection closed by peer", "connection reset by peer", "nccl")


def num_ranks() -> int:
    """Returns the number of processes of this job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def any_rank(flag: bool) -> bool:
    """Returns whether ``flag`` is set on any rank; every rank calls it and waits."""
    if num_ranks() == 1:
        return flag
    flags: list[Any] = [None] * num_ranks()
    dist.all_gather_object(flags, flag)
    return any(flags)


def sum_over_ranks(value: int) -> int:
    """Returns the sum of every rank's ``value``; every rank calls it and waits."""
    if num_ranks() == 1:
        return value
    total = torch.tensor(value, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(total)
    return int(total)


class Vote:
    """Lets all of several ranks know that one of them has set a flag.

    In a process group of its own; made on every rank.
    """

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo")
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._work: Any = None

    def cast(self, flag: bool) -> bool:
        """Gives this rank's flag; returns whether any rank had set it in the call before."""
        if self._work is not None:
            self._work.wait()
            self._work = None
            if self._flag:
                return True
        self._flag.fill_(flag)
        self._work = dist.all_reduce(
            self._flag, dist.ReduceOp.MAX, group=self._group, async_op=True
        )
        return False

    def close(self) -> None:
        """Ends an exchange that runs; the other ranks may be gone."""
        if self._work is not None:
            with contextlib.suppress(RuntimeError):
                self._work.wait(dt.timedelta(seconds=_CLOSE_SECONDS))
            self._work = None

    def any_of(self, flag: bool) -> bool:
        """Returns whether any rank sets ``flag`` now; every rank calls it and waits."""
        now = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(now, dist.ReduceOp.MAX, group=self._group)
        return bool(now)


def announce_failure(error: BaseException) -> None:
    """Leaves the first line of an error for the other ranks; the first rank's message stays."""
    if num_ranks() == 1:
        return
    text = str(error).partition("\n")[0] or type(error).__name__
    with contextlib.suppress(RuntimeError):
        _store().compare_set(_FAILURE, "", f"rank {dist.get_rank()}: {text}")


def failure_behind(error: BaseException) -> DistributedError | None:
    """Returns what to raise for an error that only says that another rank is gone, else None."""
    if num_ranks() == 1 or isinstance(error, TzrecError) or not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if not isinstance(error, dist.DistError) and not any(t in text.lower() for t in _TRANSPORT):
        return None
    told = ""
    with contextlib.suppress(RuntimeError):
        if _store().check([_FAILURE]):
            told = _store().get(_FAILURE).decode()
    if told:
        return DistributedError(f"another rank has ended: {told}")
    return DistributedError(
        f"another rank does not answer: {text.partition(chr(10))[0]}",
        hint="it was killed, perhaps for its memory, or it hangs; its own output may tell more",
    )


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()
