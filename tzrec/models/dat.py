"""DAT: towers with an augmented vector (Yu et al., DLP-KDD 2021)."""

# No postponed annotations: the towers are traced.

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.match_model import MatchModel, MatchTower
from tzrec.models.rank_model import weighted_mean
from tzrec.modules.mlp import MLP


class DATTower(MatchTower):
    """``v = Linear(MLP([group, augment group]))``. Arguments as of `MatchTower`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        self._augment_name = str(self.tower_config.augment_input)
        self.augment_dim = self.embedding_group.group_total_dim(self._augment_name)
        width = self.embedding_group.group_total_dim(self._group_name) + self.augment_dim
        self.mlp = MLP(width, **config_to_kwargs(self.tower_config.mlp))
        self.vector_dim = self.init_output(self.mlp.output_dim())

    def with_augment(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the vectors (B, D) and the augmented vectors (B, D of the other tower)."""
        groups = self.build_input(batch)
        augment = groups[self._augment_name]
        vectors = self.mlp(torch.cat([groups[self._group_name], augment], dim=1))
        return self.to_vector(vectors), augment.float()

    def forward(self, batch: Batch) -> Tensor:
        """Returns the vectors (B, D)."""
        return self.with_augment(batch)[0]


class DAT(MatchModel):
    """Two towers, each with a learnt vector that mimics what the other tower has matched.

    ::

        u = Linear(MLP_u([user group, a_u])),  i = Linear(MLP_i([item group, a_i]))
        amm_loss_u = amm_u_weight * sum |a_u / |a_u| - stop(i)|^2      over positive pairs
        amm_loss_i = amm_i_weight * sum |a_i / |a_i| - stop(u)|^2

    "A dual augmented two-tower model for online large-scale recommendation" (Yu et al., DLP-KDD
    2021), without its category alignment loss. The augment groups hold embeddings of an id, as
    wide as the vectors of the other tower. Both sums are over rows and columns; with sample
    weights they are weighted means over rows. They are losses of training only.

    Feature groups: those that the towers name in ``input`` and ``augment_input``. Arguments as of
    `BaseModel`.

    Raises:
        ConfigError: the towers give vectors of different sizes, or an augment group has another
            one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        self.user_tower = self._make_tower(config.user_tower)
        self.item_tower = self._make_tower(config.item_tower)
        self.check_vector_dims()
        for tower in (self.user_tower, self.item_tower):
            if tower.augment_dim != tower.vector_dim:
                raise ConfigError(
                    f"augment_input {tower.tower_config.augment_input!r} is {tower.augment_dim} "
                    f"wide, but it mimics the vectors of the other tower, of size "
                    f"{tower.vector_dim}"
                )

    def _make_tower(self, tower: Any) -> DATTower:
        return DATTower(
            tower,
            self._model_config.output_dim,
            self._similarity,
            **self.groups_of(tower.input, tower.augment_input),
        )

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns ``similarity``; in training also what the augment losses compare.

        That is ``user_augment``, ``item_augment``, ``user_tower_emb`` and ``item_tower_emb``.
        """
        users, user_augment = self.user_tower.with_augment(batch)
        items, item_augment = self.item_tower.with_augment(batch)
        predictions = {"similarity": self.sim_of_batch(users, items, batch)}
        if self.is_train:
            predictions |= {
                "user_augment": user_augment,
                "item_augment": item_augment,
                "user_tower_emb": users,
                "item_tower_emb": items,
            }
        return predictions

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the losses; in training ``amm_loss_u`` and ``amm_loss_i`` are among them."""
        losses = super().loss(predictions, batch)
        if "user_augment" not in predictions:
            return losses
        num_rows, config = self.num_rows(batch), self._model_config
        pairs = {
            "amm_loss_u": ("user_augment", "item_tower_emb", config.amm_u_weight),
            "amm_loss_i": ("item_augment", "user_tower_emb", config.amm_i_weight),
        }
        for name, (augment, other, factor) in pairs.items():
            mimic = F.normalize(predictions[augment][:num_rows], dim=1)
            rows = (mimic - predictions[other][:num_rows].detach()).square().sum(dim=1)
            weight = self.row_weights(batch)
            loss = rows.sum() if weight is None else weighted_mean(rows, weight)
            losses[name] = factor * loss
        return losses
