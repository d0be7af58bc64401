"""DCN-V2 (Wang et al., WWW 2021, arXiv 2008.13535)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel
from tzrec.modules.cross import CrossV2
from tzrec.modules.mlp import MLP


class DCNV2(RankModel):
    """A cross network of low-rank matrices, with an MLP before it, beside it, or neither.

    ::

        x_0 = backbone(x), or x without `backbone`                x the group
        x_{l+1} = x_0 * (V_l U_l x_l + b_l) + x_l                 cross
        y = Linear(final([cross(x_0), MLP(x)]))                   MLP(x) only with `deep`

    The Linear has no bias. ``backbone`` without ``deep`` stacks the two networks, ``deep``
    without ``backbone`` puts them side by side. ``low_rank: 0`` makes each V_l U_l one whole
    matrix.
    Feature groups: the first one of the config, whatever its name.
    Arguments as of `BaseModel`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        dim = self.embedding_group.group_total_dim(self.first_group)
        self.backbone = None
        self.deep_mlp = None
        width = dim
        if config.HasField("backbone"):
            self.backbone = MLP(dim, **config_to_kwargs(config.backbone))
            width = self.backbone.output_dim()
        self.cross = CrossV2(width, **config_to_kwargs(config.cross))
        if config.HasField("deep"):
            self.deep_mlp = MLP(dim, **config_to_kwargs(config.deep))
            width += self.deep_mlp.output_dim()
        self.final_mlp = MLP(width, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class, bias=False)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        features = self.build_input(batch)[self.first_group]
        output = self.cross(features if self.backbone is None else self.backbone(features))
        if self.deep_mlp is not None:
            output = torch.cat([output, self.deep_mlp(features)], dim=1)
        output = self.output_mlp(self.final_mlp(output))
        return self._output_to_prediction(output)
