"""`RowTable`: one embedding table that is updated in place, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tzrec.ops.cpu.rule import UpdateRule

_SLOT_LIMIT = 2**31 - 1


class Workspace:
    """Memory for the rows of one table and one batch; tables take turns."""

    def __init__(self) -> None:
        self._rows = np.empty(0, np.int64)
        self._sums = np.empty(0, np.float32)

    def reserve(self, capacity: int, dim: int) -> tuple[Any, Any]:
        """Returns arrays rows (capacity,) int64 and sums (capacity, dim) float32, not cleared."""
        if len(self._rows) < capacity:
            self._rows = np.empty(max(capacity, 2 * len(self._rows)), np.int64)
        if len(self._sums) < capacity * dim:
            # Torch's allocator aligns to cache lines, NumPy's does not.
            self._sums = torch.empty(max(capacity * dim, 2 * len(self._sums))).numpy()
        return self._rows[:capacity], self._sums[: capacity * dim].reshape(capacity, dim)


class RowTable:
    """A table's weight with the states of its optimizer and the kernels that work on them.

    One int32 per row finds the rows that a batch holds more than once; it is allocated when
    the first gradient comes.

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
    """

    def __init__(self, name: str, weight: nn.Parameter, rule: UpdateRule | None) -> None:
        if not weight.is_contiguous():
            weight.data = weight.data.contiguous()
        self.name = name
        self.weight = weight
        self.rule = rule
        self.state: dict[str, Tensor] = _initial_state(weight, rule) if rule else {}
        self.num_rows, self.dim = weight.shape
        # Arrays over the memory of weight and states, which are only ever changed in place.
        self._array, self._address = _as_array(weight), weight.data_ptr()
        self._states = [value.numpy() for key, value in self.state.items() if key != "step"]
        self._step = self.state["step"].numpy() if "step" in self.state else None
        self._slots = np.empty(0, np.int32)
        self._base = 0
        self._used = 0

    def array(self) -> Any:
        """Returns the weight as the kernels take it: half floats as uint16."""
        if self.weight.data_ptr() != self._address:  # somebody replaced weight.data
            self._array, self._address = _as_array(self.weight), self.weight.data_ptr()
        return self._array

    def start_batch(self, capacity: int) -> tuple[Any, int]:
        """Returns the slot array and its base for a batch of at most ``capacity`` rows."""
        if len(self._slots) != self.num_rows or self._base + self._used + capacity > _SLOT_LIMIT:
            self._slots = np.full(self.num_rows, -1, np.int32)
            self._base = self._used = 0
        self._base += self._used
        self._used = capacity
        return self._slots, self._base

    def update(self, rows: Any, sums: Any, count: int, *, lr: float, scale: float = 1.0) -> None:
        """Moves the batch's rows; see `UpdateRule` for the formulas.

        Args:
            rows: (capacity,) int64, distinct rows, the first ``count`` are valid.
            sums: (capacity, D) float32, their gradients; overwritten.
            count: number of rows.
            lr: learning rate.
            scale: factor that the gradients are multiplied by first.
        """
        from tzrec.ops.cpu import update

        rule, f32 = self.rule, np.float32
        assert rule is not None, "a frozen table gets no gradient"
        table = self.array()
        decay = rule.weight_decay if rule.weight_decay_mode == "l2" else 0.0
        if rule.changes_gradient or scale != 1.0:
            bound, l2 = f32(rule.max_gradient), f32(rule.embedding_l2)
            update.regularise(table, rows, count, sums, f32(scale), l2, bound)
        if decay:
            update.regularise(table, rows, count, sums, f32(1), f32(decay), f32(np.inf))
        decoupled = rule.weight_decay if rule.weight_decay_mode == "decoupled" else 0.0
        keep = f32(1.0 - lr * decoupled)
        arguments = (table, *self._states, rows, count, sums, f32(lr), keep)
        if rule.kind == "sgd":
            update.sgd(*arguments)
        elif rule.kind == "adagrad":
            update.adagrad(*arguments, f32(rule.eps))
        elif rule.kind == "rowwise_adagrad":
            update.rowwise_adagrad(*arguments, f32(rule.eps))
        else:
            update.adam(*arguments, f32(rule.eps), *self._adam_factors(rule))

    def _adam_factors(self, rule: UpdateRule) -> tuple[np.float32, ...]:
        assert self._step is not None
        self._step += 1
        step = int(self._step)
        correction1 = 1.0 / (1.0 - rule.beta1**step)
        correction2 = 1.0 / (1.0 - rule.beta2**step)
        f32 = np.float32
        return f32(rule.beta1), f32(rule.beta2), f32(correction1), f32(correction2)


def _as_array(weight: Tensor) -> Any:
    array = weight.detach().numpy()
    return array.view(np.uint16) if array.dtype == np.float16 else array


def _initial_state(weight: nn.Parameter, rule: UpdateRule) -> dict[str, Tensor]:
    """Returns the states under TorchRec's names (the first one is always ``momentum1``)."""
    rows, dim = weight.shape
    if rule.kind == "adagrad":
        return {"momentum1": torch.full((rows, dim), rule.initial_accumulator_value)}
    if rule.kind == "rowwise_adagrad":
        return {"momentum1": torch.full((rows,), rule.initial_accumulator_value)}
    if rule.kind == "adam":
        return {
            "momentum1": torch.zeros(rows, dim),
            "exp_avg_sq": torch.zeros(rows, dim),
            "step": torch.zeros((), dtype=torch.int64),
        }
    return {}
