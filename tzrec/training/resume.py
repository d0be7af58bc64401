"""Starting a run: from nothing, from its own last checkpoint, or from another run's weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tzrec.datasets.position import DataPosition
from tzrec.errors import CheckpointError
from tzrec.training.checkpoint.find import latest_checkpoint, resolve, skipped_checkpoints
from tzrec.training.checkpoint.restore import (
    read_data_position,
    read_trainer_state,
    restore_model,
    restore_optimizer,
)
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")


@dataclass(frozen=True)
class Origin:
    """Where a run starts from.

    Attributes:
        checkpoint: directory to restore, None = fresh weights.
        own: True when it is a checkpoint of this run, which goes on where it stopped.
    """

    checkpoint: Path | None = None
    own: bool = False


def find_origin(
    model_dir: str | Path, *, continue_train: bool, fine_tune_checkpoint: str
) -> Origin:
    """Decides what a run starts from.

    Raises:
        CheckpointError: the run has checkpoints and ``continue_train`` was not asked for, or the
            checkpoint to fine-tune does not exist.
    """
    newest, _ = latest_checkpoint(model_dir)
    for path, reason in skipped_checkpoints(model_dir).items():
        logger.warning("passing over %s: %s", path, reason)
    if newest is not None:
        if not continue_train:
            raise CheckpointError(
                f"model_dir {model_dir} already holds {newest.name}",
                hint="pass --continue_train to go on from it, choose another --model_dir, "
                "or delete the directory",
            )
        return Origin(newest, own=True)
    if fine_tune_checkpoint:
        return Origin(resolve(fine_tune_checkpoint, fine_tune_checkpoint)[0])
    return Origin()


def restore_trainer(trainer: Trainer, origin: Origin, *, ignore_optimizer: bool = False) -> None:
    """Brings a trainer to the state of its origin.

    Of its own checkpoint everything comes back: weights, optimizer, schedules, random state,
    data position, train metrics. Of another run's only weights and optimizer states.

    Raises:
        CheckpointError: the checkpoint cannot be read or does not fit.
    """
    if origin.checkpoint is None:
        return
    report = restore_model(trainer.model, origin.checkpoint)
    log = logger.info if report.exact else logger.warning
    log("weights of %s: %s", origin.checkpoint, report)
    if not ignore_optimizer:
        trainer.optimizer.init_state()
        optimizer_report = restore_optimizer(trainer.optimizer, origin.checkpoint)
        if not optimizer_report.exact:
            logger.warning("optimizer states of %s: %s", origin.checkpoint, optimizer_report)
    if origin.own:
        _restore_progress(trainer, origin.checkpoint)


def _restore_progress(trainer: Trainer, checkpoint: Path) -> None:
    stored = read_trainer_state(checkpoint)
    if not stored:
        raise CheckpointError(
            f"{checkpoint} has no trainer_state.pt: it was not written by this program",
            hint="start a new run with --fine_tune_checkpoint",
        )
    for scheduler, state in zip(trainer.optimizer.schedulers, stored["schedulers"], strict=True):
        scheduler.load_state_dict(state)
    for hook in trainer.hooks:
        if hook.name in stored["hooks"]:
            hook.load_state_dict(stored["hooks"][hook.name])
    trainer.base_model.load_train_metric_state(stored["train_metrics"])
    trainer.state.load_state_dict(stored["state"])
    _restore_position(trainer, checkpoint)


def _restore_position(trainer: Trainer, checkpoint: Path) -> None:
    data = read_data_position(checkpoint)
    if data is None:
        return
    # A step that was saved before its pass turned out to be over: only the position was renewed.
    for _ in range(data["epoch"] - trainer.state.epoch):
        for scheduler in trainer.optimizer.schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    trainer.state.epoch = data["epoch"]
    trainer.state.position = DataPosition.from_json(data["position"])
