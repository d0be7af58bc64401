"""`distribute`: gives embedding tables their optimizers and wraps the model for training.

On a CPU with one process the collections are replaced by ours (`tzrec.ops.cpu`), which are
faster than FBGEMM's for every optimizer that both have, and do what FBGEMM's CPU kernels refuse.
Otherwise TorchRec shards them as fused tables.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.model_parallel import (
    DataParallelWrapper,
    DefaultDataParallelWrapper,
    DistributedModelParallel,
)
from torchrec.distributed.types import ShardedTensor, ShardingEnv
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from tzrec.errors import DistributedError
from tzrec.features.feature import BaseFeature
from tzrec.modules.deferred_tables import Deferred
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.optim.optimizer_builder import create_sparse_optimizer
from tzrec.optim.sparse_parameters import split_sparse_parameters
from tzrec.options import wants_stored_plan
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.cluster import Cluster
from tzrec.training.distributed.dense_rows import look_up_rows
from tzrec.training.distributed.limits import Wishes, planned_tables, weight_of
from tzrec.training.distributed.plan import create_sharders, make_plan
from tzrec.training.distributed.reduce_scatter import allow_uneven_batches
from tzrec.training.distributed.table import PlanTable, sizes
from tzrec.training.distributed.table_optimizers import attach, refuse_inexact

logger = logging.getLogger("tzrec")

Kernels = Literal["auto", "torchrec"]


def distribute(
    model: nn.Module,
    *,
    train_config: TrainConfig | None = None,
    device: torch.device,
    kernels: Kernels = "auto",
    batch_size: int | None = None,
    features: Sequence[BaseFeature] = (),
) -> DistributedModelParallel:
    """Returns the model wrapped for training; a process group must exist.

    Weights keep their values (on several ranks each rank must hold the same ones), and names of
    parameters and optimizer states do not depend on the kernels. Tables of ``trainable: false``
    never move.

    Args:
        model: `TrainWrapper` or any module with TorchRec collections; modified.
        train_config: selects the sparse optimizer; None = no table moves.
        device: device of this process.
        kernels: ``auto`` takes our kernels where they can be used, ``torchrec`` never.
        batch_size: rows that a rank looks up at once, for the planner.
        features: those of the config, whose ``embedding_constraints`` limit the planner.

    Raises:
        Unsupported: the sparse optimizer cannot be had exactly on these devices, or under the
            placements that the config allows.
        ConfigError: constraints contradict each other.
        PlanError: the tables do not fit.
        DistributedError: a table is called otherwise once it is sharded.
    """
    rule = None
    if train_config is not None:
        rule = create_sparse_optimizer(
            train_config.sparse_optimizer,
            embedding_l2=train_config.embedding_l2,
            all_rows=train_config.embedding_l2_all_rows and train_config.embedding_l2 > 0,
        )
    shards = kernels != "auto" or device.type != "cpu" or dist.get_world_size() > 1
    _materialise(model, device, keep_deferred=shards)
    trainable, frozen = _sparse_parameters(model)
    if not shards:
        model = _replace_collections(model, rule, {id(weight) for weight in frozen})
        tables: dict[str, nn.Parameter] = {}
    else:
        tables = _table_weights(model)
        refuse_inexact(rule, device, model, tables)
        _warn_of_accumulation(train_config)
        _warn_of_stored_plan()
        attach(trainable, rule)
        attach(frozen, None)
        _mark(model, {id(weight) for weight in trainable})
    wishes = Wishes.of(train_config, features)
    wrapped = _wrap(model, wishes, rule=rule, device=device, batch_size=batch_size)
    if rule is not None and tables:
        _fill_accumulators(wrapped, rule)
    return wrapped


def _mark(model: nn.Module, trainable: Collection[int]) -> None:
    """Writes into the configs of tables what the model says about them."""
    for _, module, config in planned_tables(model):
        config.trainable = id(weight_of(module, config)) in trainable


def _warn_of_accumulation(train_config: TrainConfig | None) -> None:
    steps = train_config.gradient_accumulation_steps if train_config is not None else 1
    if steps > 1 and dist.get_rank() == 0:
        logger.warning(
            "gradient_accumulation_steps: %d accumulates dense gradients only. With several "
            "processes or on a GPU embedding tables move after every batch, by its share of the "
            "mean gradient",
            steps,
        )


def _warn_of_stored_plan() -> None:
    if wants_stored_plan() and dist.get_rank() == 0:
        logger.warning(
            "FORCE_LOAD_SHARDING_PLAN=1 has no effect: any placement can load any checkpoint, and "
            "every run places its tables anew; embedding_constraints pin them"
        )


def _wrap(
    model: nn.Module,
    wishes: Wishes,
    *,
    rule: UpdateRule | None,
    device: torch.device,
    batch_size: int | None,
) -> DistributedModelParallel:
    """Shards the tables that are TorchRec's, keeps their values, wraps the model."""
    initial = _initial_values(model)
    sharders = create_sharders()
    cluster, unplaced = Cluster.of_process(device), sizes(model, rule)
    plan = make_plan(
        model, sharders, cluster=cluster, wishes=wishes, rule=rule, batch_size=batch_size
    )
    alone = dist.get_world_size() == 1
    wrapped = DistributedModelParallel(
        model,
        device=device,
        plan=plan,
        sharders=sharders,
        data_parallel_wrapper=_OneProcess() if alone else DefaultDataParallelWrapper(),
    )
    wrapped.plan_table = PlanTable.of(unplaced, plan, cluster, rule) if unplaced else None
    allow_uneven_batches(wrapped)
    look_up_rows(wrapped)
    _restore(wrapped, initial)
    return wrapped


class _OneProcess(DataParallelWrapper):
    """Nothing to average: only moves the dense part to its device."""

    def wrap(self, dmp: DistributedModelParallel, env: ShardingEnv, device: torch.device) -> None:
        dmp._dmp_wrapped_module = dmp._dmp_wrapped_module.to(device)


def _sparse_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the tables that train, as the model (below its wrapper) says, and all others."""
    trainable, frozen = split_sparse_parameters(model)
    every = [*trainable, *frozen]
    chosen = {id(weight) for weight in trainable}
    for candidate in (model, getattr(model, "model", None)):
        own: Any = getattr(candidate, "sparse_parameters", None)
        if callable(own):
            chosen = {id(weight) for weight in own()[0]}
            break
    return (
        [weight for weight in every if id(weight) in chosen],
        [weight for weight in every if id(weight) not in chosen],
    )


def _materialise(model: nn.Module, device: torch.device, *, keep_deferred: bool) -> None:
    """Allocates and initialises collections that were built on the meta device.

    Those whose tables are made shard by shard are left out on demand.
    """
    for module in model.modules():
        if isinstance(module, EmbeddingBagCollection | EmbeddingCollection):
            if not any(parameter.is_meta for parameter in module.parameters()):
                continue
            if keep_deferred and _initial_values(module):
                continue
            collection: Any = module
            collection.to_empty(device=device)
            collection._device = device
            collection.reset_parameters()


def _replace_collections(
    module: nn.Module,
    rule: UpdateRule | None,
    frozen: Collection[int],
    done: dict[int, nn.Module] | None = None,
) -> nn.Module:
    """Returns ``module`` with our collections in the place of TorchRec's."""
    done = {} if done is None else done
    if id(module) in done:
        return done[id(module)]
    if type(module) is EmbeddingBagCollection:
        names = _names_of(module.embedding_bags, frozen)
        done[id(module)] = CpuEmbeddingBagCollection(module, rule, frozen=names)
    elif type(module) is EmbeddingCollection:
        names = _names_of(module.embeddings, frozen)
        done[id(module)] = CpuEmbeddingCollection(module, rule, frozen=names)
    else:
        done[id(module)] = module
        for name, child in module.named_children():
            setattr(module, name, _replace_collections(child, rule, frozen, done))
    return done[id(module)]


def _names_of(tables: Any, chosen: Collection[int]) -> set[str]:
    return {name for name, table in tables.items() if id(table.weight) in chosen}


def _table_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns parameter name → table of the collections that TorchRec shards."""
    return {
        f"{path}.{name}" if path else name: parameter
        for path, module in model.named_modules()
        if type(module) in (EmbeddingBagCollection, EmbeddingCollection)
        for name, parameter in module.named_parameters()
    }


def _initial_values(model: nn.Module) -> dict[str, Callable[[], torch.Tensor]]:
    """Returns parameter name → what returns the initial values of the whole table."""
    initial: dict[str, Callable[[], torch.Tensor]] = {}
    for path, module, config in planned_tables(model):
        prefix = f"{path}." if path else ""
        weight = weight_of(module, config)
        if not weight.is_meta:
            values: Callable[[], torch.Tensor] = weight.detach
        elif isinstance(config.init_fn, Deferred):
            values = functools.partial(config.init_fn.make, weight.shape, weight.dtype)
        else:
            continue
        kind = "embedding_bags" if isinstance(module, EmbeddingBagCollection) else "embeddings"
        initial[f"{prefix}{kind}.{config.name}.weight"] = values
    return initial


def _restore(
    model: DistributedModelParallel, initial: Mapping[str, Callable[[], torch.Tensor]]
) -> None:
    """Puts the values of the unsharded tables into their shards, one table after the other.

    Raises:
        DistributedError: a table is called otherwise than before; its rows would hold anything.
    """
    state = model.state_dict()
    lost = sorted(initial.keys() - state.keys())
    if lost:
        raise DistributedError(
            f"{len(lost)} embedding tables have other names after the model was distributed, so "
            f"they cannot get their initial values: {', '.join(lost[:5])}",
            hint="a custom model must keep its collections where they are; train in one process",
        )
    for name, value in state.items():
        if name not in initial:
            continue
        if not isinstance(value, ShardedTensor):
            value.copy_(initial[name]())  # data_parallel: every rank has the whole table
            continue
        whole = initial[name]() if value.local_shards() else None
        for shard in value.local_shards():
            assert whole is not None
            start, size = shard.metadata.shard_offsets, shard.metadata.shard_sizes
            rows = slice(start[0], start[0] + size[0])
            columns = slice(start[1], start[1] + size[1])
            shard.tensor.copy_(whole[rows, columns])


def _fill_accumulators(model: DistributedModelParallel, rule: UpdateRule) -> None:
    if rule.initial_accumulator_value == 0:
        return
    for tensor in _state_tensors(model.fused_optimizer.state_dict()["state"]):
        for shard in tensor.local_shards():
            shard.tensor.fill_(rule.initial_accumulator_value)


def _state_tensors(state: dict[str, Any]) -> Iterator[Any]:
    for by_name in state.values():
        for name, tensor in by_name.items():
            if name.endswith(".momentum1"):
                yield tensor
