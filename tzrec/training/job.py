"""One training run: builds its parts from the config, starts it, reports on it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import tzrec
from tzrec.config.load import save_message
from tzrec.constant import TRAIN_EVAL_RESULT_FILENAME, Mode
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training import build
from tzrec.training.distributed.wrap import distribute
from tzrec.training.evaluator import format_metrics, record_result, run_evaluation
from tzrec.training.hooks.base import Hook
from tzrec.training.hooks.checkpoint import CheckpointHook
from tzrec.training.hooks.early_stop import EarlyStopHook
from tzrec.training.hooks.nonfinite import NonFiniteGuard
from tzrec.training.hooks.progress import ProgressHook
from tzrec.training.hooks.tensorboard import TensorBoardHook
from tzrec.training.resume import find_origin, restore_trainer
from tzrec.training.summary import final_summary, start_summary
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")


@contextlib.contextmanager
def closing(*loaders: Any) -> Iterator[None]:
    """Closes the loaders that are not None, also after an error."""
    try:
        yield
    finally:
        for loader in loaders:
            if loader is not None:
                loader.close()


class TrainingJob:
    """A training run of one config on this rank.

    Args:
        config: checked config; read only.
        options: rank, world size, seed.
        device: where the model lives.
    """

    def __init__(self, config: EasyRecConfig, options: Options, device: torch.device) -> None:
        self.config = config
        self.options = options
        self.device = device
        self.model_dir = Path(config.model_dir)
        self.features = build.build_features(config.data_config, config.feature_configs)

    def train(self, *, continue_train: bool = False, ignore_optimizer: bool = False) -> None:
        """Runs the job to its end."""
        config = self.config
        origin = find_origin(
            self.model_dir,
            continue_train=continue_train,
            fine_tune_checkpoint=config.train_config.fine_tune_checkpoint,
        )
        build.set_tf32(config)
        seed = build.run_seed(config, self.options)
        build.seed_everything(seed, deterministic=self.options.deterministic)
        train_loader = self._loader(config.train_input_path, Mode.TRAIN)
        eval_loader = None
        if config.eval_input_path:
            eval_loader = self._loader(config.eval_input_path, Mode.EVAL)
        with closing(train_loader, eval_loader):
            trainer = self._trainer(train_loader, eval_loader)
            if self.options.rank:
                # All ranks have drawn the same weights; from here on each has its own dropout.
                torch.manual_seed(seed + self.options.rank)
            restore_trainer(trainer, origin, ignore_optimizer=ignore_optimizer)
            if trainer.is_finished:
                logger.warning(
                    "the run in %s is finished: %d steps, %d passes; nothing was done. Raise "
                    "train_config.num_epochs or num_steps to go on",
                    self.model_dir,
                    trainer.state.step,
                    trainer.state.epoch,
                )
                return
            self._write_run_files()
            self._announce(trainer, eval_loader)
            trainer.fit()
        self._report(trainer)

    def _loader(self, input_path: str, mode: Mode) -> Any:
        return build.build_loader(
            self.config, self.features, input_path, mode=mode, options=self.options
        )

    def _trainer(self, train_loader: Any, eval_loader: Any) -> Trainer:
        train_config = self.config.train_config
        wrapper = build.build_train_wrapper(self.config, self.features, self.device)
        model = distribute(wrapper, train_config=train_config, device=self.device)
        return Trainer(
            model,
            build_optimizer(model, train_config),
            loader=train_loader,
            hooks=self._hooks(eval_loader),
            num_steps=train_config.num_steps,
            num_epochs=train_config.num_epochs,
            device=self.device,
        )

    def _hooks(self, eval_loader: Any) -> list[Hook]:
        train_config = self.config.train_config
        first = self.options.rank == 0
        hooks: list[Hook] = [NonFiniteGuard()]
        if train_config.HasField("early_stop"):
            hooks.append(EarlyStopHook(train_config.early_stop))
        if first:
            hooks.append(ProgressHook(train_config.log_step_count_steps))
        if first and train_config.use_tensorboard:
            hooks.append(TensorBoardHook(self.model_dir, train_config.log_step_count_steps))
        hooks.append(
            CheckpointHook(
                self.model_dir,
                train_config,
                export_config=self.config.export_config,
                evaluate=self._evaluation(eval_loader) if eval_loader is not None else None,
            )
        )
        return hooks

    def _evaluation(self, loader: Any) -> Any:
        def evaluate(trainer: Trainer) -> dict[str, float]:
            metrics = run_evaluation(
                trainer.model,
                loader,
                device=self.device,
                num_steps=self.config.eval_config.num_steps,
            )
            step = trainer.state.last_step
            record_result(self.model_dir / TRAIN_EVAL_RESULT_FILENAME, step, metrics)
            logger.info(
                "Eval Result Epoch-%d model-%d: %s",
                trainer.state.epoch,
                step,
                format_metrics(metrics),
            )
            return metrics

        return evaluate

    def _write_run_files(self) -> None:
        if self.options.rank != 0:
            return
        self.model_dir.mkdir(parents=True, exist_ok=True)
        save_message(self.config, self.model_dir / "pipeline.config")
        (self.model_dir / "version").write_text(tzrec.__version__ + "\n")

    def _announce(self, trainer: Trainer, eval_loader: Any) -> None:
        logger.info(
            "training\n%s",
            start_summary(
                trainer,
                features=self.features,
                model_dir=self.model_dir,
                batch_size=self.config.data_config.batch_size,
                eval_loader=eval_loader,
                mixed_precision=self.config.train_config.mixed_precision,
            ),
        )

    def _report(self, trainer: Trainer) -> None:
        hooks = {type(hook): hook for hook in trainer.hooks}
        progress, checkpoint = hooks.get(ProgressHook), hooks[CheckpointHook]
        if not isinstance(progress, ProgressHook) or not isinstance(checkpoint, CheckpointHook):
            return
        logger.info(
            "finished\n%s",
            final_summary(
                trainer, progress, metrics=checkpoint.last_metrics, model_dir=self.model_dir
            ),
        )
