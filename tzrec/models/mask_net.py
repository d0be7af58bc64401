"""MaskNet (Wang et al., DLP-KDD 2021, arXiv 2102.07619)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel
from tzrec.modules.masknet import MaskNetModule


class MaskNet(RankModel):
    """Hidden layers whose inputs are multiplied by masks made of all features.

    ::

        mask(x)     = Linear(ReLU(Linear(x)))
        block(h, x) = ReLU(LayerNorm(Linear(h * mask(x))))
        parallel:  y = Linear(top_mlp([block_1(LN(x), x), ..., block_n(LN(x), x)]))
        serial:    y = Linear(top_mlp(block_n(... block_1(LN(x), x) ..., x)))

    The last layer has no bias. ``top_mlp`` may be left out. Feature groups: x is the first one
    of the config.
    Arguments as of `BaseModel`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        self.mask_net = MaskNetModule(
            self.embedding_group.group_total_dim(self.first_group),
            **config_to_kwargs(self._model_config.mask_net_module),
        )
        self.output_mlp = nn.Linear(self.mask_net.output_dim(), self._num_class, bias=False)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        features = self.build_input(batch)[self.first_group]
        return self._output_to_prediction(self.output_mlp(self.mask_net(features)))
