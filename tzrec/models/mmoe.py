"""Multi-gate mixture of experts (Ma et al., KDD 2018)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.multi_task_rank import MultiTaskRank
from tzrec.modules.mmoe import MMoE as MultiGateMixture


class MMoE(MultiTaskRank):
    """Experts that all tasks share; each task weighs them by a gate of its own.

    ::

        h_t = sum_e softmax(Linear_t(gate_t(x)))_e MLP_e(x)        e = 1 ... num_expert
        y_t = Linear(MLP_t(h_t))

    x is the first feature group. Without ``gate_mlp`` the gate is linear in x, as in the paper;
    without ``mlp`` a tower is a linear layer.
    Arguments as of `BaseModel`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        num_task = len(self._task_tower_cfgs)
        self.mmoe = MultiGateMixture(
            self.embedding_group.group_total_dim(self.first_group),
            config_to_kwargs(config.expert_mlp),
            config.num_expert,
            num_task,
            gate_mlp=config_to_kwargs(config.gate_mlp) if config.HasField("gate_mlp") else None,
        )
        self.task_towers = self._make_task_towers([self.mmoe.output_dim()] * num_task)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the towers' losses."""
        return self._towers_to_prediction(self.mmoe(self.build_input(batch)[self.first_group]))
