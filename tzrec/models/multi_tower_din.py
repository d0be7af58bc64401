"""Multi-tower model with Deep Interest Network attention (Zhou et al., KDD 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.multi_tower import check_new_tower, make_towers
from tzrec.models.rank_model import RankModel
from tzrec.modules.mlp import MLP
from tzrec.modules.sequence import DINEncoder


class MultiTowerDIN(RankModel):
    """`MultiTower` whose histories are weighted by how well they fit the candidate.

    ::

        DIN(q, k) = sum_t softmax_t(Linear(MLP([q, k_t, q - k_t, q * k_t]))) k_t
        y = Linear(final([MLP_1(group_1), ..., DIN_1(history_1), ...]))

    Feature groups: those that ``towers`` name, and SEQUENCE groups with a query (the candidate)
    that ``din_towers`` name. The attention is that of arXiv 1706.06978.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: two towers read one group, or a sequence group has no query.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        self.towers, width = make_towers(self.embedding_group, config.towers)
        self.din_towers: Any = nn.ModuleDict()
        for tower in config.din_towers:
            check_new_tower(self.din_towers, tower.input)
            encoder = self._make_din_tower(tower)
            self.din_towers[tower.input] = encoder
            width += encoder.output_dim()
        self.final_mlp = MLP(width, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class)

    def _make_din_tower(self, config: Any) -> DINEncoder:
        name = config.input
        return DINEncoder(
            self.embedding_group.group_total_dim(f"{name}.sequence"),
            self.embedding_group.group_total_dim(f"{name}.query"),
            input=name,
            attn_mlp=config_to_kwargs(config.attn_mlp),
        )

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        towers = [tower(groups[name]) for name, tower in self.towers.items()]
        towers += [tower(groups) for tower in self.din_towers.values()]
        output = self.output_mlp(self.final_mlp(torch.cat(towers, dim=1)))
        return self._output_to_prediction(output)
