"""What to read for which purpose: readers, writers and loaders by name and by config."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from tzrec.constant import Mode
from tzrec.datasets.bad_rows import BadRows
from tzrec.datasets.costs import check_cost_type
from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.event_time import check_time_type
from tzrec.datasets.formats import create_reader, create_writer, format_of
from tzrec.datasets.loader import BatchLoader, LoaderOptions
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.sampled import RowJoiner
from tzrec.datasets.sampler_input import SamplerInput
from tzrec.datasets.samplers.base import BaseSampler
from tzrec.datasets.split import SplitConfig
from tzrec.datasets.workers import usable_workers
from tzrec.datasets.writer import BaseWriter
from tzrec.errors import ConfigError, Unsupported
from tzrec.protos import data_pb2
from tzrec.protos.data_pb2 import DataConfig, DatasetType
from tzrec.registry import Registry

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature

__all__ = [
    "BaseDataset",
    "BaseReader",
    "BaseWriter",
    "create_dataloader",
    "create_reader",
    "create_writer",
    "get_dataset_class",
]

logger = logging.getLogger("tzrec")

ALL_COLUMNS = "ALL_COLUMNS"
ALL_EFFECTIVE_COLUMNS = "ALL_EFFECTIVE_COLUMNS"

_DATASETS: Registry[Any] = Registry(
    "dataset_type",
    {
        "CsvDataset": "tzrec.datasets.csv_dataset",
        "KafkaDataset": "tzrec.datasets.kafka_dataset",
        "ParquetDataset": "tzrec.datasets.parquet_dataset",
    },
)


class BaseDataset:
    """An input for training, evaluation or prediction: its reader and its parser.

    Args:
        data_config: format, label and weight columns.
        features: what is parsed of the columns.
        input_path: comma list of files, globs and directories.
        reserved_columns: columns for the output of a prediction; the first may be
            ``ALL_COLUMNS`` or ``ALL_EFFECTIVE_COLUMNS`` (all that are read anyway).
        mode: what the input is for. A prediction needs no labels and no sampler.

    Raises:
        DataError: files or columns are missing, or of a type that cannot be read.
        ConfigError: the config does not describe the files.
    """

    reader_class: ClassVar[type[BaseReader]]
    loader_class: ClassVar[type[BatchLoader]] = BatchLoader

    def __init__(
        self,
        data_config: DataConfig,
        features: Sequence[BaseFeature],
        input_path: str,
        *,
        reserved_columns: Sequence[str] | None = None,
        mode: Mode = Mode.TRAIN,
    ) -> None:
        learns = mode is not Mode.PREDICT
        self.sampler_input = SamplerInput.of(data_config, features) if learns else None
        self.parser = DataParser(
            features,
            labels=list(data_config.label_fields) if learns else None,
            sample_weights=list(data_config.sample_weight_fields) if learns else None,
            is_training=mode is Mode.TRAIN,
            fg_threads=data_config.fg_threads,
            force_base_data_group=data_config.force_base_data_group,
            sampler_type=self.sampler_input.type_name if self.sampler_input else None,
        )
        columns = self.parser.input_columns
        if self.sampler_input is not None:
            columns = list(dict.fromkeys([*columns, *self.sampler_input.id_columns]))
        time_field = data_config.event_time_field if mode is Mode.TRAIN else ""
        cost_field = data_config.sample_cost_field if data_config.batch_cost_size else ""
        if cost_field:
            columns = [*columns, cost_field]
        reserved = list(reserved_columns or ())
        special = reserved[0] if reserved else ""
        kept: list[str] | None = None if special == ALL_COLUMNS else reserved
        if special == ALL_EFFECTIVE_COLUMNS:
            kept = []
        if time_field and kept is not None:
            kept = [*kept, time_field]
        self.reader = self.reader_class(
            input_path,
            columns,
            kept_columns=kept,
            bad_rows=BadRows(data_config.max_bad_rows),
            **self.reader_options(data_config),
        )
        if cost_field:
            check_cost_type(cost_field, self.reader.schema.field(cost_field).type)
        if time_field:
            check_time_type(time_field, self.reader.schema.field(time_field).type)
        everything = special in (ALL_COLUMNS, ALL_EFFECTIVE_COLUMNS)
        self.reserved = tuple(self.reader.schema.names if everything else reserved)

    @classmethod
    def reader_options(cls, data_config: DataConfig) -> dict[str, Any]:
        """Returns further arguments of the reader class."""
        del data_config
        return {}


def get_dataset_class(dataset_type: str) -> type[BaseDataset]:
    """Returns the dataset class of a ``dataset_type``.

    Raises:
        Unsupported: it comes with a later version.
        ConfigError: there is none of that name.
    """
    if dataset_type not in _DATASETS and dataset_type in DatasetType.keys():  # noqa: SIM118
        raise Unsupported(
            f"dataset_type {dataset_type} is not supported yet",
            hint="use CsvDataset, ParquetDataset or KafkaDataset",
        )
    return _DATASETS.get(dataset_type)


def create_dataloader(
    data_config: DataConfig,
    features: Sequence[BaseFeature],
    input_path: str,
    reserved_columns: Sequence[str] | None = None,
    mode: Mode = Mode.TRAIN,
    *,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    debug_level: int = 0,
    with_log_q: bool = False,
    build_sampler: Callable[[BaseSampler], None] = BaseSampler.build,
) -> BatchLoader:
    """Makes the loader of one rank.

    Args:
        data_config: format, labels, batch sizes, shuffling, workers.
        features: what a batch holds.
        input_path: comma list of files, globs and directories.
        reserved_columns: columns for the output of a prediction.
        mode: training shuffles and masks; evaluation and prediction use ``eval_batch_size``;
            prediction reads no labels, keeps every row and their order.
        rank: number of this process.
        world_size: number of processes.
        seed: of shuffling, masks and samplers.
        debug_level: accepted for the interface; the text column ``__features__`` is made from
            the batches by `tzrec.deploy`.
        with_log_q: the sampler tells the probabilities of its draws.
        build_sampler: reads the sampler's tables, or takes them over from another process.

    Raises:
        DataError: files, columns or rows are missing, or a type cannot be read.
        Unsupported: the config asks for what a later version brings.
    """
    del debug_level
    _check_costs(data_config)
    dataset = _dataset_class(data_config, input_path)(
        data_config, features, input_path, reserved_columns=reserved_columns, mode=mode
    )
    training = mode is Mode.TRAIN
    return dataset.loader_class(
        dataset.reader,
        dataset.parser,
        config=SplitConfig(
            batch_size=_batch_size(data_config, mode),
            rank=rank,
            world_size=world_size,
            drop_remainder=data_config.drop_remainder and mode is not Mode.PREDICT,
            cost_limit=float(data_config.batch_cost_size),
            shuffle_batches=_shuffle_batches(data_config) if training else 0,
            seed=seed % 2**63,
        ),
        options=_options(data_config, dataset, mode),
        joiner=_joiner(data_config, dataset, training, with_log_q, build_sampler),
    )


def _options(data_config: DataConfig, dataset: BaseDataset, mode: Mode) -> LoaderOptions:
    training = mode is Mode.TRAIN
    return LoaderOptions(
        num_workers=num_parser_processes(data_config),
        reserved=dataset.reserved,
        mask_prob=data_config.sample_mask_prob if training else 0.0,
        pin_memory=_pins(data_config, mode),
        in_order=data_config.in_order or mode is Mode.PREDICT,
        cost_field=data_config.sample_cost_field,
        time_field=data_config.event_time_field if training else "",
        learns=training,
    )


def _joiner(
    data_config: DataConfig,
    dataset: BaseDataset,
    training: bool,
    with_log_q: bool,
    build: Callable[[BaseSampler], None],
) -> RowJoiner | None:
    if dataset.sampler_input is None:
        return None
    joiner = dataset.sampler_input.joiner(
        data_config,
        dataset.parser,
        dataset.reader.schema,
        is_training=training,
        with_log_q=with_log_q,
    )
    build(joiner.sampler)
    return joiner


def _dataset_class(data_config: DataConfig, input_path: str) -> type[BaseDataset]:
    configured = DatasetType.Name(data_config.dataset_type)
    found = format_of(input_path, configured.replace("Dataset", ""))
    return get_dataset_class(f"{found}Dataset")


def _batch_size(data_config: DataConfig, mode: Mode) -> int:
    size = data_config.batch_size
    if mode is not Mode.TRAIN and data_config.HasField("eval_batch_size"):
        size = data_config.eval_batch_size
    if size < 1:
        raise ConfigError(f"data_config: batch size {size} is not at least 1")
    return size


def _pins(data_config: DataConfig, mode: Mode) -> bool:
    return data_config.pin_memory and mode is not Mode.PREDICT and torch.cuda.is_available()


def _shuffle_batches(data_config: DataConfig) -> int:
    if not data_config.shuffle:
        return 0
    if data_config.shuffle_buffer_size < 1:
        raise ConfigError("data_config.shuffle_buffer_size: 0 shuffles nothing; at least 1")
    return data_config.shuffle_buffer_size


def num_parser_processes(data_config: DataConfig) -> int:
    """Returns the worker processes of a loader, 0 where its thread parses.

    ``AUTO`` takes the thread where parsing is cheap (no feature generation) and batches go to
    a CPU: measured by ``benchmarks/loader.py``.
    """
    kind = data_config.loader
    if kind == data_pb2.AUTO:
        light = data_config.fg_mode == data_pb2.FG_NONE and not torch.cuda.is_available()
        kind = data_pb2.THREAD if light else data_pb2.PROCESS
    if kind == data_pb2.THREAD or data_config.num_workers < 1:
        return 0
    return usable_workers(data_config.num_workers)


def _check_costs(data_config: DataConfig) -> None:
    if data_config.batch_cost_size and not data_config.sample_cost_field:
        raise ConfigError(
            "data_config.batch_cost_size needs sample_cost_field, the column with the cost of a row"
        )
