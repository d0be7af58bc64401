"""Entire space multi-task model (Ma et al., SIGIR 2018, arXiv 1804.07931)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from tzrec.batch import Batch
from tzrec.errors import ConfigError
from tzrec.models.multi_task_rank import MultiTaskRank
from tzrec.models.objectives import loss_spec
from tzrec.models.rank_model import label_of
from tzrec.protos.tower_pb2 import TaskTower

CTCVR = "ctcvr"


class ESMM(MultiTaskRank):
    """Conversion after the click, learnt from all impressions through the chance of both.

    ::

        p(ctr) = sigmoid(a)      a = Linear(MLP_ctr(x))
        p(cvr) = sigmoid(b)      b = Linear(MLP_cvr(x))
        p(ctcvr) = p(ctr) p(cvr) = sigmoid(-log(exp(-a) + exp(-b) + exp(-a - b)))
        loss = l(a, click) + l(logit of p(ctcvr), click * conversion)

    x is the first feature group: embeddings are shared. The labels of ``ctr_tower`` and
    ``cvr_tower`` are click and conversion; a conversion without a click counts as none. The
    losses of ``cvr_tower`` are those of p(ctcvr) on all rows, named after the tower.

    Predictions are ``logits`` and ``probs`` of both towers and of ``ctcvr``. The metrics of
    ``cvr_tower`` come twice: of p(cvr) on the clicked rows, named after the tower, and of
    p(ctcvr) on all rows, named ``…_ctcvr``.
    Arguments as of `BaseModel`.

    Raises:
        ConfigError: a tower has no loss, or one that is not for probabilities.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ctr, self._cvr = self._task_tower_cfgs
        for tower in self._task_tower_cfgs:
            _check_losses(tower)
        self._both = TaskTower()
        self._both.CopyFrom(self._cvr)
        self._both.tower_name = CTCVR
        self.init_input()
        dim = self.embedding_group.group_total_dim(self.first_group)
        self.task_towers = self._make_task_towers([dim] * 2)

    def _task_configs(self) -> list[Any]:
        towers = [self._model_config.ctr_tower, self._model_config.cvr_tower]
        if CTCVR in (tower.tower_name for tower in towers):
            raise ConfigError(f"{CTCVR!r} is click and conversion, so no tower can be called that")
        return towers

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of both towers and of click and conversion together."""
        x = self.build_input(batch)[self.first_group]
        outputs = self._tower_outputs([x, x])
        a, b = (-outputs[tower.tower_name].float() for tower in (self._ctr, self._cvr))
        outputs[CTCVR] = -torch.logsumexp(torch.cat([a, b, a + b], dim=1), dim=1, keepdim=True)
        predictions = self._multi_task_output_to_prediction(outputs)
        for config in self._both.losses:
            predictions |= self._output_to_prediction_impl(
                outputs[CTCVR], config, suffix=f"_{CTCVR}"
            )
        return predictions

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of the click, and of click and conversion together.

        Raises:
            DataError: the batch lacks a label, or a label does not fit its loss.
        """
        both = {f"logits_{self._cvr.tower_name}": predictions[f"logits_{CTCVR}"]}
        return super().loss(predictions | both, self._with_conversions(batch))

    def _with_conversions(self, batch: Batch) -> Batch:
        """Returns the batch with a conversion label that is 0 where there was no click."""
        name = self._cvr.label_name
        converted = label_of(batch, self._ctr.label_name) * label_of(batch, name)
        return dataclasses.replace(batch, labels={**batch.labels, name: converted})

    def _init_tower_metrics(self, tower: Any) -> None:
        super()._init_tower_metrics(tower)
        if tower is self._cvr:
            super()._init_tower_metrics(self._both)

    def _update_tower_metrics(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        tower: Any,
        metrics: Any,
        *,
        rows: Tensor | None = None,
    ) -> None:
        if tower is self._cvr:
            batch = self._with_conversions(batch)
            super()._update_tower_metrics(predictions, batch, self._both, metrics, rows=rows)
            rows = label_of(batch, self._ctr.label_name) > 0
        super()._update_tower_metrics(predictions, batch, tower, metrics, rows=rows)


def _check_losses(tower: Any) -> None:
    chosen = [loss_spec(loss) for loss in tower.losses]
    wrong = [name for name, spec in chosen if spec.facts.kind != "binary"]
    if wrong or not chosen:
        raise ConfigError(
            f"tower {tower.tower_name!r} of ESMM predicts a probability, which needs a binary "
            f"loss, not {wrong[0] if wrong else 'none'}",
            hint="losses { binary_cross_entropy {} }",
        )
