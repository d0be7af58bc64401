"""Rules for the length of training, checkpoints, and what watches a metric."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tzrec.config.kafka_uri import is_kafka
from tzrec.config.problem import Problem, warning
from tzrec.config.validate.frame import Context
from tzrec.config.validate.objectives import metric_names
from tzrec.errors import did_you_mean


def length(context: Context) -> Iterator[Problem]:
    """Training ends, by one rule."""
    train = context.config.train_config
    if context.for_serving or not context.config.HasField("train_config"):
        return
    if train.num_steps and train.num_epochs:
        yield Problem(
            "train_config.num_steps",
            f"num_steps ({train.num_steps}) and num_epochs ({train.num_epochs}) are both set",
            "keep one: steps read the data as often as needed, epochs count passes over it",
        )
    elif not train.num_steps and not train.num_epochs and not context.is_broken("train_config"):
        yield Problem(
            "train_config.num_epochs",
            "is missing: neither num_epochs nor num_steps says when training ends",
            "for example num_epochs: 1",
        )


def updates(context: Context) -> Iterator[Problem]:
    """Some weight changes before training ends."""
    train = context.config.train_config
    if not context.for_serving and 0 < train.num_steps < train.gradient_accumulation_steps:
        yield warning(
            "train_config.gradient_accumulation_steps",
            f"is {train.gradient_accumulation_steps}, but num_steps is {train.num_steps}: no "
            "weight changes before the run ends",
        )


def penalties(context: Context) -> Iterator[Problem]:
    """Options of a penalty come with the penalty."""
    train = context.config.train_config
    if train.embedding_l2_all_rows and not train.embedding_l2:
        yield warning(
            "train_config.embedding_l2_all_rows", "has no effect: train_config.embedding_l2 is 0"
        )


def metric_watchers(context: Context) -> Iterator[Problem]:
    """What waits for an evaluation metric gets it."""
    config = context.config
    if context.for_serving:
        return
    watchers = []
    if config.train_config.HasField("early_stop"):
        metric = config.train_config.early_stop.metric
        watchers.append(("train_config.early_stop", "early_stop", metric))
    for name in ("sparse_optimizer", "dense_optimizer"):
        optimizer = getattr(config.train_config, name)
        if optimizer.WhichOneof("learning_rate") == "reduce_on_plateau_learning_rate":
            where = f"train_config.{name}.reduce_on_plateau_learning_rate"
            metric = optimizer.reduce_on_plateau_learning_rate.metric
            watchers.append((where, "reduce_on_plateau_learning_rate", metric))
    known = metric_names(context)
    for where, what, metric in watchers:
        if not config.eval_input_path.strip():
            yield Problem(
                where,
                f"{what} watches a metric, but eval_input_path is empty, so nothing is evaluated",
                "write eval_input_path, or give --eval-input-path",
            )
        if metric and known is not None and metric not in known:
            yield Problem(
                f"{where}.metric",
                f"there is no metric {metric!r}{did_you_mean(metric, known)}",
                f"metrics of this config: {', '.join(known)}",
            )


def epochs_and_steps(context: Context) -> Iterator[Problem]:
    """Saving by epoch replaces saving by step."""
    train = context.config.train_config
    if train.save_checkpoints_epochs and train.HasField("save_checkpoints_steps"):
        yield warning(
            "train_config.save_checkpoints_steps",
            "has no effect, since save_checkpoints_epochs is set",
        )


def averaged_weights(context: Context) -> Iterator[Problem]:
    """Averaged weights are only used where they are made."""
    config = context.config
    if context.for_serving or config.train_config.dense_optimizer.HasField("ema"):
        return
    for name in ("eval_config", "export_config"):
        if getattr(config, name).use_dense_ema:
            yield Problem(
                f"{name}.use_dense_ema",
                "is true, but training does not average weights",
                "remove it, or add dense_optimizer { ema { } }",
            )


def best_checkpoint(context: Context) -> Iterator[Problem]:
    """The best checkpoint is chosen by a metric that is evaluated."""
    export = context.config.export_config
    if export.exporter_type != "best" or context.for_serving:
        return
    known = metric_names(context)
    if not context.config.eval_input_path.strip():
        yield Problem(
            "export_config.exporter_type",
            "is best, but eval_input_path is empty, so no checkpoint is evaluated",
            'write eval_input_path, or use exporter_type: "latest"',
        )
    elif known and export.best_exporter_metric not in known:
        metric = export.best_exporter_metric
        default = "" if export.HasField("best_exporter_metric") else " (the default)"
        yield Problem(
            "export_config.best_exporter_metric",
            f"there is no metric {metric!r}{default}{did_you_mean(metric, known)}",
            f"metrics of this config: {', '.join(known)}",
        )


def event_time(context: Context) -> Iterator[Problem]:
    """Saving by event time needs rows with a time."""
    train = context.config.train_config
    if context.for_serving:
        return
    cadences = ("save_checkpoints_timestamp_interval", "save_checkpoints_timestamps")
    if train.HasField("save_checkpoints_timestamp_quorum") and not any(
        getattr(train, name) for name in cadences
    ):
        yield warning(
            "train_config.save_checkpoints_timestamp_quorum",
            f"has no effect without {' or '.join(cadences)}",
        )
    if context.config.data_config.event_time_field or is_kafka(context.config.train_input_path):
        return  # Kafka's messages have a time
    for name in cadences:
        if getattr(train, name):
            yield Problem(
                f"train_config.{name}",
                "is set, but data_config.event_time_field is not, so no row has a time",
                'write event_time_field: "…", the column with the seconds since 1970',
            )


def parameter_map(context: Context) -> Iterator[Problem]:
    """A map of parameter names has something to rename, and exists."""
    train = context.config.train_config
    path, where = train.fine_tune_ckpt_param_map, "train_config.fine_tune_ckpt_param_map"
    if not path or context.for_serving:
        return
    if not train.fine_tune_checkpoint:
        yield warning(where, "has no effect without fine_tune_checkpoint")
    elif "://" not in path and not os.path.isfile(path):
        yield Problem(where, f"file {path!r} does not exist")


def run_directory(context: Context) -> Iterator[Problem]:
    """The run directory is one."""
    path = context.config.model_dir
    if path and "://" not in path and os.path.isfile(path):
        yield Problem("model_dir", f"{path!r} is a file, must be a directory")


RULES = (
    run_directory,
    parameter_map,
    event_time,
    length,
    updates,
    penalties,
    metric_watchers,
    epochs_and_steps,
    averaged_weights,
    best_checkpoint,
)
