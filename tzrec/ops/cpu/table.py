"""`RowTable`: one embedding table that is updated in place, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tzrec.ops.cpu.rule import UpdateRule

_SLOT_LIMIT = 2**31 - 1


class RowTable:
    """A table's weight with the states of its optimizer and the kernels that work on them.

    The gradients of the rows that the batches of an update hold are summed in memory of their
    own; one int32 per row of the table finds the rows that come more than once. Both are
    allocated when the first gradient comes.

    Args:
        name: name of the table.
        weight: (R, D) float32 or float16 on the CPU; updated in place.
        rule: how rows move; None = never.

    Attributes:
        name: name of the table.
        weight: the parameter.
        rule: how rows move.
        state: TorchRec's name of a state → tensor.
        num_rows: R.
        dim: D.
        moved: (R,) uint8 in which `apply` marks the rows that it moves with 1; None = nobody asks.
    """

    def __init__(self, name: str, weight: nn.Parameter, rule: UpdateRule | None) -> None:
        if not weight.is_contiguous():
            weight.data = weight.data.contiguous()
        self.name = name
        self.weight = weight
        self.rule = rule
        self.num_rows, self.dim = weight.shape
        self.state = _initial_state(self.num_rows, self.dim, rule)
        # Arrays over the memory of weight and states, which are only ever changed in place.
        self._array, self._address = _as_array(weight), weight.data_ptr()
        self._states = [value.numpy() for key, value in self.state.items() if key != "step"]
        self._step = self.state["step"].numpy() if "step" in self.state else None
        # Sum k belongs to row rows[k], and slots[rows[k]] is base + k. As base grows from update
        # to update, slots need no clearing: what is below base is old.
        self._rows = np.empty(0, np.int64)
        self._sums = np.empty((0, self.dim), np.float32)
        self._slots = np.empty(0, np.int32)
        self._base = self._count = 0
        self.moved: Any = None

    def array(self) -> Any:
        """Returns the weight as the kernels take it: half floats as uint16."""
        if self.weight.data_ptr() != self._address:  # somebody replaced weight.data
            self._array, self._address = _as_array(self.weight), self.weight.data_ptr()
        return self._array

    def reserve(self, size: int) -> tuple[Any, int, Any, Any, int]:
        """Makes room for the gradients of ``size`` more ids.

        Returns:
            slots, base, rows, sums and count, as the kernels of the lookup take them.
        """
        capacity = min(self._count + size, self.num_rows)
        if len(self._rows) < capacity:
            room = min(max(capacity, 2 * len(self._rows)), self.num_rows)
            rows, sums = self._rows, self._sums
            self._rows = np.empty(room, np.int64)
            # Torch's allocator aligns to cache lines, NumPy's does not.
            self._sums = torch.empty(room, self.dim).numpy()
            self._rows[: self._count] = rows[: self._count]
            self._sums[: self._count] = sums[: self._count]
        if not len(self._slots) or self._base + capacity > _SLOT_LIMIT:
            self._slots = np.full(self.num_rows, -1, np.int32)
            self._base = 0
            self._slots[self._rows[: self._count]] = np.arange(self._count, dtype=np.int32)
        return self._slots, self._base, self._rows, self._sums, self._count

    @property
    def num_moving(self) -> int:
        """How many rows `apply` moves."""
        moves_all = self.rule is not None and self.rule.all_rows
        return self.num_rows if moves_all else self._count

    def set_count(self, count: int) -> None:
        """Says how many rows have a gradient now."""
        self._count = count

    def is_finite(self) -> bool:
        """Tells whether every summed gradient is finite."""
        return bool(np.isfinite(self._sums[: self._count]).all())

    def apply(self, *, lr: float, scale: float = 1.0) -> None:
        """Moves the rows that have a gradient and forgets it; see `UpdateRule`.

        Args:
            lr: learning rate.
            scale: factor that the gradients are multiplied by first.
        """
        from tzrec.ops.cpu import update, update_rowwise

        rule, f32 = self.rule, np.float32
        assert rule is not None, "a frozen table gets no gradient"
        if rule.all_rows:
            self._add_missing_rows()
        table = self.array()
        batch = (self._rows, self._count, self._sums)
        if rule.l2 or scale != 1.0:
            update.regularise(table, *batch, f32(scale), f32(rule.l2))
        if self._step is not None:
            self._step += 1
        constants = rule.constants(lr, int(self._step) if self._step is not None else 0)
        kernel = getattr(update, rule.kind, None) or getattr(update_rowwise, rule.kind)
        kernel(table, *self._states, *batch, *(f32(value) for value in constants))
        if self.moved is not None:
            self.moved[self._rows[: self._count]] = 1
        self.drop()

    def _add_missing_rows(self) -> None:
        """Gives the rows without a gradient one of zero."""
        slots, base, rows, sums, count = self.reserve(self.num_rows - self._count)
        rows[count:] = np.flatnonzero(slots < base)
        sums[count:] = 0
        self._count = self.num_rows

    def drop(self) -> None:
        """Forgets the gradients."""
        self._base += self._count
        self._count = 0

    def reset_rows(self, rows: Tensor, values: Tensor) -> None:
        """Makes rows begin anew: new weights, fresh states, and no gradient.

        Args:
            rows: (m,) int64, each once.
            values: (m, D), the weights.
        """
        self.weight.detach()[rows] = values.to(self.weight.dtype)
        for name, value in self.state.items():
            if value.dim():
                value[rows] = self._initial_value(name)
        if self._count:
            pending = np.isin(self._rows[: self._count], rows.numpy())
            self._sums[: self._count][pending] = 0

    def _initial_value(self, state: str) -> float:
        is_sum = state == "momentum1" and self.rule is not None
        return self.rule.initial_accumulator_value if is_sum else 0.0  # type: ignore[union-attr]

    def pending(self) -> tuple[Any, Any]:
        """Returns copies of the rows (n,) that have a gradient, and of their sums (n, D)."""
        return self._rows[: self._count].copy(), self._sums[: self._count].copy()

    def load_pending(self, rows: Any, sums: Any) -> None:
        """Replaces the gradients by those that `pending` returned."""
        self.drop()
        slots, base, own_rows, own_sums, _ = self.reserve(len(rows))
        own_rows[: len(rows)] = rows
        own_sums[: len(rows)] = sums
        slots[rows] = base + np.arange(len(rows), dtype=np.int32)
        self._count = len(rows)


def _as_array(weight: Tensor) -> Any:
    array = weight.detach().numpy()
    return array.view(np.uint16) if array.dtype == np.float16 else array


def _initial_state(rows: int, dim: int, rule: UpdateRule | None) -> dict[str, Tensor]:
    if rule is None:
        return {}
    state = {
        name: torch.zeros(shape, dtype=torch.int64 if name == "step" else torch.float32)
        for name, shape in rule.state_shapes(rows, dim).items()
    }
    if rule.initial_accumulator_value:
        state["momentum1"].fill_(rule.initial_accumulator_value)
    return state
