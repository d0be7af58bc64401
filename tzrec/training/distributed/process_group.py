"""The process group of a run: one process alone, or the processes that torchrun started."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
from collections.abc import Iterator

import torch
import torch.distributed as dist

from tzrec.errors import DistributedError, TzrecError
from tzrec.options import Options

# How gloo, whose errors are RuntimeErrors, says that another process is gone or silent.
_LOST_PEER = ("gloo/transport", "Connection closed by peer", "Connection reset by peer")


def init_process_group(options: Options) -> torch.device:
    """Makes the default process group and returns the device of this process.

    NCCL and the GPU of the local rank when CUDA is there, else gloo and the CPU. One process
    alone meets itself in memory: no port is opened. A group that exists is used as it is.

    Args:
        options: ranks and time-out.

    Raises:
        DistributedError: the processes do not find each other, or there are more of them on this
            machine than GPUs.
    """
    device = _device(options)
    if dist.is_initialized():
        return device
    backend = "nccl" if device.type == "cuda" else "gloo"
    seconds = options.process_group_timeout
    timeout = dt.timedelta(seconds=seconds) if seconds else None
    try:
        if options.world_size == 1:
            store = dist.HashStore()
            dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
        else:
            dist.init_process_group(
                backend, rank=options.rank, world_size=options.world_size, timeout=timeout
            )
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"rank {options.rank} of {options.world_size} cannot join the process group: {error}",
            hint="start all ranks with torchrun, which sets MASTER_ADDR and MASTER_PORT",
        ) from error
    return device


def destroy() -> None:
    """Ends the process group and its threads.

    A gloo thread that still drops its last tensor when Python ends aborts the process. The
    threads end with the last reference to the group, and models refer to it in cycles.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


@contextlib.contextmanager
def process_group(options: Options) -> Iterator[torch.device]:
    """Yields the device of this process inside a process group.

    The group is destroyed afterwards, also after an error, unless it was there before.

    Raises:
        DistributedError: as `init_process_group`, or another process went away meanwhile.
    """
    existed = dist.is_initialized()
    try:
        yield init_process_group(options)
    except (RuntimeError, dist.DistError) as error:
        if isinstance(error, TzrecError) or options.world_size == 1 or not _lost_peer(error):
            raise
        raise DistributedError(
            f"rank {options.rank} of {options.world_size} lost another rank: "
            f"{str(error).splitlines()[0]}",
            hint="a process of the job ended or got stuck; the first message of the job says why",
        ) from error
    finally:
        if not existed:
            destroy()


def _lost_peer(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or any(text in str(error) for text in _LOST_PEER)


def _device(options: Options) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if options.local_rank >= torch.cuda.device_count():
        raise DistributedError(
            f"local rank {options.local_rank} has no GPU: there are {torch.cuda.device_count()}",
            hint="start as many processes per machine as it has GPUs (--nproc_per_node)",
        )
    device = torch.device("cuda", options.local_rank)
    torch.cuda.set_device(device)
    return device
