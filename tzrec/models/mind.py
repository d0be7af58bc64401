"""MIND: several interests of a user (Li et al., CIKM 2019, arXiv 1904.08030)."""

# No postponed annotations: the towers are traced.

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.dssm import DSSMTower
from tzrec.models.match_model import MatchModel, MatchTower
from tzrec.modules import jagged
from tzrec.modules.capsule import CapsuleLayer
from tzrec.modules.mlp import MLP
from tzrec.protos.simi_pb2 import EUCLID


def open_mlp(width: int, fields: Mapping[str, Any], *, bias: bool = True) -> nn.Sequential:
    """Returns an MLP whose last layer is linear, without norm, activation and dropout.

    Args:
        width: size of the input.
        fields: of an ``MLP`` message.
        bias: whether the layers have one; the fields may say no as well.
    """
    fields = dict(fields)
    bias = bool(fields.pop("bias", True)) and bias
    units = fields.pop("hidden_units")
    ratios = fields.pop("dropout_ratio", None) or []
    layers: list[nn.Module] = []
    if len(units) > 1:
        dropout = ratios[:-1] if len(ratios) == len(units) else ratios
        layers.append(MLP(width, units[:-1], dropout_ratio=dropout, bias=bias, **fields))
        width = units[-2]
    layers.append(nn.Linear(width, units[-1], bias=bias))
    return nn.Sequential(*layers)


class MINDUserTower(MatchTower):
    """Interests of users.

    ::

        caps     = Capsules(hist_seq_mlp(history))
        interest = Linear(concat_mlp([user_mlp(user group), caps_k]))      for every capsule k

    ``user_mlp`` and ``hist_seq_mlp`` (optional, without bias) end in a linear layer. Arguments as
    of `MatchTower`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config, groups = self.tower_config, self.embedding_group
        self._history_name = str(config.history_input)
        user_fields = config_to_kwargs(config.user_mlp)
        self.user_mlp = open_mlp(groups.group_total_dim(self._group_name), user_fields)
        width = groups.group_total_dim(f"{self._history_name}.sequence")
        self.hist_seq_mlp = None
        if config.HasField("hist_seq_mlp"):
            fields = config_to_kwargs(config.hist_seq_mlp)
            self.hist_seq_mlp = open_mlp(width, fields, bias=False)
            width = fields["hidden_units"][-1]
        self.capsule = CapsuleLayer(width, **config_to_kwargs(config.capsule_config))
        self._max_k = int(config.capsule_config.max_k)
        width = user_fields["hidden_units"][-1] + self.capsule.output_dim()
        self.concat_mlp = MLP(width, **config_to_kwargs(config.concat_mlp))
        self.vector_dim = self.init_output(self.concat_mlp.output_dim(), bias=False)

    def interests(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the interests (B, K, D), 0 beyond those of a row, and their number (B,)."""
        groups = self.build_input(batch)
        steps = groups[f"{self._history_name}.sequence"]
        lengths = groups[f"{self._history_name}.sequence_length"]
        if self.hist_seq_mlp is not None:
            # Padding must not reach the batch statistics.
            hidden = self.hist_seq_mlp(jagged.unpad(steps, lengths))
            steps = jagged.pad(hidden, lengths, steps.size(1))
        capsules, numbers = self.capsule(steps, lengths)
        user = self.user_mlp(groups[self._group_name]).repeat_interleave(numbers, dim=0)
        own = torch.cat([user, jagged.unpad(capsules, numbers).to(user.dtype)], dim=1)
        vectors = self.to_vector(self.concat_mlp(own))
        return jagged.pad(vectors, numbers, self._max_k), numbers

    def forward(self, batch: Batch) -> Tensor:
        """Returns the interests (B, K, D)."""
        return self.interests(batch)[0]


class MIND(MatchModel):
    """Users as several interests, of which the one that fits the item counts.

    ::

        u = sum_k softmax_k(simi_pow s(interest_k, i)) interest_k          i: the positive

    "Multi-interest network with dynamic routing for recommendation at Tmall" (Li et al., CIKM
    2019). Evaluation too weighs the interests by the row's own item; retrieval searches with
    each interest (B, K, D). Feature groups: those that the towers name. Arguments as of
    `BaseModel`.

    Raises:
        ConfigError: the towers give vectors of different sizes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._model_config
        self._simi_pow = float(config.simi_pow)
        tower = config.user_tower
        self.user_tower = MINDUserTower(
            tower,
            config.output_dim,
            self._similarity,
            **self.groups_of(tower.input, tower.history_input),
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
        interests, numbers = self.user_tower.interests(batch)
        items = self.item_tower(batch)
        num_rows = self.num_rows(batch)
        users = self._choose(interests[:num_rows], numbers[:num_rows], items[:num_rows])
        return {"similarity": self.sim_of_batch(users, items, batch)}

    def _choose(self, interests: Tensor, numbers: Tensor, positives: Tensor) -> Tensor:
        """Returns the users' vectors (B, D) for their items (B, D)."""
        with torch.autocast(interests.device.type, enabled=False):
            scores = torch.matmul(interests, positives.unsqueeze(2)).squeeze(2)
            if self._similarity == EUCLID:
                # Up to a constant of the row, which no softmax sees.
                scores = 2.0 * scores - interests.square().sum(dim=2)
            exists = jagged.mask(interests, numbers)
            scores = (self._simi_pow * scores).masked_fill(~exists, -torch.inf)
            return torch.matmul(torch.softmax(scores, dim=1).unsqueeze(1), interests).squeeze(1)
