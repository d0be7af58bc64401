"""`BaseModel`: the contract of every model; the wrappers are re-exported here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.config.messages import which_field
from tzrec.config.model_facts import MODELS
from tzrec.errors import ConfigError
from tzrec.features.feature import BaseFeature
from tzrec.metrics.mean import RunningMean
from tzrec.metrics.train_metric_wrapper import TrainMetricWrapper
from tzrec.modules.utils import BaseModule
from tzrec.optim.sparse_parameters import split_sparse_parameters
from tzrec.protos.model_pb2 import FeatureGroupConfig, ModelConfig
from tzrec.registry import Registry
from tzrec.utils.load_class import get_register_class_meta

_MODEL_CLASS_MAP: dict[str, type] = {}
MODEL_REGISTRY: Registry[Any] = Registry(
    "model", {name: facts.module for name, facts in MODELS.items() if facts.module}
)
_meta_cls: Any = get_register_class_meta(_MODEL_CLASS_MAP, MODEL_REGISTRY)


class BaseModel(BaseModule, metaclass=_meta_cls):
    """Base of all models.

    A subclass builds its layers in ``__init__`` and implements `predict`; `RankModel` and its
    like bring losses and metrics.

    Args:
        model_config: the whole ``model_config`` message.
        features: all features of the config.
        labels: label columns.
        sample_weights: weight columns.
        sampler_type: name of the sampler's message, for match models.
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
        field = which_field(model_config, "model")
        self._model_config: Any = getattr(model_config, field) if field else None
        self._features = list(features)
        self._labels = list(labels)
        self._sample_weights = list(sample_weights or [])
        self._sampler_type = sampler_type
        self._loss_modules = nn.ModuleDict()
        self._metric_modules = nn.ModuleDict()
        self._train_metric_modules = nn.ModuleDict()
        self.loss_collection: dict[str, Tensor] = {}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Returns prediction key → (B, …) tensor."""
        raise NotImplementedError

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Returns loss key → scalar; their sum is minimised."""
        raise NotImplementedError

    def init_loss(self) -> None:
        """Creates the loss modules."""
        raise NotImplementedError

    def init_metric(self) -> None:
        """Creates the metric modules."""
        raise NotImplementedError

    def update_metric(
        self,
        predictions: dict[str, Tensor],
        batch: Batch,
        losses: dict[str, Tensor] | None = None,
    ) -> None:
        """Adds a batch to the evaluation metrics; never communicates."""
        raise NotImplementedError

    def update_train_metric(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Adds a batch to the decayed training metrics."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns `predict`."""
        return self.predict(batch)

    def compute_metric(self) -> dict[str, Tensor]:
        """Returns metric key → scalar over all ranks, and starts anew."""
        result = {}
        for name, metric in self._metric_modules.items():
            result[name] = metric.compute()
            metric.reset()
        return result

    def compute_train_metric(self) -> dict[str, Tensor]:
        """Returns train metric key → scalar of this rank."""
        return {name: metric.compute() for name, metric in self._train_metrics()}

    def train_metric_state(self) -> dict[str, Any]:
        """Returns the state of the train metrics, for a checkpoint."""
        return {name: metric.state() for name, metric in self._train_metrics()}

    def load_train_metric_state(self, state: dict[str, Any]) -> None:
        """Restores `train_metric_state`; metrics that it does not know start anew."""
        for name, metric in self._train_metrics():
            if name in state:
                metric.load_state(state[name])

    def _train_metrics(self) -> list[tuple[str, TrainMetricWrapper]]:
        metrics: Any = self._train_metric_modules
        return list(metrics.items())

    def sparse_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Returns the embedding tables: those that train, and the frozen ones."""
        return split_sparse_parameters(self)

    def get_features_in_feature_groups(
        self, feature_groups: Iterable[FeatureGroupConfig]
    ) -> list[BaseFeature]:
        """Returns the features of some groups, each once, in the order of the groups.

        Raises:
            ConfigError: a group names a feature that does not exist.
        """
        by_name = {feature.name: feature for feature in self._features}
        wanted: dict[str, None] = {}
        for group in feature_groups:
            wanted |= dict.fromkeys(group.feature_names)
            for sequence_group in group.sequence_groups:
                wanted |= dict.fromkeys(sequence_group.feature_names)
        missing = [name for name in wanted if name not in by_name]
        if missing:
            raise ConfigError(f"feature groups name unknown features: {', '.join(missing)}")
        return [by_name[name] for name in wanted]

    def _init_loss_metric_impl(self, key: str) -> None:
        """Adds the running mean of a loss to the evaluation metrics."""
        self._metric_modules[key] = RunningMean()

    def _update_loss_metric_impl(self, losses: dict[str, Tensor], key: str, num_rows: int) -> None:
        """Adds a batch's loss to its running mean, weighted by its rows."""
        metric: Any = self._metric_modules[key]
        metric.update(losses[key].detach(), float(num_rows))


# The wrappers need the class above.
from tzrec.models.wrappers import (  # noqa: E402
    PredictWrapper,
    ScriptWrapper,
    TrainWrapper,
)

__all__ = ["MODEL_REGISTRY", "BaseModel", "PredictWrapper", "ScriptWrapper", "TrainWrapper"]
