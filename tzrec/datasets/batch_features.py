"""Parse keys of features → the tensors of a `Batch`; traceable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tzrec.batch import Batch, JaggedTensor, KeyedJaggedTensor, KeyedTensor
from tzrec.datasets.tiling import Tiling, has_key_lengths

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature


def add_features(
    batch: Batch,
    groups: Mapping[str, Sequence[BaseFeature]],
    parsed: Mapping[str, Tensor],
    tiled: Tiling | None = None,
) -> None:
    """Fills in the features of a batch.

    Args:
        batch: changed in place.
        groups: data group → its features, in the order of the config.
        parsed: parse key → tensor.
        tiled: makes the features of users as long as the others; they come last in each group.
    """
    for group, features in groups.items():
        own = _Group(features, parsed, tiled)
        dense = [f for f in features if not f.is_sparse and not f.is_sequence]
        sparse = [f for f in features if f.is_sparse]
        multi = [f for f in sparse if has_key_lengths(f)]
        if dense:
            batch.dense_features[group] = own.dense(dense)
        if sparse:
            batch.sparse_features[group] = own.sparse(sparse)
        if multi:
            batch.sequence_mulval_lengths[group] = own.steps(multi)
        for feature in features:
            if feature.is_sequence and not feature.is_sparse:
                batch.sequence_dense_features[feature.name] = own.sequence(feature)


class _Group:
    """The features of a data group."""

    def __init__(
        self,
        features: Sequence[BaseFeature],
        parsed: Mapping[str, Tensor],
        tiled: Tiling | None,
    ) -> None:
        self._parsed = parsed
        self._tiled = tiled
        self._is_weighted = any(f.is_weighted for f in features if f.is_sparse)

    def dense(self, features: Sequence[BaseFeature]) -> KeyedTensor:
        rows, users = self._sides(features)
        values = [self._parsed[f"{f.name}.values"] for f in rows]
        if users and self._tiled is not None:
            once = torch.cat([self._parsed[f"{f.name}.values"] for f in users], dim=1)
            own = self._tiled.dense(once).split([f.value_dim for f in users], dim=1)
            values += [own[i] for i in range(len(users))]
        return KeyedTensor(
            keys=[f.name for f in (*rows, *users)],
            length_per_key=[f.value_dim for f in (*rows, *users)],
            values=torch.cat(values, dim=1),
        )

    def sparse(self, features: Sequence[BaseFeature]) -> KeyedJaggedTensor:
        rows, users = self._sides(features)
        values = [self._parsed[f"{f.name}.values"] for f in (*rows, *users)]
        lengths = [self._row_lengths(f) for f in (*rows, *users)]
        weights = [self._weights(f) for f in (*rows, *users)] if self._is_weighted else []
        return self._keyed([*rows, *users], values, lengths, weights, len(rows))

    def steps(self, features: Sequence[BaseFeature]) -> KeyedJaggedTensor:
        """Returns ids per step, of sequences with several."""
        rows, users = self._sides(features)
        values = [self._parsed[f"{f.name}.key_lengths"] for f in (*rows, *users)]
        lengths = [self._parsed[f"{f.name}.lengths"] for f in (*rows, *users)]
        return self._keyed([*rows, *users], values, lengths, [], len(rows))

    def _keyed(
        self,
        features: Sequence[BaseFeature],
        values: list[Tensor],
        lengths: list[Tensor],
        weights: list[Tensor],
        num_rows: int,
    ) -> KeyedJaggedTensor:
        """Returns values, lengths and weights, if there are any, as one tensor each.

        Those of features behind the first ``num_rows`` ones are the users'.
        """
        if self._tiled is not None and num_rows < len(features):
            own = lengths[num_rows:]
            values[num_rows:], lengths[num_rows:] = self._tiled.jagged(values[num_rows:], own)
            if weights:
                weights[num_rows:], _ = self._tiled.jagged(weights[num_rows:], own)
        return KeyedJaggedTensor(
            keys=[f.name for f in features],
            values=torch.cat(values),
            lengths=torch.cat(lengths),
            weights=torch.cat(weights) if weights else None,
        )

    def sequence(self, feature: BaseFeature) -> JaggedTensor:
        values = self._parsed[f"{feature.name}.values"]
        lengths = self._parsed[f"{feature.name}.lengths"]
        if self._tiled is not None and feature.name in self._tiled.rows.features:
            (values,), (lengths,) = self._tiled.jagged([values], [lengths])
        return JaggedTensor(values=values, lengths=lengths)

    def _sides(
        self, features: Sequence[BaseFeature]
    ) -> tuple[list[BaseFeature], list[BaseFeature]]:
        """Returns the features of rows, and those of users."""
        names = self._tiled.rows.features if self._tiled is not None else frozenset()
        return (
            [f for f in features if f.name not in names],
            [f for f in features if f.name in names],
        )

    def _weights(self, feature: BaseFeature) -> Tensor:
        if feature.is_weighted:
            return self._parsed[f"{feature.name}.weights"]
        return torch.ones_like(self._parsed[f"{feature.name}.values"], dtype=torch.float32)

    def _row_lengths(self, feature: BaseFeature) -> Tensor:
        """Returns ids per row; those of a multi-value sequence are summed over its steps."""
        lengths = self._parsed[f"{feature.name}.lengths"]
        if not has_key_lengths(feature):
            return lengths
        per_step = torch.cumsum(self._parsed[f"{feature.name}.key_lengths"], dim=0)
        ids_before = torch.nn.functional.pad(per_step, (1, 0))
        step_ends = torch.cumsum(lengths, dim=0)
        ids_at_end = torch.index_select(ids_before, 0, step_ends)
        ids_at_start = torch.index_select(ids_before, 0, step_ends - lengths)
        return (ids_at_end - ids_at_start).to(torch.int32)
