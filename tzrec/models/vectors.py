"""Feature groups as vectors of one width, for models that multiply features with each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.rank_model import RankModel
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.mlp import MLP


def vectors_shape(
    embedding_group: EmbeddingGroup, group: str, why: str, cure: str = ""
) -> tuple[int, int]:
    """Returns number F and width D of the features of a group.

    The group (B, F D) is its features (B, F, D) after ``unflatten(1, (F, D))``.

    Args:
        embedding_group: the feature groups.
        group: a DEEP or WIDE one.
        why: what needs one width, the first half of the error: ``FM multiplies the features``.
        cure: another way out than to make the widths equal.

    Raises:
        ConfigError: the features have several widths.
    """
    dims = embedding_group.group_feature_dims(group)
    if len(set(dims.values())) > 1:
        raise ConfigError(
            f"{why} of group {group!r}, so they need one width, not {dims}",
            hint="make their embedding_dim equal" + (f", or: {cure}" if cure else ""),
        )
    return len(dims), next(iter(dims.values()))


class VectorRankModel(RankModel):
    """Base of models that read every feature as a vector, and all numbers as one more.

    Feature groups: ``sparse``, whose features have one width D, and optionally ``dense``, which
    ``dense_mlp`` makes a vector of that width. The only group of a config is the sparse one,
    whatever its name. The groups have no sequence encoders.

    Attributes:
        dense_mlp: None without a ``dense`` group.

    Raises:
        ConfigError: the widths differ, ``dense_mlp`` is missing or does not end with D, or a
            group has sequence encoders.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        names = self.embedding_group.group_names()
        self._sparse_group = names[0] if len(names) == 1 else "sparse"
        self._has_dense = len(names) > 1 and "dense" in names
        for group in self._base_model_config.feature_groups:
            if group.sequence_encoders and group.group_name in (self._sparse_group, "dense"):
                raise ConfigError(
                    f"{type(self).__name__} takes no sequence_encoders, "
                    f"group {group.group_name!r} has some",
                    hint="list the sequence's id features in feature_names: they are pooled",
                )
        why = f"{type(self).__name__} multiplies the features"
        num_features, dim = vectors_shape(self.embedding_group, self._sparse_group, why)
        self._vectors_shape = (num_features + int(self._has_dense), dim)
        self.dense_mlp = self._make_dense_mlp(dim) if self._has_dense else None

    def _make_dense_mlp(self, dim: int) -> MLP:
        config = self._model_config
        if not config.HasField("dense_mlp"):
            raise ConfigError(
                f"{type(self).__name__} has a group dense, but no dense_mlp that reads it",
                hint=f"dense_mlp {{ hidden_units: [64, {dim}] }}",
            )
        width = self.embedding_group.group_total_dim("dense")
        mlp = MLP(width, **config_to_kwargs(config.dense_mlp))
        if mlp.output_dim() != dim:
            raise ConfigError(
                f"dense_mlp ends with {mlp.output_dim()} units, but the features of group "
                f"{self._sparse_group!r} are {dim} wide",
                hint=f"make its last of hidden_units {dim}",
            )
        return mlp

    def _vectors(self, groups: dict[str, Tensor]) -> tuple[Tensor | None, Tensor]:
        """Returns the dense vector (B, D) or None, and all vectors side by side (B, n D).

        The dense vector comes first; ``unflatten(1, self._vectors_shape)`` makes them (B, n, D).
        """
        sparse = groups[self._sparse_group]
        if self.dense_mlp is None:
            return None, sparse
        dense = self.dense_mlp(groups["dense"])
        return dense, torch.cat([dense, sparse], dim=1)
