"""`ParetoWeights`: weighs the losses of tasks by their gradients, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tzrec.errors import Unsupported
from tzrec.loss.pe_mtl_loss import pareto_weights
from tzrec.ops.accumulation import Accumulation
from tzrec.optim.sparse_parameters import split_sparse_parameters

_RowGradients = dict[str, tuple[Any, Any]]


class ParetoWeights:
    """Weights of losses that change with every batch (`pareto_weights`).

    Takes one more backward pass per loss, over all weights of the model: those of layers, and
    the rows of embedding tables that the batch holds. Gradients that wait for an update stay as
    they are.

    Args:
        model: what trains; in one process on a CPU, since elsewhere embedding tables are updated
            inside the backward pass and show no gradient.

    Raises:
        Unsupported: the tables are TorchRec's, or there are several processes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tables = Accumulation(model)
        trained, frozen = split_sparse_parameters(model)
        seen = {id(weight) for weight in self._tables.weights}
        _refuse_hidden(weight for weight in trained if id(weight) not in seen)
        skipped = seen | {id(weight) for weight in frozen}
        self._parameters = [
            parameter
            for parameter in model.parameters()
            if parameter.requires_grad and id(parameter) not in skipped
        ]

    def __call__(self, losses: Sequence[Tensor], lower_bounds: Sequence[float]) -> list[float]:
        """Returns the weight of each loss; they add up to 1.

        Args:
            losses: scalars whose graph is still there.
            lower_bounds: smallest weight of each.
        """
        waiting = self._tables.pending()
        try:
            found = [self._gradients(loss) for loss in losses]
        finally:
            self._tables.load_pending(waiting)
        gram = _dense_products([dense for dense, _ in found])
        gram += _row_products([rows for _, rows in found])
        return [float(weight) for weight in pareto_weights(gram, lower_bounds)]

    def _gradients(self, loss: Tensor) -> tuple[list[Tensor | None], _RowGradients]:
        """Returns the gradients of the parameters, and of the tables' rows."""
        self._tables.drop()
        wanted = [*self._parameters, *self._tables.anchors()]
        if not loss.requires_grad or not wanted:
            return [None] * len(self._parameters), {}
        gradients = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
        return list(gradients[: len(self._parameters)]), self._tables.pending()


def _refuse_hidden(tables: Iterable[Tensor]) -> None:
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if several or any(hasattr(weight, "_in_backward_optimizers") for weight in tables):
        raise Unsupported(
            "use_pareto_loss_weight compares the gradients of the losses, and with several "
            "processes or on a GPU embedding tables show none",
            hint="train in one process on a CPU, or remove use_pareto_loss_weight and set the "
            "weight of each tower",
        )


def _dense_products(gradients: Sequence[Sequence[Tensor | None]]) -> Any:
    """Returns (n, n), the inner products of n gradients, each a tensor per parameter."""
    n = len(gradients)
    total = np.zeros((n, n))
    for parts in zip(*gradients, strict=True):
        given = [i for i, part in enumerate(parts) if part is not None]
        if given:
            stacked = torch.stack([parts[i].flatten().double() for i in given])
            total[np.ix_(given, given)] += (stacked @ stacked.T).cpu().numpy()
    return total


def _row_products(gradients: Sequence[_RowGradients]) -> Any:
    """Returns (n, n), the inner products of n gradients, each rows and their sums by table."""
    n = len(gradients)
    total = np.zeros((n, n))
    for name in {name for tables in gradients for name in tables}:
        given = [i for i, tables in enumerate(gradients) if name in tables]
        parts = [gradients[i][name] for i in given]
        rows, places = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
        stacked = np.zeros((len(given), len(rows), parts[0][1].shape[1]))
        start = 0
        for dense, (own, sums) in zip(stacked, parts, strict=True):
            dense[places[start : start + len(own)]] = sums
            start += len(own)
        flat = stacked.reshape(len(given), -1)
        total[np.ix_(given, given)] += flat @ flat.T
    return total
