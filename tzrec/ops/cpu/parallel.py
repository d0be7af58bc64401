"""Kernels of several tables at a time."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")

# Below so many numbers to move the other threads would wake up too late.
_LEAST = 1 << 16


def for_each(work: Callable[[T], object], items: Sequence[T], sizes: Iterable[int]) -> None:
    """Calls ``work`` for each item, from as many threads as an operation of torch takes.

    The kernels leave Python's lock free. A thread takes items that follow each other: they may
    write to the same cache lines.

    Args:
        work: what to do with an item; must not depend on the other items.
        items: to work on.
        sizes: per item, how many numbers are moved.

    Raises:
        Exception: what ``work`` raised for the first of the items it raised for.
    """
    numbers = np.fromiter(sizes, np.int64, len(items))
    total = int(numbers.sum())
    most = torch.get_num_threads()
    threads = min(most, len(items))
    if threads < 2 or total < _LEAST:
        for item in items:
            work(item)
        return

    def take(first: int, last: int) -> None:
        for item in items[first:last]:
            work(item)

    # An item is of the share that its middle lies in.
    middles = np.cumsum(numbers) - numbers / 2
    shares = np.arange(1, threads) * total / threads
    cuts = [0, *np.searchsorted(middles, shares).tolist(), len(items)]
    pool = _pool(most - 1, os.getpid())
    others = [pool.submit(take, *cuts[i : i + 2]) for i in range(1, threads)]
    try:
        take(*cuts[:2])
    finally:
        problems = [other.exception() for other in others]
    for problem in problems:
        if problem is not None:
            raise problem


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:  # noqa: ARG001 (a fork has no threads)
    return ThreadPoolExecutor(threads, thread_name_prefix="tzrec-tables")
