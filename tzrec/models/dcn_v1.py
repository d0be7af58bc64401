"""Deep & Cross Network (Wang et al., ADKDD 2017, arXiv 1708.05123)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel
from tzrec.modules.cross import Cross
from tzrec.modules.mlp import MLP


class DCNV1(RankModel):
    """A cross network beside an MLP.

    ::

        x_{l+1} = (w_l . x_l) x_0 + b_l + x_l                     cross, x_0 the group
        y = Linear(final([cross(x), MLP(x)]))                     Linear without bias

    Feature groups: the first one of the config, whatever its name.
    Arguments as of `BaseModel`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        dim = self.embedding_group.group_total_dim(self.first_group)
        self.cross = Cross(dim, **config_to_kwargs(config.cross))
        self.deep_mlp = MLP(dim, **config_to_kwargs(config.deep))
        width = self.cross.output_dim() + self.deep_mlp.output_dim()
        self.final_mlp = MLP(width, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class, bias=False)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        features = self.build_input(batch)[self.first_group]
        parts = [self.cross(features), self.deep_mlp(features)]
        output = self.output_mlp(self.final_mlp(torch.cat(parts, dim=1)))
        return self._output_to_prediction(output)
