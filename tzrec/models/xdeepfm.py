"""xDeepFM (Lian et al., KDD 2018, arXiv 1803.05170)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel
from tzrec.models.vectors import vectors_shape
from tzrec.modules.cin import CIN
from tzrec.modules.mlp import MLP


class xDeepFM(RankModel):  # noqa: N801 (the name of its message)
    """A compressed interaction network beside an MLP.

    ::

        X^k_h = sum_ij W^k_hij (X^{k-1}_i * X^0_j) + b^k_h        CIN, X^0 the vectors of wide
        CIN = [sum_d X^1, sum_d X^2, ...]
        y = Linear(final([CIN(wide), MLP(deep)]))

    Feature groups: ``wide`` (WIDE; each feature a vector of dim ``wide_embedding_dim``) and
    ``deep``. The linear part of the paper is left out.
    Arguments as of `BaseModel`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        self.init_input(
            wide_embedding_dim=config.wide_embedding_dim, wide_init_fn=config.wide_init_fn
        )
        self._wide_shape = vectors_shape(
            self.embedding_group, "wide", "CIN multiplies the features"
        )
        self.cin = CIN(self._wide_shape[0], **config_to_kwargs(config.cin))
        deep_dim = self.embedding_group.group_total_dim("deep")
        self.deep_mlp = MLP(deep_dim, **config_to_kwargs(config.deep))
        width = self.cin.output_dim() + self.deep_mlp.output_dim()
        self.final_mlp = MLP(width, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        cin = self.cin(groups["wide"].unflatten(1, self._wide_shape))
        parts = [cin, self.deep_mlp(groups["deep"])]
        output = self.output_mlp(self.final_mlp(torch.cat(parts, dim=1)))
        return self._output_to_prediction(output)
