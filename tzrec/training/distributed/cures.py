"""`PlanError` of tables that do not fit: what is needed, what there is, and what would help."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
from torchrec.modules.embedding_configs import DataType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from tzrec.errors import PlanError
from tzrec.ops.cpu.rule import Kind, UpdateRule
from tzrec.training.distributed.cluster import Cluster, size_text
from tzrec.training.distributed.limits import (
    BY_COLUMN,
    DEFAULT_SHARDING,
    GLOBAL,
    TableKey,
    planned_tables,
    weight_of,
)
from tzrec.training.distributed.plan import NoPlacementError, create_sharders, plan_tables
from tzrec.training.distributed.table import aligned, shown_names, sizes
from tzrec.training.distributed.table_optimizers import attach

Limits = Mapping[TableKey, ParameterConstraints]

# Those that TorchRec does not know, and others with states.
_KNOWN: Mapping[str, Kind] = {"lars_sgd": "adagrad", "rmsprop": "adagrad", "adadelta": "adam"}
_NUM_SHOWN = 10
_TRIES = 12
_UVM = ("fused_uvm_caching", "fused_uvm")


@dataclasses.dataclass(frozen=True)
class _Case:
    """Tables, memory and what the planner may do; each cure changes one of them."""

    model: nn.Module
    cluster: Cluster
    limits: Limits
    rule: UpdateRule | None

    def fits(self) -> bool:
        try:
            plan_tables(
                self.model,
                create_sharders(),
                self.cluster,
                self.limits,
                rule=self.rule,
                quick=True,
            )
        except PlannerError:
            return False
        return True


def plan_error(
    model: nn.Module,
    cluster: Cluster,
    limits: Limits,
    rule: UpdateRule | None,
    *,
    error: Exception | None = None,
) -> PlanError:
    """Returns the error of tables that the planner could not place.

    Args:
        model: holds the collections.
        cluster: the processes and their memory.
        limits: what the planner might choose from.
        rule: how tables that train move.
        error: what the planner said.
    """
    tables = sorted(sizes(model, rule), key=lambda table: -table.size)
    weights, states = sum(t.weights for t in tables), sum(t.states for t in tables)
    needed, room = weights + states, cluster.usable() * cluster.world_size
    message = (
        f"the embedding tables cannot be placed on {cluster}: they need {size_text(needed)} "
        f"(weights {size_text(weights)}, optimizer states {size_text(states)}), there are "
        f"{size_text(room)} for tables, {size_text(cluster.usable())} a process "
        f"({cluster.reserved:.0%} is kept for the rest){_reason(limits, needed <= room, error)}\n"
    )
    rows = [("table", "rows", "dim", "weights", "states", "may be")]
    for table, name in zip(tables[:_NUM_SHOWN], shown_names(tables), strict=False):
        rows.append(
            (
                name,
                f"{table.rows:,}",
                str(table.dim),
                size_text(table.weights),
                size_text(table.states),
                ", ".join(limits[table.path, table.name].sharding_types or ()),
            )
        )
    more = [f"and {len(tables) - _NUM_SHOWN} smaller ones"] if len(tables) > _NUM_SHOWN else []
    message += "\n".join(f"    {line}" for line in [*aligned(rows), *more])
    case = _Case(_twin(model, rule), cluster, limits, rule)
    helpful = list(cures(case))
    listed = "".join(f"\n    {i}. {text}" for i, text in enumerate(helpful, 1))
    if not helpful:
        return PlanError(
            message, hint="take processes with more memory: a batch alone needs more than they have"
        )
    return PlanError(message, hint=f"each of these makes them fit, best first:{listed}")


def _reason(limits: Limits, enough: bool, error: Exception | None) -> str:
    if isinstance(error, NoPlacementError):
        limit = limits[error.table]
        return (
            f"; no compute kernel of {limit.compute_kernels} can have table {error.table[1]!r} "
            f"as {limit.sharding_types}"
        )
    return ", but not in pieces that fit" if enough else ""


def cures(case: _Case) -> Iterator[str]:
    """Yields changes of a config or cluster under which the tables fit, each tried out alone.

    Those that leave alone what is learnt come first.
    """
    for cure in (_freer, _in_ddr, _more_machines, _smaller_states, _half_floats, _fewer_rows):
        text = cure(case)
        if text:
            yield text


def _freer(case: _Case) -> str:
    """Cut into rows what had to stay whole."""
    freed, names = {}, []
    for table, limit in case.limits.items():
        types = list(dict.fromkeys([*(limit.sharding_types or ()), *DEFAULT_SHARDING]))
        kernels = list(dict.fromkeys([*(limit.compute_kernels or ()), "fused"]))
        freed[table] = dataclasses.replace(limit, sharding_types=types, compute_kernels=kernels)
        if types != limit.sharding_types or kernels != limit.compute_kernels:
            names.append(table[1])
    if not names or not dataclasses.replace(case, limits=freed).fits():
        return ""
    return (
        f"also allow sharding_types row_wise and table_wise with the kernel fused for "
        f"{_some(names)} ({GLOBAL}, or embedding_constraints of their features)"
    )


def _in_ddr(case: _Case) -> str:
    """Leave tables in the machine's memory."""
    if not case.cluster.on_gpus:
        return ""
    # The constraints of the config do not reach hash tables.
    hashed = {
        (path, config.name)
        for path, _, config in planned_tables(case.model)
        if config.hash_table is not None
    }
    limits = {
        table: limit
        if table in hashed
        else dataclasses.replace(limit, compute_kernels=[*(limit.compute_kernels or ()), *_UVM])
        for table, limit in case.limits.items()
    }
    if not dataclasses.replace(case, limits=limits).fits():
        return ""
    return (
        "let big tables lie in the memory of the machines (slower): compute_kernels "
        f'["fused", "fused_uvm_caching", "fused_uvm"] in {GLOBAL}'
    )


def _more_machines(case: _Case) -> str:
    """Take more of the same."""
    cluster = case.cluster
    needed = sum(table.size for table in sizes(case.model, case.rule))
    room = max(cluster.usable() * cluster.world_size, 1)
    factor = max(2, math.ceil(needed / room))
    for _ in range(_TRIES):
        grown = cluster.grown(factor)
        if dataclasses.replace(case, cluster=grown).fits():
            return f"{grown.hosts} machines like these ({grown.world_size} processes)"
        factor += max(1, factor // 4)
    return ""


def _smaller_states(case: _Case) -> str:
    """Keep one number a row instead of one a weight."""
    if case.rule is None or case.rule.kind in ("sgd", "rowwise_adagrad"):
        return ""
    rule = UpdateRule("rowwise_adagrad", case.rule.lr)
    limits = {table: _without_pieces(limit) for table, limit in case.limits.items()}
    if not all(limit.sharding_types for limit in limits.values()):
        return ""
    attach_all(case.model, rule)
    fits = dataclasses.replace(case, rule=rule, limits=limits).fits()
    attach_all(case.model, case.rule)
    if not fits:
        return ""
    return (
        f"rowwise_adagrad_optimizer instead of {case.rule.kind} (train_config.sparse_optimizer): "
        "its states take 4 bytes a row; the model learns a little differently"
    )


def _without_pieces(limit: ParameterConstraints) -> ParameterConstraints:
    """Leaves out what `table_limits` would not allow an optimizer of whole rows."""
    kinds = [kind for kind in limit.sharding_types or () if kind not in BY_COLUMN]
    return dataclasses.replace(limit, sharding_types=kinds)


def _half_floats(case: _Case) -> str:
    """Keep weights in two bytes."""
    changed = [
        (path, config.name)
        for path, _, config in planned_tables(case.model)
        if config.data_type == DataType.FP32
        and "data_parallel" not in (case.limits[path, config.name].sharding_types or ())
    ]
    if not changed:
        return ""

    def half(path: str, config: Any) -> dict[str, Any]:
        return {"data_type": DataType.FP16} if (path, config.name) in changed else {}

    twin = _twin(case.model, case.rule, half)
    if not dataclasses.replace(case, model=twin).fits():
        return ""
    names = [name for _, name in changed]
    return f'data_type: "FP16" for the features of {_some(names)}: half the bytes of weights'


def _fewer_rows(case: _Case) -> str:
    """Cap the rows of tables; the largest cap that fits, to two digits."""

    def fits(most: int) -> bool:
        twin = _twin(
            case.model,
            case.rule,
            lambda _, config: {"num_embeddings": min(config.num_embeddings, most)},
        )
        return dataclasses.replace(case, model=twin).fits()

    tables = [config for _, _, config in planned_tables(case.model)]
    low, high = 1, max(config.num_embeddings for config in tables)
    if not fits(low):
        return ""
    while high - low > max(low // 50, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    scale = 10 ** max(len(str(low)) - 2, 0)
    low = low // scale * scale
    cut = [config.name for config in tables if config.num_embeddings > low]
    fields = "num_buckets, hash_bucket_size, zch_size"
    return f"at most {low:,} rows a table ({fields}), which cuts {_some(cut)}"


def _some(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def attach_all(model: nn.Module, rule: UpdateRule | None) -> None:
    """Tells the planner the optimizer of the tables that train, or another one with states."""
    alike = rule and UpdateRule(_KNOWN.get(rule.kind, rule.kind), rule.lr)
    for _, module, config in planned_tables(model):
        weight = weight_of(module, config)
        for name in ("_in_backward_optimizers", "_optimizer_classes", "_optimizer_kwargs"):
            if hasattr(weight, name):
                delattr(weight, name)
        attach([weight], alike if getattr(config, "trainable", True) else None)


def _twin(
    model: nn.Module,
    rule: UpdateRule | None,
    change: Callable[[str, Any], dict[str, Any]] = lambda path, config: {},
) -> nn.Module:
    """Returns the collections of a model on the meta device, with changed tables.

    Args:
        model: holds the collections.
        rule: how tables that train move.
        change: path of a collection and config of a table → new values of the config.
    """
    by_path: dict[str, tuple[type, list[Any]]] = {}
    for path, module, config in planned_tables(model):
        new = dataclasses.replace(config, **change(path, config))
        new.trainable = getattr(config, "trainable", True)
        new.hash_table = getattr(config, "hash_table", None)
        by_path.setdefault(path, (type(module), []))[1].append(new)
    twin = nn.Module()
    meta = torch.device("meta")
    for path, (kind, configs) in by_path.items():
        assert kind in (EmbeddingBagCollection, EmbeddingCollection)
        collection = kind(tables=configs, device=meta)
        twin = _with_module(twin, path, collection) if path else collection
    attach_all(twin, rule)
    return twin


def _with_module(root: nn.Module, path: str, module: nn.Module) -> nn.Module:
    *folders, last = path.split(".")
    inner = root
    for name in folders:
        if not hasattr(inner, name):
            inner.add_module(name, nn.Module())
        inner = getattr(inner, name)
    inner.add_module(last, module)
    return root
