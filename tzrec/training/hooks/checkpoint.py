"""When to save, what follows a save, and which checkpoints stay."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tzrec.datasets.position import DataPosition
from tzrec.errors import CheckpointError
from tzrec.optim.sparse_parameters import table_configs
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.checkpoint.find import (
    best_checkpoint,
    checkpoint_name,
    list_checkpoints,
    read_results,
)
from tzrec.training.checkpoint.save import (
    Snapshot,
    save_checkpoint,
    save_data_position,
)
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")


class CheckpointHook(Hook):
    """Saves every few steps or passes and at the end; each save is followed by an evaluation.

    Args:
        model_dir: the run.
        train_config: cadence and retention.
        export_config: how the best checkpoint, which is never pruned, is chosen.
        evaluate: runs an evaluation and records it; None = no evaluation.
    """

    def __init__(
        self,
        model_dir: str | Path,
        train_config: TrainConfig,
        *,
        export_config: ExportConfig,
        evaluate: Callable[[Trainer], dict[str, float]] | None,
    ) -> None:
        self._dir = Path(model_dir)
        self._epochs = train_config.save_checkpoints_epochs
        self._steps = 0 if self._epochs else train_config.save_checkpoints_steps
        self._keep = train_config.keep_checkpoint_max
        self._export_config = export_config
        self._evaluate = evaluate
        self._saved_step = -1
        self.last_metrics: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer) -> None:
        """After a resume: gives schedules and hooks the evaluation that followed the save.

        If the run was killed between the save and its evaluation, the evaluation is made now.
        """
        if trainer.state.step == 0:
            return
        self._saved_step = trainer.state.last_step
        if self._evaluate is None:
            return
        known = [r for r in read_results(self._dir) if r["global_step"] == self._saved_step]
        if known:
            self._announce(trainer, {k: v for k, v in known[0].items() if k != "global_step"})
        elif (self._dir / checkpoint_name(self._saved_step)).is_dir():
            self._announce(trainer, self._evaluate(trainer))

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Saves when the step's number says so."""
        step = trainer.state.last_step
        if self._steps and step > 0 and step % self._steps == 0:
            self._save(trainer)

    def after_pass(self, trainer: Trainer) -> None:
        """Saves when the pass's number says so; else notes that the pass is over."""
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
        path = save_checkpoint(self._dir, snapshot(trainer))
        self._saved_step = trainer.state.last_step
        logger.info("saved %s", path)
        for hook in trainer.hooks:
            hook.after_save(trainer)
        if self._evaluate is not None:
            self._announce(trainer, self._evaluate(trainer))
        self._prune()

    def _refresh_position(self, trainer: Trainer) -> None:
        path = self._dir / checkpoint_name(self._saved_step)
        if path.is_dir():
            save_data_position(path, data_position(trainer))

    def _announce(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.last_metrics = metrics
        trainer.after_evaluation(metrics)

    def _prune(self) -> None:
        if not self._keep or (dist.is_initialized() and dist.get_rank() != 0):
            return
        stay = {*list_checkpoints(self._dir)[-self._keep :]}
        if self._export_config.exporter_type == "best":
            try:
                stay.add(best_checkpoint(self._dir, self._export_config)[0])
            except CheckpointError as error:
                logger.warning("no checkpoint was pruned: %s", error)
                return
        for path in list_checkpoints(self._dir):
            if path not in stay:
                shutil.rmtree(path, ignore_errors=True)


def data_position(trainer: Trainer) -> dict[str, object]:
    """Returns the data position of all ranks as it is stored in a checkpoint."""
    position = trainer.state.position
    if dist.is_initialized() and dist.get_world_size() > 1:
        of_ranks: list[dict[str, Any]] = [{}] * dist.get_world_size()
        dist.all_gather_object(of_ranks, position.to_json())
        position = DataPosition()
        for rank_position in of_ranks:
            position.merge(DataPosition.from_json(rank_position))
    return {"epoch": trainer.state.epoch, "position": position.to_json()}


def snapshot(trainer: Trainer) -> Snapshot:
    """Collects what a checkpoint of the trainer holds."""
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
        data=data_position(trainer),
        tables={
            config.name: {
                "rows": config.num_embeddings,
                "dim": config.embedding_dim,
                "data_type": config.data_type.name,
                "features": list(config.feature_names),
            }
            for config in table_configs(trainer.base_model)
        },
    )
