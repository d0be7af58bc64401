"""`History`: the curves of a run, one JSON line per point in ``model_dir/train_history.jsonl``.

It survives a kill and goes on after a resume: what an earlier run wrote beyond the checkpoint
that a run goes on from is dropped, as its steps are made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tzrec import storage
from tzrec.training.location import Location

HISTORY_FILENAME = "train_history.jsonl"

TRAIN, EVALUATION, TIME = "train", "eval", "time"
_MOST_POINTS = 2000

Record = dict[str, Any]


class History:
    """Points of curves, at most 4000 of training: two neighbours become one when it is more.

    Args:
        path: of the file.

    Attributes:
        train: points with ``step``, ``steps`` (whose mean they are), ``losses``, ``metrics``,
            ``lr``.
        evaluations: points with ``step``, ``metrics``, ``half_widths``, by step.
        times: points with ``step``, and up to there the ``rows`` that all ranks were trained on
            and the ``seconds`` by part of the run; one a save.
        stride: how many times coarser than wanted points are.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        self.train: list[Record] = []
        self.evaluations: list[Record] = []
        self.times: list[Record] = []
        self.stride = 1
        self._pending: list[str] = []
        self._whole = True  # the file must be written anew

    @classmethod
    def read(cls, path: Location, last_step: int) -> History:
        """Returns what a file says up to a step; a line that a kill cut off is passed over."""
        history = cls(path)
        if not storage.exists(path):
            return history
        with storage.open_file(path, "r", encoding="utf-8") as stream:
            lines = stream.read().split("\n")
        for line in lines:
            try:
                record = json.loads(line)
                if record["step"] <= last_step:
                    history._take(record)
            except (ValueError, KeyError, TypeError):
                continue
        return history

    def add_train(
        self,
        step: int,
        *,
        steps: int,
        losses: Mapping[str, float],
        metrics: Mapping[str, float],
        lr: Iterable[float],
    ) -> None:
        """Adds the means over ``steps`` steps that end with ``step``."""
        record = {"step": step, "steps": steps, "losses": losses, "metrics": metrics}
        self._add({"kind": TRAIN, **record, "lr": list(lr)})

    def add_evaluation(
        self, step: int, metrics: Mapping[str, float], half_widths: Mapping[str, float]
    ) -> None:
        """Adds an evaluation; one of the same step is replaced."""
        record = {"step": step, "metrics": dict(metrics), "half_widths": dict(half_widths)}
        self._add({"kind": EVALUATION, **record})

    def add_time(self, step: int, *, rows: int, seconds: Mapping[str, float]) -> None:
        """Notes the rows and the time of the run so far."""
        self._add({"kind": TIME, "step": step, "rows": rows, "seconds": dict(seconds)})

    def evaluation_at(self, step: int) -> Record | None:
        """Returns the evaluation of a step."""
        return next((record for record in self.evaluations if record["step"] == step), None)

    def flush(self) -> None:
        """Writes what is new. Raises what the file system raises."""
        if not self._whole and not self._pending:
            return
        if isinstance(self._path, Path) and not self._whole:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(self._pending))
        else:  # object stores cannot append
            self._write_whole()
        self._pending, self._whole = [], False

    def _add(self, record: Record) -> None:
        self._take(record)
        self._pending.append(json.dumps(record) + "\n")

    def _take(self, record: Record) -> None:
        kind = record["kind"]
        if kind == TRAIN:
            self.train.append(record)
            if len(self.train) >= 2 * _MOST_POINTS:
                self.train = _halved(self.train)
                self.stride *= 2
                self._whole = True
        elif kind == EVALUATION:
            others = [known for known in self.evaluations if known["step"] != record["step"]]
            self.evaluations = sorted([*others, record], key=lambda known: known["step"])
        elif kind == TIME:
            self.times.append(record)

    def _write_whole(self) -> None:
        records = [*self.train, *self.evaluations, *self.times]
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in records))


def _halved(points: list[Record]) -> list[Record]:
    """Returns each two neighbours as one point, an odd one at the end as it is."""
    pairs = zip(points[::2], points[1::2], strict=False)
    rest = points[len(points) & ~1 :]
    return [_joined(*pair) for pair in pairs] + rest


def _joined(first: Record, second: Record) -> Record:
    """Returns the point of two intervals: mean losses, else what the later one says."""
    steps = first["steps"] + second["steps"]
    losses = {
        key: (first["losses"].get(key, value) * first["steps"] + value * second["steps"]) / steps
        for key, value in second["losses"].items()
    }
    return {**second, "steps": steps, "losses": losses}


def write_text(path: Location, text: str) -> None:
    """Writes a file as a whole or not at all. Raises what the file system raises."""
    if not isinstance(path, Path):
        with storage.open_file(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
