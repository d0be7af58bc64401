"""SEQUENCE, JAGGED_SEQUENCE and nested sequence groups of one data group: un-pooled lookups."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import PoolingType
from torchrec.modules.embedding_modules import EmbeddingCollection

from tzrec.batch import Batch, JaggedTensor, UserRows, user_rows_of
from tzrec.errors import ConfigError
from tzrec.features.feature import BaseFeature
from tzrec.modules import jagged
from tzrec.modules.deferred_tables import table_device
from tzrec.modules.dense_embedding_collection import DenseEmbeddingCollection, DenseEmbeddingConfig
from tzrec.modules.embedding_tables import TablePlan, TableUse, dense_embedding_config
from tzrec.modules.hash_tables.collections import HashTables, split_tables
from tzrec.ops import tiling


@dataclasses.dataclass
class SequenceGroup:
    """A SEQUENCE, JAGGED_SEQUENCE or nested sequence group.

    Attributes:
        name: name of the group, the prefix of its outputs.
        features: its features in the order of the config.
        use: how their tables are named.
        jagged: steps are not padded.
    """

    name: str
    features: list[BaseFeature]
    use: TableUse
    jagged: bool = False


@dataclasses.dataclass(frozen=True)
class _Part:
    """Columns of a query or of a sequence that come from one feature."""

    kind: str  # sparse, dense or dense_emb
    feature: str
    key: str
    dim: int
    single_value: bool = True
    mean: bool = False
    weighted: bool = False


class SequenceEmbeddingGroupImpl(nn.Module):
    """Looks up all sequence groups of a data group, one collection per embedding dim.

    Args:
        groups: the groups.
        data_group: the data group that all their features live on.
        device: where the parameters live.

    Raises:
        ConfigError: tables that cannot be shared, or a group without a sequence feature.
    """

    def __init__(
        self,
        groups: Sequence[SequenceGroup],
        data_group: str,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self._data_group = data_group
        plan = TablePlan()
        tables_of = {
            (group.name, feature.name): plan.add(feature, feature.emb_config, group.use)
            for group in groups
            for feature in group.features
            if feature.is_sparse
        }
        dense_embs: dict[str, DenseEmbeddingConfig] = {}
        self._queries: dict[str, list[_Part]] = {}
        self._sequences: dict[str, list[_Part]] = {}
        self._jagged: dict[str, bool] = {}
        for group in groups:
            _check_has_sequence(group)
            self._jagged[group.name] = group.jagged
            self._queries[group.name] = []
            self._sequences[group.name] = []
            for feature in group.features:
                use = tables_of.get((group.name, feature.name))
                config = None if use else dense_embedding_config(feature)
                if config is not None:
                    dense_embs[feature.name] = config
                part = _part(feature, plan.key(*use) if use else None, config)
                target = self._sequences if feature.is_sequence else self._queries
                target[group.name].append(part)
        parts = [p for v in [*self._queries.values(), *self._sequences.values()] for p in v]
        self._has_weights = any(p.weighted for p in parts)
        self._has_multi_value = any(
            not p.single_value for v in self._sequences.values() for p in v if p.kind == "sparse"
        )
        self._has_dense_query = any(
            p.kind != "sparse" for query in self._queries.values() for p in query
        )
        self._has_dense_emb = bool(dense_embs)
        tables, hashed = split_tables(plan.configs())
        self._hashed = {key for table in hashed for key in table.feature_names}
        self.ec_dict = _collections(tables, device)
        if hashed:
            where = torch.device(device) if device is not None else None
            self.mc_ec_dict = nn.ModuleDict(
                {
                    dim: HashTables(collection, data_group, weighted=False, device=where)
                    for dim, collection in _collections(hashed, device).items()
                }
            )
        if dense_embs:
            self.dense_ec = DenseEmbeddingCollection(dense_embs, device=device)

    def feature_dims(self, group: str) -> tuple[dict[str, int], dict[str, int]]:
        """Returns feature → number of columns, of the query and of the sequence."""
        return (
            {part.feature: part.dim for part in self._queries[group]},
            {part.feature: part.dim for part in self._sequences[group]},
        )

    def lookup(self, batch: Batch) -> list[Any]:
        """Starts the lookups; the results of sharded collections arrive later."""
        ids = batch.sparse_features[self._data_group] if self._named_collections else None
        return [collection(ids) for _, collection in self._named_collections]

    @property
    def _named_collections(self) -> list[tuple[tuple[str, bool], Any]]:
        """((dim, whether of hash tables), collection), in the order of `lookup`."""
        found = [((dim, False), collection) for dim, collection in self.ec_dict.items()]
        if self._hashed:
            found += [((dim, True), collection) for dim, collection in self.mc_ec_dict.items()]
        return found

    def forward(self, batch: Batch, looked_up: list[Any] | None = None) -> dict[str, Tensor]:
        """Returns the outputs of all groups.

        ``{group}.query`` (B, Dq) if the group has features that are no sequences,
        ``{group}.sequence`` (B, T, Ds), jagged (sum of lengths, Ds), and
        ``{group}.sequence_length`` (B,). T, at least 1, and the lengths are those of the group's
        first sequence feature; the others are padded or cut to T.

        Args:
            batch: the batch.
            looked_up: result of `lookup`; None looks up now.
        """
        return self.repeated(self.not_repeated(batch, looked_up), user_rows_of(batch))

    def not_repeated(self, batch: Batch, looked_up: list[Any] | None = None) -> dict[str, Tensor]:
        """Returns the result of the forward, but steps that are the user's once a user.

        Args:
            batch: the batch.
            looked_up: result of `lookup`; None looks up now.

        Returns:
            As the forward; of a group whose sequence features are all the user's ``.sequence``
            (U, T, Ds), jagged (sum of lengths, Ds), and ``.sequence_length`` (U,).
        """
        rows = _Rows(self, batch, self.lookup(batch) if looked_up is None else looked_up)
        of_users = self._groups_of_users(user_rows_of(batch))
        result: dict[str, Tensor] = {}
        for group, parts in self._sequences.items():
            query = [rows.query(part) for part in self._queries[group]]
            if query:
                result[f"{group}.query"] = torch.cat(query, dim=1)
            once = group in of_users
            steps = [rows.steps(part) if once else rows.repeated_steps(part) for part in parts]
            lengths = steps[0][1]
            values = [value for value, _ in steps]
            if self._jagged[group]:
                names = [part.feature for part in parts]
                sequence = jagged.cat_steps(values, [length for _, length in steps], names)
            else:
                num_steps = jagged.max_length(lengths)
                padded = [jagged.pad(value, length, num_steps) for value, length in steps]
                sequence = torch.cat(padded, dim=2)
            result[f"{group}.sequence"] = sequence
            result[f"{group}.sequence_length"] = lengths
        return result

    def repeated(self, once: dict[str, Tensor], users: UserRows | None) -> dict[str, Tensor]:
        """Returns the result of the forward, given that of `not_repeated`.

        With ``users`` it also has ``{group}.owners`` (B,), the user of each row, of the groups
        whose steps are the user's.
        """
        result = dict(once)
        if users is None:
            return result
        for group in self._groups_of_users(users):
            sequence, lengths = f"{group}.sequence", f"{group}.sequence_length"
            result[f"{group}.owners"] = users.owners
            if self._jagged[group]:
                result[sequence], result[lengths] = tiling.repeat_jagged(
                    once[sequence], once[lengths], users.owners
                )
            else:
                result[sequence] = once[sequence].index_select(0, users.owners)
                result[lengths] = once[lengths].index_select(0, users.owners)
        return result

    def keys_of_users(self, users: UserRows | None) -> list[str]:
        """Returns the keys that `not_repeated` gives once a user."""
        groups = self._groups_of_users(users)
        return [f"{g}.{key}" for g in groups for key in ("sequence", "sequence_length")]

    def _groups_of_users(self, users: UserRows | None) -> list[str]:
        if users is None:
            return []
        return [
            group
            for group, parts in self._sequences.items()
            if all(part.feature in users.features for part in parts)
        ]


class _Rows:
    """The looked-up rows of one batch, by part."""

    def __init__(
        self, impl: SequenceEmbeddingGroupImpl, batch: Batch, looked_up: list[Any]
    ) -> None:
        data_group = impl._data_group
        self._users = user_rows_of(batch)
        self._hashed = impl._hashed
        keys = [key for key, _ in impl._named_collections]
        self._collections = dict(zip(keys, looked_up, strict=True))
        self._sequence_dense: Any = batch.sequence_dense_features
        self._ids: Any = {}
        self._elements: Any = {}
        self._dense: dict[str, Any] = {}
        if impl._has_weights:
            self._ids = batch.sparse_features[data_group].to_dict()
        if impl._has_multi_value:
            self._elements = batch.sequence_mulval_lengths[data_group].to_dict()
        if impl._has_dense_query:
            self._dense["dense"] = batch.dense_features[data_group].to_dict()
        if impl._has_dense_emb:
            self._dense["dense_emb"] = impl.dense_ec(self._dense["dense"])

    def _looked_up(self, part: _Part) -> tuple[Tensor, Tensor]:
        """Returns the rows (ids, dim), times their weights, and the ids per row (B,)."""
        key = (str(part.dim), part.key in self._hashed)
        found: JaggedTensor = self._collections[key][part.key]
        values = found.values()
        if part.weighted:
            values = values * self._ids[part.feature].weights().unsqueeze(1)
        return values, found.lengths()

    def _users_of(self, part: _Part) -> UserRows | None:
        """Returns the users if the part is theirs."""
        is_theirs = self._users is not None and part.feature in self._users.features
        return self._users if is_theirs else None

    def _lengths(self, part: _Part, lengths: Tensor) -> Tensor:
        """Returns the lengths (B,) of a feature, or (U,) if it is one of the user."""
        users = self._users_of(part)
        return lengths if users is None else lengths.narrow(0, 0, users.counts.size(0))

    def query(self, part: _Part) -> Tensor:
        """Returns (B, dim) of a feature that is no sequence; 0 where a row has no id."""
        if part.kind != "sparse":
            column: Tensor = self._dense[part.kind][part.key]
            return column
        values, lengths = self._looked_up(part)
        lengths = self._lengths(part, lengths)
        if part.single_value:
            rows = jagged.pad(values, lengths, 1).squeeze(1)
        else:
            rows = jagged.pool(values, lengths, part.mean)
        users = self._users_of(part)
        return rows if users is None else rows.index_select(0, users.owners)

    def steps(self, part: _Part) -> tuple[Tensor, Tensor]:
        """Returns (steps, dim) of a sequence feature and the steps per row (B,); per user (U,)."""
        if part.kind == "dense":
            dense: JaggedTensor = self._sequence_dense[part.key]
            return dense.values(), self._lengths(part, dense.lengths())
        values, lengths = self._looked_up(part)
        if part.single_value:
            return values, self._lengths(part, lengths)
        elements: JaggedTensor = self._elements[part.feature]
        pooled = jagged.pool(values, elements.values(), part.mean)
        return pooled, self._lengths(part, elements.lengths())

    def repeated_steps(self, part: _Part) -> tuple[Tensor, Tensor]:
        """Returns `steps` with those of a user repeated: lengths are (B,)."""
        values, lengths = self.steps(part)
        users = self._users_of(part)
        if users is not None:
            values, lengths = tiling.repeat_jagged(values, lengths, users.owners)
        return values, lengths


def _part(feature: BaseFeature, key: str | None, dense_emb: DenseEmbeddingConfig | None) -> _Part:
    if key is not None:
        table = feature.emb_bag_config
        assert table is not None
        return _Part(
            "sparse",
            feature.name,
            key,
            feature.embedding_dim,
            single_value=feature.value_dim == 1,
            mean=table.pooling == PoolingType.MEAN,
            weighted=bool(feature.is_weighted),
        )
    if dense_emb is not None:
        return _Part("dense_emb", feature.name, feature.name, feature.embedding_dim)
    dim = max(feature.value_dim, 1) if feature.is_sequence else feature.output_dim
    return _Part("dense", feature.name, feature.name, dim)


def _check_has_sequence(group: SequenceGroup) -> None:
    if not any(feature.is_sequence for feature in group.features):
        raise ConfigError(
            f"sequence group {group.name!r} has no sequence feature, only "
            f"{[feature.name for feature in group.features]}",
            hint="add a feature of a sequence_feature, or make it a DEEP group",
        )


def _collections(tables: list[Any], device: torch.device | str | None) -> nn.ModuleDict:
    """Returns embedding dim → collection, as TorchRec's have one dim each."""
    by_dim: dict[int, list[Any]] = {}
    for table in tables:
        by_dim.setdefault(table.embedding_dim, []).append(table)
    where = torch.device(device) if device is not None else None
    return nn.ModuleDict(
        {
            str(dim): EmbeddingCollection(tables=group, device=table_device(group, where))
            for dim, group in by_dim.items()
        }
    )
