"""DeepFM (Guo et al., IJCAI 2017, arXiv 1703.04247)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel
from tzrec.models.vectors import vectors_shape
from tzrec.modules.fm import FactorizationMachine
from tzrec.modules.mlp import MLP


class DeepFM(RankModel):
    """A linear model of ids, a factorization machine and an MLP.

    ::

        FM(v) = ((sum_f v_f)^2 - sum_f v_f^2) / 2                  a vector of dim d
        y = sum(wide) + sum(FM(v)) + Linear(MLP(deep))             without `final`
        y = Linear(final([sum(wide), FM(v), MLP(deep)]))           with it

    Feature groups: ``wide`` (WIDE; an id's weight is the sum of its row), ``deep``, and ``fm``
    whose features v_f have one dim d; without ``fm`` those of ``deep``. Without ``final`` wide
    and FM are added to each of several classes alike.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: the features of the FM have several dims.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        self.init_input(
            wide_embedding_dim=config.wide_embedding_dim, wide_init_fn=config.wide_init_fn
        )
        self._fm_group = "fm" if self.embedding_group.has_group("fm") else "deep"
        cure = "" if self._fm_group == "fm" else "name a group fm that holds features of one width"
        self._fm_shape = vectors_shape(
            self.embedding_group, self._fm_group, "FM multiplies the features", cure
        )
        self.fm = FactorizationMachine()
        deep_dim = self.embedding_group.group_total_dim("deep")
        self.deep_mlp = MLP(deep_dim, **config_to_kwargs(config.deep))
        self.final_mlp = None
        width = self.deep_mlp.output_dim()
        if config.HasField("final"):
            width = 1 + self._fm_shape[1] + width
            self.final_mlp = MLP(width, **config_to_kwargs(config.final))
            width = self.final_mlp.output_dim()
        self.output_mlp = nn.Linear(width, self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        wide = groups["wide"].sum(dim=1, keepdim=True)
        fm = self.fm(groups[self._fm_group].unflatten(1, self._fm_shape))
        deep = self.deep_mlp(groups["deep"])
        if self.final_mlp is not None:
            output = self.output_mlp(self.final_mlp(torch.cat([wide, fm, deep], dim=1)))
        else:
            output = wide + fm.sum(dim=1, keepdim=True) + self.output_mlp(deep)
        return self._output_to_prediction(output)
