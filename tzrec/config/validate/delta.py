"""Rules for dumps of changed embedding rows."""

from __future__ import annotations

from collections.abc import Iterator

from tzrec.config.feature_facts import GROWING
from tzrec.config.problem import Problem, unsupported
from tzrec.config.validate.frame import Context

_PATH = "train_config.delta_embedding_dump_config"


def cadence(context: Context) -> Iterator[Problem]:
    """Dumps come every few steps or every few minutes."""
    if not _dumps(context):
        return
    config = context.config.train_config.delta_embedding_dump_config
    if config.HasField("dump_interval_steps") and config.HasField("dump_interval_minutes"):
        yield Problem(
            f"{_PATH}.dump_interval_minutes",
            f"dump_interval_steps ({config.dump_interval_steps}) and dump_interval_minutes "
            f"({config.dump_interval_minutes}) are both set",
            "keep one; without any a dump comes every 1000 steps",
        )
    for name in ("dump_interval_steps", "dump_interval_minutes"):
        if config.HasField(name) and not getattr(config, name):
            yield Problem(
                f"{_PATH}.{name}",
                "must be at least 1, got 0",
                "remove delta_embedding_dump_config where no dumps are wanted",
            )


def names(context: Context) -> Iterator[Problem]:
    """The prefix is the start of a file's name."""
    if not _dumps(context):
        return
    prefix = context.config.train_config.delta_embedding_dump_config.file_prefix
    if not prefix or "/" in prefix:
        yield Problem(
            f"{_PATH}.file_prefix",
            f"must be the start of a file's name, got {prefix!r}",
            "directories belong into output_dir",
        )


def parts_of_later(context: Context) -> Iterator[Problem]:
    """What this version does not dump, and where it does not send dumps to."""
    if not _dumps(context):
        return
    if context.config.train_config.delta_embedding_dump_config.HasField("feature_store_config"):
        yield unsupported(
            f"{_PATH}.feature_store_config",
            "is for a feature store of Alibaba Cloud, which this version does not write to",
            "remove it and read the Parquet files in output_dir",
        )
    for feature in context.features:
        for name in GROWING:
            if name in feature.bucketisers:
                yield unsupported(
                    f"{feature.path}.{name}",
                    f"delta dumps of growing tables ({name}) come with a later version",
                    "remove train_config.delta_embedding_dump_config, or set hash_bucket_size "
                    "or num_buckets instead",
                )


def _dumps(context: Context) -> bool:
    train = context.config.train_config
    return train.HasField("delta_embedding_dump_config") and not context.for_serving


RULES = (cadence, names, parts_of_later)
