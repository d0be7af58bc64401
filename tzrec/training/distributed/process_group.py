"""The process group of a run: one process alone, or the processes that torchrun started."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
from collections.abc import Iterator

import torch
import torch.distributed as dist

from tzrec.errors import DistributedError
from tzrec.options import Options


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
    """
    existed = dist.is_initialized()
    try:
        yield init_process_group(options)
    finally:
        if not existed:
            destroy()


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
