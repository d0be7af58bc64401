"""Hash tables in training: ids are noted, maps change, rows begin anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tzrec.batch import Batch
from tzrec.errors import ConfigError
from tzrec.modules.hash_tables.collections import HashTables
from tzrec.modules.hash_tables.id_map import IdMap
from tzrec.modules.hash_tables.seen import Counted
from tzrec.optim.optimizer_builder import create_sparse_optimizer
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.hash_rows import TableRows, row_generator
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.trainer import Trainer


@dataclass(frozen=True)
class _Table:
    """One hash table of the model."""

    key: str
    name: str
    of: HashTables
    rows: TableRows

    @property
    def id_map(self) -> IdMap:
        """Which id has which row."""
        found: IdMap = self.of.id_maps[self.name]
        return found

    @property
    def is_frozen(self) -> bool:
        """Whether training changes nothing of it."""
        return self.of.is_frozen(self.name)


class HashTableHook(Hook):
    """Runs the hash tables of the model; must stand before hooks that save or evaluate.

    Maps change before the forward pass, by the ids of all ranks. So the ids of a batch that is
    due have their rows in this very batch, and one rank gives the same maps as several whose
    batches make up the same rows.

    The ids that came since the last change belong to the checkpoint: those of all ranks are
    stored as one, and the first rank goes on with them.

    Of frozen tables (``trainable: false``) neither rows nor maps change.

    Args:
        train_config: the optimizer of the tables.
        seed: of the run.
    """

    name = "hash_tables"

    def __init__(self, train_config: TrainConfig, seed: int) -> None:
        self._config = train_config
        self._seed = seed
        self._tables: list[_Table] = []
        self._stored: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer) -> None:
        """Finds the tables and sets the rows that have a fixed value.

        Raises:
            ConfigError: no id has a row in a frozen table, and none could get one.
        """
        has_optimizer = self._config.sparse_optimizer.WhichOneof("optimizer") is not None
        rule = create_sparse_optimizer(self._config.sparse_optimizer) if has_optimizer else None
        self._tables = []
        for path, module in trainer.base_model.named_modules():
            if isinstance(module, HashTables):
                for table in module.id_maps:
                    key = f"{path}.{table}"
                    rows = TableRows(module, table, key=key, rule=rule)
                    self._tables.append(_Table(key, table, module, rows))
        for table in self._tables:
            stored = self._stored.get(table.key)
            # A map that was reset counts its steps anew; what came before has no place there.
            if stored is not None and _rank() == 0 and int(table.id_map.steps):
                device = table.id_map.ids.device
                table.id_map.seen.replace(Counted(**stored).to(device))
            _refuse_empty(table)
            _fix(table)

    def before_forward(self, trainer: Trainer, batch: Batch) -> None:
        """Notes the ids of the batch, and changes the maps that are due."""
        changing = [table for table in self._tables if not table.is_frozen]
        for table in changing:
            table.id_map.observe(
                table.of.ids_of(table.name, batch.sparse_features[table.of.data_group])
            )
        due = [table for table in changing if table.id_map.is_due]
        for table, seen in zip(due, _of_all_ranks(due), strict=True):
            id_map = table.id_map
            step = int(id_map.steps)
            rows = id_map.change(seen, row_generator(self._seed, table.key, step))
            table.rows.reset(rows, seed=self._seed, step=step)
            id_map.seen.replace()

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Takes back what the step did to rows that have a fixed value."""
        for table in self._tables:
            if not table.is_frozen:
                _fix(table)

    def state_dict(self) -> dict[str, Any]:
        """Returns the ids of all ranks since the maps last changed; every rank calls it."""
        of_tables = zip(self._tables, _of_all_ranks(self._tables), strict=True)
        return {
            table.key: {
                "ids": seen.ids.cpu(),
                "counts": seen.counts.cpu(),
                "last_steps": seen.last_steps.cpu(),
            }
            for table, seen in of_tables
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keeps what `state_dict` returned until training starts."""
        self._stored = state


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _refuse_empty(table: _Table) -> None:
    if table.is_frozen and not table.id_map.num_used:
        raise ConfigError(
            f"hash table {table.name!r} is frozen (trainable: false) and empty: no id would ever "
            "have a row",
            hint="start from a checkpoint that holds it (train_config.fine_tune_checkpoint), or "
            "let it train",
        )


def _fix(table: _Table) -> None:
    """Writes the values of rows that have a fixed one."""
    spec = table.id_map.spec
    if spec.constants is None:
        return
    device = table.id_map.ids.device
    rows = [spec.spare_row(training=True), spec.spare_row(training=False)]
    values = torch.tensor([[spec.constants.training], [spec.constants.evaluation]], device=device)
    dim = table.of.dim_of(table.name)
    table.rows.write(torch.tensor(rows, device=device), values.expand(2, dim))


def _of_all_ranks(tables: list[_Table]) -> Iterator[Counted]:
    """Yields the ids of each table, of all ranks together; every rank calls it alike."""
    own = [table.id_map.seen.counted() for table in tables]
    if not own or not dist.is_initialized() or dist.get_world_size() == 1:
        yield from own
        return
    arrays = [[t.cpu().numpy() for t in (c.ids, c.counts, c.last_steps)] for c in own]
    of_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, arrays)
    for table, *parts in zip(tables, *of_ranks, strict=True):
        device = table.id_map.ids.device
        yield Counted.merge(
            [Counted(*(_tensor(array, device) for array in part)) for part in parts]
        )


def _tensor(array: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
