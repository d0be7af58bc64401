"""Variational dropout per feature, to find the features that a model can do without."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tzrec.config.messages import config_to_kwargs
from tzrec.modules.embedding_groups import JAGGED_SEQUENCE, SEQUENCE

if TYPE_CHECKING:
    from tzrec.modules.embedding import EmbeddingGroup
    from tzrec.protos.model_pb2 import ModelConfig

_LOGGER = logging.getLogger("tzrec")
_TEMPERATURE = 0.1


class VariationalDropout(nn.Module):
    """Learns a dropout probability per feature of a group (reference 07 section 7.5).

    "Dropout Feature Ranking for Deep Learning Models" (arXiv 1712.08645): the Bernoulli mask of
    an entry is relaxed to a concrete distribution with temperature 0.1.

    Args:
        features_dimension: entry (feature or encoder output) → its number of columns, in the
            order of the columns.
        name: name of the group.
        regularization_lambda: weight of the penalty.
        embedding_wise_variational_dropout: a field of the interface without effect.
        device: where the parameter lives.

    Attributes:
        feature_p: (F,) logits of the dropout probabilities, starting at N(0, 1).
        feature_dim_repeat: (F,) columns of each entry.
        column_entry: (D,) entry of each column.
    """

    column_entry: Tensor
    feature_dim_repeat: Tensor

    def __init__(
        self,
        features_dimension: Mapping[str, int],
        name: str,
        *,
        regularization_lambda: float = 0.01,
        embedding_wise_variational_dropout: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if embedding_wise_variational_dropout:
            _LOGGER.warning(
                "embedding_wise_variational_dropout has no effect: features are dropped as a whole"
            )
        self.group_name = name
        self.features_dimension = dict(features_dimension)
        self._regularization_lambda = regularization_lambda
        self.feature_p = nn.Parameter(torch.randn(len(features_dimension), device=device))
        dims = torch.tensor(list(features_dimension.values()), device=device)
        self.register_buffer("feature_dim_repeat", dims, persistent=False)
        total = sum(features_dimension.values())
        entries = torch.repeat_interleave(dims, output_size=total)
        self.register_buffer("column_entry", entries, persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Drops features while training, scales them by their keep probability otherwise.

        Args:
            features: (B, D), the group's features side by side.

        Returns:
            The thinned features (B, D) and the penalty, a scalar: ``lambda / B`` times the sum of
            the keep probabilities.
        """
        keep_probability = 1.0 - torch.sigmoid(self.feature_p)
        if self.training:
            noise = torch.rand(
                features.size(0), self.feature_p.size(0), device=self.feature_p.device
            )
            # logit(sigmoid(feature_p)) is feature_p itself.
            logits = (self.feature_p + torch.logit(noise, eps=1e-6)) / _TEMPERATURE
            scale = (1.0 - torch.sigmoid(logits)).index_select(1, self.column_entry)
        else:
            scale = keep_probability.index_select(0, self.column_entry)
        penalty = self._regularization_lambda * keep_probability.sum() / features.size(0)
        return features * scale.to(features.dtype), penalty


def group_dropouts(
    embedding_group: EmbeddingGroup, config: ModelConfig, names: Iterable[str] | None = None
) -> Any:
    """Returns group → `VariationalDropout`, for all groups that are no sequences.

    Empty if the config asks for none. A group of one entry has none: there is nothing to choose.

    Args:
        embedding_group: the feature groups.
        config: holds ``variational_dropout``.
        names: only of these groups, None = of all.
    """
    dropouts: Any = nn.ModuleDict()
    if not config.HasField("variational_dropout"):
        return dropouts
    fields = config_to_kwargs(config.variational_dropout)
    for name in embedding_group.group_names() if names is None else names:
        if embedding_group.group_type(name) in (SEQUENCE, JAGGED_SEQUENCE):
            continue
        dims = embedding_group.group_feature_dims(name)
        if len(dims) > 1:
            dropouts[name] = VariationalDropout(dims, name, **fields)
    return dropouts


def drop_features(dropouts: Any, groups: dict[str, Tensor]) -> dict[str, Tensor]:
    """Thins the features of groups where they stand.

    Args:
        dropouts: of `group_dropouts`; those of other groups are passed over.
        groups: group → (B, D), changed.

    Returns:
        ``{group}_feature_p_loss`` → penalty.
    """
    penalties = {}
    for name, dropout in dropouts.items():
        if name in groups:
            groups[name], penalties[f"{name}_feature_p_loss"] = dropout(groups[name])
    return penalties
