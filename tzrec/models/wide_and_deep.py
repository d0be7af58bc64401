"""Wide & Deep (Cheng et al., DLRS 2016, arXiv 1606.07792)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel
from tzrec.modules.mlp import MLP


class WideAndDeep(RankModel):
    """A linear model of ids beside an MLP.

    ::

        y = sum(wide) + Linear(MLP(deep))              without `final`
        y = Linear(final([sum(wide), MLP(deep)]))      with it

    Feature groups: ``wide`` (WIDE; an id's weight is the sum of its row), ``deep``. Without
    ``final`` the wide part is added to each of several classes alike.
    Arguments as of `BaseModel`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        self.init_input(
            wide_embedding_dim=config.wide_embedding_dim, wide_init_fn=config.wide_init_fn
        )
        deep_dim = self.embedding_group.group_total_dim("deep")
        self.deep_mlp = MLP(deep_dim, **config_to_kwargs(config.deep))
        self.final_mlp = None
        width = self.deep_mlp.output_dim()
        if config.HasField("final"):
            self.final_mlp = MLP(1 + width, **config_to_kwargs(config.final))
            width = self.final_mlp.output_dim()
        self.output_mlp = nn.Linear(width, self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        wide = groups["wide"].sum(dim=1, keepdim=True)
        deep = self.deep_mlp(groups["deep"])
        if self.final_mlp is not None:
            output = self.output_mlp(self.final_mlp(torch.cat([wide, deep], dim=1)))
        else:
            output = wide + self.output_mlp(deep)
        return self._output_to_prediction(output)
