"""What the processes of a command have to tell each other: whether all went well, and sums."""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist

from tzrec.options import Options
from tzrec.training.distributed.process_group import process_group


def together(options: Options) -> contextlib.AbstractContextManager[object]:
    """Returns a context in which the processes know of each other; of one alone it is empty."""
    return process_group(options) if options.world_size > 1 else contextlib.nullcontext()


def totals(*numbers: int) -> list[int]:
    """Returns the sums over all processes. One that failed never comes here."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return list(numbers)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(numbers, device=device)
    dist.all_reduce(sums)
    return [int(one) for one in sums]
