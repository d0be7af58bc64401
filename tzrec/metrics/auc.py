"""Area under the ROC curve, binned by thresholds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzrec.errors import ConfigError
from tzrec.metrics.base import BaseMetric, half_width


class AUC(BaseMetric):
    """Binary AUC at evenly spaced thresholds in [0, 1], as torchmetrics' ``BinaryAUROC``.

    Scores between two thresholds are ties; of two tied rows each is right by half. An update is
    one histogram per class, so it costs about nothing and the state does not grow. 0 if one of
    the classes is missing.

    Args:
        thresholds: number of thresholds.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: fewer than 2 thresholds.
    """

    histogram: Tensor
    edges: Tensor

    def __init__(self, thresholds: int = 200, *, local: bool = False) -> None:
        super().__init__(local=local)
        self._add_sum("histogram", 2, check_thresholds(thresholds), dtype=torch.int64)
        # The last is for the kernel, which looks at the edge after each.
        edges = torch.cat([torch.linspace(0, 1, thresholds), torch.tensor([math.inf])])
        self.register_buffer("edges", edges, persistent=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds rows.

        Args:
            preds: (B,) scores in [0, 1].
            target: (B,) labels, positive above 0.5.
        """
        if preds.device.type == "cpu":
            from tzrec.metrics.kernels import count_bins

            labels = target.float() if target.dtype.itemsize < 4 else target
            arrays = (preds.detach().float(), labels, self.edges, self.histogram)
            count_bins(*(array.numpy() for array in arrays))
            return
        bins = threshold_bins(preds, self.edges[:-1])
        bins += (target > 0.5).long() * self.histogram.size(1)
        counts = torch.zeros_like(self.histogram).view(-1)
        self.histogram += counts.scatter_add_(0, bins, torch.ones_like(bins)).view(2, -1)

    def compute(self) -> Tensor:
        """Returns the AUC, a float64 scalar."""
        variance = float(auc_variance(self.histogram))
        self.half_width = half_width(variance) if math.isfinite(variance) else None
        return auc_of_histogram(self.histogram).nan_to_num(0.0)


class MulticlassAUC(BaseMetric):
    """Mean of the AUCs of each class against all others, each binned as `AUC`.

    Classes that no row or every row has are left out; 0 if there is no other.

    Args:
        num_class: C.
        thresholds: number of thresholds.
        average: ``macro`` for the plain mean, ``weighted`` by the rows of each class.
        local: `compute` stays on this rank.

    Raises:
        ConfigError: fewer than 2 thresholds, or an unknown average.
    """

    histogram: Tensor
    edges: Tensor

    def __init__(
        self,
        num_class: int,
        *,
        thresholds: int = 200,
        average: str = "macro",
        local: bool = False,
    ) -> None:
        super().__init__(local=local)
        if average not in ("macro", "weighted"):
            raise ConfigError(
                f"multiclass_auc.average is {average!r}, it must be 'macro' or 'weighted'"
            )
        self._average = average
        self._num_class = num_class
        shape = (2, num_class, check_thresholds(thresholds))
        self._add_sum("histogram", *shape, dtype=torch.int64)
        self.register_buffer("edges", torch.linspace(0, 1, thresholds), persistent=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds rows.

        Args:
            preds: (B, C) scores in [0, 1].
            target: (B,) class ids.
        """
        classes = torch.arange(self._num_class, device=preds.device)
        hit = (target.long().unsqueeze(1) == classes).long()
        bins = threshold_bins(preds, self.edges) + self.edges.numel() * (
            classes + self._num_class * hit
        )
        counts = torch.zeros_like(self.histogram).view(-1)
        counts.scatter_add_(0, bins.view(-1), torch.ones_like(bins).view(-1))
        self.histogram += counts.view_as(self.histogram)

    def compute(self) -> Tensor:
        """Returns the mean, a float64 scalar."""
        aucs = auc_of_histogram(self.histogram)
        weights = torch.ones_like(aucs)
        if self._average == "weighted":
            weights = self.histogram[1].sum(-1).to(aucs.dtype)
        weights = weights.masked_fill(aucs.isnan(), 0.0)
        return ((aucs.nan_to_num(0.0) * weights).sum() / weights.sum()).nan_to_num(0.0)


def check_thresholds(thresholds: int) -> int:
    """Returns ``thresholds``.

    Raises:
        ConfigError: there are fewer than 2.
    """
    if thresholds < 2:
        raise ConfigError(f"auc.thresholds is {thresholds}, it must be at least 2")
    return thresholds


def threshold_bins(scores: Tensor, edges: Tensor) -> Tensor:
    """Returns for each score the index of the last threshold that it reaches (int64), or 0."""
    known = scores.to(edges.dtype).nan_to_num(nan=0.0).contiguous()
    bins = torch.bucketize(known, edges, right=True) - 1
    return bins.clamp_(min=0)


def auc_of_histogram(histogram: Tensor) -> Tensor:
    """Returns the AUC of rows counted by class and score bin.

    The trapezoids under the ROC curve: a positive row beats the negative rows in lower bins, and
    by half those in its own.

    Args:
        histogram: (2, …, T), negative and positive rows per bin, bins ascending.

    Returns:
        (…) float64, NaN where one of the classes is empty.
    """
    negative, positive = histogram.to(torch.float64)
    beaten = negative.cumsum(-1) - 0.5 * negative
    return (positive * beaten).sum(-1) / (positive.sum(-1) * negative.sum(-1))


def auc_variance(histogram: Tensor) -> Tensor:
    """Returns the variance of the AUC as an estimate (DeLong et al., Biometrics 1988).

    ``var(V) / P + var(W) / N``: V is what share of the negative rows each of the P positive rows
    beats, W what share of the positive rows each of the N negative rows loses to.

    Args:
        histogram: (2, T), negative and positive rows per bin, bins ascending.

    Returns:
        float64 scalar, not finite where a class has fewer than two rows.
    """
    negative, positive = histogram.to(torch.float64)
    beaten = (negative.cumsum(-1) - 0.5 * negative) / negative.sum()
    lost = (positive.flip(-1).cumsum(-1).flip(-1) - 0.5 * positive) / positive.sum()
    return _mean_variance(beaten, positive) + _mean_variance(lost, negative)


def _mean_variance(values: Tensor, counts: Tensor) -> Tensor:
    """Returns the variance of the mean of ``values`` (T,), each there ``counts`` (T,) times."""
    total = counts.sum()
    mean = (values * counts).sum() / total
    return ((values - mean).square() * counts).sum() / (total - 1) / total
