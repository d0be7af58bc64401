"""What counted scores say: ROC, calibration, distributions, errors."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tzrec.training.report.bins import LOGIT_LIMIT, NUM_BINS, Floats, NumberScores, ScoreBins

_Z = 1.959964  # of a 95 % interval
_TAIL = 0.001  # of the rows that a picture of a distribution leaves out at either end
_BARS = 40
_ROC_POINTS = 250


@dataclasses.dataclass(frozen=True)
class Curve:
    """Points of a line.

    Attributes:
        x: (N,).
        y: (N,).
    """

    x: Floats
    y: Floats


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Groups of rows with similar scores, as many rows in each as possible.

    Attributes:
        rows: (G,) rows of each group.
        score: (G,) mean score.
        rate: (G,) mean label.
        low: (G,) lower end of the 95 % interval of the rate (Wilson).
        high: (G,) its upper end.
    """

    rows: Floats
    score: Floats
    rate: Floats
    low: Floats
    high: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of score and rate, weighted by rows."""
        return float((self.rows * np.abs(self.score - self.rate)).sum() / self.rows.sum())


@dataclasses.dataclass(frozen=True)
class Bars:
    """Shares of rows in intervals.

    Attributes:
        edges: (N + 1,) of the intervals.
        shares: name of a part of the rows → (N,) share of that part in each interval.
    """

    edges: Floats
    shares: dict[str, Floats]


def roc(bins: ScoreBins) -> Curve:
    """Returns the ROC curve: share of negative rows → share of positive rows above a score.

    Both shares start at 0 and end at 1; NaN where one of the classes is empty.
    """
    with np.errstate(invalid="ignore"):
        x, y = (
            np.concatenate([[0.0], rows[::-1].cumsum() / rows.sum()])
            for rows in (bins.negative, bins.positive)
        )
    return Curve(x, y)


def thinned(curve: Curve, most: int = _ROC_POINTS) -> Curve:
    """Returns about ``most`` points of a rising curve, evenly along it."""
    if len(curve.x) <= most:
        return curve
    along = curve.x + curve.y
    at = np.searchsorted(along, np.linspace(along[0], along[-1], most)).clip(max=len(along) - 1)
    kept = np.unique(np.concatenate([[0], at, [len(along) - 1]]))
    return Curve(curve.x[kept], curve.y[kept])


def auc(bins: ScoreBins) -> tuple[float, float]:
    """Returns the area under the ROC curve and half its 95 % interval (DeLong et al., 1988).

    Rows of a bin are ties. NaN where a class has too few rows.
    """
    negative, positive = bins.negative, bins.positive
    with np.errstate(invalid="ignore", divide="ignore"):
        beaten = (negative.cumsum() - 0.5 * negative) / negative.sum()
        lost = (positive[::-1].cumsum()[::-1] - 0.5 * positive) / positive.sum()
        area = float((beaten * positive).sum() / positive.sum())
        variance = _mean_variance(beaten, positive) + _mean_variance(lost, negative)
    return area, _Z * math.sqrt(variance) if variance >= 0 else math.nan


def _mean_variance(values: Floats, counts: Floats) -> float:
    total = counts.sum()
    mean = (values * counts).sum() / total
    return float(((values - mean) ** 2 * counts).sum() / (total - 1) / total)


def calibration(bins: ScoreBins, groups: int = 15) -> Calibration:
    """Returns mean score and mean label of groups of about equally many rows, by score."""
    middle = bins.rows.cumsum() - 0.5 * bins.rows
    group = np.minimum((middle / bins.rows.sum() * groups).astype(int), groups - 1)
    _, group = np.unique(group, return_inverse=True)
    rows, scores, labels = (
        np.bincount(group, values).astype(np.float64)
        for values in (bins.rows, bins.scores, bins.labels)
    )
    rate = labels / rows
    low, high = _wilson(rate, rows)
    return Calibration(rows, scores / rows, rate, low, high)


def _wilson(rate: Floats, rows: Floats) -> tuple[Floats, Floats]:
    shrink = 1 + _Z**2 / rows
    middle = (rate + _Z**2 / (2 * rows)) / shrink
    half = _Z / shrink * np.sqrt(rate * (1 - rate) / rows + (_Z / (2 * rows)) ** 2)
    return (middle - half).clip(0, 1), (middle + half).clip(0, 1)


def score_bars(bins: ScoreBins, names: tuple[str, str] = ("label 0", "label 1")) -> Bars:
    """Returns how the scores of either label are distributed, without 0.1 % at either end.

    Args:
        bins: the rows.
        names: of the labels.
    """
    step = 2 * LOGIT_LIMIT / NUM_BINS
    inner = bins.score.clip(1e-12, 1 - 1e-12)
    index = np.floor((np.log(inner / (1 - inner)) + LOGIT_LIMIT) / step).clip(0, NUM_BINS - 1)
    lower = 1 / (1 + np.exp(LOGIT_LIMIT - index * step))
    upper = 1 / (1 + np.exp(LOGIT_LIMIT - (index + 1) * step))
    share = bins.rows.cumsum() / bins.rows.sum()
    low = lower[np.searchsorted(share, _TAIL)]
    high = upper[np.searchsorted(share, 1 - _TAIL)]
    edges = np.linspace(low, high, _BARS + 1)
    # Rows lie evenly within their bin, so that bars may be narrower than bins.
    marks = np.stack([lower, upper], 1).ravel()
    shares = {}
    for name, rows in zip(names, (bins.negative, bins.positive), strict=True):
        if rows.sum():
            below = np.stack([rows.cumsum() - rows, rows.cumsum()], 1).ravel() / rows.sum()
            shares[name] = np.diff(np.interp(edges, marks, below))
    return Bars(edges, shares)


def binary_facts(bins: ScoreBins) -> dict[str, float]:
    """Returns the numbers that go with the pictures of a yes-or-no question."""
    area, half = auc(bins)
    rows, scores, labels = (float(v.sum()) for v in (bins.rows, bins.scores, bins.labels))
    return {
        "rows": bins.num_rows,
        "positive rows": round(float(bins.positive.sum())),
        "mean label": labels / rows,
        "mean score": scores / rows,
        "score / label": scores / labels if labels else math.nan,
        "calibration error": calibration(bins).error,
        "AUC": area,
        "AUC ±": half,
    }


def number_facts(scores: NumberScores) -> dict[str, float]:
    """Returns mean errors, and how predictions and labels go together."""
    n, sums = scores.num_rows, scores.sums
    squared = sums["yy"] - 2 * sums["yl"] + sums["ll"]
    spread_y = sums["yy"] - sums["y"] ** 2 / n
    spread_l = sums["ll"] - sums["l"] ** 2 / n
    together = sums["yl"] - sums["y"] * sums["l"] / n
    known = spread_y > 0 and spread_l > 0
    return {
        "rows": n,
        "mean label": sums["l"] / n,
        "mean prediction": sums["y"] / n,
        "mean absolute error": sums["|e|"] / n,
        "root mean squared error": math.sqrt(max(squared, 0.0) / n),
        "R²": 1 - squared / spread_l if spread_l > 0 else math.nan,
        "correlation": together / math.sqrt(spread_y * spread_l) if known else math.nan,
    }


def number_curve(scores: NumberScores, groups: int = 15) -> Curve:
    """Returns mean prediction → mean label of groups of about equally many sampled rows."""
    order = np.argsort(scores.predicted, kind="stable")
    parts = [part for part in np.array_split(order, groups) if len(part)]
    x = np.array([scores.predicted[part].mean() for part in parts])
    return Curve(x, np.array([scores.actual[part].mean() for part in parts]))


def number_range(values: Floats) -> tuple[float, float]:
    """Returns where values lie but 0.1 % at either end; never empty."""
    low, high = (float(value) for value in np.quantile(values, (_TAIL, 1 - _TAIL)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def number_bars(scores: NumberScores) -> Bars:
    """Returns how the sampled predictions and labels are distributed."""
    edges = np.linspace(*number_range(np.concatenate([scores.predicted, scores.actual])), _BARS + 1)
    shares = {
        name: np.histogram(values, edges)[0] / len(values)
        for name, values in (("label", scores.actual), ("prediction", scores.predicted))
    }
    return Bars(edges, shares)


def number_cells(scores: NumberScores, cells: int = 40) -> tuple[Floats, Floats, Floats]:
    """Returns sampled rows (cells, cells) by label and prediction, and the edges of both."""
    x_range, y_range = number_range(scores.predicted), number_range(scores.actual)
    counts, x_edges, y_edges = np.histogram2d(
        scores.predicted, scores.actual, bins=cells, range=(x_range, y_range)
    )
    return counts.T, x_edges, y_edges
