"""The plan of a config for a cluster that is not there; nothing is trained or communicated."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torchrec.distributed.planner.types import ParameterConstraints

from tzrec.config.messages import which_field, which_msg
from tzrec.datasets.samplers.hard import USUAL_HARD
from tzrec.modules.deferred_tables import deferred_tables
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.optim.optimizer_builder import create_sparse_optimizer
from tzrec.protos.data_pb2 import DataConfig
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training import build
from tzrec.training.distributed.cluster import Cluster
from tzrec.training.distributed.cures import plan_error
from tzrec.training.distributed.limits import (
    DEFAULT_SHARDING,
    Wishes,
    planned_tables,
    weight_of,
)
from tzrec.training.distributed.plan import create_sharders, make_plan
from tzrec.training.distributed.table import PlanTable, sizes
from tzrec.training.distributed.table_optimizers import attach, refuse_inexact


def plan_offline(config: EasyRecConfig, cluster: Cluster) -> PlanTable:
    """Returns where the tables of a config would go.

    Args:
        config: a checked config. Its vocabulary files are read, its data are not.
        cluster: the processes and their memory.

    Raises:
        PlanError: the tables do not fit, or a wish of the config cannot be met.
        ConfigError: the wishes contradict each other.
        Unsupported: the sparse optimizer cannot be had exactly on such a cluster.
    """
    train = config.train_config
    features = build.build_features(config.data_config, config.feature_configs)
    with deferred_tables("plan"):
        model = build.build_model(config, features)
    rule = create_sparse_optimizer(
        train.sparse_optimizer,
        embedding_l2=train.embedding_l2,
        all_rows=train.embedding_l2_all_rows and train.embedding_l2 > 0,
    )
    unplaced = sizes(model, rule)
    if cluster.world_size == 1 and not cluster.on_gpus:
        return _in_one_process(model, cluster, rule)
    weights = {
        f"{path}.{table.name}": weight_of(module, table)
        for path, module, table in planned_tables(model)
    }
    refuse_inexact(rule, torch.device(cluster.device_type), model, weights)
    for _, module, table in planned_tables(model):
        attach([weight_of(module, table)], rule if getattr(table, "trainable", True) else None)
    plan = make_plan(
        model,
        create_sharders(),
        cluster=cluster,
        wishes=Wishes.of(train, features),
        rule=rule,
        batch_size=config.data_config.batch_size + sampled_rows(config.data_config),
    )
    return PlanTable.of(unplaced, plan, cluster, rule)


def sampled_rows(data_config: DataConfig) -> int:
    """Returns about how many rows a sampler adds to a batch; its tables are not read."""
    kind = which_msg(data_config, "sampler")
    if not kind:
        return 0
    sampler: Any = getattr(data_config, which_field(data_config, "sampler") or "")
    if kind == "TDMSampler":
        counts = sampler.layer_num_sample
        return int((sum(counts) + max(len(counts) - 2, 0)) * data_config.batch_size)
    hard = min(int(getattr(sampler, "num_hard_sample", 0)), USUAL_HARD)
    return int(sampler.num_sample) + hard * data_config.batch_size


def _in_one_process(model: nn.Module, cluster: Cluster, rule: UpdateRule | None) -> PlanTable:
    """Returns the plan of one process on a CPU, which holds every table whole."""
    tables = [
        dataclasses.replace(table, sharding="table_wise", kernel="fused", bytes_of={0: table.size})
        for table in sizes(model, rule)
    ]
    found = PlanTable(cluster, sorted(tables, key=lambda table: (-table.size, table.name)))
    if found.bytes_of(0) > cluster.usable():
        whole = ParameterConstraints(
            sharding_types=list(DEFAULT_SHARDING), compute_kernels=["fused"]
        )
        raise plan_error(
            model, cluster, {(table.path, table.name): whole for table in tables}, rule
        )
    return found
