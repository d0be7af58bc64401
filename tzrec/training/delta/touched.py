"""`TouchedRows`: which rows of the embedding tables have moved since they were last asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.ops.cpu.collections import CpuTables
from tzrec.training.checkpoint.tables import Table, frozen_weights, model_tables
from tzrec.training.peers import num_ranks


class TouchedRows:
    """One byte per row of every table that trains: 1 when the row has moved.

    Our CPU tables mark a row when an update moves it. TorchRec's tables (several processes, GPUs)
    move rows inside the backward pass and tell nobody, so the rows of the batch are marked: those
    of a step whose update was left out too.

    Args:
        model: the trainer's, distributed.
        device: where TorchRec's tables are.

    Attributes:
        tables: name of the weight in the state dict → table.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        wrapped: Any = getattr(model, "module", model)
        frozen = frozen_weights(model)
        self.tables: dict[str, Table] = {}
        self._flags: dict[str, Tensor] = {}
        self._of_feature: dict[str, list[Tensor]] = {}
        ours = _cpu_tables(wrapped)
        for weight, table in model_tables(model).items():
            if weight in frozen:
                continue
            if weight in ours:
                flags = torch.zeros(table.rows, dtype=torch.uint8)
                ours[weight].moved = flags.numpy()
            else:
                flags = torch.zeros(table.rows, dtype=torch.uint8, device=device)
                for feature in table.features:
                    self._of_feature.setdefault(feature, []).append(flags)
            self.tables[weight] = table
            self._flags[weight] = flags

    def add_batch(self, batch: Batch) -> None:
        """Marks the rows that a step has looked up in TorchRec's tables."""
        if not self._of_feature:
            return
        for ids in batch.sparse_features.values():
            for feature, found in ids.to_dict().items():
                for flags in self._of_feature.get(feature, ()):
                    _mark(flags, found.values())

    def add(self, weight: str, rows: Any) -> None:
        """Marks rows (n,) of a table; those that it does not have are passed over."""
        if weight in self._flags:
            flags = self._flags[weight]
            _mark(flags, torch.from_numpy(rows[rows < len(flags)]))

    def clear(self) -> None:
        """Forgets all marks of this rank."""
        for flags in self._flags.values():
            flags.zero_()

    def merged(self) -> dict[str, Any]:
        """Returns weight → sorted numbers (n,) of the rows that any rank has marked.

        Tables without marks are left out. Every rank calls it, and gets the same.
        """
        return {
            weight: np.flatnonzero(flags) for weight, flags in self._merged_flags() if flags.any()
        }

    def pack(self) -> dict[str, Tensor]:
        """Returns the marks of all ranks for a checkpoint, a bit a row; every rank calls it."""
        return {
            weight: torch.from_numpy(np.packbits(flags))
            for weight, flags in self._merged_flags()
            if flags.any()
        }

    def unpack(self, packed: Mapping[str, Tensor]) -> None:
        """Adds the marks of `pack`; one rank is to call it, of whatever number of ranks."""
        for weight, bits in packed.items():
            self.add(weight, np.flatnonzero(np.unpackbits(bits.numpy())))

    def _merged_flags(self) -> Iterable[tuple[str, Any]]:
        for weight, flags in self._flags.items():
            if num_ranks() > 1:
                # Marks that this rank alone has stay its own: `clear` ends them everywhere.
                flags = flags.clone()
                dist.all_reduce(flags, dist.ReduceOp.MAX)
            yield weight, flags.cpu().numpy()


def _mark(flags: Tensor, rows: Tensor) -> None:
    if flags.is_cpu:  # NumPy takes an eighth of torch's time
        flags.numpy()[rows.cpu().numpy()] = 1
    else:
        flags[rows.to(flags.device)] = 1


def _cpu_tables(model: nn.Module) -> Mapping[str, Any]:
    """Returns the name of the weight → `RowTable` of our collections, of tables that train."""
    return {
        f"{path}.{name}" if path else name: table
        for path, module in model.named_modules()
        if isinstance(module, CpuTables)
        for name, table in module.tables.trained.items()
    }
