"""`EmbeddingGroup`: a batch to one tensor per feature group (reference 05)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch, UserRows, user_rows_of
from tzrec.errors import ConfigError, did_you_mean
from tzrec.features.feature import BaseFeature
from tzrec.features.init_fn import InitFn, parse_init_fn
from tzrec.modules.embedding_groups import (
    DEEP,
    JAGGED_SEQUENCE,
    SEQUENCE,
    WIDE,
    Group,
    resolve_groups,
)
from tzrec.modules.embedding_pooled import EmbeddingGroupImpl, PooledGroup
from tzrec.modules.embedding_sequence import SequenceEmbeddingGroupImpl, SequenceGroup
from tzrec.modules.embedding_tables import TableUse
from tzrec.modules.sequence import create_seq_encoder
from tzrec.protos import model_pb2

__all__ = [
    "EmbeddingGroup",
    "EmbeddingGroupImpl",
    "SequenceEmbeddingGroup",
    "SequenceEmbeddingGroupImpl",
]

_DEFAULT_WIDE_DIM = 4


class EmbeddingGroup(nn.Module):
    """All feature groups of a model.

    DEEP and WIDE groups of a data group share pooled tables, ``emb_impls.{data group}.ebc``;
    SEQUENCE, JAGGED_SEQUENCE and nested sequence groups share un-pooled tables,
    ``seq_emb_impls.{data group}.ec_dict.{dim}``.

    Args:
        features: all features of the config.
        feature_groups: ``FeatureGroupConfig`` messages.
        wide_embedding_dim: size of the rows of WIDE groups, 4 if None.
        wide_init_fn: initial values of the tables of WIDE groups, a function or the text of a
            config (``nn.init.uniform_,b=0.01``); None keeps the feature's.
        device: where the parameters live.

    Raises:
        ConfigError: groups, tables or encoders that do not fit (reference 05 section 5.3, 5.4).
    """

    def __init__(
        self,
        features: Iterable[BaseFeature],
        feature_groups: Iterable[model_pb2.FeatureGroupConfig],
        *,
        wide_embedding_dim: int | None = None,
        wide_init_fn: InitFn | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self._groups = resolve_groups(features, feature_groups)
        wide_dim = wide_embedding_dim or _DEFAULT_WIDE_DIM
        if isinstance(wide_init_fn, str):
            wide_init_fn = parse_init_fn(wide_init_fn)
        pooled: dict[str, list[PooledGroup]] = {}
        sequences: dict[str, list[SequenceGroup]] = {}
        for group in self._groups.values():
            use = TableUse(group.name, group.suffix, group.type == WIDE, wide_dim, wide_init_fn)
            if group.type in (SEQUENCE, JAGGED_SEQUENCE):
                sequence = SequenceGroup(
                    group.name, group.features, use, group.type == JAGGED_SEQUENCE
                )
                sequences.setdefault(group.data_group, []).append(sequence)
                continue
            if group.features:
                own = PooledGroup(group.name, group.features, use)
                pooled.setdefault(group.data_group, []).append(own)
            sequences.setdefault(group.data_group, []).extend(
                SequenceGroup(sub.name, sub.features, TableUse(sub.name, sub.suffix))
                for sub in group.nested
            )
        self.emb_impls: Any = nn.ModuleDict(
            {name: EmbeddingGroupImpl(g, name, device=device) for name, g in pooled.items()}
        )
        self.seq_emb_impls: Any = nn.ModuleDict(
            {
                name: SequenceEmbeddingGroupImpl(g, name, device=device)
                for name, g in sequences.items()
                if g
            }
        )
        self.seq_encoders: Any = nn.ModuleDict()
        self._encoders_of: dict[str, list[str]] = {}
        for group in self._groups.values():
            self._add_encoders(group, device)

    def _add_encoders(self, group: Group, device: torch.device | str | None) -> None:
        dims: dict[str, int] = {}
        for sub in group.nested:
            dims |= self._sequence_dims(sub.name, group.data_group)
        only_input = group.nested[0].name if len(group.nested) == 1 else None
        self._encoders_of[group.name] = []
        for i, config in enumerate(group.encoders):
            name = f"{group.name}_seq_encoder_{i}"
            self.seq_encoders[name] = create_seq_encoder(
                config, dims, default_input=only_input, device=device
            )
            self._encoders_of[group.name].append(name)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Looks up all groups.

        Returns:
            ``{group}`` (B, sum of dims) for DEEP and WIDE groups. For SEQUENCE, JAGGED_SEQUENCE
            and nested sequence groups ``{group}.query`` (B, Dq) if the group has features that
            are no sequences, ``{group}.sequence`` (B, T, Ds) (jagged: (sum of lengths, Ds)) and
            ``{group}.sequence_length`` (B,).
        """
        # All lookups start before the first result is waited for.
        pooled = {name: impl.lookup(batch) for name, impl in self.emb_impls.items()}
        rows = {name: impl.lookup(batch) for name, impl in self.seq_emb_impls.items()}
        result: dict[str, Tensor] = {}
        # Input tiling: groups of users with their steps not repeated.
        once: dict[str, Tensor] = {}
        users = user_rows_of(batch)
        for name, impl in self.seq_emb_impls.items():
            own = impl.not_repeated(batch, rows[name])
            result |= impl.repeated(own, users)
            once |= {key: own[key] for key in impl.keys_of_users(users)}
        encoded = {
            group: [self._encode(encoder, result, once, users) for encoder in encoders]
            for group, encoders in self._encoders_of.items()
            if encoders
        }
        for name, impl in self.emb_impls.items():
            result |= impl(batch, pooled[name], encoded)
        for group in self._groups.values():
            if group.type == DEEP and not group.features:
                result[group.name] = torch.cat(encoded[group.name], dim=1)
        return result

    def _encode(
        self,
        name: str,
        groups: dict[str, Tensor],
        once: dict[str, Tensor],
        users: UserRows | None,
    ) -> Tensor:
        """Returns (B, dim) of an encoder; one that reads no query runs once a user if it can."""
        encoder: Any = self.seq_encoders[name]
        if users is None or encoder.reads_query or f"{encoder.input()}.sequence" not in once:
            vectors: Tensor = encoder(groups)
            return vectors
        vectors = encoder(once)
        return vectors.index_select(0, users.owners)

    def group_names(self) -> list[str]:
        """Returns the names of the groups in the order of the config."""
        return list(self._groups)

    def has_group(self, name: str) -> bool:
        """Returns whether ``name`` is a group, or one of the outputs (``{group}.query``)."""
        return name in self._groups or name in self._dims()

    def group_type(self, name: str) -> int:
        """Returns the ``FeatureGroupType`` of a group."""
        return self._group(name).type

    def group_dims(self, name: str) -> list[int]:
        """Returns the dims of the features of a group, then those of its encoders.

        Args:
            name: ``{group}``; of a sequence group ``{group}.query`` or ``{group}.sequence``.

        Raises:
            ConfigError: there is no such group.
        """
        return list(self._dims_of(name).values())

    def group_total_dim(self, name: str) -> int:
        """Returns the number of columns of a group; arguments as `group_dims`."""
        return sum(self._dims_of(name).values())

    def group_feature_dims(self, name: str) -> dict[str, int]:
        """Returns feature → dim in the order of the columns, ``{group}_seq_encoder_{i}`` at last.

        Raises:
            ConfigError: there is no such group, or it is a sequence group.
        """
        if self._group(name).type in (SEQUENCE, JAGGED_SEQUENCE):
            raise ConfigError(f"group {name!r} is a sequence group; it has no dims per column")
        return self._dims_of(name)

    def grouped_features_keys(self) -> list[str]:
        """Returns the sorted keys of the result of the forward."""
        keys = set(self._dims())
        keys |= {
            f"{key.removesuffix('.sequence')}.sequence_length"
            for key in keys
            if key.endswith(".sequence")
        }
        return sorted(keys)

    def _group(self, name: str) -> Group:
        if name not in self._groups:
            raise ConfigError(
                f"there is no feature group {name!r}, only {self.group_names()}"
                f"{did_you_mean(name, self._groups)}",
                hint=f'add feature_groups {{ group_name: "{name}" … }} to model_config',
            )
        return self._groups[name]

    def _sequence_dims(self, name: str, data_group: str) -> dict[str, int]:
        """Returns the total dims of the outputs of a sequence group."""
        query, sequence = self.seq_emb_impls[data_group].feature_dims(name)
        dims = {f"{name}.sequence": sum(sequence.values())}
        return dims | {f"{name}.query": sum(query.values())} if query else dims

    def _dims(self) -> dict[str, dict[str, int]]:
        """Returns output key → (feature → dim)."""
        dims: dict[str, dict[str, int]] = {}
        for group in self._groups.values():
            names = [sub.name for sub in group.nested]
            if group.type in (SEQUENCE, JAGGED_SEQUENCE):
                names = [group.name]
            else:
                own: dict[str, int] = {}
                if group.features:
                    own = self.emb_impls[group.data_group].feature_dims(group.name)
                encoders = self._encoders_of[group.name]
                dims[group.name] = own | {e: self.seq_encoders[e].output_dim() for e in encoders}
            for name in names:
                query, sequence = self.seq_emb_impls[group.data_group].feature_dims(name)
                dims[f"{name}.sequence"] = sequence
                if query:
                    dims[f"{name}.query"] = query
        return dims

    def _dims_of(self, name: str) -> dict[str, int]:
        dims = self._dims()
        if name in dims:
            return dims[name]
        if name in self._groups:
            raise ConfigError(
                f"group {name!r} is a sequence group; ask for {name}.sequence or {name}.query"
            )
        raise ConfigError(
            f"there is no feature group {name!r}, only {list(dims)}{did_you_mean(name, dims)}",
            hint="a sequence group has a query if it lists features that are no sequences"
            if name.endswith(".query")
            else f'add feature_groups {{ group_name: "{name}" … }} to model_config',
        )


class SequenceEmbeddingGroup(EmbeddingGroup):
    """An `EmbeddingGroup` of SEQUENCE and JAGGED_SEQUENCE groups only.

    Args:
        features: all features of the config.
        feature_groups: ``FeatureGroupConfig`` messages.
        device: where the parameters live.

    Raises:
        ConfigError: a group is DEEP or WIDE, or what `EmbeddingGroup` refuses.
    """

    def __init__(
        self,
        features: Iterable[BaseFeature],
        feature_groups: Iterable[model_pb2.FeatureGroupConfig],
        *,
        device: torch.device | str | None = None,
    ) -> None:
        groups = list(feature_groups)
        for group in groups:
            if group.group_type not in (SEQUENCE, JAGGED_SEQUENCE):
                kind = model_pb2.FeatureGroupType.Name(group.group_type)
                raise ConfigError(
                    f"feature group {group.group_name!r} is {kind}; it must be SEQUENCE or "
                    "JAGGED_SEQUENCE here"
                )
        super().__init__(features, groups, device=device)
