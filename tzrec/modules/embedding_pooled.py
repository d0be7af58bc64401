"""DEEP and WIDE groups of one data group: pooled lookups, regrouped by concatenation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import PoolingType
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    get_embedding_names_by_table,
)

from tzrec.batch import Batch, UserRows, user_rows_of
from tzrec.errors import ConfigError
from tzrec.features.feature import BaseFeature
from tzrec.modules.columns import ColumnPlan
from tzrec.modules.deferred_tables import table_device
from tzrec.modules.dense_embedding_collection import DenseEmbeddingCollection, DenseEmbeddingConfig
from tzrec.modules.embedding_tables import TablePlan, TableUse, dense_embedding_config
from tzrec.modules.hash_tables.collections import HashTables, split_tables


@dataclasses.dataclass
class PooledGroup:
    """A DEEP or WIDE group.

    Attributes:
        name: name of the group.
        features: its features in the order of the config.
        use: how their tables are named.
    """

    name: str
    features: list[BaseFeature]
    use: TableUse


@dataclasses.dataclass(frozen=True)
class _Part:
    """Columns of a group that come from one feature."""

    # sparse, mean (a sum that is divided by the number of ids), dense or dense_emb; with hash
    # tables hash_sparse or hash_mean
    kind: str
    feature: str
    key: str
    dim: int


# Places of a group's columns until the extra tensors are numbered.
_DENSE_RUN = -1
_COMPUTED = -2


class EmbeddingGroupImpl(nn.Module):
    """Looks up all DEEP and WIDE groups of a data group with one collection.

    Args:
        groups: the groups.
        data_group: the data group that all their features live on.
        device: where the parameters live.

    Raises:
        ConfigError: tables that cannot be shared, a dense feature in a WIDE group, or a sequence
            of dense values.
    """

    def __init__(
        self,
        groups: Sequence[PooledGroup],
        data_group: str,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self._data_group = data_group
        plan = TablePlan()
        dense_embs: dict[str, DenseEmbeddingConfig] = {}
        uses: list[tuple[PooledGroup, BaseFeature, tuple[str, str] | None]] = []
        for group in groups:
            for feature in group.features:
                use = None
                if feature.is_sparse:
                    use = plan.add(feature, feature.emb_bag_config, group.use)
                else:
                    _check_dense(feature, group)
                    config = dense_embedding_config(feature)
                    if config is not None:
                        dense_embs[feature.name] = config
                uses.append((group, feature, use))
        tables = plan.configs()
        weighted = any(feature.is_weighted for _, feature, use in uses if use)
        means = _sum_instead_of_mean(tables) if weighted else set()

        tables, hashed = split_tables(tables)
        self._hashed = {feature for table in hashed for feature in table.feature_names}

        self._parts: dict[str, list[_Part]] = {group.name: [] for group in groups}
        for group, feature, use in uses:
            if use is not None:
                dim = group.use.wide_dim if group.use.wide else feature.embedding_dim
                kind = "mean" if use[1] in means else "sparse"
                key = plan.key(*use)
                part = _Part(
                    f"hash_{kind}" if key in self._hashed else kind, feature.name, key, dim
                )
            elif feature.name in dense_embs:
                part = _Part("dense_emb", feature.name, feature.name, feature.embedding_dim)
            else:
                part = _Part("dense", feature.name, feature.name, feature.output_dim)
            self._parts[group.name].append(part)
        self._plan_columns(tables)
        self._needs_dense = bool(dense_embs) or bool(self._dense.keys)
        if tables:
            where = table_device(tables, _device(device))
            self.ebc = EmbeddingBagCollection(tables, is_weighted=weighted, device=where)
        if hashed:
            self.mc_ebc = HashTables(
                EmbeddingBagCollection(
                    hashed, is_weighted=weighted, device=table_device(hashed, _device(device))
                ),
                data_group,
                weighted=weighted,
                device=_device(device),
            )
        if dense_embs:
            self.dense_ec = DenseEmbeddingCollection(dense_embs, device=device)

    def _plan_columns(self, tables: list[Any]) -> None:
        """Fixes where the columns of every group come from."""
        keys = [key for names in get_embedding_names_by_table(tables) for key in names]
        widths = [table.embedding_dim for table in tables for _ in table.feature_names]
        dense = list(
            {p.key: p for parts in self._parts.values() for p in parts if p.kind == "dense"}
        )
        dense_widths = {p.key: p.dim for parts in self._parts.values() for p in parts}
        codes: list[list[int]] = []
        dense_runs: list[list[int]] = []
        self._computed: list[_Part] = []  # columns that are neither in a collection nor the batch
        for parts in self._parts.values():
            group: list[int] = []
            for kind, run in itertools.groupby(parts, key=lambda part: part.kind):
                if kind == "sparse":
                    group += [keys.index(part.key) for part in run]
                elif kind == "dense":
                    group.append(_DENSE_RUN)
                    dense_runs.append([dense.index(part.key) for part in run])
                else:
                    for part in run:
                        group.append(_COMPUTED)
                        self._computed.append(part)
            codes.append(group)
        runs, computed = itertools.count(), itertools.count(len(dense_runs))
        extra = {_DENSE_RUN: runs, _COMPUTED: computed}
        codes = [[-1 - next(extra[c]) if c in extra else c for c in group] for group in codes]
        self._sparse = ColumnPlan.of(keys, widths, codes)
        self._dense = ColumnPlan.of(dense, [dense_widths[key] for key in dense], dense_runs)

    def feature_dims(self, group: str) -> dict[str, int]:
        """Returns feature → number of columns, in the order of the columns."""
        return {part.feature: part.dim for part in self._parts[group]}

    def group_total_dim(self, name: str) -> int:
        """Returns the number of columns of a group's features."""
        return sum(self.feature_dims(name).values())

    def lookup(self, batch: Batch) -> Any:
        """Starts the lookup; the result of a sharded collection arrives later."""
        ids = batch.sparse_features[self._data_group] if self._sparse.keys or self._hashed else None
        plain = self.ebc(ids) if self._sparse.keys else None
        return (plain, self.mc_ebc(ids)) if self._hashed else plain

    def forward(
        self,
        batch: Batch,
        looked_up: Any = None,
        appended: Mapping[str, list[Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Returns group → its columns (B, sum of dims).

        Args:
            batch: the batch.
            looked_up: result of `lookup`; None looks up now.
            appended: group → more columns (B, dim) to put behind those of its features.
        """
        if looked_up is None:
            looked_up = self.lookup(batch)
        hashed: Any = None
        if self._hashed:
            looked_up, hashed = looked_up
        dense: Any = batch.dense_features[self._data_group] if self._needs_dense else None
        extras: list[Tensor] = []
        if self._dense.keys:
            runs = self._dense.regroup(dense, [])
            extras = [runs[i] for i in range(len(self._dense.groups))]
        extras += self._compute(batch, (looked_up, hashed), dense)
        plan, users = self._sparse, user_rows_of(batch)
        if users is not None:
            of_users, plan = self._without_users(users, len(extras))
            if of_users.groups:
                once = of_users.regroup(looked_up, [])
                numbers = range(len(of_users.groups))
                extras += [once[i].index_select(0, users.owners) for i in numbers]
        more: list[list[int]] = []
        for group in self._parts:
            tensors = (appended or {}).get(group, [])
            more.append([-1 - len(extras) - i for i in range(len(tensors))])
            extras += tensors
        plan = plan.extended(more)
        if plan.keys:
            columns = plan.regroup(looked_up, extras)
        else:
            columns = [torch.cat([extras[-1 - c] for c in codes], dim=1) for codes in plan.groups]
        return {group: columns[i] for i, group in enumerate(self._parts)}

    def _without_users(self, users: UserRows, num_extras: int) -> tuple[ColumnPlan, ColumnPlan]:
        """Returns where the columns of users come from, and those of groups given them.

        Args:
            users: whose columns have to be repeated.
            num_extras: extra tensors of the groups, behind which those of users are put.

        Returns:
            The plan of users, each of its groups a run of columns of some groups; and the plan
            of the groups that finds these runs among the extra tensors.
        """
        parts = {part.key: part for group in self._parts.values() for part in group}
        keys = self._sparse.keys
        widths = [parts[key].dim for key in keys]
        of_user = [parts[key].feature in users.features for key in keys]
        runs: dict[tuple[int, ...], int] = {}
        groups: list[list[int]] = []
        for codes in self._sparse.groups:
            groups.append([])
            for is_run, run in itertools.groupby(codes, key=lambda c: c >= 0 and of_user[c]):
                own = tuple(run)
                if is_run:
                    own = (-1 - num_extras - runs.setdefault(own, len(runs)),)
                groups[-1] += own
        of_users = ColumnPlan.of(keys, widths, [list(run) for run in runs])
        return of_users, ColumnPlan.of(keys, widths, groups)

    def _compute(self, batch: Batch, looked_up: tuple[Any, Any], dense: Any) -> list[Tensor]:
        """Returns the columns of ``_computed``; ``looked_up`` are plain and hash tables."""
        users = user_rows_of(batch)
        kinds = {part.kind for part in self._computed}
        embedded = self.dense_ec(dense.to_dict()) if "dense_emb" in kinds else {}
        pooled = looked_up[0].to_dict() if "mean" in kinds else {}
        hashed = looked_up[1].to_dict() if self._hashed else {}
        means = kinds & {"mean", "hash_mean"}
        ids = batch.sparse_features[self._data_group].to_dict() if means else {}
        result = []
        for part in self._computed:
            if part.kind == "dense_emb":
                result.append(embedded[part.key])
                continue
            column = (hashed if part.key in self._hashed else pooled)[part.key]
            if part.kind in means:
                column = column / ids[part.feature].lengths().clamp(min=1).unsqueeze(1)
            if users is not None and part.feature in users.features:
                column = column.index_select(0, users.owners)
            result.append(column)
        return result


def _device(device: torch.device | str | None) -> torch.device | None:
    return torch.device(device) if device is not None else None


def _check_dense(feature: BaseFeature, group: PooledGroup) -> None:
    if group.use.wide:
        raise ConfigError(
            f"feature {feature.name!r} of the WIDE group {group.name!r} is dense; a WIDE group "
            "takes features with ids",
            hint="give it boundaries (ids by bucket), or put it in a DEEP group",
        )
    if feature.is_sequence:
        raise ConfigError(
            f"feature {feature.name!r} of group {group.name!r} is a sequence of dense values, "
            "which has no fixed number of columns",
            hint="put it in a SEQUENCE group, or in sequence_groups of the DEEP group",
        )


def _sum_instead_of_mean(tables: list[Any]) -> set[str]:
    """Makes mean tables of a weighted collection sum tables; returns their names.

    Embedding bags take weights only for sums. The mean (of weighted rows: divided by their
    number, as FBGEMM does) is made afterwards from the lengths.
    """
    names = {table.name for table in tables if table.pooling == PoolingType.MEAN}
    for table in tables:
        if table.name in names:
            table.pooling = PoolingType.SUM
    return names
