"""Rows of hash tables that begin anew, wherever TorchRec keeps them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tzrec.errors import Unsupported
from tzrec.modules.hash_tables.collections import HashTables
from tzrec.ops.cpu.collections import CpuTables
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.ops.cpu.table import RowTable

# Initialisers whose values do not depend on the number of rows.
_BY_ELEMENT = ("uniform_", "normal_", "trunc_normal_", "constant_", "zeros_", "ones_")


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A part of a table's weight or state on this rank."""

    tensor: Tensor
    first_row: int
    first_column: int
    fill: float | None = None  # None = the weight


class TableRows:
    """The rows of one hash table on this rank, with the states of their optimizer.

    Args:
        tables: the collection, distributed.
        table: name of the table.
        key: what tells it from the other tables of the model, the same on all ranks.
        rule: how rows move; None = never.

    Raises:
        Unsupported: the table is copied to every rank and moved by the dense optimizer.
    """

    def __init__(
        self, tables: HashTables, table: str, *, key: str, rule: UpdateRule | None
    ) -> None:
        (config,) = (config for config in tables.configs if config.name == table)
        self._config = config
        self._key = key
        self._table: RowTable | None = None
        self._pieces: list[_Piece] = []
        inner = tables._embedding_module
        if isinstance(inner, CpuTables):
            self._table = next(u.table for u in inner.tables.uses if u.table.name == table)
        else:
            self._pieces = _pieces(inner, table, rule)

    def reset(self, rows: Tensor, *, seed: int, step: int) -> None:
        """Makes rows begin anew, with the values that every rank draws alike.

        Args:
            rows: (m,) int64.
            seed: of the run.
            step: of the change of the map.
        """
        if len(rows):
            self.write(rows, self._fresh(len(rows), seed=seed, step=step))

    def write(self, rows: Tensor, values: Tensor) -> None:
        """Gives rows (m,) the values (m, D) and fresh optimizer states."""
        if self._table is not None:
            self._table.reset_rows(rows, values)
            return
        for piece in self._pieces:
            here = rows - piece.first_row
            mine = (here >= 0) & (here < piece.tensor.shape[0])
            here = here[mine].to(piece.tensor.device)
            if piece.fill is not None:
                piece.tensor[here] = piece.fill
            else:
                last = piece.first_column + piece.tensor.shape[1]
                chosen = values[mine.to(values.device), piece.first_column : last]
                piece.tensor[here] = chosen.to(piece.tensor.device, piece.tensor.dtype)

    def _fresh(self, count: int, *, seed: int, step: int) -> Tensor:
        """Returns (count, D) initial values."""
        config = self._config
        fill: Callable[[Tensor], Any] = config.hash_table.init_fn() or config.init_fn
        name = getattr(getattr(fill, "func", fill), "__name__", "")
        # Others look at the number of rows (xavier), or at the whole table (orthogonal).
        whole = name not in _BY_ELEMENT
        values = torch.empty(config.num_embeddings if whole else count, config.embedding_dim)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            # Not torch.manual_seed: it also seeds GPUs, whose dropout would begin anew.
            torch.default_generator.manual_seed(_mix(seed, self._key, step))
            fill(values)
        return values[:count]


def _mix(seed: int, key: str, step: int) -> int:
    return (seed * 1_000_003 + zlib.crc32(key.encode())) * 2_147_483_647 + step & (1 << 62) - 1


def row_generator(seed: int, key: str, step: int) -> torch.Generator:
    """Returns a generator that is the same on every rank, and after a resume."""
    return torch.Generator().manual_seed(_mix(seed, f"{key}:map", step))


def _pieces(inner: Any, table: str, rule: UpdateRule | None) -> list[_Piece]:
    """Returns the shards of a table that TorchRec keeps on this rank."""
    weights = {name: value for name, value in inner.state_dict().items() if _is_of(name, table)}
    states = inner.fused_optimizer.state_dict()["state"]
    found = []
    for name, weight in weights.items():
        if not hasattr(weight, "local_shards"):
            raise Unsupported(
                f"hash table {table!r} is copied to every rank (data_parallel)",
                hint="let it be table_wise or row_wise",
            )
        found += _shards(weight, None)
        for state_name, state in states.get(name, {}).items():
            is_sum = state_name.endswith(".momentum1") and rule is not None
            fill = rule.initial_accumulator_value if is_sum else 0.0  # type: ignore[union-attr]
            if hasattr(state, "local_shards"):
                found += _shards(state, fill)
    return found


def _is_of(name: str, table: str) -> bool:
    return name.split(".")[-2:] == [table, "weight"]


def _shards(value: Any, fill: float | None) -> list[_Piece]:
    return [
        _Piece(
            shard.tensor,
            shard.metadata.shard_offsets[0],
            shard.metadata.shard_offsets[1] if len(shard.metadata.shard_offsets) > 1 else 0,
            fill,
        )
        for shard in value.local_shards()
    ]
