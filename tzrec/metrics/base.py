"""What all metrics share: states that are saved, and how ranks exchange rows at `compute`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric


class BaseMetric(Metric):
    """A torchmetrics metric whose `update` is local and whose `compute` joins the ranks.

    Args:
        local: `compute` stays on this rank too (train metrics).

    Attributes:
        half_width: of the 95 % confidence interval of the last `compute`; None if the metric has
            none.
    """

    full_state_update = False
    is_differentiable = False
    # Subclasses that join rows themselves switch torchmetrics' gathering off.
    _gathers_itself: ClassVar[bool] = False

    def __init__(self, *, local: bool = False) -> None:
        super().__init__(sync_on_compute=not (local or self._gathers_itself))
        self._local = local
        self.half_width: float | None = None
        self._update_count = 1

    def reset(self) -> None:
        """Forgets all rows."""
        super().reset()
        # torchmetrics warns about a compute without rows, which a rank without any makes too.
        self._update_count = 1

    def _add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Adds a state that starts at 0 and is summed over ranks."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _joins(self) -> bool:
        """Tells whether rows must be exchanged with other ranks."""
        return not self._local and world_size() > 1


class RowsMetric(BaseMetric):
    """A metric that keeps rows until `compute`.

    Args:
        columns: names of the states, each a list with a (B,) tensor per update.
        local: `compute` stays on this rank.
    """

    _gathers_itself = True

    def __init__(self, *columns: str, local: bool = False) -> None:
        super().__init__(local=local)
        self._columns = columns
        for name in columns:
            self.add_state(name, [], dist_reduce_fx=None)

    def _append(self, **rows: Tensor) -> None:
        for name in self._columns:
            getattr(self, name).append(rows[name].detach())

    def _rows(self) -> list[Tensor]:
        """Returns the columns, each (N,); empty ones are float32."""
        columns = [getattr(self, name) for name in self._columns]
        return [
            torch.cat(parts) if parts else torch.zeros(0, device=self.device) for parts in columns
        ]


def half_width(variance: float) -> float:
    """Returns half the 95 % interval of a normal estimate with this variance."""
    return 1.959964 * math.sqrt(variance)


def world_size() -> int:
    """Returns the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(columns: list[Tensor]) -> list[Tensor]:
    """Returns each column (N,) with the rows of all ranks, in the order of the ranks.

    Args:
        columns: tensors (N,) with the same N; dtypes must agree over ranks.
    """
    own = columns[0].new_tensor([columns[0].numel()], dtype=torch.int64)
    sizes = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(sizes, own)
    most = max(int(size) for size in sizes)
    result = []
    for column in columns:
        padded = torch.nn.functional.pad(column, (0, most - column.numel()))
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        result.append(
            torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])
        )
    return result


def exchange_rows(columns: list[Tensor], owner: Tensor) -> list[Tensor]:
    """Sends each row to the rank that owns it.

    Args:
        columns: tensors (N, …) with the same N; dtypes must agree over ranks.
        owner: (N,) rank of each row.

    Returns:
        The columns of the rows that this rank owns, ordered by the rank they come from.
    """
    ranks = world_size()
    order = torch.argsort(owner, stable=True)
    sent = torch.bincount(owner, minlength=ranks)
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent)
    in_sizes, out_sizes = sent.tolist(), received.tolist()
    result = []
    for column in columns:
        target = column.new_empty(sum(out_sizes), *column.shape[1:])
        dist.all_to_all_single(target, column[order].contiguous(), out_sizes, in_sizes)
        result.append(target)
    return result


def metric_state(metric: Metric) -> dict[str, Any]:
    """Returns the states of a metric: tensors, or lists of tensors."""
    return {name: _copied(getattr(metric, name)) for name in metric._defaults}


def load_metric_state(metric: Metric, state: dict[str, Any]) -> None:
    """Puts the result of `metric_state` back.

    Raises:
        KeyError: a state is missing.
    """
    for name in metric._defaults:
        setattr(metric, name, _copied(state[name], metric.device))
    metric._computed = None
    # Keeps torchmetrics from warning about a compute before the first update.
    metric._update_count = 1


def _copied(value: Any, device: torch.device | None = None) -> Any:
    if isinstance(value, list):
        return [_copied(part, device) for part in value]
    return value.detach().to(device or value.device, copy=True)
