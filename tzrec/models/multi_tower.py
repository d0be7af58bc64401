"""MLP towers per feature group."""

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


class MultiTower(RankModel):
    """``y = Linear(final([MLP_g(group g) for each tower g]))``.

    A tower without ``mlp`` hands its group through.
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
        self.init_input()
        self.towers = nn.ModuleDict()
        self._tower_inputs = [tower.input for tower in self._model_config.towers]
        width = 0
        for tower in self._model_config.towers:
            dim = self.embedding_group.group_total_dim(tower.input)
            if tower.HasField("mlp"):
                mlp = MLP(dim, **config_to_kwargs(tower.mlp))
                self.towers[tower.input] = mlp
                dim = mlp.output_dim()
            width += dim
        width += self._init_more_towers()
        self.final_mlp = MLP(width, **config_to_kwargs(self._model_config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class)

    def _init_more_towers(self) -> int:
        """Creates towers of other kinds; returns the width they add."""
        return 0

    def _tower_outputs(self, groups: dict[str, Tensor]) -> list[Tensor]:
        """Returns the (B, width) outputs of all towers in the order of the config."""
        outputs = []
        for name in self._tower_inputs:
            outputs.append(self.towers[name](groups[name]) if name in self.towers else groups[name])
        return outputs

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the configured losses."""
        outputs = self._tower_outputs(self.build_input(batch))
        final = self.final_mlp(torch.cat(outputs, dim=1))
        return self._output_to_prediction(self.output_mlp(final))
