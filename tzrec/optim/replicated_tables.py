"""Embedding tables that every rank holds whole (``data_parallel``), trained as the others are.

TorchRec gives such a table a dense gradient, averaged over the ranks, and no optimizer. The
formulas of `UpdateRule` that leave a row alone whose gradient is zero can be computed from it
exactly; with those the placement of a table never changes what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.distributed.types import ShardingType
from torchrec.optim.keyed import KeyedOptimizerWrapper

from tzrec.ops.cpu.rule import UpdateRule
from tzrec.optim.optimizer_builder import create_sparse_optimizer
from tzrec.protos.train_pb2 import TrainConfig

# Kinds whose update of a row with gradient 0 is nothing at all.
EXACT_KINDS = ("sgd", "adagrad", "rowwise_adagrad")


class ReplicatedTables(torch.optim.Optimizer):
    """Moves whole tables by dense gradients as `UpdateRule` moves rows.

    States have the names of TorchRec's sharded tables, ``{table}.momentum1``, so a checkpoint
    does not tell how a table was placed.

    Args:
        parameters: tables, all of one rule.
        rule: one of `EXACT_KINDS`, without weight decay, penalty and clipping.
        names: names of the tables, in the same order.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, rule: UpdateRule, names: Iterable[str]
    ) -> None:
        assert rule.kind in EXACT_KINDS, rule.kind
        assert not any((rule.clips, rule.decays, rule.embedding_l2))
        self.rule = rule
        tables = list(parameters)
        # Every group has a weight_decay; `TZRecOptimizer` sets it to 0 for a step without effect.
        super().__init__(tables, {"lr": rule.lr, "weight_decay": 0.0})
        self._key = {
            id(table): f"{name}.momentum1" for table, name in zip(tables, names, strict=True)
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves every table that has a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._move(table.detach(), table.grad, lr=group["lr"], of=table)

    def _move(self, table: Tensor, gradient: Tensor, *, lr: float, of: nn.Parameter) -> None:
        if self.rule.kind == "sgd":
            table.sub_(gradient, alpha=lr)
            return
        squares = self._squares(of)
        if self.rule.kind == "adagrad":
            squares.addcmul_(gradient, gradient)
            table.addcdiv_(gradient, squares.sqrt().add_(self.rule.eps), value=-lr)
        else:
            squares.add_(gradient.square().mean(1))
            scale = squares.sqrt().add_(self.rule.eps).unsqueeze(1)
            table.addcdiv_(gradient, scale, value=-lr)

    def _squares(self, table: nn.Parameter) -> Tensor:
        state, key = self.state[table], self._key[id(table)]
        if key not in state:
            shape = self.rule.state_shapes(*table.shape)["momentum1"]
            start = self.rule.initial_accumulator_value
            state[key] = torch.full(shape, start, dtype=torch.float32, device=table.device)
        squares: Tensor = state[key]
        return squares


def replicated_tables(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns parameter name → table of the tables that TorchRec placed ``data_parallel``.

    Frozen ones are left out: nothing moves them.

    Args:
        model: distributed.
    """
    chosen: dict[int, bool] = {}
    for module in model.modules():
        plan: Any = getattr(module, "module_sharding_plan", None)
        if plan is None:
            continue
        tables: Any = getattr(module, "embedding_bags", None) or getattr(module, "embeddings", {})
        for config in _configs(module):
            if plan[config.name].sharding_type == ShardingType.DATA_PARALLEL.value:
                trainable = getattr(config, "trainable", True)
                chosen[id(tables[config.name].weight)] = trainable
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if chosen.get(id(parameter), False)
    }


def _configs(module: nn.Module) -> list[Any]:
    found: Any = getattr(module, "_embedding_bag_configs", None)
    return list(found if found is not None else getattr(module, "_embedding_configs", ()))


def replicated_optimizers(
    model: nn.Module, train_config: TrainConfig
) -> list[KeyedOptimizerWrapper]:
    """Returns the optimizer of the tables that every rank holds whole, [] without any.

    Args:
        model: distributed.
        train_config: its ``sparse_optimizer`` is theirs.
    """
    tables = replicated_tables(model)
    if not tables:
        return []
    rule = create_sparse_optimizer(train_config.sparse_optimizer)
    names = [name.split(".")[-2] for name in tables]
    return [
        KeyedOptimizerWrapper(
            tables, lambda parameters: ReplicatedTables(parameters, rule=rule, names=names)
        )
    ]
