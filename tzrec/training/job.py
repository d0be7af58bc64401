"""One training run: builds its parts from the config, starts it, reports on it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, TypeVar

import torch

import tzrec
from tzrec import storage
from tzrec.config.load import save_message
from tzrec.config.tasks import learns_labels
from tzrec.constant import PIPELINE_CONFIG, TRAIN_EVAL_RESULT_FILENAME, Mode
from tzrec.datasets.kafka.loader import KafkaLoader
from tzrec.errors import CheckpointError
from tzrec.modules.deferred_tables import deferred_tables
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training import build
from tzrec.training.averages import uses_averages
from tzrec.training.checkpoint.find import best_checkpoint, read_results
from tzrec.training.compiled import as_written, compile_dense
from tzrec.training.delta.hook import DeltaDumpHook
from tzrec.training.delta.owner import DumpOwner
from tzrec.training.distributed.table import write_plan
from tzrec.training.distributed.wrap import distribute
from tzrec.training.evaluator import format_metrics, record_result, run_evaluation
from tzrec.training.hooks.base import Hook
from tzrec.training.hooks.checkpoint import CheckpointHook
from tzrec.training.hooks.constant_columns import ConstantColumns
from tzrec.training.hooks.early_stop import EarlyStopHook
from tzrec.training.hooks.hash_tables import HashTableHook
from tzrec.training.hooks.nonfinite import NonFiniteGuard
from tzrec.training.hooks.profiler import ProfilerHook
from tzrec.training.hooks.progress import ProgressHook
from tzrec.training.hooks.signals import Interrupted, SignalHook
from tzrec.training.hooks.stream import StreamHook
from tzrec.training.hooks.tensorboard import TensorBoardHook
from tzrec.training.location import location
from tzrec.training.peers import sum_over_ranks
from tzrec.training.precision import chosen_precision, describe, step_precision
from tzrec.training.report.run_report import Ending, RunReport
from tzrec.training.resume import find_origin, restore_trainer, stored_precision
from tzrec.training.sampler_tables import SamplerTables
from tzrec.training.summary import final_summary, go_on, row_rate, start_facts, start_summary
from tzrec.training.trainer import Trainer
from tzrec.utils.memory import keep_freed_memory

logger = logging.getLogger("tzrec")

H = TypeVar("H", bound=Hook)


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
        report: write a report at the end.
    """

    def __init__(
        self,
        config: EasyRecConfig,
        options: Options,
        device: torch.device,
        *,
        report: bool = True,
    ) -> None:
        self.config = config
        self.options = options
        self.device = device
        self.model_dir = location(config.model_dir)
        self.features = build.build_features(config.data_config, config.feature_configs)
        self._use_averages = uses_averages(config.eval_config, config.train_config)
        self._tables = SamplerTables(options)
        self._report = RunReport(config, self.model_dir, self.features) if report else None
        self._start_facts: dict[str, str] = {}
        self._precision = ""

    def train(self, *, continue_train: bool = False, ignore_optimizer: bool = False) -> None:
        """Runs the job to its end.

        Raises:
            Interrupted: a signal ended it; it is saved and can go on.
        """
        config = self.config
        origin = find_origin(
            self.model_dir,
            continue_train=continue_train,
            fine_tune_checkpoint=config.train_config.fine_tune_checkpoint,
        )
        # A run that was killed before its first checkpoint has left its config.
        goes_on = continue_train and storage.exists(self.model_dir / PIPELINE_CONFIG)
        if config.train_config.HasField("delta_embedding_dump_config"):
            dumps = DumpOwner(config.train_config.delta_embedding_dump_config, self.model_dir)
            dumps.check(goes_on=goes_on)
        keep_freed_memory(without_bound=True)
        build.set_tf32(config.train_config)
        seed = build.run_seed(config, self.options)
        build.seed_everything(seed, deterministic=self.options.deterministic)
        train_loader = self._loader(config.train_input_path, Mode.TRAIN)
        eval_loader = None
        if config.eval_input_path:
            eval_loader = self._loader(config.eval_input_path, Mode.EVAL)
        with closing(train_loader, eval_loader):
            self._precision = step_precision(
                config.train_config, self.device, stored=stored_precision(origin)
            )
            trainer = self._trainer(train_loader, eval_loader)
            if self.options.rank:
                # All ranks have drawn the same weights; from here on each has its own dropout.
                torch.manual_seed(seed + self.options.rank)
            restore_trainer(
                trainer,
                origin,
                train_config=config.train_config,
                ignore_optimizer=ignore_optimizer,
            )
            if trainer.is_finished and not self._hook(trainer, CheckpointHook).owes(trainer):
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
        self._end(trainer)
        if trainer.interrupted is not None:
            message = self._hook(trainer, SignalHook).message(trainer)
            raise Interrupted(message, trainer.interrupted)

    def _loader(self, input_path: str, mode: Mode) -> Any:
        return build.build_loader(
            self.config,
            self.features,
            input_path,
            mode=mode,
            options=self.options,
            tables=self._tables,
        )

    def _trainer(self, train_loader: Any, eval_loader: Any) -> Trainer:
        train_config = self.config.train_config
        shards = self.options.world_size > 1 or self.device.type != "cpu"
        with deferred_tables() if shards else contextlib.nullcontext():
            wrapper = build.build_train_wrapper(
                self.config, self.features, self.device, step_precision=self._precision
            )
        model = distribute(
            wrapper,
            train_config=train_config,
            device=self.device,
            batch_size=train_loader.estimated_rows,
            features=self.features,
        )
        trainer = Trainer(
            model,
            build_optimizer(model, train_config),
            loader=train_loader,
            hooks=self._hooks(train_loader, eval_loader),
            num_steps=train_config.num_steps,
            num_epochs=train_config.num_epochs,
            device=self.device,
        )
        if train_config.compile_dense:
            compile_dense(trainer.base_model)
        return trainer

    def _hooks(self, train_loader: Any, eval_loader: Any) -> list[Hook]:
        train_config = self.config.train_config
        first = self.options.rank == 0
        scaled = train_config.HasField("grad_scaler")
        guard = NonFiniteGuard(train_config.max_non_finite_steps, scaled=scaled)
        signals = SignalHook(self.model_dir)
        seed = build.run_seed(self.config, self.options)
        hooks: list[Hook] = [guard, signals, HashTableHook(train_config, seed)]
        if train_config.HasField("early_stop"):
            hooks.append(EarlyStopHook(train_config.early_stop))
        if first:
            hooks.append(ConstantColumns(labels=learns_labels(self.config)))
            hooks.append(ProgressHook(train_config.log_step_count_steps))
        if first and train_config.use_tensorboard:
            hooks.append(TensorBoardHook(self.model_dir, train_config))
        if first and self._report is not None:
            hooks.append(self._report.hook)
        if isinstance(train_loader, KafkaLoader):
            hooks.append(StreamHook(train_loader, signals, train_config.log_step_count_steps))
        if train_config.HasField("delta_embedding_dump_config"):
            hooks.append(DeltaDumpHook(train_config.delta_embedding_dump_config, self.model_dir))
        hooks.append(
            CheckpointHook(
                self.model_dir,
                train_config,
                export_config=self.config.export_config,
                evaluate=self._evaluation(eval_loader, signals) if eval_loader else None,
                step_precision=chosen_precision(train_config, self._precision),
            )
        )
        if train_config.is_profiling:
            hooks.append(ProfilerHook(self.model_dir / "train_eval_trace"))
        return hooks

    def _evaluation(self, loader: Any, signals: SignalHook) -> Any:
        compiled = self.config.train_config.compile_dense

        def evaluate(trainer: Trainer) -> dict[str, float]:
            with as_written() if compiled else contextlib.nullcontext():
                metrics = run_evaluation(
                    trainer.model,
                    signals.watched(loader, trainer),
                    device=self.device,
                    eval_config=self.config.eval_config,
                    ema=trainer.ema if self._use_averages else None,
                    scores=self._report.scores if self._report is not None else None,
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
        try:
            save_message(self.config, self.model_dir / PIPELINE_CONFIG)
            with storage.open_file(self.model_dir / "version", "w", encoding="utf-8") as stream:
                stream.write(tzrec.__version__ + "\n")
        except Exception as error:  # a remote file system may raise anything
            raise CheckpointError(
                f"model_dir {self.model_dir} cannot be written: {error}",
                hint="choose another --model_dir",
            ) from error

    def _announce(self, trainer: Trainer, eval_loader: Any) -> None:
        self._start_facts = start_facts(
            trainer,
            features=self.features,
            model_dir=self.model_dir,
            batch_size=self.config.data_config.batch_size,
            eval_loader=eval_loader,
            precision=describe(self.config.train_config, self._precision),
        )
        logger.info("training\n%s", start_summary(self._start_facts))
        plan: Any = trainer.model.plan_table
        if plan is not None and self.options.rank == 0:
            logger.info("placement of the embedding tables\n%s", plan)
            write_plan(plan, self.model_dir)

    def _hook(self, trainer: Trainer, kind: type[H]) -> H:
        return next(hook for hook in trainer.hooks if isinstance(hook, kind))

    def _end(self, trainer: Trainer) -> None:
        """Writes the report, and says how the run went and where things are."""
        bad_rows = sum_over_ranks(getattr(trainer.loader, "num_bad_rows", 0))
        if self.options.rank != 0:
            return
        how = "interrupted" if trainer.interrupted else "finished"
        progress = self._hook(trainer, ProgressHook)
        best, notes = self._best(), self._notes(trainer, bad_rows)
        report = ""
        if self._report is not None:
            ending = Ending(
                how=f"{how}: {trainer.stop_reason}" if trainer.stop_reason else how,
                rate=row_rate(trainer, progress),
                best=best,
                go_on=go_on(trainer, self.model_dir),
                notes=notes,
                facts=self._start_facts,
            )
            report = self._report.write(trainer, ending)
        logger.info(
            "%s\n%s",
            how,
            final_summary(
                trainer,
                progress,
                metrics=self._hook(trainer, CheckpointHook).last_metrics,
                model_dir=self.model_dir,
                best=best,
                notes=[*_missing_values(trainer), *notes],
                report=report,
            ),
        )

    def _best(self) -> str:
        if not self.config.eval_input_path:
            return ""
        try:
            path, step = best_checkpoint(self.model_dir, self.config.export_config)
        except CheckpointError:  # the metric is not evaluated, or the checkpoint was pruned
            return ""
        metric = self.config.export_config.best_exporter_metric
        rows = [row for row in read_results(self.model_dir) if row["global_step"] == step]
        return f"{path} ({metric}:{rows[0][metric]:.6f})" if rows else str(path)

    def _notes(self, trainer: Trainer, bad_rows: int) -> list[str]:
        notes: list[str] = []
        if bad_rows:
            notes.append(f"{bad_rows:,} bad rows were left out (data_config.max_bad_rows)")
        if skipped := self._hook(trainer, NonFiniteGuard).num_skipped:
            notes.append(
                f"{skipped:,} steps were left out, a loss or gradient was not finite "
                "(train_config.max_non_finite_steps)"
            )
        if overflows := getattr(trainer.optimizer, "num_overflows", 0):
            notes.append(f"{overflows:,} updates were left out by the grad scaler")
        waiting = getattr(trainer.optimizer, "num_waiting", 0)
        if waiting and trainer.interrupted is None:
            every = self.config.train_config.gradient_accumulation_steps
            notes.append(
                f"batches at the end that have not moved the weights: {waiting:,}; an update takes "
                f"{every} (gradient_accumulation_steps), the checkpoint keeps their gradients"
            )
        return notes + self._hook(trainer, ConstantColumns).findings()


def _missing_values(trainer: Trainer) -> list[str]:
    """Returns how often features were missing or unknown; the report has them in a table."""
    counts = getattr(trainer.loader, "feature_counts", None)
    return counts.lines() if counts is not None else []
