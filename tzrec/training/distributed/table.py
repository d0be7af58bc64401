"""`PlanTable`: a sharding plan as people read it: each table, its bytes and who holds them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_configs import data_type_to_dtype

from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.training.distributed.cluster import Cluster, size_text
from tzrec.training.distributed.estimate import IN_DDR, state_bytes
from tzrec.training.distributed.limits import planned_tables

PLAN_FILE = "plan.json"


@dataclasses.dataclass(frozen=True)
class PlannedTable:
    """One table of a plan.

    Attributes:
        path: parameter path of its collection.
        name: its name.
        rows: of the whole table.
        dim: of the whole table.
        weights: bytes of the whole table.
        states: bytes of its optimizer's states.
        sharding: sharding type, "" = not placed.
        kernel: compute kernel.
        bytes_of: rank → bytes there, weights and states.
    """

    path: str
    name: str
    rows: int
    dim: int
    weights: int
    states: int
    sharding: str = ""
    kernel: str = ""
    bytes_of: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of weights and states, counted once."""
        return self.weights + self.states

    @property
    def part(self) -> str:
        """The part of the embeddings that it belongs to, where a name occurs twice."""
        return self.path.rpartition("impls.")[2]

    @property
    def in_ddr(self) -> bool:
        """Whether it lies in the memory of a machine although GPUs compute."""
        return self.kernel in IN_DDR


@dataclasses.dataclass(frozen=True)
class PlanTable:
    """A plan with its bytes: weights and optimizer states, not what batches need meanwhile.

    Attributes:
        cluster: where the tables go.
        tables: the biggest first.
    """

    cluster: Cluster
    tables: Sequence[PlannedTable]

    @classmethod
    def of(
        cls,
        placed: Sequence[PlannedTable],
        plan: ShardingPlan,
        cluster: Cluster,
        rule: UpdateRule | None,
    ) -> PlanTable:
        """Returns a plan of tables that `sizes` returned."""
        tables = [_place(table, plan.plan[table.path][table.name], rule) for table in placed]
        return cls(cluster, sorted(tables, key=lambda table: (-table.size, table.name)))

    def bytes_of(self, rank: int, *, in_ddr: bool = False) -> int:
        """Returns the bytes of the tables on a rank, of one kind of memory."""
        on_gpus = self.cluster.on_gpus
        return sum(
            table.bytes_of.get(rank, 0)
            for table in self.tables
            if (table.in_ddr or not on_gpus) == (in_ddr or not on_gpus)
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns what ``plan.json`` of a run holds."""
        return {
            "cluster": dataclasses.asdict(self.cluster),
            "tables": [
                {
                    "path": table.path,
                    "name": table.name,
                    "rows": table.rows,
                    "dim": table.dim,
                    "weight_bytes": table.weights,
                    "state_bytes": table.states,
                    "sharding_type": table.sharding,
                    "compute_kernel": table.kernel,
                    "bytes_of_rank": {str(rank): n for rank, n in table.bytes_of.items()},
                }
                for table in self.tables
            ],
        }

    def __str__(self) -> str:
        usable = {flag: self.cluster.usable(in_ddr=flag) for flag in (False, True)}
        rows = [("table", "rows", "dim", "weights", "states", "sharding", "ranks", "of a rank")]
        for table, name in zip(self.tables, shown_names(self.tables), strict=True):
            largest = max(table.bytes_of.values(), default=0)
            kernel = "" if table.kernel in ("fused", "dense") else f" {table.kernel}"
            rows.append(
                (
                    name,
                    f"{table.rows:,}",
                    str(table.dim),
                    size_text(table.weights),
                    size_text(table.states),
                    f"{table.sharding}{kernel}",
                    _ranks(sorted(table.bytes_of)),
                    f"{largest / max(usable[table.in_ddr], 1):.1%}",
                )
            )
        return "\n".join([*aligned(rows), *self._totals()])

    def _totals(self) -> list[str]:
        lines = [f"{self.cluster}"]
        for in_ddr in (False, True) if self.cluster.on_gpus else (False,):
            sizes = [self.bytes_of(rank, in_ddr=in_ddr) for rank in range(self.cluster.world_size)]
            if in_ddr and not any(sizes):
                continue
            room = self.cluster.usable(in_ddr=in_ddr)
            least, most = min(sizes), max(sizes)
            span = size_text(most) if least == most else f"{size_text(least)} to {size_text(most)}"
            where = "machine's memory" if in_ddr else "memory for tables"
            lines.append(f"a rank holds {span} of {size_text(room)} {where} ({most / room:.1%})")
        return lines


def shown_names(tables: Sequence[PlannedTable]) -> list[str]:
    """Returns the names of tables, and the part of the embeddings where a name occurs twice."""
    names = [table.name for table in tables]
    return [
        table.name if names.count(table.name) == 1 else f"{table.name} ({table.part})"
        for table in tables
    ]


def sizes(model: nn.Module, rule: UpdateRule | None) -> list[PlannedTable]:
    """Returns the tables of a model that is not distributed yet, without a place.

    Args:
        model: holds the collections.
        rule: how tables that train move; None = none does.
    """
    found = []
    for path, module, config in planned_tables(model):
        del module
        rows, dim = config.num_embeddings, config.embedding_dim
        moved = rule if getattr(config, "trainable", True) else None
        itemsize = data_type_to_dtype(config.data_type).itemsize
        found.append(
            PlannedTable(
                path, config.name, rows, dim, rows * dim * itemsize, state_bytes(moved, rows, dim)
            )
        )
    return found


def _place(table: PlannedTable, where: Any, rule: UpdateRule | None) -> PlannedTable:
    moved = rule if table.states else None
    itemsize = table.weights // (table.rows * table.dim)
    ranks = list(where.ranks or [])
    if where.sharding_spec is None:
        shards = [(table.rows, table.dim)] * len(ranks)
    else:
        shards = [tuple(shard.shard_sizes) for shard in where.sharding_spec.shards]
    bytes_of: dict[int, int] = {}
    for rank, (rows, dim) in zip(ranks, shards, strict=True):
        size = rows * dim * itemsize + state_bytes(moved, rows, dim)
        bytes_of[rank] = bytes_of.get(rank, 0) + size
    return dataclasses.replace(
        table, sharding=where.sharding_type, kernel=where.compute_kernel, bytes_of=bytes_of
    )


def _ranks(ranks: list[int]) -> str:
    """Returns ``0-7`` or ``0,3``."""
    if len(ranks) > 2 and ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"{ranks[0]}-{ranks[-1]}"
    return ",".join(map(str, ranks))


def write_plan(plan: PlanTable, model_dir: Any) -> None:
    """Writes ``plan.json`` into the directory of a run.

    Raises:
        CheckpointError: it cannot be written.
    """
    path = model_dir / PLAN_FILE
    try:
        with storage.open_file(path, "w", encoding="utf-8") as stream:
            json.dump(plan.as_dict(), stream, indent=1)
    except Exception as error:  # a remote file system may raise anything
        raise CheckpointError(
            f"{path} cannot be written: {error}", hint="choose another --model_dir"
        ) from error


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table; words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [
        not any(row[i][:1].isdigit() for row in rows[1:]) or head in ("ranks", "table")
        for i, head in enumerate(rows[0])
    ]
    return [
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    ]
