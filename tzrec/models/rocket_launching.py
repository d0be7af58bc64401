"""Rocket launching (Zhou et al., AAAI 2018, arXiv 1708.04106)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel, weighted_mean
from tzrec.modules.mlp import MLP
from tzrec.protos.simi_pb2 import Similarity

_COSINE_WEIGHT = 0.1


class RocketLaunching(RankModel):
    """A light net that learns from the label and from a booster net that trains beside it.

    ::

        s = share_mlp(x)                            x itself without `share_mlp`
        y_light   = Linear(light_mlp(sg(s)))        sg: no gradient flows back
        y_booster = Linear(booster_mlp(s))
        loss = loss(y_light) + loss(y_booster) + mean((y_light - sg(y_booster))^2)

    So the booster alone shapes the embeddings. With ``feature_based_distillation`` every layer
    l_i of the light MLP that is as wide as a layer of the booster also follows the first such
    layer b_j: ``- 0.1 mean(cos(l_i, sg(b_j)))`` for ``COSINE``, else
    ``sqrt(sum((l_i - sg(b_j))^2))`` over the batch.

    Names of predictions, losses and metrics end in ``_light`` or ``_booster``. Both nets are
    trained and evaluated; prediction and export run the light one only. Feature groups: x is the
    first one of the config.
    Arguments as of `BaseModel`.
    """

    _suffixes = ("_light", "_booster")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        width = self.embedding_group.group_total_dim(self.first_group)
        self.share_mlp = None
        if config.HasField("share_mlp"):
            self.share_mlp = MLP(width, **config_to_kwargs(config.share_mlp))
            width = self.share_mlp.output_dim()
        self.booster_mlp = _hidden_mlp(width, config.booster_mlp)
        self.booster_output = nn.Linear(self.booster_mlp.output_dim(), self._num_class)
        self.light_mlp = _hidden_mlp(width, config.light_mlp)
        self.light_output = nn.Linear(self.light_mlp.output_dim(), self._num_class)
        self._pairs = []
        if config.feature_based_distillation:
            booster = self.booster_mlp.hidden_units
            units = enumerate(self.light_mlp.hidden_units)
            self._pairs = [(i, booster.index(n)) for i, n in units if n in booster]
        self._cosine = config.feature_distillation_function == Similarity.COSINE

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses, of both nets unless it serves.

        With feature distillation also the hidden layers that training compares, ``light_{i}``
        and ``booster_{j}``.
        """
        shared: Any = self.build_input(batch)[self.first_group]
        if self.share_mlp is not None:
            shared = self.share_mlp(shared)
        light: Any = self.light_mlp(shared.detach())
        output = self.light_output(light["hidden_layer_end"])
        predictions = self._output_to_prediction(output, "_light")
        if self.is_inference:
            return predictions
        booster: Any = self.booster_mlp(shared)
        output = self.booster_output(booster["hidden_layer_end"])
        predictions |= self._output_to_prediction(output, "_booster")
        if self.is_train:
            for i, j in self._pairs:
                predictions[f"light_{i}"] = light[f"hidden_layer{i}"].float()
                predictions[f"booster_{j}"] = booster[f"hidden_layer{j}"].float()
        return predictions

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of both nets and what distils; `RankModel.loss` for the errors."""
        losses = super().loss(predictions, batch)
        weight = None
        if self._sample_weight_name:
            weight = batch.sample_weights[self._sample_weight_name]
        name = "logits" if "logits_light" in predictions else "y"
        error = predictions[f"{name}_light"] - predictions[f"{name}_booster"].detach()
        per_row = error.square().reshape(error.size(0), -1).mean(dim=1)
        losses["hint_l2_loss"] = weighted_mean(per_row, weight)
        if self.is_train:
            for i, j in self._pairs:
                light, booster = predictions[f"light_{i}"], predictions[f"booster_{j}"].detach()
                losses[f"similarity_{i}_{j}"] = self._distance(light, booster, weight)
        return losses

    def _distance(self, light: Tensor, booster: Tensor, weight: Tensor | None) -> Tensor:
        """Returns how far a layer (B, D) is from that of the booster, a scalar."""
        if self._cosine:
            return -_COSINE_WEIGHT * weighted_mean(F.cosine_similarity(light, booster), weight)
        difference = light - booster
        if weight is not None:
            mean = weight.float().mean()
            share = weight.float() / mean.masked_fill(mean == 0, 1.0)
            difference = difference * share.sqrt().unsqueeze(1)
        return torch.linalg.vector_norm(difference)


def _hidden_mlp(width: int, config: Any) -> MLP:
    return MLP(width, **config_to_kwargs(config), return_hidden_layer_feature=True)
