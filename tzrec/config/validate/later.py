"""Parts of the schema that this version does not have, said before anything starts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from tzrec.config.model_facts import MODELS
from tzrec.config.no_ops import NO_OPS
from tzrec.config.problem import Problem, unsupported, warning
from tzrec.config.validate.data import LATER_READERS, dataset_type_of
from tzrec.config.validate.frame import Context
from tzrec.protos.data_pb2 import FG_DAG, DatasetType
from tzrec.protos.model_pb2 import PYTORCH, Kernel

_LATER = "comes with a later version"


def models(context: Context) -> Iterator[Problem]:
    """The chosen model must be one of this version."""
    if context.model_field and context.model_type not in MODELS:
        yield unsupported(
            context.model_path,
            f"model {context.model_type} {_LATER}",
            f"models of this version: {', '.join(MODELS)}",
        )


def data(context: Context) -> Iterator[Problem]:
    """Readers."""
    data_config = context.config.data_config
    dataset = DatasetType.Name(data_config.dataset_type)
    paths = [] if context.for_serving else ["train_input_path", "eval_input_path"]
    if data_config.HasField("dataset_type") and dataset in LATER_READERS:
        paths = []
        yield unsupported(
            "data_config.dataset_type",
            f"reader {dataset} {_LATER}",
            "this version reads ParquetDataset, CsvDataset and KafkaDataset",
        )
    for name in paths:
        kind = dataset_type_of(getattr(context.config, name).strip())
        if kind in LATER_READERS:
            yield unsupported(
                name, f"reader {kind} {_LATER}", "give files that end in .parquet or .csv"
            )


def no_effect(context: Context) -> Iterator[Problem]:
    """Switches that change how fast something is learnt, or nothing at all."""
    for where, why in NO_OPS.items():
        *parents, name = where.split(".")
        message: Any = functools.reduce(getattr, parents, context.config)
        default = message.DESCRIPTOR.fields_by_name[name].default_value
        if where == "data_config.fg_threads" and context.config.data_config.fg_mode == FG_DAG:
            continue  # it changes how fast features are generated
        if getattr(message, name) != default:
            yield warning(where, f"has no effect: {why}")
    kernel = context.config.model_config.kernel
    if kernel != PYTORCH:
        yield warning(
            "model_config.kernel",
            f"{Kernel.Name(kernel)} has no effect: only generative models have such kernels",
        )


RULES = (models, data, no_effect)
