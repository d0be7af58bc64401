"""The tables of losses and metrics: what each is built from, reads and is called.

Torch-free facts (allowed classes, what a metric needs) are in `tzrec.config.specs`; adding a
loss or a metric is one line there and one here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.config.specs import LOSSES, METRICS
from tzrec.errors import ConfigError
from tzrec.loss.binary_cross_entropy import BinaryCrossEntropy
from tzrec.loss.focal_loss import BinaryFocalLoss
from tzrec.loss.jrc_loss import JRCLoss
from tzrec.loss.l2_loss import L2Loss
from tzrec.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from tzrec.metrics.accuracy import Accuracy
from tzrec.metrics.auc import AUC, MulticlassAUC
from tzrec.metrics.decay_auc import DecayAUC
from tzrec.metrics.grouped_auc import GroupedAUC
from tzrec.metrics.grouped_xauc import GroupedXAUC
from tzrec.metrics.normalized_entropy import NormalizedEntropy
from tzrec.metrics.regression import MeanAbsoluteError, MeanSquaredError
from tzrec.metrics.train_metric_wrapper import TrainMetricWrapper
from tzrec.metrics.xauc import XAUC


@dataclass(frozen=True)
class LossSpec:
    """How a loss is built and fed.

    Attributes:
        build: config message → module (prediction, target[, sessions]) → (B,) losses.
        reads: prediction key without suffix.
        target_type: label type that the module takes.
    """

    build: Callable[[Any], nn.Module]
    reads: str
    target_type: torch.dtype


LOSS_SPECS: dict[str, LossSpec] = {
    "binary_cross_entropy": LossSpec(
        lambda c: BinaryCrossEntropy(c.label_smoothing), "logits", torch.float32
    ),
    "binary_focal_loss": LossSpec(
        lambda c: BinaryFocalLoss(c.gamma, c.alpha), "logits", torch.float32
    ),
    "softmax_cross_entropy": LossSpec(
        lambda c: SoftmaxCrossEntropy(c.label_smoothing), "logits", torch.int64
    ),
    "jrc_loss": LossSpec(lambda c: JRCLoss(c.alpha), "logits", torch.int64),
    "l2_loss": LossSpec(lambda c: L2Loss(), "y", torch.float32),
}


@dataclass(frozen=True)
class MetricSpec:
    """How a metric is built.

    Attributes:
        build: (config message, classes, local) → metric.
        train: (config message, classes, decay settings) → decayed train metric; None where the
            interface has none.
    """

    build: Callable[[Any, int, bool], nn.Module]
    train: Callable[[Any, int, dict[str, Any]], TrainMetricWrapper] | None = None


def _decayed(build: Callable[[Any, int, bool], nn.Module]) -> MetricSpec:
    def train(config: Any, num_class: int, decay: dict[str, Any]) -> TrainMetricWrapper:
        metric: Any = build(config, num_class, True)
        return TrainMetricWrapper(metric, **decay)

    return MetricSpec(build, train)


def _xauc(config: Any, num_class: int, local: bool) -> nn.Module:
    return XAUC(
        sample_ratio=config.sample_ratio,
        max_pairs=config.max_pairs if config.HasField("max_pairs") else None,
        in_batch=config.in_batch,
        local=local,
    )


METRIC_SPECS: dict[str, MetricSpec] = {
    "auc": MetricSpec(
        lambda c, num_class, local: AUC(c.thresholds, local=local),
        lambda c, num_class, decay: DecayAUC(c.thresholds, **decay),
    ),
    "multiclass_auc": MetricSpec(
        lambda c, num_class, local: MulticlassAUC(
            num_class, thresholds=c.thresholds, average=c.average, local=local
        )
    ),
    "accuracy": _decayed(
        lambda c, num_class, local: Accuracy(threshold=c.threshold, top_k=c.top_k, local=local)
    ),
    "mean_absolute_error": _decayed(lambda c, num_class, local: MeanAbsoluteError(local=local)),
    "mean_squared_error": _decayed(lambda c, num_class, local: MeanSquaredError(local=local)),
    "grouped_auc": MetricSpec(lambda c, num_class, local: GroupedAUC(local=local)),
    "xauc": _decayed(_xauc),
    "grouped_xauc": MetricSpec(
        lambda c, num_class, local: GroupedXAUC(
            max_pairs_per_group=c.max_pairs_per_group, local=local
        )
    ),
    "normalized_entropy": MetricSpec(
        lambda c, num_class, local: NormalizedEntropy(c.eta, local=local)
    ),
}


def predictions_of(output: Tensor, loss: str, num_class: int, suffix: str) -> dict[str, Tensor]:
    """Returns the predictions that a loss stands for.

    Args:
        output: (B, num_class) of the model's last layer.
        loss: config name of the loss.
        num_class: C.
        suffix: added to each key.

    Returns:
        binary: ``logits`` (B,), ``probs`` (B,). multiclass: ``logits`` (B, C), ``probs`` (B, C),
        and with two classes ``probs1`` (B,). regression: ``y`` (B,).

    Raises:
        ConfigError: the loss does not take that many classes.
    """
    facts = LOSSES[loss]
    least, most = facts.num_class
    if num_class < (least or 1) or (most is not None and num_class > most):
        raise ConfigError(f"num_class is {num_class}; {loss} takes {least} to {most or 'any'}")
    output = output.float()
    if facts.kind == "multiclass":
        probs = torch.softmax(output, dim=1)
        found = {f"logits{suffix}": output, f"probs{suffix}": probs}
        return found | ({f"probs1{suffix}": probs[:, 1]} if num_class == 2 else {})
    output = torch.squeeze(output, dim=1)
    if facts.kind == "regression":
        return {f"y{suffix}": output}
    return {f"logits{suffix}": output, f"probs{suffix}": torch.sigmoid(output)}


def metric_input(
    metric: str, predictions: dict[str, Tensor], num_class: int, suffix: str
) -> Tensor:
    """Returns the prediction that a metric compares with the label."""
    facts = METRICS[metric]
    if facts.needs == "y":
        return predictions[f"y{suffix}"]
    if facts.max_class == 2 and num_class == 2:
        return predictions[f"probs1{suffix}"]
    return predictions[f"probs{suffix}"]
