"""FinalMLP (Mao et al., AAAI 2023, arXiv 2304.00902)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.rank_model import RankModel
from tzrec.modules.final_mlp import BilinearFusion, FeatureGate
from tzrec.modules.mlp import MLP


class FinalMLP(RankModel):
    """Two MLPs that see the features through gates of their own, multiplied at the end.

    ::

        gate_i(x) = 2 sigmoid(Linear(MLP(context_i))) * x      with `feature_selection`, else x
        o_i = mlp_i(gate_i(x))                                 i = 1, 2
        y = b + w_1 . o_1 + w_2 . o_2 + sum_h o_1h' W_h o_2h   h: equal parts of o_i, num_heads

    Feature groups: x is the first one of the config; the contexts are ``fs1`` and ``fs2``, each
    a learnt vector (as wide as the widest feature of x) where the group is missing.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: ``num_heads`` does not divide the last layers, or a gate without group
            normalises over the batch.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        width = self.embedding_group.group_total_dim(self.first_group)
        self.gate1 = self._make_gate("fs1", width)
        self.gate2 = self._make_gate("fs2", width)
        self.mlp1 = MLP(width, **config_to_kwargs(config.mlp1))
        self.mlp2 = MLP(width, **config_to_kwargs(config.mlp2))
        self.fusion = BilinearFusion(
            self.mlp1.output_dim(),
            self.mlp2.output_dim(),
            num_class=self._num_class,
            num_heads=config.num_heads,
        )

    def _make_gate(self, group: str, width: int) -> FeatureGate | None:
        config = self._model_config
        if not config.HasField("feature_selection"):
            return None
        groups = self.embedding_group
        return FeatureGate(
            width,
            mlp=config_to_kwargs(config.feature_selection),
            context_dim=groups.group_total_dim(group) if groups.has_group(group) else 0,
            constant_dim=max(groups.group_dims(self.first_group)),
        )

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        x1 = x2 = groups[self.first_group]
        if self.gate1 is not None and self.gate2 is not None:
            x1, x2 = self.gate1(x1, groups.get("fs1")), self.gate2(x2, groups.get("fs2"))
        return self._output_to_prediction(self.fusion(self.mlp1(x1), self.mlp2(x2)))
