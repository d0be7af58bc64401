"""The page: what a report knows, and how it is laid out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from tzrec.training.report import charts, html
from tzrec.training.report.bins import BinaryScores, ClassScores, NumberScores, TaskScores
from tzrec.training.report.history import History
from tzrec.training.report.statistics import binary_facts, number_facts
from tzrec.training.report.svg import number
from tzrec.training.report.tasks import Task, larger_is_better, split_name


@dataclasses.dataclass(frozen=True)
class FeatureRow:
    """A feature in the table.

    Attributes:
        name: of the feature.
        kind: its message and nature.
        groups: the feature groups that it is in.
        width: of its embedding or values.
        table: name of its table, "" = none.
        table_rows: rows of the table, 0 = none.
        missing: share of rows without a value, None = not counted.
        unknown: share of values without an id of their own, None = not counted.
    """

    name: str
    kind: str
    groups: tuple[str, ...]
    width: int
    table: str
    table_rows: int
    missing: float | None
    unknown: float | None


@dataclasses.dataclass(frozen=True)
class Page:
    """All that a report shows.

    Attributes:
        title: of the page.
        subtitle: below it.
        history: curves; one evaluation only for ``tzrec eval``.
        tasks: of the model.
        tiles: the most important numbers.
        scores: of the last evaluation.
        evaluated: which evaluation that was, in words.
        features: of the model.
        counted: on which rows missing and unknown values were counted, in words.
        seconds: part of the run → time.
        facts: of the config and the run.
        notes: what was left out or looks wrong.
        commands: what for → command line.
    """

    title: str
    subtitle: str
    history: History
    tasks: Sequence[Task]
    tiles: Mapping[str, str]
    scores: Sequence[TaskScores]
    evaluated: str
    features: Sequence[FeatureRow]
    counted: str
    seconds: Mapping[str, float]
    facts: Mapping[str, str]
    notes: Sequence[str]
    commands: Mapping[str, str]


def render(page: Page) -> str:
    """Returns the page as one HTML text that loads nothing."""
    curves = []
    if page.history.train:
        curves = [*charts.curve_charts(page.history, page.tasks), charts.rate_chart(page.history)]
    header = (
        f"<header><h1>{html.escape(page.title)}</h1>"
        f'<p class="soft">{html.escape(page.subtitle)}</p></header>'
    )
    return html.document(
        page.title,
        [
            header,
            html.tiles(page.tiles),
            html.notes(page.notes),
            html.section("Metrics", metric_table(page.history, page.tasks)),
            html.section("Curves", html.figures(curves)),
            html.section(
                "Scores", f'<p class="soft">{html.escape(page.evaluated)}</p>', *_scores(page)
            )
            if page.scores
            else "",
            html.section("Features", *_features(page)),
            html.section("Time", *_time(page.seconds)),
            html.section("Run", html.table((), list(page.facts.items()), numbers=0)),
            html.section("How to go on", html.commands(page.commands)),
        ],
    )


def metric_table(history: History, tasks: Sequence[Task]) -> str:
    """Returns the metrics of the last evaluation, task by task; of several also the best."""
    if not history.evaluations:
        return ""
    last = history.evaluations[-1]
    several, compared = len(tasks) > 1, len(history.evaluations) > 1
    order = {task.name: index for index, task in enumerate(tasks)}
    rows = []
    for name, value in last["metrics"].items():
        base, task = split_name(name, tasks)
        half = last["half_widths"].get(name)
        cells = [number(value), f"± {number(half)}" if half else ""]
        if compared:
            cells += map(number, _best(history, name, larger_is_better(base)))
        rows.append((order.get(task, len(order)), [*([task] if several else []), base, *cells]))
    rows.sort(key=lambda row: row[0])
    # The step of a checkpoint that was named is not known.
    at = f"at step {number(last['step'])}" if history.train else "value"
    heads = ["metric", at, "95 % interval", *(["best", "best at step"] if compared else [])]
    return html.table(
        [*(["task"] if several else []), *heads],
        [cells for _, cells in rows],
        numbers=len(heads) - 1,
    )


def _best(history: History, name: str, larger: bool) -> tuple[float, int]:
    """Returns the best value of a metric and its step; of equal ones the earliest."""
    found = [
        (point["metrics"][name], point["step"])
        for point in history.evaluations
        if not math.isnan(point["metrics"].get(name, math.nan))
    ]
    if not found:
        return math.nan, history.evaluations[-1]["step"]
    return (max if larger else min)(found, key=lambda pair: pair[0])


def _scores(page: Page) -> Iterator[str]:
    for task in page.scores:
        about = f"of {task.name}" if task.name else ""
        pictures, facts = _pictures(task, about)
        heads = ("", *next(iter(facts.values()))) if facts else ()
        rows = [
            (name or task.label, *(number(value) for value in values.values()))
            for name, values in facts.items()
        ]
        title = f"{task.name}: label {task.label}" if task.name else f"Label {task.label}"
        yield html.section(
            title,
            html.figures(pictures),
            html.table(heads, rows, numbers=len(heads) - 1),
            level=3,
        )


def _pictures(
    task: TaskScores, about: str
) -> tuple[list[charts.Chart], dict[str, dict[str, float]]]:
    """Returns the charts of a task, and the numbers by question."""
    scores = task.scores
    if isinstance(scores, NumberScores):
        return charts.number_charts(scores, about), {"": number_facts(scores)}
    questions = (scores,) if isinstance(scores, BinaryScores) else scores.questions
    shown = [question for question in questions if question.bins.num_rows]
    if not shown:
        return [], {}
    # More lines than that cannot be told apart: the classes with most rows.
    lines = sorted(shown, key=lambda q: -q.bins.positive.sum())[:6]
    lines.sort(key=shown.index)
    pictures = [charts.roc_chart(lines, about), charts.calibration_chart(lines, about)]
    if isinstance(scores, ClassScores) and scores.confusion is not None:
        pictures.append(charts.confusion_chart(scores.confusion, about))
    pictures += [charts.score_chart(question, about) for question in lines]
    return pictures, {question.question: binary_facts(question.bins) for question in shown}


def _features(page: Page) -> Iterator[str]:
    if page.counted:
        yield f'<p class="soft">{html.escape(page.counted)}</p>'
    heads = ("feature", "kind", "groups", "table", "rows", "width", "missing", "unknown")
    counted = any(row.missing is not None for row in page.features)
    left_out = 0 if counted else 2
    rows = [
        (
            row.name,
            row.kind,
            ", ".join(row.groups),
            row.table,
            f"{row.table_rows:,}" if row.table_rows else "",
            str(row.width),
            _percent(row.missing),
            _percent(row.unknown),
        )
        for row in page.features
    ]
    shown = len(heads) - left_out
    yield html.table(heads[:shown], [row[:shown] for row in rows], numbers=4 - left_out)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}%"


def _time(seconds: Mapping[str, float]) -> Iterator[str]:
    whole = sum(seconds.values())
    if whole <= 0:
        return
    yield html.shares({part: value for part, value in seconds.items() if value > 0})
    rows = [
        (part, f"{value:,.1f}", f"{100 * value / whole:.1f}%") for part, value in seconds.items()
    ]
    rows.append(("all", f"{whole:,.1f}", "100.0%"))
    yield html.table(("part", "seconds", "share"), rows, numbers=2)
