"""`ScoreCollector`: counts what a model predicts, batch by batch, while it is evaluated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tzrec.batch import Batch
from tzrec.training.peers import num_ranks
from tzrec.training.report.bins import (
    FIELDS,
    LOGIT_LIMIT,
    NUM_BINS,
    NUMBER_SUMS,
    BinaryScores,
    ClassScores,
    NumberScores,
    ScoreBins,
    Scores,
    TaskScores,
)
from tzrec.training.report.tasks import Task

logger = logging.getLogger("tzrec")

# Classes that are asked one by one; and those of which a table of confusions can be read.
MOST_QUESTIONS = 10
MOST_CONFUSIONS = 30
SAMPLE = 20_000


class _Counter(Protocol):
    """Counts the rows of one kind of prediction."""

    def add(self, predicted: Tensor, label: Tensor) -> None: ...

    def state(self) -> Any: ...

    def result(self, states: Sequence[Any]) -> Scores: ...


class ScoreCollector:
    """Counts the predictions of every task of a model during an evaluation.

    What goes wrong here ends the counting with a warning, never the evaluation.

    Args:
        tasks: of the model.

    Attributes:
        results: of the last whole evaluation, over all ranks; [] before.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._counters: dict[tuple[int, str], _Counter] = {}
        self._broken = False
        self.results: list[TaskScores] = []

    def start(self) -> None:
        """Forgets the rows of an evaluation that did not end."""
        self._counters = {}

    def add(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Counts a batch."""
        if self._broken:
            return
        try:
            for index, task in enumerate(self._tasks):
                for kind in task.kinds:
                    self._add(index, kind, predictions, batch)
        except Exception as error:
            self._give_up(error)

    def finish(self) -> None:
        """Joins the rows of all ranks; every rank calls it and waits."""
        own = {key: counter.state() for key, counter in self._counters.items()}
        of_ranks: list[Any] = [None if self._broken else own]
        if num_ranks() > 1:
            of_ranks = [None] * num_ranks()
            dist.all_gather_object(of_ranks, None if self._broken else own)
        try:
            self.results = [] if None in of_ranks else self._results(of_ranks)
        except Exception as error:
            self._give_up(error)
        self._counters = {}

    def _add(self, index: int, kind: str, predictions: dict[str, Tensor], batch: Batch) -> None:
        task = self._tasks[index]
        binary = kind == "binary" or (kind == "multiclass" and task.num_class == 2)
        name = "probs1" if binary and kind != "binary" else "probs"
        if kind == "regression":
            name = "y"
        predicted, label = _prediction(name, task, predictions, batch), batch.labels.get(task.label)
        if predicted is None or label is None:
            return
        if task.only_with:
            label = label * (batch.labels[task.only_with] > 0)
        if task.among:
            asked = batch.labels[task.among] > 0
            predicted, label = predicted[asked], label[asked]
        key = (index, "binary" if binary else kind)
        if key not in self._counters:
            self._counters[key] = _counter(key[1], task.num_class, predicted.device)
        self._counters[key].add(predicted.detach().float(), label)

    def _results(self, of_ranks: list[dict[tuple[int, str], Any]]) -> list[TaskScores]:
        results = []
        # A rank may have had no rows.
        for key in sorted({key for states in of_ranks for key in states}):
            task = self._tasks[key[0]]
            counter = self._counters.get(key)
            counter = counter or _counter(key[1], task.num_class, torch.device("cpu"))
            states = [states[key] for states in of_ranks if key in states]
            results.append(TaskScores(task.name, task.label, counter.result(states)))
        return results

    def _give_up(self, error: Exception) -> None:
        self._broken, self.results = True, []
        logger.warning("the report will have no scores: %s: %s", type(error).__name__, error)


def _prediction(
    name: str, task: Task, predictions: dict[str, Tensor], batch: Batch
) -> Tensor | None:
    """Returns a task's prediction of each row; of several domains that of the row's own."""
    key = f"{name}{task.suffix}"
    if key in predictions or not task.domain:
        return predictions.get(key)
    of_domains: list[Tensor] = []
    while f"{key}_{len(of_domains)}" in predictions:
        of_domains.append(predictions[f"{key}_{len(of_domains)}"])
    if not of_domains:
        return None
    domain = batch.labels[task.domain].long()
    rows = torch.arange(domain.size(0), device=domain.device)
    return torch.stack(of_domains, 1)[rows, domain]


def _bins_of(scores: Tensor) -> Tensor:
    """Returns the bin of each score (int64), of its shape."""
    logits = torch.logit(scores.nan_to_num(0.0).clamp(0.0, 1.0))
    scale = NUM_BINS / (2 * LOGIT_LIMIT)
    return (
        ((logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) + LOGIT_LIMIT) * scale)
        .long()
        .clamp_(max=NUM_BINS - 1)
    )


def _counter(kind: str, num_class: int, device: torch.device) -> _Counter:
    if kind == "binary":
        return _Binary(device)
    return _Numbers(device) if kind == "regression" else _Classes(num_class, device)


class _Binary:
    """Counts scores (B,) or (B, Q) of as many yes-or-no questions."""

    def __init__(self, device: torch.device, questions: int = 1) -> None:
        shape = (questions, len(FIELDS), NUM_BINS)
        self._sums = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, predicted: Tensor, label: Tensor) -> None:
        scores = predicted.double()
        labels = label.double()
        first = (label > 0.5).long() * NUM_BINS
        bins = _bins_of(predicted)
        if predicted.dim() == 2:
            bins = (
                bins + torch.arange(predicted.size(1), device=bins.device) * self._sums[0].numel()
            )
        where = torch.stack([bins + first, bins + 2 * NUM_BINS, bins + 3 * NUM_BINS])
        what = torch.stack([torch.ones_like(scores), scores.nan_to_num(0.0), labels])
        self._sums.view(-1).scatter_add_(0, where.view(-1), what.view(-1))

    def state(self) -> Any:
        return self._sums.cpu().numpy()

    def result(self, states: Sequence[Any]) -> BinaryScores:
        return BinaryScores("", ScoreBins.of_sums(np.sum(states, axis=0)[0]))

    def questions(self, states: Sequence[Any], names: Sequence[str]) -> tuple[BinaryScores, ...]:
        sums = np.sum(states, axis=0)
        return tuple(
            BinaryScores(name, ScoreBins.of_sums(one))
            for name, one in zip(names, sums, strict=True)
        )


class _Classes:
    """Counts probabilities (B, C) and class ids (B,)."""

    def __init__(self, num_class: int, device: torch.device) -> None:
        self._num_class = num_class
        self._asks_each = num_class <= MOST_QUESTIONS
        self._binary = _Binary(device, num_class if self._asks_each else 1)
        shape = num_class if num_class <= MOST_CONFUSIONS else 0
        self._confusion = torch.zeros(shape * shape, dtype=torch.float64, device=device)

    def add(self, predicted: Tensor, label: Tensor) -> None:
        label = label.long()
        confidence, likely = predicted.max(1)
        if self._asks_each:
            classes = torch.arange(self._num_class, device=label.device)
            self._binary.add(predicted, label.unsqueeze(1) == classes)
        else:
            self._binary.add(confidence, likely == label)
        if self._confusion.numel():
            cells = label * self._num_class + likely
            ones = torch.ones_like(cells, dtype=torch.float64)
            self._confusion.scatter_add_(0, cells, ones)

    def state(self) -> Any:
        return self._binary.state(), self._confusion.cpu().numpy()

    def result(self, states: Sequence[Any]) -> ClassScores:
        names = ["most probable class right"]
        if self._asks_each:
            names = [f"class {index}" for index in range(self._num_class)]
        confusion = np.sum([state[1] for state in states], axis=0)
        shape = (self._num_class, self._num_class)
        return ClassScores(
            self._binary.questions([state[0] for state in states], names),
            confusion.reshape(shape) if confusion.size else None,
        )


class _Numbers:
    """Sums numbers (B,) and labels (B,), and keeps a random sample of the rows.

    Each row draws a key, and the rows with the smallest keys stay: a fair sample of all ranks.
    """

    def __init__(self, device: torch.device) -> None:
        rank = dist.get_rank() if dist.is_initialized() else 0
        self._generator = torch.Generator(device).manual_seed(rank)
        self._sums = torch.zeros(len(NUMBER_SUMS), dtype=torch.float64, device=device)
        self._rows = 0
        self._kept: list[Tensor] = []
        self._num_kept = 0

    def add(self, predicted: Tensor, label: Tensor) -> None:
        y, actual = predicted.double(), label.double()
        sums = (y, actual, y * y, actual * actual, y * actual, (y - actual).abs())
        self._sums += torch.stack(sums).sum(1)
        keys = torch.rand(y.shape, generator=self._generator, device=y.device, dtype=torch.float64)
        self._kept.append(torch.stack([keys, y, actual]))
        self._rows += y.numel()
        self._num_kept += y.numel()
        if self._num_kept > 2 * SAMPLE:
            self._kept = [_smallest(torch.cat(self._kept, 1))]
            self._num_kept = SAMPLE

    def state(self) -> Any:
        kept = _smallest(torch.cat(self._kept, 1)).cpu().numpy()
        return self._rows, self._sums.cpu().numpy(), kept

    def result(self, states: Sequence[Any]) -> NumberScores:
        kept = _smallest(torch.from_numpy(np.concatenate([state[2] for state in states], 1)))
        _, predicted, actual = kept.numpy()
        totals = np.sum([state[1] for state in states], axis=0)
        sums = dict(zip(NUMBER_SUMS, totals.tolist(), strict=True))
        return NumberScores(predicted, actual, sum(state[0] for state in states), sums)


def _smallest(rows: Tensor) -> Tensor:
    """Returns the columns of (3, N) with the smallest values in the first row."""
    if rows.size(1) <= SAMPLE:
        return rows
    return rows[:, rows[0].topk(SAMPLE, largest=False).indices]
