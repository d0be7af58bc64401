"""One evaluation of a checkpoint: builds its parts from the config, runs it, writes it down."""

from __future__ import annotations

import logging

import torch

from tzrec.constant import Mode
from tzrec.options import Options
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training import build
from tzrec.training.averages import restore_weights, uses_averages
from tzrec.training.checkpoint.find import resolve
from tzrec.training.evaluator import format_metrics, record_result, run_evaluation
from tzrec.training.hooks.tensorboard import log_evaluation
from tzrec.training.job import closing
from tzrec.training.location import location
from tzrec.training.report.run_report import EvalReport

logger = logging.getLogger("tzrec")


class EvaluationJob:
    """The evaluation of a checkpoint of one config on this rank.

    Args:
        config: checked config; read only.
        options: rank, world size, seed.
        device: where the model lives.
        report: write a report beside the result file.
    """

    def __init__(
        self, config: EasyRecConfig, options: Options, device: torch.device, *, report: bool = True
    ) -> None:
        self.config = config
        self.options = options
        self.device = device
        self.features = build.build_features(config.data_config, config.feature_configs)
        self._report = EvalReport(config, self.features) if report else None

    def evaluate(self, checkpoint_path: str | None, *, result_filename: str) -> dict[str, float]:
        """Evaluates a checkpoint and writes its metrics into the run.

        Args:
            checkpoint_path: ``latest`` (default), ``best``, or a directory, whose step is unknown.
            result_filename: name of the result file in ``model_dir``.

        Returns:
            Metric name → value.
        """
        config = self.config
        build.set_tf32(config.train_config)
        checkpoint, step = resolve(
            config.model_dir, checkpoint_path or "latest", config.export_config
        )
        model = build.build_train_wrapper(config, self.features, self.device).to(self.device)
        averages = uses_averages(config.eval_config, config.train_config)
        restored = restore_weights(model, checkpoint, averages=averages)
        logger.info("weights of %s: %s", checkpoint, restored)
        loader = build.build_loader(
            config, self.features, config.eval_input_path, mode=Mode.EVAL, options=self.options
        )
        with closing(loader):
            metrics = run_evaluation(
                model,
                loader,
                device=self.device,
                eval_config=config.eval_config,
                scores=self._report.scores if self._report else None,
            )
        path = location(config.model_dir) / result_filename
        named = checkpoint_path not in (None, "latest", "best")
        record_result(path, None if named else step, metrics)
        if self.options.rank == 0:
            if config.train_config.use_tensorboard:
                log_evaluation(config.model_dir, metrics, 0 if named else step)
            if self._report is not None:
                half_widths = model.model.metric_half_widths()
                self._report.write(path, checkpoint, step, metrics, half_widths)
        logger.info("Eval Result %s: %s", checkpoint.name, format_metrics(metrics))
        return metrics
