"""`distribute`: gives embedding tables their optimizers and wraps the model for training.

On a CPU with one process the collections are replaced by ours (`tzrec.ops.cpu`), which are
faster than FBGEMM's for every optimizer that both have, and do what FBGEMM's CPU kernels refuse.
Otherwise TorchRec shards them as fused tables.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec import optim as torchrec_optim
from torchrec.distributed.model_parallel import (
    DataParallelWrapper,
    DefaultDataParallelWrapper,
    DistributedModelParallel,
)
from torchrec.distributed.types import ShardingEnv
from torchrec.modules.embedding_configs import PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from tzrec.errors import ConfigError, Unsupported
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.optim.optimizer_builder import create_sparse_optimizer
from tzrec.optim.sparse_parameters import split_sparse_parameters
from tzrec.protos import feature_pb2
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.plan import create_sharders, make_plan
from tzrec.training.distributed.reduce_scatter import allow_uneven_batches

logger = logging.getLogger("tzrec")

Kernels = Literal["auto", "torchrec"]

_FROZEN = UpdateRule("sgd", 0.0)

# TorchRec cannot store the momentum of FBGEMM's lars_sgd; FBGEMM has no adadelta and no rmsprop.
_CLASSES: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torchrec_optim.SGD,
    "adagrad": torchrec_optim.Adagrad,
    "rowwise_adagrad": torchrec_optim.RowWiseAdagrad,
    "adam": torchrec_optim.Adam,
    "partial_rowwise_adam": torchrec_optim.PartialRowWiseAdam,
    "lamb": torchrec_optim.LAMB,
    "partial_rowwise_lamb": torchrec_optim.PartialRowWiseLAMB,
}
# Those that FBGEMM has for a CPU.
_CPU_KINDS = ("sgd", "adagrad", "rowwise_adagrad")


def distribute(
    model: nn.Module,
    *,
    train_config: TrainConfig | None = None,
    device: torch.device,
    kernels: Kernels = "auto",
    batch_size: int | None = None,
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

    Raises:
        Unsupported: the sparse optimizer cannot be had exactly on these devices.
        PlanError: the tables do not fit.
    """
    rule = None
    if train_config is not None:
        rule = create_sparse_optimizer(
            train_config.sparse_optimizer,
            embedding_l2=train_config.embedding_l2,
            all_rows=train_config.embedding_l2_all_rows and train_config.embedding_l2 > 0,
        )
    _materialise(model, device)
    trainable, frozen = _sparse_parameters(model)
    if kernels == "auto" and device.type == "cpu" and dist.get_world_size() == 1:
        model = _replace_collections(model, rule, {id(weight) for weight in frozen})
        tables: dict[str, nn.Parameter] = {}
    else:
        tables = _table_weights(model)
        _refuse_inexact(rule, device, model, tables)
        _warn_of_accumulation(train_config)
        _attach(trainable, rule or _FROZEN)
        _attach(frozen, _FROZEN)
    constraints = train_config.global_embedding_constraints if train_config else None
    wrapped = _wrap(model, tables, device=device, constraints=constraints, batch_size=batch_size)
    if rule is not None and tables:
        _fill_accumulators(wrapped, rule)
    return wrapped


def _warn_of_accumulation(train_config: TrainConfig | None) -> None:
    steps = train_config.gradient_accumulation_steps if train_config is not None else 1
    if steps > 1 and dist.get_rank() == 0:
        logger.warning(
            "gradient_accumulation_steps: %d accumulates dense gradients only. With several "
            "processes or on a GPU embedding tables move after every batch, by its share of the "
            "mean gradient",
            steps,
        )


def _wrap(
    model: nn.Module,
    tables: dict[str, nn.Parameter],
    *,
    device: torch.device,
    constraints: feature_pb2.ParameterConstraints | None,
    batch_size: int | None,
) -> DistributedModelParallel:
    """Shards ``tables`` (parameter name → table), keeps their values, wraps the model."""
    initial = {name: weight.detach() for name, weight in tables.items()}
    sharders = create_sharders()
    plan = make_plan(
        model,
        sharders,
        device=device,
        tables=sorted({name.split(".")[-2] for name in tables}),
        constraints=constraints,
        batch_size=batch_size,
    )
    alone = dist.get_world_size() == 1
    wrapped = DistributedModelParallel(
        model,
        device=device,
        plan=plan,
        sharders=sharders,
        data_parallel_wrapper=_OneProcess() if alone else DefaultDataParallelWrapper(),
    )
    allow_uneven_batches(wrapped)
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


def _materialise(model: nn.Module, device: torch.device) -> None:
    """Allocates and initialises collections that were built on the meta device."""
    for module in model.modules():
        if isinstance(module, EmbeddingBagCollection | EmbeddingCollection):
            if not any(parameter.is_meta for parameter in module.parameters()):
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


def _refuse_inexact(
    rule: UpdateRule | None, device: torch.device, model: nn.Module, tables: dict[str, nn.Parameter]
) -> None:
    """Raises for what TorchRec's kernels would not do, or would silently leave out."""
    where = "several processes" if device.type == "cpu" else "a GPU"
    odd = sorted({weight.shape[1] for weight in tables.values() if weight.shape[1] % 4})
    if odd:
        raise ConfigError(f"embedding_dim {odd[0]}: with {where} it must be a multiple of 4")
    if rule is None:
        return
    if rule.embedding_l2 != 0:
        raise Unsupported(f"embedding_l2 with {where} comes with a later version")
    kinds = _CPU_KINDS if device.type == "cpu" else tuple(_CLASSES)
    what = ""
    if rule.kind not in kinds:
        what = rule.kind
    elif device.type == "cpu" and rule.decays:
        what = f"{rule.kind} with weight_decay"
    elif device.type == "cpu" and rule.clips and _pools_means(model):
        # Row-wise shards divide by the length before they clip, table-wise ones after it.
        what = f"{rule.kind} with gradient_clipping and mean pooling"
    if what:
        raise Unsupported(
            f"sparse optimizer {what} on {'a CPU with ' if device.type == 'cpu' else ''}{where}",
            hint=f"train in one process on a CPU, or use {', '.join(kinds)}",
        )


def _pools_means(model: nn.Module) -> bool:
    return any(
        config.pooling == PoolingType.MEAN
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for config in module.embedding_bag_configs()
    )


def _attach(weights: Collection[nn.Parameter], rule: UpdateRule) -> None:
    """Tells TorchRec's sharders the optimizer of each table."""
    optimizer_class, kwargs = _torchrec_optimizer(rule)
    for weight in weights:
        _apply_optimizer_in_backward(optimizer_class, [weight], dict(kwargs), register_hook=False)


def _torchrec_optimizer(rule: UpdateRule) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    kwargs: dict[str, Any] = {"lr": rule.lr, "eps": rule.eps}
    if rule.clips:
        kwargs |= {"gradient_clipping": True, "max_gradient": rule.max_gradient}
    if rule.kind == "rowwise_adagrad":
        if rule.weight_decay_mode != "none":
            modes = {"l2": WeightDecayMode.L2, "decoupled": WeightDecayMode.DECOUPLE}
            kwargs |= {
                "weight_decay": rule.weight_decay,
                "weight_decay_mode": modes[rule.weight_decay_mode],
            }
    elif rule.kind not in ("sgd", "adagrad"):
        # FBGEMM's formulas say where weight decay enters.
        kwargs |= {"beta1": rule.beta1, "beta2": rule.beta2, "weight_decay": rule.weight_decay}
    return _CLASSES[rule.kind], kwargs


def _table_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns parameter name → table of the collections that TorchRec shards."""
    return {
        f"{path}.{name}" if path else name: parameter
        for path, module in model.named_modules()
        if type(module) in (EmbeddingBagCollection, EmbeddingCollection)
        for name, parameter in module.named_parameters()
    }


def _restore(model: DistributedModelParallel, initial: dict[str, torch.Tensor]) -> None:
    """Puts the values of the unsharded tables into their shards."""
    for name, value in model.state_dict().items():
        if name in initial:
            for shard in value.local_shards():
                start, size = shard.metadata.shard_offsets, shard.metadata.shard_sizes
                rows = slice(start[0], start[0] + size[0])
                columns = slice(start[1], start[1] + size[1])
                shard.tensor.copy_(initial[name][rows, columns])


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
