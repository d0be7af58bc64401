"""Shared embeddings under independent towers (Caruana, Machine Learning 1997)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tzrec.batch import Batch
from tzrec.models.multi_task_rank import MultiTaskRank


class SimpleMultiTask(MultiTaskRank):
    """A tower per task on the same input; the tasks share nothing but the embeddings.

    ::

        y_t = Linear(MLP_t(x))

    x is the first feature group; without ``mlp`` a tower is a linear layer.
    Arguments as of `BaseModel`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_input()
        dim = self.embedding_group.group_total_dim(self.first_group)
        self.task_towers = self._make_task_towers([dim] * len(self._task_tower_cfgs))

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of the towers' losses."""
        x = self.build_input(batch)[self.first_group]
        return self._towers_to_prediction([x] * len(self._task_tower_cfgs))
