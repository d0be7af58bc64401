"""DSSM: two towers (Huang et al., CIKM 2013)."""

# No postponed annotations: the towers are traced.

from typing import Any

from torch import Tensor

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.match_model import MatchModel, MatchTower
from tzrec.modules.mlp import MLP


class DSSMTower(MatchTower):
    """``v = Linear(MLP(group))``; both layers are optional. Arguments as of `MatchTower`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        width = self.embedding_group.group_total_dim(self._group_name)
        self.mlp = None
        if self.tower_config.HasField("mlp"):
            self.mlp = MLP(width, **config_to_kwargs(self.tower_config.mlp))
            width = self.mlp.output_dim()
        self.vector_dim = self.init_output(width)

    def forward(self, batch: Batch) -> Tensor:
        """Returns the vectors (B, D)."""
        x = self.build_input(batch)[self._group_name]
        if self.mlp is not None:
            x = self.mlp(x)
        return self.to_vector(x)


class DSSM(MatchModel):
    """Users and items as vectors of two MLPs that share nothing.

    ::

        u = Linear(MLP_u(user group)),  i = Linear(MLP_i(item group))

    "Learning deep structured semantic models for web search using clickthrough data" (Huang et
    al., CIKM 2013); scores and loss are those of `MatchModel`. Each tower has tables of its own,
    even for one ``embedding_name``; `DSSMV2` shares them. Feature groups: those that the towers
    name. Arguments as of `BaseModel`.

    Raises:
        ConfigError: the towers give vectors of different sizes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        self.user_tower = DSSMTower(
            config.user_tower,
            config.output_dim,
            self._similarity,
            **self.groups_of(config.user_tower.input),
        )
        self.item_tower = DSSMTower(
            config.item_tower,
            config.output_dim,
            self._similarity,
            **self.groups_of(config.item_tower.input),
        )
        self.check_vector_dims()

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns ``similarity``."""
        users, items = self.user_tower(batch), self.item_tower(batch)
        return {"similarity": self.sim_of_batch(users, items, batch)}
