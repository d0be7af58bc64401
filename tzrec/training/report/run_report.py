"""`RunReport`: what a run notes for its report, and the report; and that of ``tzrec eval``.

A report never fails a run: what goes wrong is told in a warning.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

import tzrec
from tzrec.config.messages import which_field, which_msg
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.location import Location
from tzrec.training.peers import num_ranks
from tzrec.training.report.history import History, write_text
from tzrec.training.report.hook import HistoryHook
from tzrec.training.report.page import FeatureRow, Page, render
from tzrec.training.report.scores import ScoreCollector
from tzrec.training.report.svg import number
from tzrec.training.report.tasks import Task, is_loss, split_name, tasks_of
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

REPORT_FILENAME = "report.html"
_MOST_TILES = 3


@dataclasses.dataclass(frozen=True)
class Ending:
    """What only the end of a run knows.

    Attributes:
        how: "finished", "interrupted", or why it stopped.
        rate: rows a second.
        best: the best checkpoint, "" = unknown.
        go_on: command line that goes on with the run.
        notes: what was left out or looks wrong.
        facts: what the run said at its start.
    """

    how: str
    rate: float
    best: str
    go_on: str
    notes: Sequence[str]
    facts: Mapping[str, str]


class RunReport:
    """The report of a training run: ``model_dir/report.html``.

    Args:
        config: of the run.
        model_dir: the run.
        features: of the config.

    Attributes:
        hook: notes the curves; for the first rank.
        scores: counts predictions in evaluations; for every rank.
    """

    def __init__(self, config: EasyRecConfig, model_dir: Location, features: Sequence[Any]) -> None:
        self._config = config
        self._dir = model_dir
        self._features = features
        self._tasks = tasks_of(config)
        self.hook = HistoryHook(model_dir, config.train_config.log_step_count_steps)
        self.scores = ScoreCollector(self._tasks)

    def write(self, trainer: Trainer, ending: Ending) -> str:
        """Writes the report; rank 0 only.

        Returns:
            Its path, "" if it could not be written.
        """
        return _write(self._dir / REPORT_FILENAME, lambda: self._page(trainer, ending))

    def _page(self, trainer: Trainer, ending: Ending) -> Page:
        history = self.hook.history
        counts = getattr(trainer.loader, "feature_counts", None)
        shares = counts.shares() if counts is not None else []
        step = history.evaluations[-1]["step"] if history.evaluations else 0
        tiles = {
            "rows": f"{self.hook.num_rows():,}",
            "steps": f"{trainer.state.step:,}",
            "rows/s": f"{ending.rate * num_ranks():,.0f}",
        }
        facts = {**ending.facts, **_facts(self._config, trainer.optimizer.learning_rates())}
        if ending.best:
            facts["best checkpoint"] = ending.best
        return Page(
            title=f"{which_msg(self._config.model_config, 'model')}: training report",
            subtitle=f"{self._dir}, {ending.how}",
            history=history,
            tasks=self._tasks,
            tiles=_metric_tiles(history, self._tasks) | tiles,
            scores=self.scores.results,
            evaluated=f"Rows of the evaluation at step {step:,}.",
            features=_feature_rows(self._config, self._features, shares),
            counted=_counted(shares, "training rows that were read since the last start"),
            seconds=self.hook.seconds(trainer),
            facts=facts,
            notes=ending.notes,
            commands=_commands(self._config, self._dir, ending),
        )


class EvalReport:
    """The report of one evaluation.

    Args:
        config: of the model.
        features: of the config.

    Attributes:
        scores: counts predictions; for every rank.
    """

    def __init__(self, config: EasyRecConfig, features: Sequence[Any]) -> None:
        self._config = config
        self._features = features
        self._tasks = tasks_of(config)
        self.scores = ScoreCollector(self._tasks)

    def write(
        self,
        result_path: Location,
        checkpoint: Location,
        step: int,
        metrics: Mapping[str, float],
        half_widths: Mapping[str, float],
    ) -> str:
        """Writes the report; rank 0 only.

        Args:
            result_path: file of the metrics; the report lies beside it.
            checkpoint: what was evaluated.
            step: of the checkpoint.
            metrics: of the evaluation.
            half_widths: half the 95 % intervals of those metrics that know one.

        Returns:
            Its path, "" if it could not be written.
        """
        path = result_path.parent / f"{result_path.name.removesuffix('.txt')}.html"
        history = History(path)
        history.add_evaluation(step, metrics, half_widths)
        written = _write(path, lambda: self._page(history, checkpoint))
        if written:
            logger.info("report: %s", written)
        return written

    def _page(self, history: History, checkpoint: Location) -> Page:
        config = self._config
        return Page(
            title=f"{which_msg(config.model_config, 'model')}: evaluation report",
            subtitle=f"{checkpoint} on {config.eval_input_path}",
            history=history,
            tasks=self._tasks,
            tiles=_metric_tiles(history, self._tasks),
            scores=self.scores.results,
            evaluated=f"Rows of {config.eval_input_path}.",
            features=_feature_rows(config, self._features, ()),
            counted="",
            seconds={},
            facts=_facts(config, ()),
            notes=(),
            commands={},
        )


def _write(path: Location, page: Callable[[], Page]) -> str:
    """Writes a page; returns its path, "" if it could not be written."""
    try:
        write_text(path, render(page()))
    except Exception as error:  # whatever it is, the run is finished
        logger.warning("%s was not written: %s: %s", path, type(error).__name__, error)
        logger.debug("the report failed", exc_info=True)
        return ""
    return str(path)


def _metric_tiles(history: History, tasks: Sequence[Task]) -> dict[str, str]:
    """Returns the first metrics of the last evaluation by task; losses if there is nothing else."""
    if not history.evaluations:
        return {}
    last = history.evaluations[-1]
    metrics = {
        name: value
        for name, value in last["metrics"].items()
        if not is_loss(split_name(name, tasks)[0])
    } or last["metrics"]
    order = {task.name: index for index, task in enumerate(tasks)}
    by_task = sorted(metrics, key=lambda name: order.get(split_name(name, tasks)[1], len(order)))
    shown = [(name, metrics[name]) for name in by_task[:_MOST_TILES]]
    halves = last["half_widths"]
    return {
        name: number(value) + (f" ± {number(halves[name])}" if halves.get(name) else "")
        for name, value in shown
    }


def _feature_rows(
    config: EasyRecConfig, features: Sequence[Any], shares: Sequence[Any]
) -> list[FeatureRow]:
    counted = {share.name: share for share in shares}
    groups = dict(_groups(config))
    rows = []
    for feature in features:
        kind = feature.kind.removesuffix("_feature")
        share = counted.get(feature.name)
        rows.append(
            FeatureRow(
                name=feature.name,
                kind=f"{kind} sequence" if feature.is_sequence else kind,
                groups=groups.get(feature.name, ()),
                width=feature.output_dim,
                table=feature.embedding_name if feature.is_sparse else "",
                table_rows=feature.num_embeddings if feature.is_sparse else 0,
                missing=share.missing if share else None,
                unknown=share.unknown if share and feature.is_sparse else None,
            )
        )
    return rows


def _groups(config: EasyRecConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields feature → the groups that it is in."""
    found: dict[str, list[str]] = {}
    for group in config.model_config.feature_groups:
        nested = [name for part in group.sequence_groups for name in part.feature_names]
        for name in dict.fromkeys([*group.feature_names, *nested]):
            found.setdefault(name, []).append(group.group_name)
    for name, groups in found.items():
        yield name, tuple(groups)


def _counted(shares: Sequence[Any], rows: str) -> str:
    if not shares:
        return (
            "Missing and unknown values are only counted where training generates the features "
            "(data_config.fg_mode)."
        )
    first = f" by the first of {num_ranks()} processes" if num_ranks() > 1 else ""
    return (
        "Missing: share of rows without a value. Unknown: share of values without an id of their "
        f"own, out of vocabulary. Of the {rows}{first}."
    )


def _facts(config: EasyRecConfig, rates: Sequence[float]) -> dict[str, str]:
    train_config = config.train_config
    facts = {
        "training data": config.train_input_path,
        "evaluation data": config.eval_input_path or "none",
        "sparse optimizer": which_field(train_config.sparse_optimizer, "optimizer") or "",
        "dense optimizer": which_field(train_config.dense_optimizer, "optimizer") or "",
    }
    if rates:
        facts["learning rate at the end"] = ", ".join(f"{rate:.5g}" for rate in rates)
    processes = "1 process" if num_ranks() == 1 else f"{num_ranks()} processes"
    machine = f"{platform.node()}, {platform.machine()}, {processes}"
    return facts | {
        "seed": str(train_config.seed),
        "versions": f"tzrec {tzrec.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "machine": machine,
        "written": dt.datetime.now().astimezone().isoformat(" ", "seconds"),
    }


def _commands(pipeline: EasyRecConfig, model_dir: Location, ending: Ending) -> dict[str, str]:
    config = shlex.quote(f"{model_dir}/pipeline.config")
    export = shlex.quote(f"{model_dir}/export")
    which = "best" if ending.best else "latest"
    rows = "" if pipeline.eval_input_path else " --eval-input-path FILES"
    return {
        "Go on training": ending.go_on,
        f"Evaluate the {which} checkpoint": f"tzrec eval {config} --checkpoint {which}{rows}",
        "Export it for serving": f"tzrec export {config} --checkpoint-path {which} "
        f"--export-dir {export}",
        "Measure what each feature is worth": f"tzrec importance {config} --checkpoint {which} "
        f"--out {shlex.quote(f'{model_dir}/importance')}{rows}",
        "Look at the curves while it trains": f"tensorboard --logdir {shlex.quote(str(model_dir))}",
    }
