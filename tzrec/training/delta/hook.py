"""When changed embedding rows are dumped, and what becomes of the marks of a killed run."""

from __future__ import annotations

import logging
import os
from time import monotonic
from typing import Any

import torch.distributed as dist
from torch import Tensor

from tzrec.protos.train_pb2 import DELTA_EMBEDDING_QUANT_INT8, DeltaEmbeddingDumpConfig
from tzrec.training.checkpoint.together import is_first_rank
from tzrec.training.delta.files import (
    DumpFile,
    dump_files,
    remove_dump,
    remove_partial,
    rows_of,
)
from tzrec.training.delta.owner import DumpOwner
from tzrec.training.delta.rows import read_rows
from tzrec.training.delta.touched import TouchedRows
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.peers import Vote, num_ranks
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

# Steps of several ranks between two looks at the first rank's clock.
_VOTE_EVERY = 4


class DeltaDumpHook(Hook):
    """Writes the rows that have moved since the last dump, every few steps or minutes.

    The end of training writes what is left. Put it before the hook that saves, so that a dump and
    a checkpoint of one step hold the same values. Marks are part of a checkpoint: a run that goes
    on writes what a run that was never killed would have written. Dumps of steps after the
    checkpoint are removed when the run goes on, and the next dump holds their rows again.

    Args:
        config: cadence, place and form.
        model_dir: the run.
    """

    name = "delta_dump"

    def __init__(self, config: DeltaEmbeddingDumpConfig, model_dir: str | os.PathLike[str]) -> None:
        by_time = config.HasField("dump_interval_minutes")
        self._seconds = 60.0 * config.dump_interval_minutes if by_time else 0.0
        self._steps = 0 if by_time else config.dump_interval_steps
        self._prefix = config.file_prefix
        self._int8 = config.quant_type == DELTA_EMBEDDING_QUANT_INT8
        self._owner = DumpOwner(config, model_dir)
        self._directory = self._owner.directory
        self._touched: TouchedRows | None = None
        self._stored: dict[str, Tensor] = {}
        self._vote: Vote | None = None
        self._last_time = 0.0

    def on_train_start(self, trainer: Trainer) -> None:
        """Starts to mark rows, from where the checkpoint has left off.

        Raises:
            CheckpointError: another run has taken the place of the dumps meanwhile.
        """
        self._touched = TouchedRows(trainer.model, trainer.device)
        if is_first_rank():
            self._owner.claim()
            self._touched.unpack(self._stored)
            self._take_back(trainer.state.last_step, self._touched)
        if self._seconds and num_ranks() > 1:
            self._vote = Vote()
        self._last_time = monotonic()

    def _take_back(self, last_step: int, touched: TouchedRows) -> None:
        """Removes dumps of steps that the run has not reached, and marks their rows again."""
        remove_partial(self._directory, self._prefix)
        for step, paths in sorted(dump_files(self._directory, self._prefix).items()):
            if step <= last_step:
                continue
            for path in paths:
                for weight, rows in rows_of(path):
                    touched.add(weight, rows)
                remove_dump(path)
            logger.warning(
                "the delta dump of step %d in %s is removed, the run starts before it; the next "
                "dump holds its rows again",
                step,
                self._directory,
            )

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Marks the rows of the step, and dumps when steps or minutes say so."""
        assert self._touched is not None
        self._touched.add_batch(result.batch)
        if self._is_due(trainer.state.last_step):
            self._dump(trainer)

    def _is_due(self, step: int) -> bool:
        if self._steps:
            return step > 0 and step % self._steps == 0
        is_late = monotonic() - self._last_time >= self._seconds
        if self._vote is None:
            return is_late
        # Clocks of ranks differ; all of them have to write the same step.
        return step % _VOTE_EVERY == 0 and self._vote.cast(is_late and is_first_rank())

    def on_train_end(self, trainer: Trainer) -> None:
        """Dumps what has moved since the last dump."""
        self._dump(trainer)

    def _dump(self, trainer: Trainer) -> None:
        assert self._touched is not None
        trainer.timer.lap("other")
        began = self._last_time = monotonic()
        rows = self._touched.merged()
        self._touched.clear()
        if rows:
            weights = trainer.model.state_dict()
            file = DumpFile(
                self._directory,
                self._prefix,
                step=trainer.state.last_step,
                rank=dist.get_rank() if dist.is_initialized() else 0,
                world_size=num_ranks(),
                int8=self._int8,
            )
            with file:
                for weight, table in self._touched.tables.items():
                    if weight in rows:
                        for numbers, vectors in read_rows(weights[weight], rows[weight]):
                            file.write(weight, table.features, numbers, vectors)
            if is_first_rank():
                logger.info(
                    "dumped %s changed rows of %d tables in %.1f s: %s",
                    f"{sum(len(numbers) for numbers in rows.values()):,}",
                    len(rows),
                    monotonic() - began,
                    file.path if num_ranks() == 1 else file.path.parent,
                )
        trainer.timer.lap("saving")

    def close(self) -> None:
        """Ends an exchange with the other ranks that runs."""
        if self._vote is not None:
            self._vote.close()

    def state_dict(self) -> dict[str, Any]:
        """Returns the marks of all ranks; every rank calls it."""
        assert self._touched is not None
        return {"touched": self._touched.pack()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the marks when training starts."""
        self._stored = state["touched"]
