"""Tells columns that cannot teach anything: always the same, always missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tzrec.batch import Batch
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

_ROWS_TO_WARN = 10_000
_LOOK_EVERY = 16


@dataclass
class _Column:
    """A column that has not shown two different values yet.

    Attributes:
        what: "label 'clk'", "feature 'price'".
        value: the first value that came (d,); None = none yet.
        length: number of values of each row; None = one.
    """

    what: str
    value: Tensor | None = None
    length: int | None = None


class ConstantColumns(Hook):
    """Warns of labels of one class and of features that are always the same or missing.

    Every column is a suspect until it shows two values, which takes a batch or two for most,
    so that a step costs nothing afterwards. What is left after 10,000 rows, or at the end if
    there are fewer, is told once. One rank looks at its own rows.

    Args:
        labels: look at labels too; two-tower models count rows by theirs, whatever its values.
    """

    def __init__(self, *, labels: bool = True) -> None:
        self._labels = labels
        self._suspects: dict[str, _Column] | None = None
        self._num_rows = 0  # that were looked at
        self._all = True
        self._told = False

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Looks at the columns that are still suspects."""
        if self._suspects is not None and not self._suspects:
            return
        if self._told and trainer.state.step % _LOOK_EVERY:
            self._all = False
            return
        self._num_rows += result.num_rows
        self._look(result.batch)
        if self._num_rows >= _ROWS_TO_WARN:
            self._tell()

    def on_train_end(self, trainer: Trainer) -> None:
        """Warns, if there were too few rows for it before."""
        self._tell()

    def findings(self) -> list[str]:
        """Returns a sentence for each column that has not changed."""
        rows = f"in all {self._num_rows:,} rows{'' if self._all else ' looked at'}"
        return [_sentence(column, rows) for column in (self._suspects or {}).values()]

    def _look(self, batch: Batch) -> None:
        known = {} if self._suspects is None else self._suspects
        still = {}
        for key, values, lengths in _columns(batch):
            if self._suspects is not None and key not in known:
                continue
            if key.startswith("label") and not self._labels:
                continue
            column = known.get(key) or _Column(key)
            if _stays_the_same(column, values, lengths):
                still[key] = column
        self._suspects = still

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        for sentence in self.findings():
            logger.warning("%s", sentence)


def _columns(batch: Batch) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Yields (name, values (n, d), values of each row; None = one each) of a batch."""
    for name, value in batch.labels.items():
        yield f"label {name!r}", value, None
    for name, value in batch.sample_weights.items():
        # Equal weights are no weights, only zero ones teach nothing.
        yield f"sample weight {name!r}", value != 0, None
    for kt in batch.dense_features.values():
        for name, value in kt.to_dict().items():
            yield f"feature {name!r}", value, None
    for jagged in (batch.jagged_labels, batch.sequence_dense_features):
        for name, jt in jagged.items():
            what = "label" if jagged is batch.jagged_labels else "feature"
            yield f"{what} {name!r}", jt.values(), jt.lengths()
    for kjt in batch.sparse_features.values():
        for name, jt in kjt.to_dict().items():
            yield f"feature {name!r}", jt.values(), jt.lengths()


def _stays_the_same(column: _Column, values: Tensor, lengths: Tensor | None) -> bool:
    """Returns whether a column has still one value, and one number of values, in all rows."""
    if lengths is not None and len(lengths):
        length = int(lengths[0])
        if column.length is None:
            column.length = length
        if column.length != length or bool((lengths != length).any()):
            return False
    if len(values):
        if column.value is None:
            column.value = values[0].clone()
        if bool((values != column.value).any()):
            return False
    return not column.what.startswith("sample weight") or not bool(values.any())


def _sentence(column: _Column, rows: str) -> str:
    if column.value is None or column.length == 0:
        return f"{column.what} is missing {rows}"
    numbers = ", ".join(f"{float(number):g}" for number in torch.atleast_1d(column.value))
    if column.what.startswith("sample weight"):
        return f"{column.what} is 0 {rows}: none of them counts"
    tail = ": there is nothing to tell apart" if column.what.startswith("label") else ""
    return f"{column.what} is {numbers} {rows}{tail}"
