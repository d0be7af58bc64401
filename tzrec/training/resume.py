"""Starting a run: from nothing, from its own last checkpoint, or from another run's weights."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from tzrec.config.messages import which_field
from tzrec.datasets.kafka.loader import KafkaLoader
from tzrec.datasets.position import DataPosition
from tzrec.errors import CheckpointError
from tzrec.protos.train_pb2 import TableMismatch, TrainConfig
from tzrec.training.checkpoint.find import (
    latest_checkpoint,
    list_checkpoints,
    resolve,
    step_of,
)
from tzrec.training.checkpoint.rename import read_param_map
from tzrec.training.checkpoint.report import RestoreReport
from tzrec.training.checkpoint.restore import (
    Restorer,
    open_checkpoint,
    read_content,
    read_data_position,
    read_trainer_state,
)
from tzrec.training.hooks.checkpoint import WATERMARK, CheckpointHook
from tzrec.training.location import Location
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

# How other programs of the interface note finished passes.
_FOREIGN_EPOCHS = "__epochs_completed__"


@dataclass(frozen=True)
class Origin:
    """Where a run starts from.

    Attributes:
        checkpoint: directory to restore, None = fresh weights.
        own: True when it is a checkpoint of this run, which goes on where it stopped.
        keep_position: go on with the rows that another run has not read.
    """

    checkpoint: Location | None = None
    own: bool = False
    keep_position: bool = False


def find_origin(
    model_dir: str | os.PathLike[str], *, continue_train: bool, fine_tune_checkpoint: str
) -> Origin:
    """Decides what a run starts from.

    The run's own newest whole checkpoint wins over the one to fine-tune.

    Raises:
        CheckpointError: the run has checkpoints and ``continue_train`` was not asked for, or the
            checkpoint to fine-tune does not exist.
    """
    if not continue_train:
        known = list_checkpoints(model_dir)
        if known:
            raise CheckpointError(
                f"model_dir {model_dir} already holds {known[-1].name}",
                hint="pass --continue_train to go on from it, choose another --model_dir, "
                "or delete the directory",
            )
    else:
        newest, _ = latest_checkpoint(model_dir)
        if newest is not None:
            return Origin(newest, own=True)
    if fine_tune_checkpoint:
        found, _ = resolve(fine_tune_checkpoint, fine_tune_checkpoint)
        return Origin(found, keep_position=continue_train)
    return Origin()


def stored_precision(origin: Origin) -> str:
    """Returns the precision of steps that was chosen when this run began, or ``""``.

    Raises:
        CheckpointError: the manifest cannot be read.
    """
    if not origin.own or origin.checkpoint is None:
        return ""
    content = read_content(origin.checkpoint, origin.checkpoint)
    return str(content.get("step_precision", ""))


def restore_trainer(
    trainer: Trainer,
    origin: Origin,
    *,
    train_config: TrainConfig | None = None,
    ignore_optimizer: bool = False,
) -> None:
    """Brings a trainer to the state of its origin.

    Of its own checkpoint everything comes back: weights, optimizer, averages, schedules, random
    state, data position, train metrics. Of another run's only weights, optimizer states and
    averages, and on demand the data position.

    Args:
        trainer: fresh.
        origin: what `find_origin` returned.
        train_config: how parameters are renamed, and what happens to tables that have changed.
        ignore_optimizer: leave the optimizer as it is.

    Raises:
        CheckpointError: the checkpoint cannot be read or does not fit.
    """
    if origin.checkpoint is None:
        return
    config = train_config or TrainConfig()
    renamed = "" if origin.own else config.fine_tune_ckpt_param_map
    with open_checkpoint(
        trainer.model,
        origin.checkpoint,
        param_map=read_param_map(renamed) if renamed else {},
        on_mismatch=TableMismatch.Name(config.on_table_mismatch).lower(),
    ) as restorer:
        _restore_learnt(
            trainer,
            origin,
            restorer,
            ignore_optimizer=ignore_optimizer,
            sparse_optimizer=which_field(config.sparse_optimizer, "optimizer") or "",
        )
    if origin.own:
        _restore_progress(trainer, origin.checkpoint)
    elif origin.keep_position:
        _restore_position(trainer, origin.checkpoint, epochs=False)


def _restore_learnt(
    trainer: Trainer,
    origin: Origin,
    restorer: Restorer,
    *,
    ignore_optimizer: bool,
    sparse_optimizer: str,
) -> None:
    _log("weights", origin, restorer.weights())
    if not ignore_optimizer:
        trainer.optimizer.init_state()
        report = restorer.optimizer(
            trainer.optimizer, resume=origin.own, sparse_optimizer=sparse_optimizer
        )
        _log("optimizer states", origin, report)
    if trainer.ema is not None:
        _log("averaged weights", origin, restorer.averages(trainer.ema))


def _log(what: str, origin: Origin, report: RestoreReport) -> None:
    """One line where everything fits, else a table of what does not."""
    if report.exact and not report.renamed:
        logger.info("%s of %s: %d restored", what, origin.checkpoint, len(report.matched))
    else:
        log = logger.info if report.exact else logger.warning
        log("%s of %s\n%s", what, origin.checkpoint, report.table())


def _restore_progress(trainer: Trainer, checkpoint: Location) -> None:
    stored = read_trainer_state(checkpoint)
    if stored:
        _restore_schedules(trainer, stored)
        for hook in trainer.hooks:
            if hook.name in stored["hooks"]:
                hook.load_state_dict(stored["hooks"][hook.name])
        trainer.base_model.load_train_metric_state(stored["train_metrics"])
        trainer.state.load_state_dict(stored["state"])
        _restore_position(trainer, checkpoint)
    else:
        _continue_foreign(trainer, checkpoint)
    logger.info(
        "going on after step %s, pass %d, of which %s are read",
        f"{trainer.state.last_step:,}",
        trainer.state.epoch + 1,
        trainer.state.position,
    )


def _restore_schedules(trainer: Trainer, stored: dict[str, Any]) -> None:
    schedules, states = trainer.optimizer.schedulers, stored["schedulers"]
    if len(schedules) == len(states):
        for schedule, state in zip(schedules, states, strict=True):
            schedule.load_state_dict({**schedule.state_dict(), **state})
        return
    logger.warning(
        "the checkpoint has %d learning-rate schedules, the run has %d: they go on by the number "
        "of steps and passes",
        len(states),
        len(schedules),
    )
    _wind(trainer, steps=stored["state"]["step"], epochs=stored["state"]["epoch"])


def _wind(trainer: Trainer, *, steps: int, epochs: int) -> None:
    """Brings schedules to where they are after so many steps and passes."""
    for schedule in trainer.optimizer.schedulers:
        if hasattr(schedule, "observe"):  # follows evaluations, which are not known
            continue
        done = epochs if schedule.by_epoch else steps
        schedule.load_state_dict({**schedule.state_dict(), "t": done})


def _continue_foreign(trainer: Trainer, checkpoint: Location) -> None:
    """Goes on from a checkpoint of another program, which says the step and finished passes."""
    data = read_data_position(checkpoint) or {}
    trainer.state.step = step_of(checkpoint) + 1
    trainer.state.epoch = int(data.get(_FOREIGN_EPOCHS, 0))
    _restore_watermark(trainer, data)
    _wind(trainer, steps=trainer.state.step, epochs=trainer.state.epoch)
    known = "which rows of the pass were read is unknown, so the pass starts anew"
    if isinstance(trainer.loader, KafkaLoader):
        offsets = {key: data[key] for key in trainer.loader.reader.paths if key in data}
        if offsets:
            trainer.state.position = DataPosition.of_offsets(offsets)
            known = f"it goes on with {trainer.state.position}"
    logger.warning(
        "%s was not written by this program: %s; random state and train metrics start afresh",
        *(checkpoint, known),
    )


def _restore_position(trainer: Trainer, checkpoint: Location, *, epochs: bool = True) -> None:
    data = read_data_position(checkpoint)
    if data is None or "position" not in data:
        return
    if epochs:
        # A step that was saved before its pass turned out to be over: only the position was
        # renewed.
        for _ in range(data["epoch"] - trainer.state.epoch):
            for scheduler in trainer.optimizer.schedulers:
                if scheduler.by_epoch:
                    scheduler.step()
        trainer.state.epoch = data["epoch"]
    trainer.state.position = DataPosition.from_json(data["position"])
    _restore_watermark(trainer, data)


def _restore_watermark(trainer: Trainer, data: dict[str, Any]) -> None:
    for hook in trainer.hooks:
        if isinstance(hook, CheckpointHook):
            hook.event_time.watermark = float(data.get(WATERMARK, -1))
