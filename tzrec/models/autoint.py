"""AutoInt and AutoInt+ (Song et al., CIKM 2019, arXiv 1810.11921)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel
from tzrec.models.vectors import vectors_shape
from tzrec.modules.interacting import InteractingLayer
from tzrec.modules.mlp import MLP


class AutoInt(RankModel):
    """Self-attention between the features; with ``deep``, an MLP beside it (AutoInt+).

    ::

        E_0 = [e_1, ..., e_F],  E_{l+1} = ReLU(MultiHead(E_l) + R_l E_l)
        y = Linear(final([E_L, MLP(deep)]))

    ``final`` may be left out. Feature groups: the e_f are the features of the first one of the
    config, all of one width; the MLP reads ``deep``, where features may have any width, and
    the first group where there is no ``deep``.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: the features of the first group have several widths.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        self._shape = vectors_shape(
            self.embedding_group,
            self.first_group,
            "attention compares the features",
            "put features of any width into a group deep",
        )
        self.layers: Any = nn.ModuleList()
        dim = self._shape[1]
        for _ in range(config.num_layers):
            layer = InteractingLayer(
                dim,
                num_heads=config.num_heads,
                attention_dim=config.attention_dim,
                use_residual=config.use_residual,
            )
            self.layers.append(layer)
            dim = layer.output_dim()
        width = self._shape[0] * dim
        self._deep_group = "deep" if self.embedding_group.has_group("deep") else self.first_group
        self.deep_mlp = None
        if config.HasField("deep"):
            deep_dim = self.embedding_group.group_total_dim(self._deep_group)
            self.deep_mlp = MLP(deep_dim, **config_to_kwargs(config.deep))
            width += self.deep_mlp.output_dim()
        self.final_mlp = None
        if config.HasField("final"):
            self.final_mlp = MLP(width, **config_to_kwargs(config.final))
            width = self.final_mlp.output_dim()
        self.output_mlp = nn.Linear(width, self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        features = groups[self.first_group].unflatten(1, self._shape)
        for layer in self.layers:
            features = layer(features)
        x = features.flatten(1)
        if self.deep_mlp is not None:
            x = torch.cat([x, self.deep_mlp(groups[self._deep_group])], dim=1)
        if self.final_mlp is not None:
            x = self.final_mlp(x)
        return self._output_to_prediction(self.output_mlp(x))
