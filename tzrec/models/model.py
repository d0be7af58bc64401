"""`BaseModel`: what every model can do; and the wrappers that training and serving put around it.

`tzrec.models.wrappers` is the home of the wrappers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import which_field
from tzrec.errors import ConfigError, did_you_mean
from tzrec.metrics.mean import RunningMean
from tzrec.models.custom import custom_params
from tzrec.models.registry import MODELS
from tzrec.models.wrappers import (
    CombinedModelWrapper,
    PredictWrapper,
    ScriptWrapper,
    TrainWrapper,
)
from tzrec.modules.utils import BaseModule
from tzrec.optim.sparse_parameters import split_sparse_parameters
from tzrec.protos.loss_pb2 import LossConfig
from tzrec.protos.model_pb2 import FeatureGroupConfig, ModelConfig
from tzrec.utils.load_class import get_register_class_meta

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature

__all__ = [
    "BaseModel",
    "CombinedModelWrapper",
    "PredictWrapper",
    "ScriptWrapper",
    "TrainWrapper",
]

_MODEL_CLASSES: dict[str, type] = {}
_ModelMeta: Any = get_register_class_meta(_MODEL_CLASSES, MODELS)


class BaseModel(BaseModule, metaclass=_ModelMeta):
    """A model: predictions of a batch, their losses, their metrics.

    Subclasses define `predict`, `init_loss`, `loss`, `init_metric` and `update_metric`
    (`RankModel` defines all but the first) and are found by their class name, which is that of
    their config message: ``BaseModel.create_class("DeepFM")``.

    Args:
        model_config: the ``ModelConfig``.
        features: all features of the config.
        labels: label columns; empty for a model that only predicts.
        sample_weights: weight columns.
        sampler_type: name of the negative sampler, if there is one.
        **kwargs: for `BaseModule`.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        features: Sequence[BaseFeature],
        labels: Sequence[str],
        sample_weights: Sequence[str] | None = None,
        sampler_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._base_model_config = model_config
        self._model_config: Any = _own_config(model_config, type(self))
        self._features = list(features)
        self._labels = list(labels)
        self._sample_weights = list(sample_weights or [])
        self._sampler_type = sampler_type
        self._loss_modules: Any = nn.ModuleDict()
        self._metric_modules: Any = nn.ModuleDict()
        self._train_metric_modules: Any = nn.ModuleDict()
        self._half_widths: dict[str, float] = {}
        # Losses that layers add while predicting (penalties).
        self._loss_collection: dict[str, Tensor] = {}

    @property
    def features(self) -> list[BaseFeature]:
        """All features of the config, in its order."""
        return self._features

    @property
    def sampler_type(self) -> str | None:
        """Name of the negative sampler."""
        return self._sampler_type

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the predictions of a batch by name, rows first."""
        raise NotImplementedError(f"{type(self).__name__} does not define predict")

    def init_loss(self) -> None:
        """Makes the loss modules."""
        raise NotImplementedError(f"{type(self).__name__} does not define init_loss")

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns the losses by name, scalars; training minimises their `total_loss`."""
        raise NotImplementedError(f"{type(self).__name__} does not define loss")

    def total_loss(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Returns what training minimises of the result of `loss`: the sum."""
        return torch.stack(list(losses.values())).sum()

    def init_metric(self) -> None:
        """Makes the metric modules."""
        raise NotImplementedError(f"{type(self).__name__} does not define init_metric")

    def update_metric(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        losses: dict[str, Tensor] | None = None,
    ) -> None:
        """Adds a batch to the evaluation metrics."""
        raise NotImplementedError(f"{type(self).__name__} does not define update_metric")

    def update_train_metric(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Adds a batch to the train metrics; models without any need not define it."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns `predict` of the batch."""
        return self.predict(batch)

    def export_parts(self) -> dict[str, BaseModule]:
        """Returns what is exported apart: directory in the export to module.

        A part has ``features`` (those that it reads), and ``predict(batch)`` as a model has.
        Empty: the model itself is exported, at the top.
        """
        return {}

    def compute_metric(self) -> dict[str, Tensor]:
        """Returns the evaluation metrics of all rows since the last call, and starts afresh."""
        values = {}
        self._half_widths = {}
        for name, metric in self._metric_modules.items():
            values[name] = metric.compute()
            if (half_width := getattr(metric, "half_width", None)) is not None:
                self._half_widths[name] = half_width
            metric.reset()
        return values

    def metric_half_widths(self) -> dict[str, float]:
        """Returns half the 95 % confidence interval of those metrics that know one.

        They are those of the last `compute_metric`.
        """
        return self._half_widths

    def compute_train_metric(self) -> dict[str, Tensor]:
        """Returns the train metrics; they go on."""
        return {name: metric.compute() for name, metric in self._train_metric_modules.items()}

    def train_metric_state(self) -> dict[str, Any]:
        """Returns the state of the train metrics, for a checkpoint."""
        return {name: metric.state() for name, metric in self._train_metric_modules.items()}

    def load_train_metric_state(self, state: Mapping[str, Any]) -> None:
        """Puts the result of `train_metric_state` back; metrics it does not know start afresh."""
        for name, metric in self._train_metric_modules.items():
            if name in state:
                metric.load_state(state[name])

    def sparse_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Returns the embedding tables: those that train, and the frozen ones."""
        return split_sparse_parameters(self)

    def get_features_in_feature_groups(
        self, feature_groups: Iterable[FeatureGroupConfig]
    ) -> list[BaseFeature]:
        """Returns the features that the groups name, each once, in the order of the groups.

        Raises:
            ConfigError: a group names a feature that is not configured.
        """
        known = {feature.name: feature for feature in self._features}
        found: dict[str, BaseFeature] = {}
        for group in feature_groups:
            nested = [name for sub in group.sequence_groups for name in sub.feature_names]
            for name in [*group.feature_names, *nested]:
                if name not in known:
                    raise ConfigError(
                        f"feature group {group.group_name!r} names the feature {name!r}, "
                        f"which is not configured{did_you_mean(name, known)}"
                    )
                found[name] = known[name]
        return list(found.values())

    def _init_loss_metric_impl(self, loss_config: LossConfig, suffix: str = "") -> None:
        """Adds the running mean of a loss to the evaluation metrics."""
        name = f"{which_field(loss_config, 'loss')}{suffix}"
        self._metric_modules[name] = RunningMean()

    def _update_loss_metric_impl(
        self,
        losses: dict[str, Tensor],
        num_rows: int,
        loss_config: LossConfig,
        suffix: str = "",
    ) -> None:
        """Adds the value that a loss had for ``num_rows`` rows."""
        name = f"{which_field(loss_config, 'loss')}{suffix}"
        self._metric_modules[name].update(losses[name], num_rows)


def _own_config(model_config: ModelConfig, cls: type) -> Any:
    """Returns the message of the chosen model, or the parameters of a custom one."""
    field = which_field(model_config, "model")
    if field is None:
        return None
    if field == "custom_model":
        return custom_params(cls, model_config.custom_model)
    return getattr(model_config, field)
