"""Where TorchRec puts the embedding tables: sharders, limits and the planner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import (
    KernelConfig,
    ParameterConstraints,
    PlannerError,
    Topology,
    TopologyFactory,
    TrainerConfig,
)
from torchrec.distributed.types import ModuleSharder, ShardingPlan, ShardingType

from tzrec.errors import PlanError
from tzrec.protos import feature_pb2

# Column-wise shards do not reshard with row-wise Adagrad, and data-parallel tables lose the
# optimizer of the backward pass: both only on request.
_DEFAULT_SHARDING = (ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value)

# Share of each device's memory that is left to everything but tables.
_RESERVED = 0.15


class _PooledSharder(EmbeddingBagCollectionSharder):
    """Offers row-wise shards on a CPU too, where they work although TorchRec does not say so."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        types: list[str] = super().sharding_types(compute_device_type)
        rows = [ShardingType.ROW_WISE.value, ShardingType.TABLE_ROW_WISE.value]
        return [*types, *(kind for kind in rows if kind not in types)]


def create_sharders() -> list[ModuleSharder[nn.Module]]:
    """Returns the sharders of pooled and un-pooled collections."""
    return [_PooledSharder(), EmbeddingCollectionSharder()]


def make_plan(
    model: nn.Module,
    sharders: Sequence[ModuleSharder[nn.Module]],
    *,
    device: torch.device,
    tables: Sequence[str],
    constraints: feature_pb2.ParameterConstraints | None = None,
    batch_size: int | None = None,
) -> ShardingPlan:
    """Returns where the tables go; the same on every rank.

    Args:
        model: holds the collections.
        sharders: of `create_sharders`.
        device: device of this rank.
        tables: names of the tables.
        constraints: ``train_config.global_embedding_constraints``; empty lists mean the default.
        batch_size: rows that a rank looks up at once, for what exchanges cost; None = TorchRec's
            guess.

    Raises:
        PlanError: the tables do not fit, or a limit cannot be met.
    """
    if not tables:
        return ShardingPlan({})
    wanted: Any = constraints or feature_pb2.ParameterConstraints()
    limit = ParameterConstraints(
        sharding_types=list(wanted.sharding_types) or list(_DEFAULT_SHARDING),
        compute_kernels=list(wanted.compute_kernels) or [EmbeddingComputeKernel.FUSED.value],
    )
    planner = EmbeddingShardingPlanner(
        topology=_topology(device),
        batch_size=batch_size,
        storage_reservation=FixedPercentageStorageReservation(_RESERVED),
        constraints=dict.fromkeys(tables, limit),
        debug=False,
    )
    group = dist.group.WORLD
    assert group is not None, "distribute() needs a process group"
    try:
        return planner.collective_plan(model, list(sharders), group)
    except (PlannerError, RuntimeError) as error:
        # TorchRec has no error of its own for constraints that leave nothing.
        if not isinstance(error, PlannerError) and "No available sharding" not in str(error):
            raise
        raise PlanError(
            f"the embedding tables cannot be placed on {dist.get_world_size()} x {device.type}: "
            f"{error}",
            hint="use fewer rows or smaller embeddings, more processes, or other "
            "train_config.global_embedding_constraints",
        ) from error


def _topology(device: torch.device) -> Topology:
    world_size = dist.get_world_size()
    local_size = get_local_size(world_size) if world_size > 1 else 1
    return TopologyFactory.create_topology(
        TrainerConfig(
            world_size=world_size,
            local_world_size=local_size,
            hbm_cap_bytes=_gpu_memory(device),
            ddr_cap_bytes=psutil.virtual_memory().total // local_size,
        ),
        kernel_config=KernelConfig(compute_device=device.type),
    )


def _gpu_memory(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)
