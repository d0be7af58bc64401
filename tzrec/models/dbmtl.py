"""Deep Bayesian Multi-Target Learning (Wang et al., 2019, arXiv 1902.09154)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.multi_task_rank import MultiTaskRank
from tzrec.models.task_chain import check_earlier, make_outputs, make_shared_bottom, make_task_mlps
from tzrec.modules.mlp import MLP


class DBMTL(MultiTaskRank):
    """Tasks that depend on earlier ones: a buy is scored with what the click tower has seen.

    ::

        h_t = MLP_t(MMoE_t(bottom_mlp(mask_net(x))))
        r_t = relation_mlp_t([h_t, r_s for s in relation_tower_names_t])
        y_t = Linear(r_t)

    x is the first feature group. Every part that is not configured is left out; without
    ``relation_mlp`` r_t = h_t. The towers that a tower relates to stand before it.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: a tower relates to one that does not stand before it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        in_features = self.embedding_group.group_total_dim(self.first_group)
        towers = self._task_tower_cfgs
        self.bottom = make_shared_bottom(in_features, self._model_config)
        self.task_mlps, dims = make_task_mlps(towers, self.bottom.output_dim())
        self.relation_mlps: Any = nn.ModuleDict()
        for tower in towers:
            check_earlier(tower, tower.relation_tower_names, dims)
            if tower.HasField("relation_mlp"):
                width = sum(dims[n] for n in [tower.tower_name, *tower.relation_tower_names])
                mlp = MLP(width, **config_to_kwargs(tower.relation_mlp))
                self.relation_mlps[tower.tower_name] = mlp
                dims[tower.tower_name] = mlp.output_dim()
        self.outputs = make_outputs(towers, dims)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the towers' losses."""
        inputs = self.bottom(self.build_input(batch)[self.first_group])
        related: dict[str, Tensor] = {}
        for tower, x in zip(self._task_tower_cfgs, inputs, strict=True):
            name = tower.tower_name
            h = self.task_mlps[name](x)
            if name in self.relation_mlps:
                earlier = [related[other] for other in tower.relation_tower_names]
                h = self.relation_mlps[name](torch.cat([h, *earlier], dim=1))
            related[name] = h
        return self._multi_task_output_to_prediction(
            {name: output(related[name]) for name, output in self.outputs.items()}
        )
