"""DeepFM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.features.feature import BaseFeature
from tzrec.models.rank_model import RankModel
from tzrec.modules.fm import FactorizationMachine
from tzrec.modules.mlp import MLP
from tzrec.protos.model_pb2 import ModelConfig


class DeepFM(RankModel):
    """DeepFM: A Factorization-Machine based Neural Network (Guo et al., arXiv 1703.04247).

    With v_i the F embeddings of the group ``fm`` (``deep`` without such a group),
    ``FM = ½((Σ v_i)² − Σ v_i²)``. ``y = Σ wide + Σ FM + Linear(MLP(deep))``; with a ``final``
    MLP ``y = Linear(final([Σ wide, FM, MLP(deep)]))``. Groups: ``wide`` (WIDE), ``deep``, ``fm``.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        features: Sequence[BaseFeature],
        labels: Sequence[str],
        sample_weights: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_config, features, labels, sample_weights, **kwargs)
        config = self._model_config
        self.init_input(
            wide_embedding_dim=config.wide_embedding_dim, wide_init_fn=config.wide_init_fn
        )
        group = self.embedding_group
        self._fm_group = "fm" if group.has_group("fm") else "deep"
        fm_dims = group.group_feature_dims(self._fm_group)
        if len(set(fm_dims.values())) != 1:
            listed = ", ".join(f"{name} {dim}" for name, dim in fm_dims.items())
            raise ConfigError(
                f"features of group {self._fm_group!r} differ in their dim: {listed}",
                hint="give them one embedding_dim, or list those of equal dim in a group fm",
            )
        self._fm_dim = next(iter(fm_dims.values()))
        self._fm_features = len(fm_dims)
        self.fm = FactorizationMachine()
        self.deep_mlp = MLP(group.group_total_dim("deep"), **config_to_kwargs(config.deep))
        width = self.deep_mlp.output_dim()
        self.final_mlp = None
        if config.HasField("final"):
            self.final_mlp = MLP(1 + self._fm_dim + width, **config_to_kwargs(config.final))
            width = self.final_mlp.output_dim()
        self.output_mlp = nn.Linear(width, self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the configured losses."""
        groups = self.build_input(batch)
        wide = groups["wide"].sum(dim=1, keepdim=True)
        deep = self.deep_mlp(groups["deep"])
        vectors = groups[self._fm_group].reshape(-1, self._fm_features, self._fm_dim)
        pairs = self.fm(vectors)
        if self.final_mlp is not None:
            final = self.final_mlp(torch.cat([wide, pairs, deep], dim=1))
            return self._output_to_prediction(self.output_mlp(final))
        y = wide + pairs.sum(dim=1, keepdim=True) + self.output_mlp(deep)
        return self._output_to_prediction(y)
