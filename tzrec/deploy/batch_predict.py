"""Scores a table: reads batches, runs the model on threads, writes rows in their order."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor

from tzrec.batch import Batch
from tzrec.constant import PREDICT_QUEUE_TIMEOUT
from tzrec.deploy.columns import output_columns_of, select_outputs
from tzrec.deploy.debug_text import DEBUG_COLUMN, features_text
from tzrec.deploy.ordered import OrderedMap
from tzrec.errors import ConfigError, DataError, ServingError
from tzrec.training.peers import sum_over_ranks

logger = logging.getLogger("tzrec")

_QUIET_SECONDS = 10.0

Forward = Callable[[Batch], Mapping[str, Tensor]]


class Writer(Protocol):
    """What a writer of `tzrec.datasets` does: its output appears at `close`."""

    def write(self, columns: dict[str, pa.Array]) -> None:
        """Appends rows."""

    def close(self) -> None:
        """Publishes the rows."""

    def abort(self) -> None:
        """Leaves nothing behind."""


@dataclasses.dataclass(frozen=True)
class PredictSummary:
    """What a prediction did on this rank.

    Attributes:
        num_rows: rows written.
        num_batches: batches read.
        seconds: from the first batch to the last row written.
        columns: names written, in order.
    """

    num_rows: int
    num_batches: int
    seconds: float
    columns: tuple[str, ...]

    @property
    def rows_per_second(self) -> float:
        """Rows written a second."""
        return self.num_rows / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        return (
            f"{self.num_rows:,} rows in {self.seconds:.1f} s ({self.rows_per_second:,.0f} rows/s), "
            f"columns {', '.join(self.columns)}"
        )


def predict_table(
    forward: Forward,
    loader: Iterable[Batch],
    writer: Writer,
    *,
    output_columns: Sequence[str] | None = None,
    reserved: Sequence[str] | None = None,
    steps: int | None = None,
    threads: int = 1,
    debug_features: Sequence[Any] | None = None,
    timeout: float = PREDICT_QUEUE_TIMEOUT,
    on_batch: Callable[[], object] | None = None,
) -> PredictSummary:
    """Writes the scores of every row of a loader, in row order.

    Columns are the outputs, then the reserved ones, then ``__features__``.

    Args:
        forward: batch → name → tensor with the rows first; called by ``threads`` threads.
        loader: predict-mode batches; ``batch.reserves`` carries the reserved columns.
        writer: closed at the end; aborted if anything fails.
        output_columns: outputs to write; default all, sorted.
        reserved: reserved columns to write; default all that the batches carry.
        steps: batches to predict; default all.
        threads: forward threads. A model that talks to other ranks needs 1.
        debug_features: features whose values the column ``__features__`` shows; default none.
        timeout: seconds before a reader or model that gives nothing is an error.
        on_batch: called after each batch was written.

    Raises:
        ConfigError: an unknown, repeated or colliding column, or a bad argument.
        DataError: there is no row.
        ServingError: reader or model are stuck, or the model lost rows.
        TzrecError: whatever loader, model and writer raise. Nothing is written in any case.
    """
    try:
        _check_arguments(steps, threads, timeout)
        job = _Job(forward, output_columns, reserved, debug_features)
        with OrderedMap(
            job.score, itertools.islice(loader, steps), threads=threads, timeout=timeout
        ) as tables:
            summary = _write_all(tables, writer, on_batch)
        # A rank that failed never comes here, so no other one publishes.
        if not sum_over_ranks(summary.num_rows):
            raise DataError("the input has no rows to predict", hint="check --predict_input_path")
    except BaseException:
        # What failed is the error to see, not a second one while cleaning up.
        with contextlib.suppress(Exception):
            writer.abort()
        raise
    writer.close()
    return summary


def _check_arguments(steps: int | None, threads: int, timeout: float) -> None:
    if steps is not None and steps < 1:
        raise ConfigError(f"predict_steps {steps}: must be at least 1")
    if threads < 1:
        raise ConfigError(f"predict_threads {threads}: must be at least 1")
    if timeout <= 0:
        raise ConfigError(f"predict queue timeout {timeout}: must be more than 0 seconds")


def _write_all(
    tables: Iterable[dict[str, pa.Array]], writer: Writer, on_batch: Callable[[], object] | None
) -> PredictSummary:
    progress = _Progress()
    columns: tuple[str, ...] = ()
    for table in tables:
        columns = columns or tuple(table)
        progress.add(_write(writer, table))
        if on_batch is not None:
            on_batch()
    return PredictSummary(progress.num_rows, progress.num_batches, progress.seconds, columns)


def _write(writer: Writer, table: dict[str, pa.Array]) -> int:
    num_rows = len(next(iter(table.values()))) if table else 0
    if num_rows:
        writer.write(table)
    return num_rows


@dataclasses.dataclass
class _Job:
    """What every batch goes through."""

    forward: Forward
    output_columns: Sequence[str] | None
    reserved: Sequence[str] | None
    debug_features: Sequence[Any] | None

    def score(self, batch: Batch) -> dict[str, pa.Array]:
        """Returns the columns to write for a batch; none for a dummy one."""
        with torch.no_grad():
            predictions = self.forward(batch)
        if batch.dummy:
            return {}
        names = select_outputs(predictions, self.output_columns)
        table = output_columns_of(predictions, names)
        extra = self._reserved_columns(batch)
        if self.debug_features is not None:
            extra[DEBUG_COLUMN] = features_text(batch, self.debug_features)
        both = sorted(extra.keys() & table.keys())
        if both:
            raise ConfigError(
                f"{', '.join(both)} would be written twice: as output and as reserved column",
                hint="choose --output_columns or --reserved_columns without it",
            )
        table |= extra
        _check_rows(table, batch)
        return table

    def _reserved_columns(self, batch: Batch) -> dict[str, pa.Array]:
        rows = batch.reserves.get()
        found = dict(zip(rows.schema.names, rows.columns, strict=True)) if rows is not None else {}
        if self.reserved is None:
            return found
        missing = [name for name in self.reserved if name not in found]
        if missing:
            raise ConfigError(f"reserved columns {', '.join(missing)} are not in the input")
        return {name: found[name] for name in self.reserved}


def _check_rows(table: dict[str, pa.Array], batch: Batch) -> None:
    expected = num_rows_of(batch)
    for name, column in table.items():
        if len(column) != expected:
            raise ServingError(f"column {name!r} has {len(column)} rows for {expected} input rows")


def num_rows_of(batch: Batch) -> int:
    """Returns the rows of a batch."""
    rows = batch.reserves.get()
    if rows is not None:
        return int(rows.num_rows)
    for kjt in batch.sparse_features.values():
        return int(kjt.stride())
    for dense in batch.dense_features.values():
        return int(dense.values().shape[0])
    for jagged in batch.sequence_dense_features.values():
        return int(jagged.lengths().shape[0])
    raise ServingError("a batch without features has no rows to predict")


class _Progress:
    """Counts, and writes a line every ten seconds."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self.num_rows = self.num_batches = self._rows_before = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def add(self, num_rows: int) -> None:
        self.num_rows += num_rows
        self.num_batches += 1
        now = time.monotonic()
        if now - self._last > _QUIET_SECONDS:
            rate = (self.num_rows - self._rows_before) / (now - self._last)
            logger.info(
                "predict: %d batches, %s rows [%s rows/s]",
                self.num_batches,
                f"{self.num_rows:,}",
                f"{rate:,.0f}",
            )
            self._last, self._rows_before = now, self.num_rows
