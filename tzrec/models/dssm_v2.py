"""DSSM with tables that the towers share."""

# No postponed annotations: the towers are traced.

from typing import Any

from torch import Tensor

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.match_model import MatchModel, MatchTowerWoEG, TowerWoEGWrapper
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.mlp import MLP
from tzrec.modules.utils import BaseModule


class DSSMV2Tower(MatchTowerWoEG):
    """``v = Linear(MLP(group))``; both layers are optional.

    Args:
        embedding_group: that of the model.
        *args: as of `MatchTowerWoEG`.
        **kwargs: as of `MatchTowerWoEG`.
    """

    def __init__(self, embedding_group: EmbeddingGroup, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input(embedding_group)
        width = embedding_group.group_total_dim(self._group_name)
        self.mlp = None
        if self.tower_config.HasField("mlp"):
            self.mlp = MLP(width, **config_to_kwargs(self.tower_config.mlp))
            width = self.mlp.output_dim()
        self.vector_dim = self.init_output(width)

    def forward(self, groups: dict[str, Tensor]) -> Tensor:
        """Returns the vectors (B, D) of the tensors of feature groups."""
        x = self.drop(groups)[self._group_name]
        if self.mlp is not None:
            x = self.mlp(x)
        return self.to_vector(x)


class DSSMV2(MatchModel):
    """`DSSM` whose towers look up one set of tables.

    ::

        u = Linear(MLP_u(user group)),  i = Linear(MLP_i(item group))

    Features of users and of items with one ``embedding_name`` have one table, so that for example
    the items of a history are learnt together with the candidates. All features live on the rows
    of the batch: with a sampler, ``data_config.force_base_data_group: true`` fills the rows that
    users lack. Feature groups: those that the towers name. Arguments as of `BaseModel`.

    Raises:
        ConfigError: the towers give vectors of different sizes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        both = self.groups_of(config.user_tower.input, config.item_tower.input)
        self.embedding_group = EmbeddingGroup(both["features"], both["feature_groups"])
        self.user_tower = self._make_tower(config.user_tower)
        self.item_tower = self._make_tower(config.item_tower)
        self.check_vector_dims()

    def _make_tower(self, tower: Any) -> DSSMV2Tower:
        return DSSMV2Tower(
            self.embedding_group,
            tower,
            self._model_config.output_dim,
            self._similarity,
            **self.groups_of(tower.input),
        )

    def export_parts(self) -> dict[str, BaseModule]:
        """Returns the towers, each with its part of the tables."""
        return {
            name: TowerWoEGWrapper(
                tower, tower.own_embedding_group(self.embedding_group), f"{name}_tower"
            )
            for name, tower in (("user", self.user_tower), ("item", self.item_tower))
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns ``similarity``."""
        groups = self.embedding_group(batch)
        name = self.user_tower.group_name
        # Rows that users lack must not reach the batch statistics.
        of_users = groups | {name: groups[name][: self.num_rows(batch)]}
        users, items = self.user_tower(of_users), self.item_tower(groups)
        return {"similarity": self.sim_of_batch(users, items, batch)}
