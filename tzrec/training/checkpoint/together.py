"""Things that one rank does and whose failure all ranks must learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from tzrec.errors import CheckpointError

T = TypeVar("T")


def is_first_rank() -> bool:
    """Returns whether this is rank 0, or the only process."""
    return not dist.is_initialized() or dist.get_rank() == 0


def run_together(action: Callable[[], T], *, here: bool = True) -> list[T | None]:
    """Runs an action on the ranks where ``here`` is True; every rank calls it.

    It also is a barrier: no rank goes on before all actions are done.

    Returns:
        The result of each rank, None where it did not run.

    Raises:
        CheckpointError: the action failed on another rank. What it raised here is passed on.
    """
    result, error = None, None
    try:
        result = action() if here else None
    except Exception as caught:
        error = caught
    outcomes: list[Any] = [(result, str(error) if error else None)]
    if dist.is_initialized() and dist.get_world_size() > 1:
        outcomes = outcomes * dist.get_world_size()
        dist.all_gather_object(outcomes, (result, str(error) if error else None))
    if error is not None:
        raise error
    for rank, (_, text) in enumerate(outcomes):
        if text is not None:
            raise CheckpointError(f"{text} (on rank {rank})")
    return [value for value, _ in outcomes]
