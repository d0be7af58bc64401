"""STEM: shared and task-specific embeddings (Su et al., AAAI 2024, arXiv 2308.13537)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.models.multi_task_rank import MultiTaskRank
from tzrec.modules.stem import StemExperts

SHARED = "shared"


class STEM(MultiTaskRank):
    """Tables that all tasks share, and tables per task that only this task moves.

    ::

        S = [experts of x_shared, experts of x_1, ..., experts of x_T]
        h_t = sum_e softmax(Linear_t(gate_t([x_t, x_shared])))_e s_te
        y_t = Linear(MLP_t(h_t))

    s_te is expert e, without its gradient if it belongs to another task, see `StemExperts`.
    Feature groups: ``shared``, and one named like each tower. They may list the same features;
    an ``embedding_name_suffix`` of its own gives a group tables of its own. The paper adds x_t
    and x_shared in the gate; here they stand side by side, so they need not be of one size.
    Arguments as of `BaseModel`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        dim_of = self.embedding_group.group_total_dim
        self._task_groups = [tower.tower_name for tower in self._task_tower_cfgs]
        self.experts = StemExperts(
            dim_of(SHARED),
            [dim_of(name) for name in self._task_groups],
            config_to_kwargs(config.expert_mlp),
            num_shared_expert=config.num_shared_expert,
            num_task_expert=config.num_task_expert,
            gate_mlp=config_to_kwargs(config.gate_mlp) if config.HasField("gate_mlp") else None,
        )
        dims = [self.experts.output_dim()] * len(self._task_groups)
        self.task_towers = self._make_task_towers(dims)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the towers' losses."""
        groups = self.build_input(batch)
        tasks = [groups[name] for name in self._task_groups]
        return self._towers_to_prediction(self.experts(groups[SHARED], tasks))
