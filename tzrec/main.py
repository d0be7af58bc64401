"""Composition root: what each command does, as a table of contents.

The public names of the interface (`train_and_evaluate`, `evaluate`, `export`, `predict`,
`predict_checkpoint`, `_create_features`, `_create_model`) live here; the work is done in
`tzrec.training` and `tzrec.deploy`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tzrec.config import prepare
from tzrec.constant import EVAL_RESULT_FILENAME
from tzrec.deploy.assets import check_asset_files
from tzrec.deploy.commands import (
    PredictRequest,
    predict_input,
    prediction_config,
    restored_model,
    split_names,
)
from tzrec.deploy.export import export_parts, refuse_existing
from tzrec.deploy.options import Asked, refuse_later, resolve_options
from tzrec.deploy.parts import refuse_towers, sample_parts
from tzrec.deploy.predictor import Predictor
from tzrec.errors import ConfigError
from tzrec.models.factory import create_model as _create_model
from tzrec.models.precision import check_precision
from tzrec.options import from_environment
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training import build
from tzrec.training.build import build_features as _create_features
from tzrec.training.checkpoint.find import resolve
from tzrec.training.distributed.process_group import process_group
from tzrec.training.evaluation_job import EvaluationJob
from tzrec.training.job import TrainingJob

__all__ = [
    "_create_features",
    "_create_model",
    "evaluate",
    "export",
    "predict",
    "predict_checkpoint",
    "train_and_evaluate",
]

logger = logging.getLogger("tzrec")


def train_and_evaluate(
    pipeline_config_path: str,
    *,
    train_input_path: str | None = None,
    eval_input_path: str | None = None,
    model_dir: str | None = None,
    continue_train: bool = False,
    fine_tune_checkpoint: str | None = None,
    edit_config_json: str | None = None,
    ignore_restore_optimizer: bool = False,
    edits: Sequence[str] = (),
    report: bool = True,
) -> None:
    """Trains a model, evaluates after each checkpoint, and says where things are.

    Args:
        pipeline_config_path: config file.
        train_input_path: overrides the config's.
        eval_input_path: overrides the config's.
        model_dir: overrides the config's.
        continue_train: go on from the last checkpoint in ``model_dir``.
        fine_tune_checkpoint: start from these weights.
        edit_config_json: JSON object of config edits.
        ignore_restore_optimizer: restore weights but not optimizer states.
        edits: config edits as ``a.b.c=v``.
        report: write ``report.html`` at the end.

    Raises:
        TzrecError: config, data or checkpoint are wrong; the subclass says which.
    """
    config = prepare(
        pipeline_config_path,
        train_input_path=train_input_path,
        eval_input_path=eval_input_path,
        model_dir=model_dir,
        fine_tune_checkpoint=fine_tune_checkpoint,
        edit_config_json=edit_config_json,
        edits=edits,
    ).config
    options = from_environment()
    with process_group(options) as device:
        run = TrainingJob(config, options, device, report=report)
        run.train(continue_train=continue_train, ignore_optimizer=ignore_restore_optimizer)
    logger.info("Train and Evaluate Finished.")


def evaluate(
    pipeline_config_path: str,
    *,
    checkpoint_path: str | None = None,
    eval_input_path: str | None = None,
    eval_result_filename: str = EVAL_RESULT_FILENAME,
    edits: Sequence[str] = (),
    report: bool = True,
) -> dict[str, float]:
    """Evaluates a checkpoint and appends the metrics to ``model_dir/eval_result_filename``.

    Args:
        pipeline_config_path: config file.
        checkpoint_path: ``latest`` (default), ``best``, or a directory.
        eval_input_path: overrides the config's.
        eval_result_filename: name of the result file in ``model_dir``.
        edits: config edits as ``a.b.c=v``.
        report: write a report beside the result file, ``eval_result.html``.

    TensorBoard events are written below ``model_dir/eval``, at step 0 for a checkpoint that was
    named.

    Returns:
        Metric name → value.

    Raises:
        TzrecError: config, data or checkpoint are wrong.
    """
    config = prepare(pipeline_config_path, eval_input_path=eval_input_path, edits=edits).config
    if not config.eval_input_path:
        raise ConfigError("eval_input_path is empty: there is nothing to evaluate")
    options = from_environment()
    with process_group(options) as device:
        job = EvaluationJob(config, options, device, report=report)
        metrics = job.evaluate(checkpoint_path, result_filename=eval_result_filename)
    logger.info("Evaluate Finished.")
    return metrics


def export(
    pipeline_config_path: str,
    export_dir: str,
    *,
    checkpoint_path: str | None = None,
    asset_files: str | None = None,
    additional_export_config: str | None = None,
    item_input_path: str | None = None,
    edits: Sequence[str] = (),
    asked: Asked | None = None,
    defaults: Asked | None = None,
) -> Path | str:
    """Exports a checkpoint; nothing is published unless it predicts like the trained model.

    Args:
        pipeline_config_path: config file.
        export_dir: new directory, local or with a scheme that fsspec knows (``s3://…``).
        checkpoint_path: ``latest``, ``best`` or a directory; default by ``export_config``.
        asset_files: comma list of files to copy along.
        additional_export_config: JSON object merged into ``model_acc.json``.
        item_input_path: table with rows of items, for the parity check of the item tower of a
            match model (default: the training data).
        edits: config edits as ``a.b.c=v``.
        asked: target, quantisation, …; what it leaves open the environment decides.
        defaults: what neither decides.

    Returns:
        The directory.

    Raises:
        TzrecError: config, options or checkpoint are wrong, or the export differs from the model.
    """
    options = from_environment()
    refuse_later(options.no_effect)
    refuse_existing(export_dir)
    files = tuple(split_names(asset_files))
    check_asset_files(files)
    config = prepare(pipeline_config_path, edits=edits).config
    export_options = resolve_options(
        asked,
        options.export,
        defaults=defaults,
        mixed_precision=_export_precision(config),
        asset_files=files,
        additional_export_config=_json_object(additional_export_config),
    )
    with process_group(options):
        if options.rank != 0:
            logger.warning("export runs on rank 0 only")
            return export_dir
        logger.info("export: %s", export_options)
        checkpoint, _ = resolve(config.model_dir, checkpoint_path, config.export_config)
        features = _create_features(config.data_config, config.feature_configs)
        wrapper = restored_model(config, features, checkpoint)
        parts = sample_parts(
            wrapper.model, config, features, options, item_input_path=item_input_path
        )
        path = export_parts(parts, export_dir, export_options, staging=options.cache_dir)
    logger.info("exported %s to %s", checkpoint, path)
    return path


def predict(
    predict_input_path: str,
    predict_output_path: str,
    scripted_model_path: str,
    *,
    reserved_columns: str | None = None,
    output_columns: str | None = None,
    batch_size: int | None = None,
    is_profiling: bool = False,
    debug_level: int = 0,
    dataset_type: str | None = None,
    predict_threads: int | None = None,
    writer_type: str | None = None,
    edit_config_json: str | None = None,
    predict_steps: int | None = None,
) -> None:
    """Predicts a table with an exported model.

    Args:
        predict_input_path: input table.
        predict_output_path: directory of ``part-{rank}`` files.
        scripted_model_path: exported directory; its ``pipeline.config`` says how to read rows.
        reserved_columns: comma list of input columns to keep; the first may be ``ALL_COLUMNS``
            or ``ALL_EFFECTIVE_COLUMNS``.
        output_columns: comma list of predictions to write; default all, sorted.
        batch_size: rows of a batch.
        is_profiling: record ten batches in ``scripted_model_path/predict_trace`` and log where
            their time went.
        debug_level: above 0 adds the column ``__features__``.
        dataset_type: overrides the config's reader.
        predict_threads: forward threads.
        writer_type: ``CsvWriter`` or ``ParquetWriter``; default as the reader.
        edit_config_json: JSON object of config edits.
        predict_steps: batches to predict, all by default.

    Raises:
        TzrecError: the export, the input or an argument is wrong; nothing is written then.
    """
    predictor = Predictor.load(scripted_model_path)
    build.set_tf32(predictor.config.export_config)
    config = prediction_config(predictor.config, batch_size, dataset_type, edit_config_json)
    request = PredictRequest(
        predict_input_path,
        predict_output_path,
        reserved_columns=reserved_columns,
        output_columns=output_columns,
        writer_type=writer_type,
        steps=predict_steps,
        debug_level=debug_level,
        threads=predict_threads or max(config.data_config.num_workers, 1),
        trace_dir=f"{scripted_model_path}/predict_trace" if is_profiling else None,
    )
    predict_input(config, predictor.features, predictor.forward_batch, request)


def predict_checkpoint(
    pipeline_config_path: str,
    predict_input_path: str,
    predict_output_path: str,
    *,
    checkpoint_path: str | None = None,
    reserved_columns: str | None = None,
    output_columns: str | None = None,
    batch_size: int | None = None,
    dataset_type: str | None = None,
    writer_type: str | None = None,
    edit_config_json: str | None = None,
    predict_steps: int | None = None,
    edits: Sequence[str] = (),
) -> None:
    """Predicts a table with a checkpoint; arguments as in `predict` and `evaluate`.

    Raises:
        TzrecError: config, checkpoint or input are wrong; nothing is written then.
    """
    config = prepare(pipeline_config_path, edits=edits).config
    config = prediction_config(config, batch_size, dataset_type, edit_config_json)
    checkpoint, _ = resolve(config.model_dir, checkpoint_path or "latest", config.export_config)
    features = _create_features(config.data_config, config.feature_configs)
    wrapper = restored_model(config, features, checkpoint)
    refuse_towers(wrapper.model)
    request = PredictRequest(
        predict_input_path,
        predict_output_path,
        reserved_columns=reserved_columns,
        output_columns=output_columns,
        writer_type=writer_type,
        steps=predict_steps,
    )
    predict_input(config, features, lambda batch: wrapper(batch)[0], request)


def _export_precision(config: EasyRecConfig) -> str:
    exported = check_precision(config.export_config.mixed_precision)
    trained = check_precision(config.train_config.mixed_precision)
    if exported != trained:
        logger.warning(
            "the export computes in %s, the model was trained in %s",
            exported or "FP32",
            trained or "FP32",
        )
    return exported


def _json_object(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--additional_export_config is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--additional_export_config must be a JSON object, got {text!r}")
    return value
