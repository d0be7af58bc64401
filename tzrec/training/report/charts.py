"""The charts of the report: curves of training, ROC, calibration, distributions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tzrec.training.report.bins import BinaryScores, Floats, NumberScores
from tzrec.training.report.history import History
from tzrec.training.report.statistics import (
    Bars,
    auc,
    calibration,
    number_bars,
    number_cells,
    number_curve,
    number_range,
    roc,
    score_bars,
    thinned,
)
from tzrec.training.report.svg import Frame, Line, Range, number
from tzrec.training.report.tasks import Task, larger_is_better, split_name

_SQUARE = (340, 310)
_MOST_POINTS = 300
_MARGIN = 0.05


@dataclasses.dataclass(frozen=True)
class Chart:
    """A picture with its words.

    Attributes:
        title: above it.
        svg: the picture.
        legend: names and colours of its lines, with their style.
        note: below it.
    """

    title: str
    svg: str
    legend: tuple[tuple[str, int, str], ...] = ()
    note: str = ""


def curve_charts(history: History, tasks: Sequence[Task]) -> list[Chart]:
    """Returns a chart for each loss and metric, with the tasks as its lines; losses first."""
    lines: dict[str, list[Line]] = {}
    colours = {name: index for index, name in enumerate(dict.fromkeys(t.name for t in tasks))}
    for field in ("losses", "metrics"):
        for name, (x, y) in _series(history.train, field).items():
            base, task = split_name(name, tasks)
            said = f"train{_of(task)}"
            lines.setdefault(base, []).extend(_train_lines(said, x, y, colours.get(task, 0)))
    for name, (x, y) in _series(history.evaluations, "metrics").items():
        base, task = split_name(name, tasks)
        half = [point["half_widths"].get(name, 0.0) for point in history.evaluations]
        colour = colours.get(task, 0)
        line = Line(f"evaluation{_of(task)}", x, y, colour, dots=len(x) <= _MOST_POINTS)
        if any(half) and len(half) == len(y):
            low = [value - width for value, width in zip(y, half, strict=True)]
            high = [value + width for value, width in zip(y, half, strict=True)]
            line = dataclasses.replace(line, low=low, high=high)
        lines.setdefault(base, []).append(line)
    return [_curve_chart(name, of_name) for name, of_name in lines.items()]


def rate_chart(history: History) -> Chart | None:
    """Returns the learning rates over the steps."""
    points = [point for point in history.train if point["lr"]]
    if not points:
        return None
    # A resumed run may have other groups.
    groups = range(min(len(point["lr"]) for point in points))
    every = -(-len(points) // _MOST_POINTS)
    points = [*points[:-1:every], points[-1]]
    x = [point["step"] for point in points]
    lines = [Line(f"lr_g{g}", x, [p["lr"][g] for p in points], colour=g) for g in groups]
    return _line_chart("learning rate", lines, (0.0, max(max(line.y) for line in lines) * 1.05))


def _series(points: Sequence[Any], field: str) -> dict[str, tuple[list[float], list[float]]]:
    """Returns name → (steps, values) of a field of points."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for point in points:
        for name, value in point[field].items():
            x, y = series.setdefault(name, ([], []))
            x.append(point["step"])
            y.append(value)
    return series


def _of(task: str) -> str:
    return f" {task}" if task else ""


def _train_lines(name: str, x: list[float], y: list[float], colour: int) -> list[Line]:
    """Returns a line of at most a few hundred points: means of neighbours."""
    if len(x) > _MOST_POINTS:
        parts = np.array_split(np.arange(len(x)), _MOST_POINTS)
        x = [x[part[-1]] for part in parts]
        y = [float(np.mean([y[index] for index in part])) for part in parts]
    return [Line(name, x, y, colour, style="thin")]


def _curve_chart(name: str, lines: list[Line]) -> Chart:
    trained = _finite(line for line in lines if line.style == "thin")
    evaluated = _finite(line for line in lines if line.style != "thin")
    values = np.concatenate([trained, evaluated])
    if not len(values):
        return _line_chart(name, lines, (0.0, 1.0))
    low, high = float(values.min()), float(values.max())
    note = ""
    # A few steps, mostly the first, are far off; beside them the others would be a flat line.
    if len(trained) and larger_is_better(name):
        cut = min([np.quantile(trained, 0.02), *evaluated])
        if high - cut < 0.4 * (high - low):
            low, note = float(cut), "Lower values of some steps lie outside."
    elif len(trained):
        cut = max([np.quantile(trained, 0.98), *evaluated])
        if cut - low < 0.4 * (high - low):
            high, note = float(cut), "Higher values of some steps lie outside."
    margin = _MARGIN * (high - low)
    return _line_chart(name, lines, (low - margin, high + margin), note)


def _finite(lines: Iterable[Line]) -> Floats:
    """Returns all values of lines and the ends of their intervals."""
    values = (value for line in lines for value in (*line.y, *line.low, *line.high))
    return np.array([value for value in values if math.isfinite(value)])


def _line_chart(name: str, lines: list[Line], y: Range, note: str = "") -> Chart:
    steps = [step for line in lines for step in line.x]
    frame = Frame((min(steps), max(steps)), y, labels=("step", name))
    for line in lines:
        frame.line(line)
    legend = tuple((line.name, line.colour, line.style) for line in lines)
    return Chart(name, frame.svg(f"{name} by step"), legend, note)


def roc_chart(questions: Sequence[BinaryScores], about: str) -> Chart:
    """Returns the ROC curves of questions."""
    frame = Frame(
        (0, 1), (0, 1), labels=("false positive rate", "true positive rate"), size=_SQUARE
    )
    frame.line(Line("", (0, 1), (0, 1), style="diagonal"))
    legend = []
    for index, question in enumerate(questions):
        area, half = auc(question.bins)
        curve = thinned(roc(question.bins))
        frame.line(Line(question.question, curve.x.tolist(), curve.y.tolist(), index))
        name = f"{question.question} " if question.question else ""
        interval = f" ± {number(half)}" if math.isfinite(half) else ""
        legend.append((f"{name}AUC {number(area)}{interval}", index, "line"))
    note = "The metric auc has fewer thresholds and may differ in its last digits."
    return Chart("ROC", frame.svg(f"ROC curve {about}".strip()), tuple(legend), note)


def calibration_chart(questions: Sequence[BinaryScores], about: str) -> Chart:
    """Returns mean label by mean score of groups of rows, with 95 % intervals."""
    groups = [calibration(question.bins) for question in questions]
    top = max(float(max(group.score.max(), group.high.max())) for group in groups) * 1.03
    frame = Frame((0, top), (0, top), labels=("mean score", "mean label"), size=_SQUARE)
    frame.line(Line("", (0, top), (0, top), style="diagonal"))
    legend = []
    for index, (question, group) in enumerate(zip(questions, groups, strict=True)):
        x, y = group.score.tolist(), group.rate.tolist()
        low, high = group.low.tolist(), group.high.tolist()
        frame.line(Line(question.question, x, y, index, dots=True, low=low, high=high))
        if question.question:
            legend.append((question.question, index, "line"))
    svg = frame.svg(f"calibration {about}".strip())
    note = "Groups of equally many rows; on the diagonal scores are probabilities."
    return Chart("Calibration", svg, tuple(legend), note)


def score_chart(question: BinaryScores, about: str) -> Chart:
    """Returns how the scores of either label are distributed."""
    if not question.question:
        return _bars_chart(
            "Scores by label",
            score_bars(question.bins),
            "score",
            f"scores by label {about}".strip(),
        )
    bars = score_bars(question.bins, (f"not {question.question}", question.question))
    title = f"Scores: {question.question}"
    return _bars_chart(title, bars, "score", f"{title} {about}".strip())


def _bars_chart(title: str, bars: Bars, label: str, about: str) -> Chart:
    edges = bars.edges.tolist()
    top = max(float(shares.max()) for shares in bars.shares.values()) * 1.05
    labels = (label, "share of rows")
    frame = Frame((edges[0], edges[-1]), (0, top), labels=labels, size=_SQUARE)
    for index, (name, shares) in enumerate(bars.shares.items()):
        for low, high, share in zip(edges, edges[1:], shares.tolist(), strict=False):
            told = f"{name}: {100 * share:.2f}% from {number(low)} to {number(high)}"
            frame.rectangle((low, high), (0, share), f"bar c{index}", told)
    legend = tuple((name, index, "bar") for index, name in enumerate(bars.shares))
    return Chart(title, frame.svg(about), legend)


def confusion_chart(confusion: Floats, about: str) -> Chart:
    """Returns the rows by true and most probable class."""
    count = len(confusion)
    frame = Frame((0, count), (0, count), labels=("predicted class", "class"), size=_SQUARE)
    shares = confusion / confusion.sum(1, keepdims=True).clip(min=1)
    for true in range(count):
        for predicted in range(count):
            share = float(shares[true, predicted])
            rows = number(float(confusion[true, predicted]))
            told = f"class {true} predicted as {predicted}: {rows} rows, {100 * share:.1f}%"
            at = (predicted, predicted + 1), (count - true - 1, count - true)
            frame.rectangle(*at, "cell", told, f"fill-opacity:{share:.3f}")
            if count <= 6:
                frame.text(predicted + 0.5, count - true - 0.5, f"{100 * share:.0f}%")
    every = max(1, count // 10)
    names = [(index + 0.5, str(index)) for index in range(0, count, every)]
    turned = [(count - at, name) for at, name in names]
    svg = frame.svg(f"confusion {about}".strip(), x_ticks=names, y_ticks=turned)
    return Chart("Classes", svg, note="Each row of cells adds up to 100 %.")


def number_charts(scores: NumberScores, about: str) -> list[Chart]:
    """Returns predicted against actual numbers, and how both are distributed."""
    cells, x, y = number_cells(scores)
    low, high = number_range(np.concatenate([scores.predicted, scores.actual]))
    both = (float(low), float(high))
    frame = Frame(both, both, labels=("prediction", "label"), size=_SQUARE)
    most = math.log1p(float(cells.max()))
    for row, column in np.argwhere(cells > 0).tolist():
        share = math.log1p(float(cells[row, column])) / most
        at = (float(x[column]), float(x[column + 1])), (float(y[row]), float(y[row + 1]))
        told = f"{number(float(cells[row, column]))} rows"
        frame.rectangle(*at, "cell", told, f"fill-opacity:{0.1 + 0.9 * share:.2f}")
    frame.line(Line("", both, both, style="diagonal"))
    mean = number_curve(scores)
    frame.line(Line("mean label", mean.x.tolist(), mean.y.tolist(), 1, dots=True))
    sampled = len(scores.predicted)
    note = "" if sampled == scores.num_rows else f"A random sample of {sampled:,} rows."
    svg = frame.svg(f"predicted and actual {about}".strip())
    return [
        Chart("Predicted and actual", svg, (("mean label", 1, "line"),), note),
        _bars_chart("Distribution", number_bars(scores), "value", f"distribution {about}".strip()),
    ]
