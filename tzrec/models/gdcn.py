"""GDCN, the gated deep and cross network (Wang et al., CIKM 2023, arXiv 2311.04635)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.rank_model import RankModel
from tzrec.modules.gated_cross import GatedCross
from tzrec.modules.mlp import MLP


class GDCN(RankModel):
    """DCN v2 with a gate on every cross layer, which keeps deep crosses useful.

    ::

        c_0 = x,  c_{l+1} = c_0 * (W_l c_l + b_l) * sigmoid(G_l c_l) + c_l
        parallel (GDCN-P):  y = Linear(final([c_L, MLP(x)]))
        stacked (GDCN-S):   y = Linear(final(MLP(c_L)))

    ``deep`` (the MLP) and ``final`` may be left out. Feature groups: x is the first one of the
    config.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: ``stacked`` without ``deep``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        if config.stacked and not config.HasField("deep"):
            raise ConfigError(
                "stacked puts the MLP deep on the cross layers, but there is no deep",
                hint="add deep { hidden_units: ... }, or remove stacked",
            )
        features_dim = self.embedding_group.group_total_dim(self.first_group)
        self._stacked = bool(config.stacked)
        self.cross = GatedCross(features_dim, **config_to_kwargs(config.cross))
        width = features_dim
        self.deep_mlp = None
        if config.HasField("deep"):
            self.deep_mlp = MLP(features_dim, **config_to_kwargs(config.deep))
            width = self.deep_mlp.output_dim() + (0 if self._stacked else features_dim)
        self.final_mlp = None
        if config.HasField("final"):
            self.final_mlp = MLP(width, **config_to_kwargs(config.final))
            width = self.final_mlp.output_dim()
        self.output_mlp = nn.Linear(width, self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        features = self.build_input(batch)[self.first_group]
        x = self.cross(features)
        if self.deep_mlp is not None:
            if self._stacked:
                x = self.deep_mlp(x)
            else:
                x = torch.cat([x, self.deep_mlp(features)], dim=1)
        if self.final_mlp is not None:
            x = self.final_mlp(x)
        return self._output_to_prediction(self.output_mlp(x))
