"""Where TorchRec puts the embedding tables: sharders and the planner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.constants import BATCH_SIZE, DEFAULT_PERF_ESTIMATOR
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.estimator import EmbeddingPerfEstimatorFactory
from torchrec.distributed.planner.proposers import (
    GreedyProposer,
    GridSearchProposer,
    UniformProposer,
)
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import (
    Enumerator,
    ParameterConstraints,
    PlannerError,
    Proposer,
    ShardingOption,
    Topology,
)
from torchrec.distributed.types import ModuleSharder, ShardingPlan, ShardingType

from tzrec.errors import PlanError
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.training.distributed.cluster import Cluster
from tzrec.training.distributed.estimate import StorageEstimator
from tzrec.training.distributed.limits import (
    TableKey,
    Wishes,
    planned_tables,
    table_limits,
)


class _PooledSharder(EmbeddingBagCollectionSharder):
    """Offers row-wise shards on a CPU too, where they work although TorchRec does not say so."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        types: list[str] = super().sharding_types(compute_device_type)
        rows = (ShardingType.ROW_WISE, ShardingType.TABLE_ROW_WISE, ShardingType.GRID_SHARD)
        return [*types, *(kind.value for kind in rows if kind.value not in types)]


def create_sharders() -> list[ModuleSharder[nn.Module]]:
    """Returns the sharders of pooled and un-pooled collections."""
    return [_PooledSharder(), EmbeddingCollectionSharder()]


class NoPlacementError(PlannerError):
    """Limits leave no placement for a table.

    Args:
        table: the table.
        message: what TorchRec says.
    """

    def __init__(self, table: TableKey, message: str) -> None:
        super().__init__(message)
        self.table = table


class _Enumerator(EmbeddingEnumerator):
    """TorchRec's, with limits of tables of each collection: its own go by the name of a table.

    Args:
        limits: table → what the planner may choose from.
        topology: where tables can go.
        batch_size: rows that a rank looks up at once.
        estimators: of the options.
    """

    def __init__(
        self,
        limits: Mapping[TableKey, ParameterConstraints],
        *,
        topology: Topology,
        batch_size: int,
        estimators: list[Any],
    ) -> None:
        super().__init__(topology=topology, batch_size=batch_size, estimator=estimators)
        self._limits = limits

    def enumerate(
        self, module: nn.Module, sharders: list[ModuleSharder[nn.Module]]
    ) -> list[ShardingOption]:
        """Returns the options of all tables.

        Raises:
            NoPlacementError: there are none for a table.
        """
        collections = {path: collection for path, collection, _ in planned_tables(module)}
        found: list[ShardingOption] = []
        for path, collection in collections.items():
            own = {name: limit for (where, name), limit in self._limits.items() if where == path}
            self._constraints = own
            try:
                found += super().enumerate(_Alone(path, collection), sharders)
            except RuntimeError as error:
                # TorchRec has no error of its own for constraints that leave nothing.
                name = str(error).partition("constraints for ")[2].partition(". Module: ")[0]
                if name not in own:
                    raise
                raise NoPlacementError((path, name), str(error)) from error
        return found


class _Alone(nn.Module):
    """One collection of a model, at its path."""

    def __init__(self, path: str, collection: nn.Module) -> None:
        super().__init__()
        self._child = (path, collection)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        yield self._child


class _SmallestProposer(Proposer):
    """Proposes once: for every table what takes least on the rank that has most of it.

    TorchRec's proposers look for speed; in a tight memory they may miss the one plan that fits.
    """

    def __init__(self) -> None:
        self._proposal: list[ShardingOption] | None = None

    def load(
        self, search_space: list[ShardingOption], enumerator: Enumerator | None = None
    ) -> None:
        best: dict[str, ShardingOption] = {}
        for option in search_space:
            if option.fqn not in best or _size(option) < _size(best[option.fqn]):
                best[option.fqn] = option
        self._proposal = list(best.values())

    def feedback(
        self,
        partitionable: bool,
        plan: list[ShardingOption] | None = None,
        perf_rating: float | None = None,
        storage_constraint: Topology | None = None,
    ) -> None:
        self._proposal = None

    def propose(self) -> list[ShardingOption] | None:
        return self._proposal


def _size(option: ShardingOption) -> tuple[int, int]:
    shards: Any = option.shards
    return (
        max(shard.storage.hbm for shard in shards),
        max(shard.storage.ddr for shard in shards),
    )


def plan_tables(
    model: nn.Module,
    sharders: Sequence[ModuleSharder[nn.Module]],
    cluster: Cluster,
    limits: Mapping[TableKey, ParameterConstraints],
    *,
    rule: UpdateRule | None = None,
    batch_size: int | None = None,
    quick: bool = False,
) -> ShardingPlan:
    """Returns where the tables of a model go; nothing is communicated.

    Args:
        model: holds the collections; they may be on the meta device.
        sharders: of `create_sharders`.
        cluster: where they can go.
        limits: table → what the planner may choose from.
        rule: how tables that train move; None = none does.
        batch_size: rows that a rank looks up at once, for what exchanges cost; None = TorchRec's
            guess.
        quick: only find out whether they fit, whatever the speed of the plan.

    Raises:
        PlannerError: they do not fit, or (`NoPlacementError`) ``limits`` leave nothing.
    """
    proposers: list[Proposer] = [_SmallestProposer()]
    if not quick:
        proposers += [
            GridSearchProposer(),
            GreedyProposer(),
            GreedyProposer(use_depth=False),
            UniformProposer(),
        ]
    planner = _planner(cluster, limits, rule, batch_size or BATCH_SIZE, proposers)
    return planner.plan(model, list(sharders))


def _planner(
    cluster: Cluster,
    limits: Mapping[TableKey, ParameterConstraints],
    rule: UpdateRule | None,
    batch_size: int,
    proposers: list[Proposer],
) -> EmbeddingShardingPlanner:
    topology = cluster.topology()
    return EmbeddingShardingPlanner(
        topology=topology,
        batch_size=batch_size,
        enumerator=_Enumerator(
            limits,
            topology=topology,
            batch_size=batch_size,
            estimators=[
                EmbeddingPerfEstimatorFactory.create(DEFAULT_PERF_ESTIMATOR, topology=topology),
                StorageEstimator(topology, rule),
            ],
        ),
        # The topology has only what may be used.
        storage_reservation=FixedPercentageStorageReservation(0.0),
        proposer=proposers,
        stats=[],
        debug=False,
    )


def make_plan(
    model: nn.Module,
    sharders: Sequence[ModuleSharder[nn.Module]],
    *,
    cluster: Cluster,
    wishes: Wishes | None = None,
    rule: UpdateRule | None = None,
    batch_size: int | None = None,
) -> ShardingPlan:
    """Returns where the tables go; the same on every rank of the process group, if there is one.

    Args:
        model: holds the collections.
        sharders: of `create_sharders`.
        cluster: the processes and their memory.
        wishes: what the config says about placement.
        rule: how tables that train move; None = none does.
        batch_size: as in `plan_tables`.

    Raises:
        PlanError: the tables do not fit, or a wish cannot be met.
        ConfigError: the wishes contradict each other.
        Unsupported: the optimizer is not to be had under the placements that are wished.
    """
    if not any(True for _ in planned_tables(model)):
        return ShardingPlan({})
    wishes = wishes or Wishes()
    limits = table_limits(
        model,
        sharders,
        wishes,
        rule=rule,
        device_type=cluster.device_type,
        world_size=cluster.world_size,
    )
    # The memory of the machines may differ; what the first rank finds holds for all.
    outcome: list[Any] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        try:
            outcome = [
                plan_tables(model, sharders, cluster, limits, rule=rule, batch_size=batch_size)
            ]
        except PlannerError as error:
            from tzrec.training.distributed.cures import plan_error

            outcome = [plan_error(model, cluster, limits, rule, error=error)]
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(outcome, 0)
    (plan,) = outcome
    if isinstance(plan, PlanError):
        raise plan
    assert isinstance(plan, ShardingPlan)
    return plan
