"""Wide & Deep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.features.feature import BaseFeature
from tzrec.models.rank_model import RankModel
from tzrec.modules.mlp import MLP
from tzrec.protos.model_pb2 import ModelConfig


class WideAndDeep(RankModel):
    """Wide & Deep Learning for Recommender Systems (Cheng et al., arXiv 1606.07792).

    ``y = Σ wide + Linear(MLP(deep))``; with a ``final`` MLP
    ``y = Linear(final([Σ wide, MLP(deep)]))``. Groups: ``wide`` (WIDE) and ``deep``.
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
        self.deep_mlp = MLP(
            self.embedding_group.group_total_dim("deep"), **config_to_kwargs(config.deep)
        )
        width = self.deep_mlp.output_dim()
        self.final_mlp = None
        if config.HasField("final"):
            self.final_mlp = MLP(1 + width, **config_to_kwargs(config.final))
            width = self.final_mlp.output_dim()
        self.output_mlp = nn.Linear(width, self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the configured losses."""
        groups = self.build_input(batch)
        wide = groups["wide"].sum(dim=1, keepdim=True)
        deep = self.deep_mlp(groups["deep"])
        if self.final_mlp is not None:
            return self._output_to_prediction(
                self.output_mlp(self.final_mlp(torch.cat([wide, deep], dim=1)))
            )
        return self._output_to_prediction(wide + self.output_mlp(deep))
