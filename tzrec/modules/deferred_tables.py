"""Embedding tables that get their memory later: shard by shard, or, for a plan, never.

A model on several ranks is built by each of them, yet no rank has room for all tables. While
`deferred_tables` is active, collections are built on the meta device, and each table remembers
the random state that it would have been initialised from; so its values, and those of all that
is built after it, are what they would have been. Memory is taken for one table at a time.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchrec.modules.embedding_configs import DataType

Mode = Literal["shards", "plan"]

_META = torch.device("meta")
_mode: contextvars.ContextVar[Mode | None] = contextvars.ContextVar("_mode", default=None)


@contextlib.contextmanager
def deferred_tables(mode: Mode = "shards") -> Iterator[None]:
    """Lets models that are built meanwhile have tables on the meta device.

    Args:
        mode: ``shards``: tables can be made by `Deferred.make`; hash tables are built as ever,
            since their rows are initialised more than once. ``plan``: no table has values at all.
    """
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


class Deferred:
    """The initialiser of a table that gets its memory later.

    Args:
        init_fn: the table's own.
        state: the random state that it begins with.
    """

    def __init__(self, init_fn: Callable[[Tensor], Any], state: Tensor) -> None:
        self.init_fn = init_fn
        self._state = state

    def __call__(self, weight: Tensor) -> Any:
        """Initialises a weight of any shape; a collection on meta calls it too, for nothing."""
        return weight if weight.is_meta else self.init_fn(weight)

    def make(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Returns the whole table with its initial values, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            weight = torch.empty(tuple(shape), dtype=dtype)
            self.init_fn(weight)
        return weight


def table_device(tables: Sequence[Any], device: torch.device | None) -> torch.device | None:
    """Returns where a collection of tables is to be built.

    Args:
        tables: their TorchRec configs; in the mode ``shards`` they get a `Deferred`.
        device: where it was asked for; None = nowhere in particular.
    """
    mode = _mode.get()
    if mode is None or device is not None:
        return device
    if mode == "plan":
        return _META
    if any(getattr(table, "hash_table", None) is not None for table in tables):
        return device
    _draw(tables)
    return _META


def _draw(tables: Sequence[Any]) -> None:
    """Draws what the collection would have drawn, one table at a time, and remembers from where.

    TorchRec's pooled collection makes all tables, which draws normal numbers, and then runs
    their initialisers; its un-pooled one goes table by table.
    """
    pooled = any(hasattr(table, "pooling") for table in tables)
    if pooled:
        for table in tables:
            _empty(table).normal_()
    for table in tables:
        if not pooled:
            _empty(table).normal_()
        table.init_fn = Deferred(table.init_fn, torch.get_rng_state())
        table.init_fn(_empty(table))


def _empty(table: Any) -> Tensor:
    dtype = torch.float32 if table.data_type == DataType.FP32 else torch.float16
    return torch.empty((table.num_embeddings, table.embedding_dim), dtype=dtype)
