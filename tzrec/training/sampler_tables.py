"""`SamplerTables`: the tables of samplers, read once on each host."""

from __future__ import annotations

import logging
from typing import Any

import torch.distributed as dist

from tzrec.datasets.samplers.base import BaseSampler
from tzrec.errors import DistributedError
from tzrec.options import Options
from tzrec.training.peers import num_ranks

logger = logging.getLogger("tzrec")


class SamplerTables:
    """Lets the ranks of a host and the loaders of a run share what samplers have read.

    The first rank of a host reads, the others attach. Where memory cannot be shared every one
    reads for itself.

    Args:
        options: rank, and rank on this host.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._known: list[BaseSampler] = []

    def prepare(self, sampler: BaseSampler) -> None:
        """Gives a sampler its tables; every rank calls it, for the same samplers in turn.

        Raises:
            TzrecError: as `BaseSampler.build`.
        """
        for known in self._known:
            if _same_tables(known, sampler) and _attached(sampler, known.handle()):
                return
        if num_ranks() == 1:
            sampler.build()
        else:
            self._prepare_with_others(sampler)
        self._known.append(sampler)

    def _prepare_with_others(self, sampler: BaseSampler) -> None:
        reads = self._options.local_rank == 0
        if reads:
            sampler.build()
        handles: list[Any] = [None] * num_ranks()
        dist.all_gather_object(handles, sampler.handle() if reads else None)
        handle = handles[self._options.rank - self._options.local_rank]
        if not reads and not _attached(sampler, handle):
            sampler.build()


def _attached(sampler: BaseSampler, handle: Any) -> bool:
    """Attaches a sampler; returns whether that worked."""
    if handle is None:
        return False
    try:
        sampler.attach(handle)
    except DistributedError as error:
        logger.warning("the sampler's tables are read once more: %s", error.message)
        return False
    return True


def _same_tables(one: BaseSampler, other: BaseSampler) -> bool:
    return (
        type(one) is type(other)
        and one.config == other.config
        and one.fields == other.fields
        and one.with_log_q == other.with_log_q
    )
