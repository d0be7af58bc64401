"""Tables of results: every seed, mean and deviation, and what was published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from runs import DataSet

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]


def number(value: float) -> str:
    """Returns an AUC as papers write it: five decimals, no leading zero."""
    return f"{value:.5f}".removeprefix("0")


def mean_and_deviation(values: Sequence[float]) -> str:
    """Returns ``mean ± sd`` (sd of the sample), the value alone where there is only one."""
    mean = number(statistics.fmean(values))
    return f"{mean} ± {number(statistics.stdev(values))}" if len(values) > 1 else mean


def test_table(dataset: DataSet, results: Results) -> str:
    """Returns the table of the test part, in Markdown; models without a run are left out.

    Args:
        dataset: its models give the order of the rows.
        results: model → seed → what `runs.run` returned.
    """
    several = len(dataset.metrics) > 1
    header = ["model", *(["metric"] if several else []), "seeds", "mean ± sd", "published"]
    rows = [header, ["---"] * len(header)]
    for name, model in dataset.models.items():
        by_seed = results.get(name, {})
        for metric, title in dataset.metrics.items() if by_seed else ():
            values = [result["test"][metric] for _, result in sorted(by_seed.items())]
            seeds = " ".join(number(value) for value in values)
            row = [model.title, *([title] if several else []), seeds, mean_and_deviation(values)]
            rows.append([*row, model.published.get(metric, "")])
    return _markdown(rows)


def trial_table(dataset: DataSet, trials: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns the table of trials on the valid part, the best first.

    Args:
        dataset: gives the metrics.
        trials: settings as text → results of the seeds.
    """
    metrics = dataset.metrics
    ordered = sorted(
        trials.items(),
        key=lambda item: -statistics.fmean(r["valid"][dataset.select] for r in item[1]),
    )
    rows = [["settings", *(f"valid {title}" for title in metrics.values()), "evaluations"]]
    rows.append(["---"] * len(rows[0]))
    for text, results in ordered:
        columns = [mean_and_deviation([r["valid"][metric] for r in results]) for metric in metrics]
        rows.append([text, *columns, " ".join(str(r["evaluations"]) for r in results)])
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
