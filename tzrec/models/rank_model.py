"""`RankModel`: scores of rows, learnt from one label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.errors import ConfigError, DataError, did_you_mean
from tzrec.models.model import BaseModel
from tzrec.models.objectives import (
    METRICS,
    build_loss,
    build_metric,
    first_ids,
    loss_spec,
    metric_spec,
)
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.variational_dropout import drop_features, group_dropouts
from tzrec.protos.loss_pb2 import LossConfig
from tzrec.protos.metric_pb2 import MetricConfig, TrainMetricConfig
from tzrec.protos.model_pb2 import ModelConfig

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature


class RankModel(BaseModel):
    """A model that scores rows; losses and metrics are those of ``model_config``.

    A subclass makes its layers in ``__init__`` after `init_input`, and defines `predict`::

        def predict(self, batch):
            groups = self.build_input(batch)
            return self._output_to_prediction(self.output(groups["deep"]))

    Arguments as of `BaseModel`.

    Attributes:
        embedding_group: the feature groups, after `init_input`.
        group_variational_dropouts: `VariationalDropout` by group, if the config asks for it.
    """

    embedding_group: EmbeddingGroup
    # Ends of the names of predictions, losses and metrics: one per output that learns the label.
    _suffixes: tuple[str, ...] = ("",)

    def __init__(
        self,
        model_config: ModelConfig,
        features: Sequence[BaseFeature],
        labels: Sequence[str],
        sample_weights: Sequence[str] | None = None,
        sampler_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_config, features, labels, sample_weights, sampler_type, **kwargs)
        self._num_class = int(model_config.num_class)
        self._label_name = self._labels[0] if self._labels else ""
        self._sample_weight_name = self._sample_weights[0] if self._sample_weights else ""
        self.group_variational_dropouts: Any = nn.ModuleDict()

    # --- input -------------------------------------------------------------------------------

    def init_input(
        self, *, wide_embedding_dim: int | None = None, wide_init_fn: str | None = None
    ) -> None:
        """Makes the embeddings of all feature groups, and their variational dropouts.

        Args:
            wide_embedding_dim: size of the rows of WIDE groups.
            wide_init_fn: initial values of their tables.
        """
        config = self._base_model_config
        self.embedding_group = EmbeddingGroup(
            self._features,
            list(config.feature_groups),
            wide_embedding_dim=wide_embedding_dim,
            wide_init_fn=wide_init_fn,
        )
        self.group_variational_dropouts = group_dropouts(self.embedding_group, config)

    @property
    def first_group(self) -> str:
        """Name of the first feature group of the config, the one that many models read."""
        return str(self._base_model_config.feature_groups[0].group_name)

    def build_input(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the tensors of the feature groups, see `EmbeddingGroup`.

        The penalties of variational dropout join the losses of this batch.
        """
        groups = self.embedding_group(batch)
        penalties = drop_features(self.group_variational_dropouts, groups)
        self._loss_collection = {} if self.is_inference else penalties
        return groups

    # --- predictions -------------------------------------------------------------------------

    def _output_to_prediction(self, output: Tensor, suffix: str = "") -> dict[str, Tensor]:
        """Returns what the losses predict from the last layer's output (B, num_class)."""
        predictions: dict[str, Tensor] = {}
        for config in self._base_model_config.losses:
            predictions |= self._output_to_prediction_impl(
                output, config, num_class=self._num_class, suffix=suffix
            )
        return predictions

    def _output_to_prediction_impl(
        self, output: Tensor, loss_config: LossConfig, num_class: int = 1, suffix: str = ""
    ) -> dict[str, Tensor]:
        """Returns what one loss predicts from the output (B, num_class), in float32."""
        _, spec = loss_spec(loss_config)
        predictions = spec.predict(output.float(), num_class)
        return {f"{name}{suffix}": value for name, value in predictions.items()}

    # --- losses ------------------------------------------------------------------------------

    def init_loss(self) -> None:
        """Makes the losses of the config.

        Raises:
            ConfigError: there is no label, or a loss does not fit.
        """
        if not self._label_name:
            raise ConfigError(
                f"{type(self).__name__} has no label to learn from",
                hint="name its column: data_config { label_fields: ... }",
            )
        self._loss_modules.clear()
        for suffix in self._suffixes:
            for config in self._base_model_config.losses:
                self._init_loss_impl(config, self._num_class, suffix)

    def _init_loss_impl(
        self, loss_config: LossConfig, num_class: int = 1, suffix: str = ""
    ) -> None:
        name = f"{loss_spec(loss_config)[0]}{suffix}"
        _check_new(self._loss_modules, name, "loss")
        self._loss_modules[name] = build_loss(loss_config, num_class)

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of the config and the penalties of the last `build_input`.

        Raises:
            DataError: the batch lacks the label, or a label does not fit its loss.
        """
        weight = None
        if self._sample_weight_name:
            weight = batch.sample_weights[self._sample_weight_name]
        losses: dict[str, Tensor] = {}
        for suffix in self._suffixes:
            for config in self._base_model_config.losses:
                losses |= self._loss_impl(
                    predictions,
                    batch,
                    self._label_name,
                    config,
                    loss_weight=weight,
                    suffix=suffix,
                )
        return losses | self._loss_collection

    def _loss_impl(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        label_name: str,
        loss_config: LossConfig,
        *,
        loss_weight: Tensor | None = None,
        num_class: int | None = None,
        suffix: str = "",
    ) -> dict[str, Tensor]:
        """Returns one loss, the (weighted) mean over rows times its weight in the config.

        Args:
            predictions: of the model.
            batch: holds the label.
            label_name: its column.
            loss_config: the loss.
            loss_weight: weights (B,) of the rows; only their ratios count.
            num_class: number of classes, the model's by default.
            suffix: of the task, appended to predictions and loss.
        """
        name, spec = loss_spec(loss_config)
        target = spec.target(label_of(batch, label_name), num_class or self._num_class, label_name)
        arguments = [predictions[f"{spec.prediction}{suffix}"], target]
        if spec.facts.session:
            session = getattr(getattr(loss_config, name), spec.facts.session)
            arguments.append(first_ids(batch, session))
        loss = weighted_mean(self._loss_modules[f"{name}{suffix}"](*arguments), loss_weight)
        return {f"{name}{suffix}": loss * loss_config.weight}

    # --- metrics -----------------------------------------------------------------------------

    def init_metric(self) -> None:
        """Makes the metrics of the config; the losses' means are among them.

        Raises:
            ConfigError: a metric does not fit the model.
        """
        self._metric_modules.clear()
        self._train_metric_modules.clear()
        config = self._base_model_config
        predicted: set[str] = {loss_spec(loss)[1].facts.predicts for loss in config.losses}
        metrics: list[Any] = [*config.metrics, *config.train_metrics]
        for suffix in self._suffixes:
            for metric in metrics:
                self._init_metric_impl(metric, self._num_class, predicted=predicted, suffix=suffix)
        for suffix in self._suffixes:
            for loss in config.losses:
                self._init_loss_metric_impl(loss, suffix)

    def _init_metric_impl(
        self,
        metric_config: MetricConfig | TrainMetricConfig,
        num_class: int = 1,
        *,
        predicted: set[str],
        suffix: str = "",
    ) -> None:
        name = f"{metric_spec(metric_config)[0]}{suffix}"
        modules = self._modules_of(metric_config)
        _check_new(modules, name, "metric")
        modules[name] = build_metric(metric_config, num_class, predicted)

    def update_metric(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        losses: dict[str, Tensor] | None = None,
    ) -> None:
        """Adds a batch to the evaluation metrics; the losses' means need ``losses``."""
        config = self._base_model_config
        for suffix in self._suffixes:
            for metric in config.metrics:
                self._update_metric_impl(
                    predictions, batch, self._label_name, metric, suffix=suffix
                )
            if losses is not None:
                num_rows = label_of(batch, self._label_name).size(0)
                for loss in config.losses:
                    self._update_loss_metric_impl(losses, num_rows, loss, suffix)

    def update_train_metric(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Adds a batch to the decayed metrics of training."""
        for suffix in self._suffixes:
            for metric in self._base_model_config.train_metrics:
                self._update_metric_impl(
                    predictions, batch, self._label_name, metric, suffix=suffix
                )

    def _update_metric_impl(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        label_name: str,
        metric_config: MetricConfig | TrainMetricConfig,
        *,
        num_class: int | None = None,
        suffix: str = "",
        rows: Tensor | None = None,
    ) -> None:
        """Adds a batch to one metric.

        Args:
            predictions: of the model.
            batch: holds the label.
            label_name: its column.
            metric_config: the metric.
            num_class: number of classes, the model's by default.
            suffix: of the task, appended to predictions and metric.
            rows: those to take, a mask (B,); all by default.
        """
        name, spec = metric_spec(metric_config)
        score = predictions[f"{spec.prediction(num_class or self._num_class)}{suffix}"]
        arguments = [score, label_of(batch, label_name)]
        if METRICS[name].facts.grouping:
            key = getattr(getattr(metric_config, name), METRICS[name].facts.grouping)
            arguments.append(first_ids(batch, key))
        if rows is not None:
            arguments = [argument[rows] for argument in arguments]
        self._modules_of(metric_config)[f"{name}{suffix}"].update(*arguments)

    def _modules_of(self, metric_config: MetricConfig | TrainMetricConfig) -> Any:
        if isinstance(metric_config, TrainMetricConfig):
            return self._train_metric_modules
        return self._metric_modules


def _check_new(modules: nn.ModuleDict, name: str, what: str) -> None:
    if name in modules:
        raise ConfigError(f"{what} {name} is given twice", hint="remove one of them")


def weighted_mean(loss: Tensor, weight: Tensor | None) -> Tensor:
    """Returns the mean of ``loss`` (B,), weighted by ``weight`` (B,) divided by its mean.

    0 if all weights are 0.
    """
    if weight is None:
        return loss.mean()
    weight = weight.to(loss.dtype)
    mean = weight.mean()
    return (loss * weight).mean() / mean.masked_fill(mean == 0, 1.0)


def label_of(batch: Batch, name: str) -> Tensor:
    """Returns the label ``name`` (B,).

    Raises:
        DataError: the batch has none, or a list per row.
    """
    if name in batch.labels:
        return batch.labels[name]
    if name in batch.jagged_labels:
        raise DataError(
            f"label {name!r} is a list in each row, this model learns from one value per row"
        )
    raise DataError(
        f"the batch has no label {name!r}{did_you_mean(name, batch.labels)}",
        hint=f"it has: {', '.join(batch.labels) or 'none'}",
    )
