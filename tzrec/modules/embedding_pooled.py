"""DEEP and WIDE groups of one data group: pooled lookups, regrouped by concatenation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from tzrec.batch import Batch
from tzrec.errors import ConfigError
from tzrec.modules.dense_embedding_collection import DenseEmbeddingCollection, DenseEmbeddingConfig
from tzrec.modules.embedding_tables import TablePlan, TableUse, dense_embedding_config

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature


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

    kind: str  # sparse, dense or dense_emb
    feature: str
    key: str
    dim: int
    divide_by_length: bool = False


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

        self._parts: dict[str, list[_Part]] = {group.name: [] for group in groups}
        for group, feature, use in uses:
            if use is not None:
                dim = group.use.wide_dim if group.use.wide else feature.embedding_dim
                part = _Part("sparse", feature.name, plan.key(*use), dim, use[1] in means)
            elif feature.name in dense_embs:
                part = _Part("dense_emb", feature.name, feature.name, feature.embedding_dim)
            else:
                part = _Part("dense", feature.name, feature.name, feature.output_dim)
            self._parts[group.name].append(part)

        self._has_sparse = bool(tables)
        self._has_dense = any(part.kind != "sparse" for p in self._parts.values() for part in p)
        self._has_dense_emb = bool(dense_embs)
        if tables:
            self.ebc = EmbeddingBagCollection(tables, is_weighted=weighted, device=_device(device))
        if dense_embs:
            self.dense_ec = DenseEmbeddingCollection(dense_embs, device=device)

    def feature_dims(self, group: str) -> dict[str, int]:
        """Returns feature → number of columns, in the order of the columns."""
        return {part.feature: part.dim for part in self._parts[group]}

    def lookup(self, batch: Batch) -> Any:
        """Starts the lookup; the result of a sharded collection arrives later."""
        return self.ebc(batch.sparse_features[self._data_group]) if self._has_sparse else None

    def forward(self, batch: Batch, looked_up: Any = None) -> dict[str, list[Tensor]]:
        """Returns group → the columns (B, dim) of its features.

        Args:
            batch: the batch.
            looked_up: result of `lookup`; None looks up now.
        """
        columns: dict[str, Any] = {}
        lengths: Any = {}
        if self._has_sparse:
            looked_up = self.lookup(batch) if looked_up is None else looked_up
            # By key: a sharded collection has its own order. The backward of one split is one
            # cat, that of a slice per feature would fill a whole matrix each.
            columns["sparse"] = looked_up.to_dict()
        if any(part.divide_by_length for parts in self._parts.values() for part in parts):
            lengths = batch.sparse_features[self._data_group].to_dict()
        if self._has_dense:
            columns["dense"] = batch.dense_features[self._data_group].to_dict()
        if self._has_dense_emb:
            columns["dense_emb"] = self.dense_ec(columns["dense"])
        result: dict[str, list[Tensor]] = {}
        for group, parts in self._parts.items():
            result[group] = []
            for part in parts:
                value = columns[part.kind][part.key]
                if part.divide_by_length:
                    value = value / lengths[part.feature].lengths().clamp(min=1).unsqueeze(1)
                result[group].append(value)
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
