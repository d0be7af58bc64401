"""`Accumulation`: the row gradients of a model's embedding tables between backward and update.

In one process on a CPU the backward pass only sums the gradients of the rows it met; `apply`
moves those rows. TorchRec's kernels (several processes, GPUs) update inside the backward pass:
this object does not see their tables.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from tzrec.errors import CheckpointError
from tzrec.ops.cpu.collections import CpuTables
from tzrec.ops.cpu.group import TableGroup
from tzrec.ops.cpu.table import RowTable
from tzrec.ops.loss_scale import LossScale


class Accumulation:
    """Gradients that wait for their update, over all tables of a model.

    A step of an optimizer is: any number of backward passes, then `apply` (or `drop`, if the
    step is refused). Weights do not change before `apply`. With n backward passes whose losses
    are divided by n the update is that of one batch with the rows of all of them.

    Args:
        model: the model, distributed or not.
    """

    def __init__(self, model: nn.Module) -> None:
        self._groups: list[TableGroup] = []
        self._tables: dict[str, tuple[TableGroup, RowTable]] = {}
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for module in model.modules():
            if isinstance(module, CpuTables):
                self._groups.append(module.tables)
                for table in module.tables.trained.values():
                    self._tables[names[id(table.weight)]] = (module.tables, table)

    def set_loss_scale(self, loss_scale: LossScale) -> None:
        """Lets `apply` divide gradients by what the loss was multiplied by."""
        for group in self._groups:
            group.loss_scale = loss_scale

    def is_finite(self) -> bool:
        """Tells whether every waiting gradient is finite; costs one pass over them."""
        return all(group.is_finite() for group in self._groups)

    def apply(self) -> None:
        """Moves the rows that have gradients, each once, and forgets the gradients."""
        for group in self._groups:
            group.apply()

    def drop(self) -> None:
        """Forgets the gradients; neither weights nor states change."""
        for group in self._groups:
            group.drop()

    @property
    def weights(self) -> list[Tensor]:
        """The tables whose gradients it sees."""
        return [table.weight for _, table in self._tables.values()]

    def anchors(self) -> list[Tensor]:
        """Returns what `torch.autograd.grad` must be asked for to sum the gradients of rows."""
        return [group.anchor for group in self._groups if group.anchor.requires_grad]

    def pending(self) -> dict[str, tuple[Any, Any]]:
        """Returns parameter name → rows (n,) that have a gradient, and their sums (n, D)."""
        return {
            name: table.pending()
            for name, (group, table) in self._tables.items()
            if group.is_pending
        }

    def load_pending(self, gradients: Mapping[str, tuple[Any, Any]]) -> None:
        """Replaces the gradients that wait by those that `pending` returned."""
        self.drop()
        for name, (rows, sums) in gradients.items():
            group, table = self._tables[name]
            table.load_pending(rows, sums)
            group.is_pending = True

    def pending_state(self) -> bytes:
        """Returns the gradients that wait, for a checkpoint between two updates.

        Bytes rather than tensors, because their size differs from step to step.
        """
        arrays = {}
        for name, (rows, sums) in self.pending().items():
            arrays[f"{name}:rows"], arrays[f"{name}:sums"] = rows, sums
        if not arrays:
            return b""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    def load_pending_state(self, state: bytes) -> None:
        """Replaces the gradients that wait by those of `pending_state`.

        Raises:
            CheckpointError: a table is missing here, or has fewer rows or another dimension.
        """
        self.drop()
        if not state:
            return
        with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
            for name in sorted({key.rpartition(":")[0] for key in arrays.files}):
                self._load(name, arrays)

    def _load(self, name: str, arrays: Mapping[str, Any]) -> None:
        rows, sums = arrays[f"{name}:rows"], arrays[f"{name}:sums"]
        if name not in self._tables:
            raise CheckpointError(
                f"the checkpoint holds accumulated gradients of {name}, which is no table that "
                "trains in this process",
                hint="restore with --ignore_restore_optimizer to drop them",
            )
        group, table = self._tables[name]
        if sums.shape[1] != table.dim or (len(rows) and rows.max() >= table.num_rows):
            raise CheckpointError(
                f"the checkpoint's accumulated gradients of {name} do not fit a table of "
                f"{table.num_rows} rows of {table.dim}",
                hint="restore with --ignore_restore_optimizer to drop them",
            )
        table.load_pending(rows, sums)
        group.is_pending = True
