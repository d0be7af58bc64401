"""Multi-tower model: an MLP per feature group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.rank_model import RankModel
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.mlp import MLP
from tzrec.protos.tower_pb2 import Tower


class MultiTower(RankModel):
    """Groups that meet late, each behind its own MLP.

    ::

        y = Linear(final([MLP_1(group_1), MLP_2(group_2), ...]))

    A tower without ``mlp`` passes its group on. Feature groups: those that ``towers`` name.
    Deep Crossing (Shan et al., KDD 2016) with an MLP per group in front.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: two towers read one group.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        self.towers, width = make_towers(self.embedding_group, config.towers)
        self.final_mlp = MLP(width, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        towers = [tower(groups[name]) for name, tower in self.towers.items()]
        output = self.output_mlp(self.final_mlp(torch.cat(towers, dim=1)))
        return self._output_to_prediction(output)


def make_towers(embedding_group: EmbeddingGroup, configs: Iterable[Tower]) -> tuple[Any, int]:
    """Returns the MLPs of towers by group, and the number of their outputs together.

    Raises:
        ConfigError: two towers read one group, or one reads a group that is not there.
    """
    towers: Any = nn.ModuleDict()
    width = 0
    for config in configs:
        check_new_tower(towers, config.input)
        dim = embedding_group.group_total_dim(config.input)
        tower: nn.Module = nn.Identity()
        if config.HasField("mlp"):
            tower = mlp = MLP(dim, **config_to_kwargs(config.mlp))
            dim = mlp.output_dim()
        towers[config.input] = tower
        width += dim
    return towers, width


def check_new_tower(towers: nn.ModuleDict, name: str) -> None:
    """Raises a ConfigError if there is a tower of that name."""
    if name in towers:
        raise ConfigError(
            f"two towers read the feature group {name!r}",
            hint="merge them, or list its features in a second group",
        )
