"""TransAct (Xia et al., KDD 2023, arXiv 2306.00248)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.models.multi_tower import check_new_tower
from tzrec.models.rank_model import RankModel
from tzrec.modules.cross import CrossV2
from tzrec.modules.mlp import MLP
from tzrec.modules.sequence_transact import TransActEncoder
from tzrec.protos.model_pb2 import FeatureGroupType


class TransAct(RankModel):
    """A transformer over the latest actions, each fused with the candidate, before a DCN v2.

    ::

        z = Transformer([k_1, q], ..., [k_T, q])             k_t: action, q: candidate
        h = [z_1, ..., z_K, max_t z_t]                       per history; z_1 is the latest
        y = Linear(final(cross([deep_1, ..., h_1, ...])))

    Without ``cross`` the MLP reads its input. Feature groups: SEQUENCE groups with a query (the
    candidate) that ``transact_towers`` name, and all DEEP groups. Steps run from the latest back,
    or with ``latest_first: false`` from the oldest on.

    Of the sequence rankers after DIN this one was chosen over DIEN (arXiv 1809.03672): it has no
    GRU, so that no step waits for the one before, the candidate meets every step from the first
    layer on, and its gains are published from a large system online (Pinterest's home feed) with
    ablations of each part.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: two towers read one group, a sequence group has no query, or the heads do
            not divide its size.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        groups = self.embedding_group
        self._deep_groups = [
            name
            for name in groups.group_names()
            if groups.group_type(name) == FeatureGroupType.DEEP
        ]
        width = sum(groups.group_total_dim(name) for name in self._deep_groups)
        self.transact_towers: Any = nn.ModuleDict()
        for tower in config.transact_towers:
            check_new_tower(self.transact_towers, tower.input)
            encoder = self._make_tower(tower)
            self.transact_towers[tower.input] = encoder
            width += encoder.output_dim()
        if not width:
            raise ConfigError("the model reads no feature group", hint="add transact_towers")
        self.cross = None
        if config.HasField("cross"):
            self.cross = CrossV2(width, **config_to_kwargs(config.cross))
        self.final_mlp = MLP(width, **config_to_kwargs(config.final))
        self.output_mlp = nn.Linear(self.final_mlp.output_dim(), self._num_class)

    def _make_tower(self, config: Any) -> TransActEncoder:
        fields = config_to_kwargs(config)
        name = fields["input"]
        groups = self.embedding_group
        query = f"{name}.query"
        layer = {key: fields.pop(key) for key in ("num_heads", "feedforward_dim", "dropout_ratio")}
        return TransActEncoder(
            groups.group_total_dim(f"{name}.sequence"),
            groups.group_total_dim(query) if groups.has_group(query) else 0,
            layer=layer,
            **fields,
        )

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the config's losses."""
        groups = self.build_input(batch)
        parts = [groups[name] for name in self._deep_groups]
        parts += [tower(groups) for tower in self.transact_towers.values()]
        x = torch.cat(parts, dim=1)
        if self.cross is not None:
            x = self.cross(x)
        return self._output_to_prediction(self.output_mlp(self.final_mlp(x)))
