"""What export and prediction do beside exporting and predicting: configs, weights, tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from tzrec.batch import Batch
from tzrec.config import edit_config
from tzrec.constant import Mode
from tzrec.datasets.dataset import ALL_EFFECTIVE_COLUMNS, create_writer
from tzrec.deploy.batch_predict import predict_table
from tzrec.deploy.profile import profiled
from tzrec.errors import ConfigError, did_you_mean
from tzrec.models.model import PredictWrapper
from tzrec.options import Options, from_environment
from tzrec.protos.data_pb2 import THREAD, DatasetType
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training import build
from tzrec.training.averages import restore_weights, uses_averages
from tzrec.training.job import closing
from tzrec.training.location import Location

logger = logging.getLogger("tzrec")


def restored_model(
    config: EasyRecConfig, features: list[Any], checkpoint: Location
) -> PredictWrapper:
    """Builds the model for prediction and gives it the weights of a checkpoint.

    Weights are averages, and TF32 is allowed, as ``export_config`` says.
    """
    build.set_tf32(config.export_config)
    model = build.build_model(config, features, with_labels=False)
    precision = config.train_config.mixed_precision or None
    wrapper = PredictWrapper(model, device=torch.device("cpu"), mixed_precision=precision)
    averages = uses_averages(config.export_config, config.train_config)
    report = restore_weights(wrapper, checkpoint, averages=averages)
    logger.info("weights of %s: %s", checkpoint, report)
    model.set_is_inference(True)
    wrapper.eval()
    return wrapper


def golden_rows(
    config: EasyRecConfig, features: list[Any], options: Options, *, input_path: str | None = None
) -> tuple[dict[str, torch.Tensor], pa.RecordBatch]:
    """Returns the first batch of a table: as the exported model takes it, and raw.

    Args:
        config: how rows are read.
        features: what is made of them.
        options: of the process.
        input_path: the table, default the training data.
    """
    alone = EasyRecConfig()
    alone.CopyFrom(config)
    # One batch is not worth starting processes for.
    alone.data_config.loader = THREAD
    loader = build.build_loader(
        alone,
        features,
        input_path or config.train_input_path,
        mode=Mode.PREDICT,
        options=options,
        reserved_columns=[ALL_EFFECTIVE_COLUMNS],
    )
    with closing(loader):
        batch = next(iter(loader))
        return batch.to_dict(sparse_dtype=torch.int64), batch.reserves.get()


def prediction_config(
    config: EasyRecConfig,
    batch_size: int | None,
    dataset_type: str | None,
    edit_config_json: str | None,
) -> EasyRecConfig:
    """Returns a copy of a config with what a prediction may override.

    Raises:
        ConfigError: the dataset type or an edit is wrong.
    """
    edited = EasyRecConfig()
    edited.CopyFrom(config)
    if batch_size:
        edited.data_config.eval_batch_size = batch_size
    if dataset_type:
        known = DatasetType.keys()
        if dataset_type not in known:
            raise ConfigError(
                f"--dataset_type: {dataset_type!r}; known are {', '.join(known)}"
                f"{did_you_mean(dataset_type, known)}"
            )
        edited.data_config.dataset_type = DatasetType.Value(dataset_type)  # type: ignore[assignment]
    if edit_config_json:
        edit_config(edited, edit_config_json)
    return edited


@dataclass(frozen=True)
class PredictRequest:
    """What a prediction reads and writes.

    Attributes:
        input_path: table.
        output_path: directory of ``part-{rank}`` files.
        reserved_columns: comma list of input columns to keep.
        output_columns: comma list of predictions to write, None = all.
        writer_type: ``CsvWriter`` or ``ParquetWriter``, None = as the reader.
        steps: batches to predict, None = all.
        debug_level: above 0 adds the column ``__features__``.
        threads: forward threads.
        trace_dir: where a profile goes, None = no profile.
        metadata: what a Parquet output says about itself.
    """

    input_path: str
    output_path: str
    reserved_columns: str | None = None
    output_columns: str | None = None
    writer_type: str | None = None
    steps: int | None = None
    debug_level: int = 0
    threads: int = 1
    trace_dir: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def predict_input(
    config: EasyRecConfig,
    features: list[Any],
    forward: Callable[[Batch], dict[str, torch.Tensor]],
    request: PredictRequest,
) -> str | None:
    """Predicts the rows of this rank and writes them.

    Returns:
        The name of the file, None if this rank had no rows.

    Raises:
        TzrecError: the input or an argument is wrong; nothing is written then.
    """
    options = from_environment()
    writer_type = request.writer_type
    if writer_type is None:
        dataset_type = DatasetType.Name(config.data_config.dataset_type)
        writer_type = dataset_type.replace("Dataset", "Writer")
    loader = build.build_loader(
        config,
        features,
        request.input_path,
        mode=Mode.PREDICT,
        options=options,
        reserved_columns=split_names(request.reserved_columns),
    )
    with closing(loader), profiled(forward, request.trace_dir) as run:
        writer = create_writer(request.output_path, writer_type, rank=options.rank)
        writer.metadata |= request.metadata
        summary = predict_table(
            run.forward,
            loader,
            writer,
            output_columns=split_names(request.output_columns) or None,
            steps=request.steps,
            threads=request.threads,
            debug_features=features if request.debug_level > 0 else None,
            timeout=options.predict_queue_timeout,
            on_batch=run.on_batch,
        )
    logger.info("%s to %s", summary, request.output_path)
    logger.info("Predict Finished.")
    return writer.name if summary.num_rows else None


def split_names(comma_list: str | None) -> list[str]:
    """Returns the names of a comma list; empty ones are left out."""
    return [name for name in (comma_list or "").split(",") if name]
