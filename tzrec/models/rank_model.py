"""`RankModel`: what all rankers share — input, predictions, losses and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import BASE_DATA_GROUP, Batch
from tzrec.config.messages import config_to_kwargs, which_field
from tzrec.config.specs import LOSSES, METRICS
from tzrec.errors import ConfigError, Unsupported
from tzrec.features.feature import BaseFeature
from tzrec.models.model import BaseModel
from tzrec.models.objectives import LOSS_SPECS, METRIC_SPECS, metric_input, predictions_of
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.variational_dropout import VariationalDropout
from tzrec.protos.model_pb2 import FeatureGroupType, ModelConfig

_SEQUENCE_GROUPS = (FeatureGroupType.SEQUENCE, FeatureGroupType.JAGGED_SEQUENCE)


class RankModel(BaseModel):
    """Base of rankers with one task: the first label, the first sample weight.

    Arguments as `BaseModel`.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        features: Sequence[BaseFeature],
        labels: Sequence[str],
        sample_weights: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_config, features, labels, sample_weights, **kwargs)
        self._num_class = model_config.num_class
        self._label_name = self._labels[0] if self._labels else ""
        self._sample_weight_name = self._sample_weights[0] if self._sample_weights else ""
        self._loss_weights: dict[str, float] = {}
        self.embedding_group: Any = None
        self.group_variational_dropouts: Any = None

    def init_input(
        self, *, wide_embedding_dim: int | None = None, wide_init_fn: str | None = None
    ) -> None:
        """Creates the embedding group, and a variational dropout per group if configured.

        Args:
            wide_embedding_dim: dim of the tables of WIDE groups.
            wide_init_fn: initialiser of these tables.
        """
        config = self._base_model_config
        self.embedding_group = EmbeddingGroup(
            self._features,
            list(config.feature_groups),
            wide_embedding_dim=wide_embedding_dim,
            wide_init_fn=wide_init_fn,
        )
        if not config.HasField("variational_dropout"):
            return
        settings = config_to_kwargs(config.variational_dropout)
        self.group_variational_dropouts = nn.ModuleDict()
        for group in config.feature_groups:
            if group.group_type in _SEQUENCE_GROUPS:
                continue
            dims = self.embedding_group.group_feature_dims(group.group_name)
            if len(dims) > 1:
                dropout = VariationalDropout(dims, group.group_name, **settings)
                self.group_variational_dropouts[group.group_name] = dropout

    def build_input(self, batch: Batch) -> dict[str, Tensor]:
        """Returns group key → tensor (reference of the keys: `EmbeddingGroup`).

        Variational dropout leaves its penalties in ``loss_collection``.
        """
        groups = self.embedding_group(batch)
        if self.group_variational_dropouts is not None:
            for name, dropout in self.group_variational_dropouts.items():
                groups[name], penalty = dropout(groups[name])
                if not self.is_inference:
                    self.loss_collection[f"{name}_feature_p_loss"] = penalty
        return groups

    def _output_to_prediction(self, output: Tensor, suffix: str = "") -> dict[str, Tensor]:
        """Returns the predictions of all configured losses from (B, num_class)."""
        predictions: dict[str, Tensor] = {}
        for loss_config in self._base_model_config.losses:
            predictions |= self._output_to_prediction_impl(
                output, loss_config, num_class=self._num_class, suffix=suffix
            )
        return predictions

    def _output_to_prediction_impl(
        self, output: Tensor, loss_cfg: Any, *, num_class: int = 1, suffix: str = ""
    ) -> dict[str, Tensor]:
        return predictions_of(output, _loss_of(loss_cfg), num_class, suffix)

    def init_loss(self) -> None:
        """Creates the configured losses."""
        for loss_config in self._base_model_config.losses:
            self._init_loss_impl(loss_config)

    def _init_loss_impl(self, loss_cfg: Any, suffix: str = "") -> None:
        loss = _loss_of(loss_cfg)
        self._loss_modules[loss + suffix] = LOSS_SPECS[loss].build(getattr(loss_cfg, loss))
        self._loss_weights[loss + suffix] = loss_cfg.weight

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns loss key → scalar, penalties of the input included."""
        weight = None
        if self._sample_weight_name:
            weight = normalized_weight(batch.sample_weights[self._sample_weight_name])
        losses: dict[str, Tensor] = {}
        for loss_config in self._base_model_config.losses:
            losses |= self._loss_impl(
                predictions, batch, loss_config, label=batch.labels[self._label_name], weight=weight
            )
        losses |= self.loss_collection
        self.loss_collection = {}
        return losses

    def _loss_impl(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        loss_cfg: Any,
        *,
        label: Tensor,
        weight: Tensor | None = None,
        suffix: str = "",
    ) -> dict[str, Tensor]:
        loss = _loss_of(loss_cfg)
        spec = LOSS_SPECS[loss]
        inputs = [predictions[spec.reads + suffix], label.to(spec.target_type)]
        if LOSSES[loss].session:
            session = getattr(getattr(loss_cfg, loss), LOSSES[loss].session)
            inputs.append(first_ids(batch, session))
        per_row = self._loss_modules[loss + suffix](*inputs)
        value = per_row.mean() if weight is None else (per_row * weight).mean()
        return {loss + suffix: self._loss_weights[loss + suffix] * value}

    def init_metric(self) -> None:
        """Creates evaluation metrics, running means of the losses, and train metrics."""
        config = self._base_model_config
        for metric_config in config.metrics:
            self._init_metric_impl(metric_config, num_class=self._num_class)
        for loss_config in config.losses:
            self._init_loss_metric_impl(_loss_of(loss_config))
        for train_config in config.train_metrics:
            self._init_train_metric_impl(train_config, num_class=self._num_class)

    def _init_metric_impl(self, metric_cfg: Any, *, num_class: int = 1, suffix: str = "") -> None:
        metric = _metric_of(metric_cfg)
        self._metric_modules[metric + suffix] = METRIC_SPECS[metric].build(
            getattr(metric_cfg, metric), num_class, False
        )

    def _init_train_metric_impl(
        self, metric_cfg: Any, *, num_class: int = 1, suffix: str = ""
    ) -> None:
        metric = _metric_of(metric_cfg)
        build = METRIC_SPECS[metric].train
        if build is None:
            raise ConfigError(f"{metric} is no train metric")
        decay = {"decay_rate": metric_cfg.decay_rate, "decay_step": metric_cfg.decay_step}
        self._train_metric_modules[metric + suffix] = build(
            getattr(metric_cfg, metric), num_class, decay
        )

    def update_metric(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        losses: dict[str, Tensor] | None = None,
    ) -> None:
        """Adds a batch to the evaluation metrics; never communicates."""
        label = batch.labels[self._label_name]
        for metric_config in self._base_model_config.metrics:
            self._update_metric_impl(
                predictions, batch, metric_config, label=label, num_class=self._num_class
            )
        if losses is not None:
            for loss_config in self._base_model_config.losses:
                self._update_loss_metric_impl(losses, _loss_of(loss_config), label.shape[0])

    def update_train_metric(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Adds a batch to the decayed training metrics."""
        for metric_config in self._base_model_config.train_metrics:
            self._update_metric_impl(
                predictions,
                batch,
                metric_config,
                label=batch.labels[self._label_name],
                num_class=self._num_class,
                modules=self._train_metric_modules,
            )

    def _update_metric_impl(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        metric_cfg: Any,
        *,
        label: Tensor,
        num_class: int = 1,
        suffix: str = "",
        modules: nn.ModuleDict | None = None,
    ) -> None:
        metric = _metric_of(metric_cfg)
        inputs = [metric_input(metric, predictions, num_class, suffix), label]
        if METRICS[metric].grouping:
            inputs.append(
                first_ids(batch, getattr(getattr(metric_cfg, metric), METRICS[metric].grouping))
            )
        target: Any = (self._metric_modules if modules is None else modules)[metric + suffix]
        target.update(*inputs)


def normalized_weight(weight: Tensor) -> Tensor:
    """Returns weights with mean 1; all-zero weights stay zero."""
    mean = weight.mean()
    return torch.where(mean == 0, torch.zeros_like(weight), weight / mean)


def first_ids(batch: Batch, feature: str) -> Tensor:
    """Returns (B,) the first id of each row of a sparse feature; -1 for a row without any.

    Raises:
        ConfigError: the model does not read such a sparse feature.
    """
    kjt = batch.sparse_features.get(BASE_DATA_GROUP)
    if kjt is None or feature not in kjt.keys():  # noqa: SIM118 (a method of the KJT)
        raise ConfigError(
            f"{feature!r} groups rows, but is no sparse feature of the config",
            hint="name an id_feature that stands in feature_configs",
        )
    jagged = kjt[feature]
    lengths, offsets = jagged.lengths(), jagged.offsets()
    result = torch.full((lengths.numel(),), -1, dtype=jagged.values().dtype, device=lengths.device)
    filled = lengths > 0
    result[filled] = jagged.values()[offsets[:-1][filled].long()]
    return result


def _loss_of(loss_config: Any) -> str:
    loss = which_field(loss_config, "loss")
    if loss is None or loss not in LOSS_SPECS:
        other = loss or which_field(loss_config, "sid_loss")
        raise Unsupported(f"loss {other or 'not set'} does not belong to a ranker")
    return loss


def _metric_of(metric_config: Any) -> str:
    metric = which_field(metric_config, "metric")
    if metric is None or metric not in METRIC_SPECS:
        raise Unsupported(f"metric {metric or 'not set'} does not belong to a ranker")
    return metric
