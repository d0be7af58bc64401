"""Losses and metrics as tables: what each is made of, reads and compares with.

What they ask of a config (classes, predictions) are the facts of `tzrec.config.specs`; the
tables here add the code. Supporting another loss or metric means one entry there and one here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import BASE_DATA_GROUP, Batch
from tzrec.config.messages import config_to_kwargs, which_field
from tzrec.config.specs import LOSSES as LOSS_FACTS
from tzrec.config.specs import METRICS as METRIC_FACTS
from tzrec.config.specs import TRAIN_METRICS, LossFacts, MetricFacts, class_range
from tzrec.errors import ConfigError, DataError, Unsupported, did_you_mean
from tzrec.loss.binary_cross_entropy import BinaryCrossEntropy
from tzrec.loss.focal_loss import BinaryFocalLoss
from tzrec.loss.jrc_loss import JRCLoss
from tzrec.loss.l2_loss import L2Loss
from tzrec.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from tzrec.metrics.accuracy import Accuracy
from tzrec.metrics.auc import AUC, MulticlassAUC
from tzrec.metrics.base import BaseMetric
from tzrec.metrics.decay_auc import DecayAUC
from tzrec.metrics.grouped_auc import GroupedAUC
from tzrec.metrics.grouped_xauc import GroupedXAUC
from tzrec.metrics.hitrate_at_k import HitRateAtK
from tzrec.metrics.mrr import MRR
from tzrec.metrics.ndcg_at_k import NDCGAtK
from tzrec.metrics.normalized_entropy import NormalizedEntropy
from tzrec.metrics.recall_at_k import RecallAtK
from tzrec.metrics.regression import MeanAbsoluteError, MeanSquaredError
from tzrec.metrics.train_metric_wrapper import TrainMetricWrapper
from tzrec.metrics.xauc import XAUC
from tzrec.protos.loss_pb2 import LossConfig
from tzrec.protos.metric_pb2 import MetricConfig, TrainMetricConfig


@dataclasses.dataclass(frozen=True)
class LossSpec:
    """A loss.

    Attributes:
        facts: what it asks of a model.
        build: makes the module of the fields of its message; it maps (prediction, target), and
            the session ids if the facts name a session, to a loss per row.
    """

    facts: LossFacts
    build: Callable[..., nn.Module]

    @property
    def prediction(self) -> str:
        """The prediction that it reads."""
        return "y" if self.facts.kind == "regression" else "logits"

    def predict(self, output: Tensor, num_class: int) -> dict[str, Tensor]:
        """Returns the predictions of a model's output (B, num_class)."""
        return _PREDICT[self.facts.kind](output, num_class)

    def target(self, label: Tensor, num_class: int, name: str) -> Tensor:
        """Returns the label (B,) as the loss compares it.

        Raises:
            DataError: a label cannot be one of this loss; only checked on a CPU, where looking
                costs nothing.
        """
        return _TARGET[self.facts.kind](label, num_class, name)


@dataclasses.dataclass(frozen=True)
class MetricSpec:
    """A metric.

    Attributes:
        facts: what it asks of a model.
        build: makes the metric of the fields of its message and ``num_class`` and ``local``.
    """

    facts: MetricFacts
    build: Callable[..., BaseMetric]

    def prediction(self, num_class: int) -> str:
        """Returns the prediction that it reads."""
        binary = self.facts.needs == "probs" and self.facts.max_class == 2
        return "probs1" if binary and num_class == 2 else self.facts.needs


def _binary(output: Tensor, num_class: int) -> dict[str, Tensor]:
    del num_class
    logits = output.squeeze(1)
    return {"logits": logits, "probs": torch.sigmoid(logits)}


def _multiclass(output: Tensor, num_class: int) -> dict[str, Tensor]:
    probs = torch.softmax(output, dim=1)
    predictions = {"logits": output, "probs": probs}
    return predictions | {"probs1": probs[:, 1]} if num_class == 2 else predictions


def _regression(output: Tensor, num_class: int) -> dict[str, Tensor]:
    del num_class
    return {"y": output.squeeze(1)}


def _number(label: Tensor, num_class: int, name: str) -> Tensor:
    del num_class, name
    return label.float()


def _probability(label: Tensor, num_class: int, name: str) -> Tensor:
    del num_class
    if label.device.type == "cpu":
        _check_bounds(label, 0, 1, name)
    return label.float()


def _class_id(label: Tensor, num_class: int, name: str) -> Tensor:
    if label.device.type == "cpu":
        _check_bounds(label, 0, num_class - 1, name)
        _check_whole(label, name)
    return label.long()


def _check_bounds(label: Tensor, least: int, most: int, name: str) -> None:
    if label.numel() == 0:
        return
    lowest, highest = torch.aminmax(label)
    if lowest >= least and highest <= most:
        return
    row = int(((label >= least) & (label <= most)).logical_not().nonzero()[0])
    error = DataError(
        f"label {name!r} is {label[row].item():g} in row {row} of the batch, "
        f"it must be from {least} to {most}",
        hint="correct the column, or choose a loss (and num_class) that fits it",
    )
    error.row = row
    raise error


def _check_whole(label: Tensor, name: str) -> None:
    if not label.is_floating_point() or not (broken := label != label.round()).any():
        return
    row = int(broken.nonzero()[0])
    error = DataError(
        f"label {name!r} is {label[row].item():g} in row {row} of the batch, "
        "it must be the number of a class",
        hint="correct the column, or choose a loss for labels between the classes",
    )
    error.row = row
    raise error


_PREDICT = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}
_TARGET = {"binary": _probability, "multiclass": _class_id, "regression": _number}


def _jrc(session_name: str, **kwargs: Any) -> JRCLoss:
    del session_name
    return JRCLoss(**kwargs)


def _plain(metric: Callable[..., BaseMetric]) -> Callable[..., BaseMetric]:
    """Returns a builder that passes neither the number of classes nor the grouping key on."""

    def build(num_class: int, grouping_key: str = "", **kwargs: Any) -> BaseMetric:
        del num_class, grouping_key
        return metric(**kwargs)

    return build


_LOSSES: dict[str, Callable[..., nn.Module]] = {
    "binary_cross_entropy": BinaryCrossEntropy,
    "binary_focal_loss": BinaryFocalLoss,
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "jrc_loss": _jrc,
    "l2_loss": L2Loss,
}
_METRICS: dict[str, Callable[..., BaseMetric]] = {
    "auc": _plain(AUC),
    "multiclass_auc": MulticlassAUC,
    "recall_at_k": _plain(RecallAtK),
    "hitrate_at_k": _plain(HitRateAtK),
    "ndcg_at_k": _plain(NDCGAtK),
    "mrr": _plain(MRR),
    "mean_absolute_error": _plain(MeanAbsoluteError),
    "mean_squared_error": _plain(MeanSquaredError),
    "accuracy": _plain(Accuracy),
    "grouped_auc": _plain(GroupedAUC),
    "xauc": _plain(XAUC),
    "grouped_xauc": _plain(GroupedXAUC),
    "normalized_entropy": _plain(NormalizedEntropy),
}
LOSSES: Mapping[str, LossSpec] = {
    name: LossSpec(LOSS_FACTS[name], build) for name, build in _LOSSES.items()
}
METRICS: Mapping[str, MetricSpec] = {
    name: MetricSpec(METRIC_FACTS[name], build) for name, build in _METRICS.items()
}


def loss_spec(config: LossConfig) -> tuple[str, LossSpec]:
    """Returns name and entry of a loss.

    Raises:
        ConfigError: none is chosen, or it is not for ranking models.
    """
    name = which_field(config, "loss") or which_field(config, "sid_loss")
    if name is None:
        raise ConfigError("a loss is empty", hint=f"choose one of {', '.join(LOSSES)}")
    if name not in LOSSES:
        raise ConfigError(
            f"loss {name} is not for this model", hint=f"it takes {', '.join(LOSSES)}"
        )
    return name, LOSSES[name]


def metric_spec(config: MetricConfig | TrainMetricConfig) -> tuple[str, MetricSpec]:
    """Returns name and entry of a metric.

    Raises:
        ConfigError: none is chosen, or it is not for ranking models.
    """
    name = which_field(config, "metric")
    if name is None:
        raise ConfigError("a metric is empty", hint=f"choose one of {', '.join(METRICS)}")
    if name not in METRICS:
        raise ConfigError(
            f"metric {name} is not for this model", hint=f"it takes {', '.join(METRICS)}"
        )
    return name, METRICS[name]


def build_loss(config: LossConfig, num_class: int) -> nn.Module:
    """Makes the module of a loss, checked against the number of classes.

    Raises:
        ConfigError: the loss is none of this model, or needs another number of classes.
    """
    name, spec = loss_spec(config)
    least, most = spec.facts.num_class
    if num_class < (least or 1) or (most is not None and num_class > most):
        raise ConfigError(
            f"{name} needs num_class {class_range(spec.facts.num_class)}, but it is {num_class}"
        )
    return spec.build(**config_to_kwargs(getattr(config, name)))


def build_metric(
    config: MetricConfig | TrainMetricConfig, num_class: int, predicted: set[str]
) -> BaseMetric | TrainMetricWrapper:
    """Makes a metric; one of a ``TrainMetricConfig`` is decayed and stays on its rank.

    Args:
        config: the metric.
        num_class: number of classes.
        predicted: what the losses make the model predict (``probs``, ``y``).

    Raises:
        ConfigError: the metric does not fit the model.
    """
    name, spec = metric_spec(config)
    _check_metric(name, spec, num_class, predicted)
    kwargs = config_to_kwargs(getattr(config, name))
    if isinstance(config, MetricConfig):
        return spec.build(num_class=num_class, **kwargs)
    if name not in TRAIN_METRICS:
        raise Unsupported(f"{name} is no train metric; {', '.join(TRAIN_METRICS)} are")
    whole = config_to_kwargs(config)
    decay = {key: whole[key] for key in ("decay_rate", "decay_step")}
    if name == "auc":
        return DecayAUC(**kwargs, **decay)
    return TrainMetricWrapper(spec.build(num_class=num_class, local=True, **kwargs), **decay)


def _check_metric(name: str, spec: MetricSpec, num_class: int, predicted: set[str]) -> None:
    facts = spec.facts
    if facts.needs == "similarity" and facts.needs not in predicted:
        raise ConfigError(f"metric {name} is not for this model, but for two-tower models")
    if facts.needs not in predicted:
        able = [loss for loss, entry in LOSSES.items() if entry.facts.predicts == facts.needs]
        raise ConfigError(f"metric {name} needs a loss that gives it scores: {', '.join(able)}")
    if num_class < facts.min_class or num_class > (facts.max_class or num_class):
        bounds = class_range((facts.min_class, facts.max_class))
        raise ConfigError(f"metric {name} needs num_class {bounds}, but it is {num_class}")


def first_ids(batch: Batch, feature: str, data_group: str = BASE_DATA_GROUP) -> Tensor:
    """Returns the first id of each row (B,) of a sparse feature, -1 where there is none.

    Args:
        batch: the batch.
        feature: the feature.
        data_group: where it lives.

    Raises:
        ConfigError: the batch has no such feature.
    """
    ids = batch.sparse_features.get(data_group)
    names = ids.keys() if ids is not None else []
    if ids is None or feature not in names:
        raise ConfigError(
            f"rows are told apart by {feature!r}, which is no id feature"
            f"{did_you_mean(feature, names)}"
        )
    column = ids[feature]
    values, lengths = column.values(), column.lengths().long()
    starts = lengths.cumsum(0) - lengths
    padded = torch.nn.functional.pad(values, (0, 1), value=-1)
    return torch.where(lengths > 0, padded[starts], -1).long()
