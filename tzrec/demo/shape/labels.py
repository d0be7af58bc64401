"""Labels that follow from logits, and the other columns that a config reads of a row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.demo.shape.tasks import CLASSES, NUMBER, Task, Tasks
from tzrec.protos.data_pb2 import DataConfig

Floats = NDArray[np.float64]

# The first row is of 2024-01-01; they come every few seconds.
_START, _SECONDS = 1_704_067_200, 3
_NOISE = 0.5
_MOST_COST = 20


def sigmoid(logits: Floats) -> Floats:
    """Returns probabilities."""
    found: Floats = 1 / (1 + np.exp(-logits))
    return found


class Labels:
    """Draws the labels of rows.

    Args:
        tasks: what is learnt.
        sample: task → logits of some rows, which say where classes lie.
    """

    def __init__(self, tasks: Tasks, sample: Callable[[Task], Floats]) -> None:
        self._tasks = tasks
        self._bounds: dict[str, Floats] = {}
        for task in tasks.tasks:
            if task.kind == CLASSES:
                rng = np.random.default_rng(0)
                found = sample(task)
                noisy = found + rng.logistic(size=len(found))
                shares = np.arange(1, task.classes) / task.classes
                self._bounds[task.label] = np.quantile(noisy, shares)

    def draw(
        self, logits: Callable[[Task], Floats], rng: np.random.Generator
    ) -> tuple[dict[str, pa.Array], dict[str, Floats]]:
        """Returns label columns, and the true probabilities of the binary ones.

        Args:
            logits: of a task's label, (B,).
            rng: decides.
        """
        columns: dict[str, pa.Array] = {}
        probabilities: dict[str, Floats] = {}
        first: tuple[NDArray[np.bool_], Floats] | None = None
        for task in self._tasks.tasks:
            found = logits(task)
            if task.kind == NUMBER:
                columns[task.label] = pa.array(
                    (found + _NOISE * rng.normal(size=len(found))).astype(np.float32)
                )
                continue
            if task.kind == CLASSES:
                noisy = found + rng.logistic(size=len(found))
                columns[task.label] = pa.array(np.searchsorted(self._bounds[task.label], noisy))
                continue
            probability = sigmoid(found)
            label = rng.random(len(found)) < probability
            if first is None:
                first = label, probability
            else:
                label, probability = label & first[0], probability * first[1]
            columns[task.label] = pa.array(label.astype(np.int64))
            probabilities[task.label] = probability
        return columns, probabilities


def other_columns(
    data: DataConfig, num_rows: int, start: int, rng: np.random.Generator
) -> dict[str, pa.Array]:
    """Returns weights, costs and times of rows.

    Args:
        data: says which there are.
        num_rows: B.
        start: rows before these.
        rng: decides.
    """
    columns = {
        name: pa.array(rng.uniform(0.5, 1.5, num_rows).astype(np.float32))
        for name in data.sample_weight_fields
    }
    if data.sample_cost_field:
        columns[data.sample_cost_field] = pa.array(rng.integers(1, _MOST_COST + 1, num_rows))
    if data.event_time_field:
        times = _START + _SECONDS * np.arange(start, start + num_rows)
        columns[data.event_time_field] = pa.array(times)
    return columns
