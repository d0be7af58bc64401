"""Parts of the schema that this version does not have, said before anything starts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from tzrec.config.feature_facts import GROWING
from tzrec.config.model_facts import MODELS
from tzrec.config.no_ops import NO_OPS
from tzrec.config.problem import Problem, unsupported, warning
from tzrec.config.validate.data import LATER_READERS, dataset_type_of
from tzrec.config.validate.frame import Context, quoted
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


def features(context: Context) -> Iterator[Problem]:
    """Growing tables."""
    for feature in context.features:
        for name in GROWING:
            if name in feature.bucketisers:
                yield unsupported(
                    f"{feature.path}.{name}",
                    f"growing tables ({name}) come with a later version",
                    "set hash_bucket_size or num_buckets instead",
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


def training(context: Context) -> Iterator[Problem]:
    """Training parts."""
    train = context.config.train_config
    if context.for_serving:
        return
    if train.HasField("delta_embedding_dump_config"):
        yield unsupported(
            "train_config.delta_embedding_dump_config", f"dumping changed embedding rows {_LATER}"
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


def placement(context: Context) -> Iterator[Problem]:
    """Placement constraints change where tables live, never what is learnt."""
    if context.config.train_config.HasField("global_embedding_constraints"):
        yield warning(
            "train_config.global_embedding_constraints",
            "has an effect in several processes or on a GPU only: one process on a CPU keeps "
            "every table whole",
        )
    text = "placement constraints have no effect yet: the tables are placed automatically"
    marked = [
        feature for feature in context.features if feature.config.HasField("embedding_constraints")
    ]
    if marked:
        names = quoted(feature.name for feature in marked[:3])
        more = f" and {len(marked) - 3} more" if len(marked) > 3 else ""
        yield warning(f"{marked[0].path}.embedding_constraints", f"{text} ({names}{more})")


RULES = (models, features, data, training, no_effect, placement)
