"""What losses, metrics and optimizers need, as facts: shared by the config rules and the code.

Keys are the names of the config's oneof fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

LossKind = Literal["binary", "multiclass", "regression"]
Needs = Literal["probs", "y", "similarity"]


@dataclasses.dataclass(frozen=True)
class LossFacts:
    """What a loss asks of its model.

    Attributes:
        message: message type of the oneof member.
        num_class: smallest and largest number of classes, None = no bound.
        kind: what the model predicts with it; binary and multiclass give ``logits`` and
            ``probs`` (and ``probs1`` with two classes), regression gives ``y``.
        session: config field that names a sparse feature grouping the rows, or "".
    """

    message: str
    num_class: tuple[int | None, int | None]
    kind: LossKind
    session: str = ""

    @property
    def predicts(self) -> Needs:
        """The prediction that metrics read."""
        return "y" if self.kind == "regression" else "probs"


@dataclasses.dataclass(frozen=True)
class MetricFacts:
    """What a metric asks of its model.

    Attributes:
        message: message type of the oneof member.
        needs: the prediction it reads.
        max_class: largest number of classes, None = no bound.
        min_class: smallest number of classes.
        grouping: config field that names a sparse feature grouping the rows, or "".
    """

    message: str
    needs: Needs
    max_class: int | None = None
    min_class: int = 1
    grouping: str = ""


LOSSES: Mapping[str, LossFacts] = {
    "binary_cross_entropy": LossFacts("BinaryCrossEntropy", (1, 1), "binary"),
    "binary_focal_loss": LossFacts("BinaryFocalLoss", (1, 1), "binary"),
    "softmax_cross_entropy": LossFacts("SoftmaxCrossEntropy", (2, None), "multiclass"),
    "jrc_loss": LossFacts("JRCLoss", (2, 2), "multiclass", session="session_name"),
    "l2_loss": LossFacts("L2Loss", (1, 1), "regression"),
}

METRICS: Mapping[str, MetricFacts] = {
    "auc": MetricFacts("AUC", "probs", max_class=2),
    "multiclass_auc": MetricFacts("MulticlassAUC", "probs", min_class=2),
    "recall_at_k": MetricFacts("RecallAtK", "similarity"),
    "hitrate_at_k": MetricFacts("HitRateAtK", "similarity"),
    "ndcg_at_k": MetricFacts("NDCGAtK", "similarity"),
    "mrr": MetricFacts("MRR", "similarity"),
    "mean_absolute_error": MetricFacts("MeanAbsoluteError", "y"),
    "mean_squared_error": MetricFacts("MeanSquaredError", "y"),
    "accuracy": MetricFacts("Accuracy", "probs"),
    "grouped_auc": MetricFacts("GroupedAUC", "probs", max_class=2, grouping="grouping_key"),
    "xauc": MetricFacts("XAUC", "y"),
    "grouped_xauc": MetricFacts("GroupedXAUC", "y", grouping="grouping_key"),
    "normalized_entropy": MetricFacts("NormalizedEntropy", "probs", max_class=2),
}

TRAIN_METRICS: Mapping[str, MetricFacts] = {
    name: METRICS[name]
    for name in (
        "auc",
        "recall_at_k",
        "hitrate_at_k",
        "ndcg_at_k",
        "mrr",
        "mean_absolute_error",
        "mean_squared_error",
        "accuracy",
        "xauc",
    )
}

SPARSE_OPTIMIZERS = (
    "sgd_optimizer",
    "adagrad_optimizer",
    "adam_optimizer",
    "lars_sgd_optimizer",
    "lamb_optimizer",
    "partial_rowwise_lamb_optimizer",
    "partial_rowwise_adam_optimizer",
    "rowwise_adagrad_optimizer",
    "adadelta_optimizer",
    "rmsprop_optimizer",
)
DENSE_OPTIMIZERS = (
    "sgd_optimizer",
    "adagrad_optimizer",
    "adam_optimizer",
    "adamw_optimizer",
    "adadelta_optimizer",
    "rmsprop_optimizer",
)

MIXED_PRECISIONS = ("BF16", "FP16")
CLIPPING_TYPES = ("none", "norm", "value")
TENSORBOARD_SUMMARIES = (
    "loss",
    "learning_rate",
    "parameter",
    "global_gradient_norm",
    "gradient_norm",
    "gradient",
)

# Names that an `activation` may have beside "" and "Dice": the activations of torch.nn.
ACTIVATIONS = (
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
)


def class_range(bounds: tuple[int | None, int | None]) -> str:
    """Returns bounds in words: "1", "at least 2"."""
    least, most = bounds
    if least == most:
        return str(least)
    if most is None:
        return f"at least {least}"
    return f"{least or 1} to {most}"


# Messages of two-tower models.
MATCH_MODELS = ("DSSM", "DSSMV2", "DAT", "MIND", "SequenceTwoTower")

# The only loss of a two-tower model.
MATCH_LOSS = "softmax_cross_entropy"

_RANKED = {"recall_at_k": "recall", "hitrate_at_k": "hitrate", "ndcg_at_k": "ndcg", "mrr": "mrr"}


def metric_name(name: str, top_k: int = 0) -> str:
    """Returns the name under which a metric is reported, ``recall@5``.

    Args:
        name: its name in the config, ``recall_at_k``.
        top_k: its k, 0 if it has none; only metrics of ranks carry it in their name.
    """
    if name not in _RANKED:
        return name
    return f"{_RANKED[name]}@{top_k}" if top_k else _RANKED[name]


def eval_metric_names(losses: Iterable[str], metrics: Iterable[tuple[str, int]]) -> list[str]:
    """Returns the names in ``train_eval_result_v2.txt`` of a single-task model.

    Args:
        losses: loss names; their running means are metrics too.
        metrics: metric name and its top_k (only used by metrics of ranks).
    """
    return [*(metric_name(name, k) for name, k in metrics), *losses]
