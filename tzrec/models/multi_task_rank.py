"""`MultiTaskRank`: scores of rows for several tasks, each learnt from its own label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError, did_you_mean
from tzrec.models.objectives import loss_spec
from tzrec.models.pareto import ParetoWeights
from tzrec.models.rank_model import RankModel, label_of
from tzrec.modules.task_tower import TaskTower
from tzrec.modules.utils import check_module_name


class MultiTaskRank(RankModel):
    """A model with a tower per task; label, losses, metrics and weights stand in the towers.

    Names of predictions, losses and metrics end in ``_{tower_name}``. The loss of a task is

    ::

        weight * mean_i(w_i l_i) / mean_i(w_i)         the mean of the rows, w_i = s_i z_i

    with s_i the row's value of ``sample_weight_name`` (else 1), and z_i
    ``in_task_space_weight`` if the row's label ``task_space_indicator_label`` is above 0, else
    ``out_task_space_weight`` (1 without an indicator). A task all of whose weights are 0 adds 0.

    A subclass makes its layers in ``__init__`` after `init_input`, and defines `predict`::

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.init_input()
            dim = self.embedding_group.group_total_dim(self.first_group)
            self.task_towers = self._make_task_towers([dim] * len(self._task_tower_cfgs))

        def predict(self, batch):
            x = self.build_input(batch)[self.first_group]
            return self._towers_to_prediction([x] * len(self._task_tower_cfgs))

    Arguments as of `BaseModel`.

    Raises:
        ConfigError: there is no tower, or a name is not usable or given twice.
    """

    task_towers: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._task_tower_cfgs: list[Any] = self._task_configs()
        names = [tower.tower_name for tower in self._task_tower_cfgs]
        if not names:
            raise ConfigError(
                f"{type(self).__name__} has no task",
                hint='task_towers { tower_name: "ctr" label_name: ... losses { ... } }',
            )
        for index, name in enumerate(names):
            check_module_name(name, "tower_name")
            if name in names[:index]:
                raise ConfigError(f"two towers are called {name!r}", hint="rename one of them")

    def _task_configs(self) -> list[Any]:
        """Returns the towers; overridden where the config has no ``task_towers``."""
        return list(self._model_config.task_towers)

    # --- predictions -------------------------------------------------------------------------

    def _make_task_towers(self, dims: Sequence[int]) -> nn.ModuleDict:
        """Returns a `TaskTower` per task by name; ``dims`` are the sizes of their inputs."""
        towers = nn.ModuleDict()
        for config, dim in zip(self._task_tower_cfgs, dims, strict=True):
            mlp = config_to_kwargs(config.mlp) if config.HasField("mlp") else None
            towers[config.tower_name] = TaskTower(dim, config.num_class, mlp=mlp)
        return towers

    def _tower_outputs(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns tower name → output (B, num_class), of ``task_towers`` on (B, D) for each."""
        towers = zip(self.task_towers.items(), features, strict=True)
        return {name: tower(x) for (name, tower), x in towers}

    def _towers_to_prediction(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns the predictions of ``task_towers`` on (B, D) for each task."""
        return self._multi_task_output_to_prediction(self._tower_outputs(features))

    def _multi_task_output_to_prediction(self, output: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what the losses predict.

        Args:
            output: tower name → output (B, num_class) of its last layer.
        """
        predictions: dict[str, Tensor] = {}
        for tower in self._task_tower_cfgs:
            for config in tower.losses:
                predictions |= self._output_to_prediction_impl(
                    output[tower.tower_name], config, tower.num_class, f"_{tower.tower_name}"
                )
        return predictions

    # --- losses ------------------------------------------------------------------------------

    def init_loss(self) -> None:
        """Makes the losses of all towers.

        Raises:
            ConfigError: a column that a tower reads is not loaded, or a loss does not fit.
        """
        self._loss_modules.clear()
        for tower in self._task_tower_cfgs:
            if tower.losses:
                self._check_columns(tower)
            for config in tower.losses:
                self._init_loss_impl(config, tower.num_class, f"_{tower.tower_name}")

    def _check_columns(self, tower: Any) -> None:
        what = f"tower {tower.tower_name!r}"
        _check_column(tower.label_name, self._labels, f"{what} learns from", "label_fields")
        if tower.task_space_indicator_label:
            name = tower.task_space_indicator_label
            _check_column(name, self._labels, f"the task space of {what} is", "label_fields")
        if name := getattr(tower, "sample_weight_name", ""):
            _check_column(name, self._sample_weights, f"{what} weighs by", "sample_weight_fields")

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of all towers and the penalties of the last `build_input`.

        Raises:
            DataError: the batch lacks a label, or a label does not fit its loss.
        """
        losses: dict[str, Tensor] = {}
        for tower in self._task_tower_cfgs:
            weight = _row_weight(tower, batch)
            for config in tower.losses:
                one = self._loss_impl(
                    predictions,
                    batch,
                    tower.label_name,
                    config,
                    loss_weight=weight,
                    num_class=tower.num_class,
                    suffix=f"_{tower.tower_name}",
                )
                losses |= {name: value * tower.weight for name, value in one.items()}
        return losses | self._loss_collection

    def total_loss(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Returns the sum of the losses.

        With ``use_pareto_loss_weight`` training takes the sum of the towers' losses weighted by
        `ParetoWeights`, each at least its tower's ``pareto_min_loss_weight``, and the penalties.

        Raises:
            Unsupported: Pareto weights are asked for where tables show no gradient.
        """
        weighs = self._base_model_config.use_pareto_loss_weight
        bounds = self._pareto_bounds() if weighs else {}
        if len(bounds) < 2 or not (self.training and torch.is_grad_enabled()):
            return super().total_loss(losses)
        weights = ParetoWeights(self)([losses[name] for name in bounds], list(bounds.values()))
        factors = dict(zip(bounds, weights, strict=True))
        return super().total_loss(
            {name: loss * factors.get(name, 1.0) for name, loss in losses.items()}
        )

    def _pareto_bounds(self) -> dict[str, float]:
        """Returns loss name → its smallest weight, of the losses of all towers."""
        return {
            f"{loss_spec(loss)[0]}_{tower.tower_name}": tower.pareto_min_loss_weight
            for tower in self._task_tower_cfgs
            for loss in tower.losses
        }

    # --- metrics -----------------------------------------------------------------------------

    def init_metric(self) -> None:
        """Makes the metrics of all towers; the losses' means are among them.

        Raises:
            ConfigError: a metric does not fit its tower.
        """
        self._metric_modules.clear()
        self._train_metric_modules.clear()
        for tower in self._task_tower_cfgs:
            self._init_tower_metrics(tower)
        for tower in self._task_tower_cfgs:
            for loss in tower.losses:
                self._init_loss_metric_impl(loss, f"_{tower.tower_name}")

    def _init_tower_metrics(self, tower: Any) -> None:
        predicted: set[str] = {loss_spec(loss)[1].facts.predicts for loss in tower.losses}
        for metric in [*tower.metrics, *tower.train_metrics]:
            self._init_metric_impl(
                metric, tower.num_class, predicted=predicted, suffix=f"_{tower.tower_name}"
            )

    def update_metric(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        losses: dict[str, Tensor] | None = None,
    ) -> None:
        """Adds a batch to the evaluation metrics; the losses' means need ``losses``."""
        for tower in self._task_tower_cfgs:
            suffix = f"_{tower.tower_name}"
            self._update_tower_metrics(predictions, batch, tower, tower.metrics)
            if losses is not None and tower.losses:
                num_rows = label_of(batch, tower.label_name).size(0)
                for loss in tower.losses:
                    self._update_loss_metric_impl(losses, num_rows, loss, suffix)

    def update_train_metric(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Adds a batch to the decayed metrics of training."""
        for tower in self._task_tower_cfgs:
            self._update_tower_metrics(predictions, batch, tower, tower.train_metrics)

    def _update_tower_metrics(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        tower: Any,
        metrics: Any,
        *,
        rows: Tensor | None = None,
    ) -> None:
        """Adds a batch to ``metrics`` of a tower; only ``rows`` (B,), if they are given."""
        for metric in metrics:
            self._update_metric_impl(
                predictions,
                batch,
                tower.label_name,
                metric,
                num_class=tower.num_class,
                suffix=f"_{tower.tower_name}",
                rows=rows,
            )


def _check_column(name: str, known: Sequence[str], who: str, field: str) -> None:
    if name not in known:
        raise ConfigError(
            f"{who} {name!r}, which is not in {field}{did_you_mean(name, known)}",
            hint=f'add {field}: "{name}" to data_config',
        )


def _row_weight(tower: Any, batch: Batch) -> Tensor | None:
    """Returns the weights (B,) of the rows for a task, None if they are equal."""
    weight = None
    if name := getattr(tower, "sample_weight_name", ""):
        weight = batch.sample_weights[name].float()
    if name := tower.task_space_indicator_label:
        inside = label_of(batch, name) > 0
        factor = torch.where(inside, tower.in_task_space_weight, tower.out_task_space_weight)
        weight = factor if weight is None else weight * factor
    return weight
