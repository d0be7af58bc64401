"""What the config allows the planner, table by table: sharding types and compute kernels."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import nn
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.planner.constants import MIN_CW_DIM
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import ModuleSharder, ShardingType
from torchrec.modules.embedding_configs import DataType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from tzrec.errors import ConfigError, Unsupported
from tzrec.features.feature import BaseFeature
from tzrec.modules.embedding_tables import features_of
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.optim.replicated_tables import EXACT_KINDS
from tzrec.protos import feature_pb2

logger = logging.getLogger("tzrec")

# (parameter path of its collection, name): two collections may have tables of one name.
TableKey = tuple[str, str]

GLOBAL = "train_config.global_embedding_constraints"

DATA_PARALLEL = ShardingType.DATA_PARALLEL.value
# Whole tables or rows of them: what is learnt never depends on them, so the planner may choose.
DEFAULT_SHARDING = (ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value)
# Those that cut rows into pieces.
BY_COLUMN = (
    ShardingType.COLUMN_WISE.value,
    ShardingType.TABLE_COLUMN_WISE.value,
    ShardingType.GRID_SHARD.value,
)
# Optimizers with one number for a whole row: pieces of a row would each have their own.
_OF_WHOLE_ROWS = (
    "rowwise_adagrad",
    "partial_rowwise_adam",
    "lamb",
    "partial_rowwise_lamb",
    "lars_sgd",
)


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What a config says about the placement of tables.

    Attributes:
        every: ``train_config.global_embedding_constraints``, None = nothing.
        by_feature: feature → its ``embedding_constraints``; they go before ``every``.
    """

    every: feature_pb2.ParameterConstraints | None = None
    by_feature: Mapping[str, feature_pb2.ParameterConstraints] = dataclasses.field(
        default_factory=dict
    )

    @classmethod
    def of(cls, train_config: Any, features: Sequence[BaseFeature] = ()) -> Wishes:
        """Returns those of a config.

        Args:
            train_config: its ``train_config``, or None.
            features: its features.
        """
        every = None
        if train_config is not None and train_config.HasField("global_embedding_constraints"):
            every = train_config.global_embedding_constraints
        found = {feature.name: feature.embedding_constraints for feature in features}
        return cls(every, {name: wish for name, wish in found.items() if wish is not None})

    def of_table(self, config: Any) -> tuple[str, feature_pb2.ParameterConstraints]:
        """Returns where the wishes of a table stand in the config, and the wishes.

        Those of a ``zch`` table are not asked for, and the global ones do not reach ``dynamicemb``
        (reference 04 section 4.5, 09 section 9.1).

        Raises:
            ConfigError: features that share the table differ in them.
        """
        nothing = feature_pb2.ParameterConstraints()
        hash_table = getattr(config, "hash_table", None)
        if hash_table is not None and hash_table.kind == "zch":
            return "zch", nothing
        own = [
            (name, self.by_feature[name]) for name in features_of(config) if name in self.by_feature
        ]
        for name, wish in own[1:]:
            if wish != own[0][1]:
                raise ConfigError(
                    f"features {own[0][0]!r} and {name!r} share the table {config.name!r} but "
                    "differ in embedding_constraints",
                    hint="write the same into both, or into one of them only",
                )
        if own:
            return f"embedding_constraints of feature {own[0][0]!r}", own[0][1]
        return GLOBAL, nothing if hash_table is not None else self.every or nothing


def planned_tables(model: nn.Module) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yields (path of the collection, collection, config) of the tables that TorchRec shards."""
    for path, module in model.named_modules():
        if type(module) is EmbeddingBagCollection:
            for bag_config in module.embedding_bag_configs():
                yield path, module, bag_config
        elif type(module) is EmbeddingCollection:
            for config in module.embedding_configs():
                yield path, module, config


def weight_of(module: nn.Module, config: Any) -> nn.Parameter:
    """Returns the weight of a table of a collection."""
    tables: Any = getattr(module, "embedding_bags", None) or getattr(module, "embeddings", {})
    weight: nn.Parameter = tables[config.name].weight
    return weight


def table_limits(
    model: nn.Module,
    sharders: Sequence[ModuleSharder[nn.Module]],
    wishes: Wishes,
    *,
    rule: UpdateRule | None,
    device_type: str,
    world_size: int,
) -> dict[TableKey, ParameterConstraints]:
    """Returns table → what the planner may choose from.

    Placements under which the optimizer would learn something else are left out.

    Args:
        model: holds the collections.
        sharders: of `create_sharders`.
        wishes: of the config.
        rule: how tables that train move; None = none does.
        device_type: ``cpu`` or ``cuda``.
        world_size: number of processes.

    Raises:
        ConfigError: wishes of one table contradict each other, or a collection cannot have them.
        Unsupported: the optimizer, or a hash table, can be had under none of the placements that
            are wished.
    """
    offered = {sharder.module_type: sharder.sharding_types(device_type) for sharder in sharders}
    limits: dict[TableKey, ParameterConstraints] = {}
    dropped: set[tuple[str, str]] = set()
    for path, module, config in planned_tables(model):
        where, wish = wishes.of_table(config)
        types = list(wish.sharding_types) or list(DEFAULT_SHARDING)
        _check_offer(config, types, offered[type(module)], where)
        moved = rule if getattr(config, "trainable", True) else None
        reasons = {kind: _inexact(kind, moved, config) for kind in types}
        exact = [kind for kind in types if not reasons[kind]]
        if not exact:
            hint = f"take other sharding_types ({where}), such as table_wise or row_wise"
            if not _is_hashed(config):
                hint += ", or adagrad_optimizer or sgd_optimizer without clipping"
            raise Unsupported(
                f"table {config.name!r} cannot be placed {types[0]}: {reasons[types[0]]}",
                hint=hint,
            )
        dropped.update((kind, reason) for kind, reason in reasons.items() if reason)
        kernels = list(wish.compute_kernels) or [EmbeddingComputeKernel.FUSED.value]
        if DATA_PARALLEL in exact and not wish.compute_kernels:
            kernels.append(EmbeddingComputeKernel.DENSE.value)
        limits[path, config.name] = ParameterConstraints(
            sharding_types=exact,
            compute_kernels=kernels,
            min_partition=_column_width(config.embedding_dim, world_size),
        )
    if dist.is_initialized() and dist.get_rank() == 0:
        for kind, reason in sorted(dropped):
            logger.warning("the planner does not take %s: %s", kind, reason)
    return limits


def _check_offer(config: Any, types: list[str], offered: Sequence[str], where: str) -> None:
    if not set(types) & set(offered):
        raise ConfigError(
            f"table {config.name!r} cannot be placed {types[0]} ({where})",
            hint=f"here it can be {', '.join(sorted(offered))}",
        )


def _inexact(kind: str, rule: UpdateRule | None, config: Any) -> str:
    """Returns why a placement would change what is learnt, "" = it does not."""
    if kind == DATA_PARALLEL and _is_hashed(config):
        return "rows of a hash table begin anew with another id, which copies of it do not"
    if rule is None:
        return ""
    if kind in BY_COLUMN and rule.kind in _OF_WHOLE_ROWS:
        return f"{rule.kind} has one number for a row, each piece of it would have another"
    if kind == DATA_PARALLEL:
        if rule.kind not in EXACT_KINDS:
            return f"{rule.kind} would move rows that the batch does not hold"
        if rule.clips or rule.decays:
            return f"{rule.kind} with clipping or weight decay cannot be had there"
        if config.data_type != DataType.FP32:
            return "such tables are FP32"
    return ""


def _is_hashed(config: Any) -> bool:
    return getattr(config, "hash_table", None) is not None


def _column_width(dim: int, world_size: int) -> int | None:
    """Returns how wide pieces of a row are: one for each rank, if 4 divides them."""
    for pieces in range(min(world_size, dim // 4), 1, -1):
        if dim % (4 * pieces) == 0:
            return min(dim // pieces, MIN_CW_DIM) if dim % MIN_CW_DIM == 0 else dim // pieces
    return None
