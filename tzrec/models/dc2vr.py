"""DC2VR: tasks whose representations are moved by those of earlier tasks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.multi_task_rank import MultiTaskRank
from tzrec.models.task_chain import check_earlier, make_outputs, make_shared_bottom, make_task_mlps
from tzrec.modules.intervention import Intervention


class DC2VR(MultiTaskRank):
    """Earlier tasks intervene on later ones in a low-rank subspace, and do not learn from it.

    ::

        h_t = MLP_t(MMoE_t(bottom_mlp(x)))
        s_t = [z_s for s in intervention_tower_names_t]
        z_t = dropout(h_t + (h_t R_t - stop_gradient(s_t) Q_t) R_t^T)
        y_t = Linear(z_t)

    x is the first feature group; R_t and Q_t have ``low_rank_dim`` orthonormal columns, see
    `Intervention`. Every part that is not configured is left out; without
    ``intervention_tower_names`` z_t = h_t. The towers that intervene stand before.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: a tower that intervenes does not stand before, or ``low_rank_dim`` is not
            below the sizes of h_t and s_t.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        in_features = self.embedding_group.group_total_dim(self.first_group)
        towers = self._task_tower_cfgs
        self.bottom = make_shared_bottom(in_features, self._model_config)
        self.task_mlps, dims = make_task_mlps(towers, self.bottom.output_dim())
        self.interventions: Any = nn.ModuleDict()
        for tower in towers:
            check_earlier(tower, tower.intervention_tower_names, dims)
            if tower.intervention_tower_names:
                fields = config_to_kwargs(tower)
                self.interventions[tower.tower_name] = Intervention(
                    dims[tower.tower_name],
                    sum(dims[name] for name in tower.intervention_tower_names),
                    tower.low_rank_dim,
                    dropout_ratio=fields["dropout_ratio"],
                )
        self.outputs = make_outputs(towers, dims)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the towers' losses."""
        inputs = self.bottom(self.build_input(batch)[self.first_group])
        moved: dict[str, Tensor] = {}
        for tower, x in zip(self._task_tower_cfgs, inputs, strict=True):
            name = tower.tower_name
            h = self.task_mlps[name](x)
            if name in self.interventions:
                source = [moved[other] for other in tower.intervention_tower_names]
                h = self.interventions[name](h, torch.cat(source, dim=1))
            moved[name] = h
        return self._multi_task_output_to_prediction(
            {name: output(moved[name]) for name, output in self.outputs.items()}
        )
