"""When to save, what follows a save, and which checkpoints stay."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tzrec import storage
from tzrec.config.messages import which_field
from tzrec.datasets.position import DataPosition
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.checkpoint.cadence import EventTimeCadence
from tzrec.training.checkpoint.find import checkpoint_name, read_results
from tzrec.training.checkpoint.plan import placement
from tzrec.training.checkpoint.prune import Pruner
from tzrec.training.checkpoint.save import (
    Snapshot,
    remove_leftovers,
    save_checkpoint,
    save_data_position,
)
from tzrec.training.checkpoint.tables import model_tables, vocabulary_files
from tzrec.training.checkpoint.together import is_first_rank
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.location import location
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

# Where a checkpoint's data position keeps the event time (reference 01 §1.1.6).
WATERMARK = "__data_ts_watermark__"


class CheckpointHook(Hook):
    """Saves every few steps or passes, when the data's time says so, and at the end.

    Each save is followed by an evaluation.

    Args:
        model_dir: the run.
        train_config: cadence and retention.
        export_config: how the best checkpoint, which is never pruned, is chosen.
        evaluate: runs an evaluation and records it; None = no evaluation.
        step_precision: of training steps where the program chose it, or empty.

    Attributes:
        event_time: when the data's time says so.
        last_metrics: of the last evaluation.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        train_config: TrainConfig,
        *,
        export_config: ExportConfig,
        evaluate: Callable[[Trainer], dict[str, float]] | None,
        step_precision: str = "",
    ) -> None:
        self._dir = location(model_dir)
        self._epochs = train_config.save_checkpoints_epochs
        self._steps = 0 if self._epochs else train_config.save_checkpoints_steps
        self._pruner = Pruner(self._dir, train_config.keep_checkpoint_max, export_config)
        self.event_time = EventTimeCadence(train_config)
        self._sparse_optimizer = which_field(train_config.sparse_optimizer, "optimizer") or ""
        self._evaluate = evaluate
        self._step_precision = step_precision
        self._saved_step = -1
        self.last_metrics: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer) -> None:
        """After a resume: gives schedules and hooks the evaluation that followed the save.

        If the run was killed between the save and its evaluation, the evaluation is made now.
        """
        if is_first_rank():
            # Reads vocabulary files now: they may be others when a checkpoint is saved.
            model_tables(trainer.model)
            if isinstance(self._dir, Path):
                self._dir.mkdir(parents=True, exist_ok=True)
                remove_leftovers(self._dir)
        if trainer.state.step == 0:
            return
        self._saved_step = trainer.state.last_step
        if self._evaluate is None:
            return
        known = [r for r in read_results(self._dir) if r["global_step"] == self._saved_step]
        if known:
            self._announce(trainer, {k: v for k, v in known[0].items() if k != "global_step"})
        elif storage.is_directory(self._dir / checkpoint_name(self._saved_step)):
            self._announce(trainer, self._evaluate(trainer))

    def owes(self, trainer: Trainer) -> bool:
        """Returns whether the run was ended between its last save and the evaluation of it."""
        step = trainer.state.last_step
        if self._evaluate is None or step < 0:
            return False
        return all(row["global_step"] != step for row in read_results(self._dir))

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Saves when the step's number or the batch's time says so."""
        step = trainer.state.last_step
        by_step = self._steps and step > 0 and step % self._steps == 0
        if self.event_time.is_due(result.batch.data_timestamp) or by_step:
            self._save(trainer)

    def after_pass(self, trainer: Trainer) -> None:
        """Saves when the pass's number says so; else notes that the pass is over."""
        self.event_time.start_pass()
        if self._epochs and trainer.state.epoch % self._epochs == 0:
            self._save(trainer)
        elif self._saved_step == trainer.state.last_step:
            self._refresh_position(trainer)

    def on_train_end(self, trainer: Trainer) -> None:
        """Saves the last step."""
        if trainer.state.step > 0:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.state.last_step == self._saved_step:
            self._refresh_position(trainer)
            return
        trainer.timer.lap("other")
        trainer.before_save()
        path = save_checkpoint(self._dir, self.snapshot(trainer))
        self._saved_step = trainer.state.last_step
        logger.info("saved %s", path)
        for hook in trainer.hooks:
            hook.after_save(trainer)
        trainer.timer.lap("saving")
        if trainer.interrupted is None:
            self._evaluate_now(trainer)
        if is_first_rank():
            self._pruner.prune()

    def snapshot(self, trainer: Trainer) -> Snapshot:
        """Collects what a checkpoint of the trainer holds; every rank calls it."""
        tables = model_tables(trainer.model) if is_first_rank() else {}
        return Snapshot(
            step=trainer.state.last_step,
            model=trainer.model.state_dict(),
            optimizer=trainer.optimizer.state_dict(),
            trainer={
                "state": trainer.state.state_dict(),
                "schedulers": [s.state_dict() for s in trainer.optimizer.schedulers],
                "hooks": {hook.name: hook.state_dict() for hook in trainer.hooks if hook.name},
                "train_metrics": trainer.base_model.train_metric_state(),
            },
            data=data_position(trainer, self.event_time.watermark),
            tables={weight: table.to_json() for weight, table in tables.items()},
            vocabularies=vocabulary_files(tables),
            plan=placement(trainer.model),
            ema={} if trainer.ema is None else trainer.ema.state_dict(),
            sparse_optimizer=self._sparse_optimizer,
            step_precision=self._step_precision,
        )

    def close(self) -> None:
        """Waits until superfluous checkpoints are removed."""
        self._pruner.close()

    def _evaluate_now(self, trainer: Trainer) -> None:
        if self._evaluate is not None:
            self._announce(trainer, self._evaluate(trainer))
            trainer.timer.lap("evaluation")

    def _refresh_position(self, trainer: Trainer) -> None:
        path = self._dir / checkpoint_name(self._saved_step)
        if storage.is_directory(path):
            save_data_position(path, data_position(trainer, self.event_time.watermark))

    def _announce(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.last_metrics = metrics
        trainer.after_evaluation(metrics)


def data_position(trainer: Trainer, watermark: float = -1) -> dict[str, object]:
    """Returns the data position of all ranks as it is stored in a checkpoint.

    Args:
        trainer: at rest between two steps.
        watermark: event time that was reached, -1 = none.
    """
    position = trainer.state.position
    if dist.is_initialized() and dist.get_world_size() > 1:
        of_ranks: list[dict[str, Any]] = [{}] * dist.get_world_size()
        dist.all_gather_object(of_ranks, position.to_json())
        position = DataPosition()
        for rank_position in of_ranks:
            position.merge(DataPosition.from_json(rank_position))
    data = {"epoch": trainer.state.epoch, "position": position.to_json()}
    return data if watermark < 0 else {**data, WATERMARK: watermark}
