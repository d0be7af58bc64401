"""The tables of one collection: their lookup as autograd functions that sum row gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import get_embedding_names_by_table
from torchrec.optim.fused import EmptyFusedOptimizer, FusedOptimizer

from tzrec.batch import KeyedJaggedTensor
from tzrec.errors import DataError, Unsupported
from tzrec.ops.cpu.parallel import for_each
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.ops.cpu.table import RowTable
from tzrec.ops.loss_scale import LossScale


class RowOptimizer(FusedOptimizer):
    """States and learning rate of tables whose rows are moved by `TableGroup.apply`.

    Args:
        tables: parameter name → table that trains.
        lr: learning rate; the one in ``param_groups`` counts.
    """

    def __init__(self, tables: Mapping[str, RowTable], lr: float) -> None:
        super().__init__(
            {name: table.weight for name, table in tables.items()},
            {
                table.weight: {f"{table.name}.{key}": value for key, value in table.state.items()}
                for table in tables.values()
            },
            [{"params": [table.weight for table in tables.values()], "lr": lr}] if tables else [],
        )

    @property
    def lr(self) -> float:
        """The learning rate that counts."""
        (group,) = self.param_groups
        return float(group["lr"])

    def step(self, closure: Any = None) -> None:
        """Does nothing: `tzrec.ops.accumulation.Accumulation` updates all tables together."""

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Does nothing: an update or a drop forgets the gradients."""


@dataclasses.dataclass(frozen=True)
class _Use:
    """One feature's lookup in a table.

    Attributes:
        table: the table.
        feature: key in the input.
        name: key in the output.
        column: where the pooled output starts.
        mean: average the bag instead of summing it.
    """

    table: RowTable
    feature: str
    name: str
    column: int
    mean: bool


@dataclasses.dataclass(frozen=True)
class _Input:
    """The ids of one use: ``ids[offsets[0] : offsets[-1]]``, bags by offsets."""

    ids: Any
    offsets: Any
    weights: Any

    @property
    def size(self) -> int:
        """How many ids there are."""
        return int(self.offsets[-1] - self.offsets[0])


class TableGroup:
    """What pooled and un-pooled collections share: tables, uses, optimizer, update.

    The backward pass adds to the row gradients of the tables, `apply` moves the rows.

    Args:
        configs: configs of the tables.
        weights: table → parameter.
        prefix: where the collection keeps its tables, the start of their parameter names.
        rule: how rows move; None = never.
        frozen: names of tables that never move.

    Attributes:
        uses: lookups of a forward pass, in the order of the configs.
        trained: parameter name → table that trains.
        loss_scale: what losses were multiplied by, None = nothing.
        is_pending: True between a backward pass and `apply` or `drop`.
    """

    def __init__(
        self,
        configs: Sequence[EmbeddingBagConfig | EmbeddingConfig],
        weights: Mapping[str, nn.Parameter],
        *,
        prefix: str,
        rule: UpdateRule | None,
        frozen: Collection[str],
    ) -> None:
        self.uses: list[_Use] = []
        self.trained: dict[str, RowTable] = {}
        self.loss_scale: LossScale | None = None
        self.is_pending = False
        column = 0
        for config, names in zip(configs, get_embedding_names_by_table(configs), strict=True):
            trains = rule is not None and config.name not in frozen
            weight = weights[config.name]
            # Keeps dense optimizers away, as TorchRec's own fused tables do.
            weight._in_backward_optimizers = [EmptyFusedOptimizer()]  # type: ignore[attr-defined]
            table = RowTable(config.name, weight, rule if trains else None)
            if trains:
                self.trained[f"{prefix}.{config.name}.weight"] = table
            mean = getattr(config, "pooling", PoolingType.SUM) == PoolingType.MEAN
            for feature, name in zip(config.feature_names, names, strict=True):
                self.uses.append(_Use(table, feature, name, column, mean))
                column += table.dim
        self.width = column
        self._bound = rule.max_gradient if rule is not None else np.inf
        self.optimizer = RowOptimizer(self.trained, rule.lr if rule is not None else 0.0)
        # Something that requires a gradient, so that autograd calls the backward pass.
        self.anchor = torch.zeros(0, requires_grad=True) if self.trained else torch.zeros(0)

    def _inputs(self, kjt: KeyedJaggedTensor, *, weighted: bool) -> list[_Input]:
        if kjt.variable_stride_per_key() or kjt.inverse_indices_or_none() is not None:
            raise Unsupported("a batch whose features differ in their number of rows")
        weights = kjt.weights() if weighted else torch.empty(0)
        if weights.requires_grad:
            raise Unsupported("a gradient of the weights of a weighted feature")
        ids = kjt.values().to(torch.int64).contiguous().numpy()
        offsets = kjt.offsets().to(torch.int64).contiguous().numpy()
        weights = weights.to(torch.float32).contiguous().numpy()
        rows = kjt.stride()
        order = {key: position for position, key in enumerate(kjt.keys())}
        found = []
        for use in self.uses:
            start = order[use.feature] * rows
            found.append(_Input(ids, offsets[start : start + rows + 1], weights))
        return found

    def pool(self, kjt: KeyedJaggedTensor, *, weighted: bool) -> Tensor:
        """Returns (B, width), the pooled rows of all uses side by side.

        Raises:
            DataError: an id is not a row of its table.
        """
        return _PooledLookup.apply(self.anchor, self, self._inputs(kjt, weighted=weighted))

    def gather(self, kjt: KeyedJaggedTensor) -> tuple[Tensor, ...]:
        """Returns per use (n, D), the row of each id; otherwise as `pool`."""
        return _RowLookup.apply(self.anchor, self, self._inputs(kjt, weighted=False))

    def add(self, gradients: Sequence[Any], inputs: Sequence[_Input], *, pooled: bool) -> None:
        """Adds the gradients of outputs to the gradients of rows.

        Args:
            gradients: per use (B, width) if pooled, else (n, D); None = the output was not used.
            inputs: per use.
            pooled: whether bags were pooled.
        """
        self.is_pending = True
        add = self._add_pooled if pooled else self._add_rows
        by_table: dict[int, list[tuple[_Use, Any, _Input]]] = {}
        for use, gradient, given in zip(self.uses, gradients, inputs, strict=True):
            if use.table.rule is not None and gradient is not None:
                by_table.setdefault(id(use.table), []).append((use, gradient, given))

        def add_to_table(lookups: list[tuple[_Use, Any, _Input]]) -> None:
            for use, gradient, given in lookups:
                use.table.set_count(add(use, gradient, given, *use.table.reserve(given.size)))

        lookups = list(by_table.values())
        sizes = (sum(use.table.dim * given.size for use, _, given in same) for same in lookups)
        for_each(add_to_table, lookups, sizes)

    def clip(self, gradient: Tensor) -> Any:
        """Returns the gradient of an output as the kernels take it, clipped if the rule says so."""
        array = gradient.to(torch.float32).contiguous().numpy()
        if self._bound == np.inf:
            return array
        bound = self._bound * self._scale
        return array.clip(-bound, bound)

    @property
    def _scale(self) -> float:
        return 1.0 if self.loss_scale is None else self.loss_scale.value

    def is_finite(self) -> bool:
        """Tells whether every gradient that waits is finite."""
        return all(table.is_finite() for table in self.trained.values())

    def apply(self) -> None:
        """Moves the rows that have a gradient, each once, and forgets the gradients."""
        if self.is_pending:
            lr, scale = self.optimizer.lr, 1.0 / self._scale
            tables = list(self.trained.values())
            sizes = (table.num_moving * table.dim for table in tables)
            for_each(lambda table: table.apply(lr=lr, scale=scale), tables, sizes)
        self.is_pending = False

    def drop(self) -> None:
        """Forgets the gradients; nothing moves."""
        for table in self.trained.values():
            table.drop()
        self.is_pending = False

    @staticmethod
    def _add_pooled(use: _Use, gradient: Any, given: _Input, *memory: Any) -> int:
        from tzrec.ops.cpu import lookup

        bags = (given.ids, given.offsets, given.weights, use.mean)
        return int(lookup.sum_bag_gradients(gradient, use.column, *bags, *memory))

    @staticmethod
    def _add_rows(use: _Use, gradient: Any, given: _Input, *memory: Any) -> int:  # noqa: ARG004
        from tzrec.ops.cpu import lookup

        ids = given.ids[given.offsets[0] : given.offsets[-1]]
        return int(lookup.sum_row_gradients(gradient, ids, *memory))


class _PooledLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, tables: TableGroup, inputs: list[_Input]) -> Tensor:  # noqa: ARG004
        from tzrec.ops.cpu import lookup

        ctx.tables, ctx.inputs = tables, inputs
        rows = len(inputs[0].offsets) - 1
        output = torch.empty(rows, tables.width)
        array = output.numpy()

        def pool(lookup_of: tuple[_Use, _Input]) -> None:
            use, given = lookup_of
            bags = (given.ids, given.offsets, given.weights, use.mean)
            bad = lookup.pool_rows(use.table.array(), *bags, array, use.column)
            if bad >= 0:
                raise _no_such_row(use, given, bad)

        for_each(pool, list(zip(tables.uses, inputs, strict=True)), _sizes(tables.uses, inputs))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        gradient = ctx.tables.clip(gradients[0])
        ctx.tables.add([gradient] * len(ctx.inputs), ctx.inputs, pooled=True)
        return None, None, None


class _RowLookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,  # noqa: ARG004
        tables: TableGroup,
        inputs: list[_Input],
    ) -> tuple[Tensor, ...]:
        from tzrec.ops.cpu import lookup

        ctx.tables, ctx.inputs = tables, inputs
        ctx.set_materialize_grads(False)
        uses = tables.uses
        outputs = [
            torch.empty(given.size, use.table.dim) for use, given in zip(uses, inputs, strict=True)
        ]

        def gather(lookup_of: tuple[_Use, _Input, Tensor]) -> None:
            use, given, output = lookup_of
            first, last = int(given.offsets[0]), int(given.offsets[-1])
            bad = lookup.gather_rows(use.table.array(), given.ids[first:last], output.numpy())
            if bad >= 0:
                raise _no_such_row(use, given, first + bad)

        for_each(gather, list(zip(uses, inputs, outputs, strict=True)), _sizes(uses, inputs))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, None, None]:
        arrays = [None if gradient is None else ctx.tables.clip(gradient) for gradient in gradients]
        ctx.tables.add(arrays, ctx.inputs, pooled=False)
        return None, None, None


def _sizes(uses: list[_Use], inputs: list[_Input]) -> Iterator[int]:
    """Yields per use how many numbers its rows have."""
    return (use.table.dim * given.size for use, given in zip(uses, inputs, strict=True))


def _no_such_row(use: _Use, given: _Input, position: int) -> DataError:
    return DataError(
        f"feature {use.feature} holds the id {given.ids[position]}, "
        f"but table {use.table.name} has rows 0 to {use.table.num_rows - 1}"
    )
