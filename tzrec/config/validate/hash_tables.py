"""Hash tables: ``zch`` and ``dynamicemb`` of a feature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tzrec.config.hash_table_names import MODES, POLICIES, STRATEGIES
from tzrec.config.problem import Problem, warning
from tzrec.config.threshold_text import read_threshold
from tzrec.config.validate.frame import Context
from tzrec.errors import ConfigError, did_you_mean

# Fields of dynamicemb that place or speed up its tables on a GPU, or make its file.
_WITHOUT_EFFECT = ("cache_load_factor", "init_capacity_per_rank", "bucket_capacity")


def zch(context: Context) -> Iterator[Problem]:
    """A ``zch`` table has rows, an interval, a policy, and a filter that can be read."""
    for feature in context.features:
        if "zch" not in feature.bucketisers:
            continue
        table, here = feature.config.zch, f"{feature.path}.zch"
        if table.HasField("zch_size") and table.zch_size < 2:
            yield Problem(
                f"{here}.zch_size",
                f"is {table.zch_size}, must be at least 2",
                "one row serves the ids that have none",
            )
        if table.eviction_interval < 1:
            yield Problem(f"{here}.eviction_interval", "is 0, must be at least 1")
        policy = table.WhichOneof("eviction_policy")
        if policy is None:
            yield Problem(
                here, "has no eviction policy", f"choose one of {', '.join(POLICIES)}: lfu {{}}"
            )
        elif policy != "lfu" and getattr(table, policy).decay_exponent < 0:
            value = getattr(table, policy).decay_exponent
            yield Problem(f"{here}.{policy}.decay_exponent", f"is {value:g}, must not be negative")
        try:
            read_threshold(table.threshold_filtering_func)
        except ConfigError as error:
            yield Problem(f"{here}.threshold_filtering_func", error.message, error.hint)


def dynamicemb(context: Context) -> Iterator[Problem]:
    """A ``dynamicemb`` table has a capacity, and asks for nothing that only a GPU library has."""
    for feature in context.features:
        if "dynamicemb" not in feature.bucketisers:
            continue
        table, here = feature.config.dynamicemb, f"{feature.path}.dynamicemb"
        if table.HasField("max_capacity") and table.max_capacity < 1:
            yield Problem(f"{here}.max_capacity", "is 0, must be at least 1")
        if table.score_strategy not in STRATEGIES:
            near = did_you_mean(table.score_strategy, STRATEGIES)
            known = ", ".join(STRATEGIES)
            yield Problem(
                f"{here}.score_strategy", f"is {table.score_strategy!r}, must be {known}{near}"
            )
        if table.init_table:
            yield Problem(
                f"{here}.init_table",
                "is not read: tables start empty",
                "start from a checkpoint with train_config.fine_tune_checkpoint",
            )
        yield from _initializer(table.initializer_args, f"{here}.initializer_args", MODES)
        args = table.eval_initializer_args
        yield from _initializer(args, f"{here}.eval_initializer_args", ("constant",))
        if table.HasField("frequency_admission_strategy"):
            strategy = table.frequency_admission_strategy
            yield from _admission(strategy, f"{here}.frequency_admission_strategy")
        for name in _WITHOUT_EFFECT:
            if table.HasField(name):
                yield _without_effect(f"{here}.{name}")


def frozen(context: Context) -> Iterator[Problem]:
    """A frozen hash table comes from a checkpoint: its map does not change either."""
    if context.for_serving or context.config.train_config.fine_tune_checkpoint:
        return
    for feature in context.features:
        if feature.hash_table and not feature.config.trainable:
            yield warning(
                f"{feature.path}.trainable",
                f"a frozen table gives no id a row: {feature.name!r} must come from a checkpoint",
                "set train_config.fine_tune_checkpoint, or go on with a run (--continue)",
            )


def placement(context: Context) -> Iterator[Problem]:
    """Constraints do not reach ``zch`` tables; no hash table is copied to every process."""
    for feature in context.features:
        if not feature.hash_table or not feature.config.HasField("embedding_constraints"):
            continue
        here = f"{feature.path}.embedding_constraints"
        if "zch" in feature.bucketisers:
            yield warning(
                here, "has no effect: the planner places zch tables by itself, whole or by rows"
            )
        elif set(feature.config.embedding_constraints.sharding_types) == {"data_parallel"}:
            yield Problem(
                f"{here}.sharding_types",
                f"hash table of {feature.name!r} cannot be data_parallel",
                "take table_wise or row_wise: rows begin anew with another id, copies do not",
            )


def _admission(strategy: Any, here: str) -> Iterator[Problem]:
    for name in ("threshold", "counter_capacity"):
        if strategy.HasField(name) and getattr(strategy, name) < 1:
            yield Problem(f"{here}.{name}", "is 0, must be at least 1")
    if strategy.HasField("counter_bucket_capacity"):
        yield _without_effect(f"{here}.counter_bucket_capacity")
    yield from _initializer(strategy.initializer_args, f"{here}.initializer_args", ("constant",))


def _without_effect(where: str) -> Problem:
    return warning(where, "has no effect: it is about the memory of the GPU library")


def _initializer(args: Any, here: str, modes: tuple[str, ...]) -> Iterator[Problem]:
    if args.mode and args.mode.lower() not in modes:
        near = did_you_mean(args.mode.lower(), modes)
        yield Problem(f"{here}.mode", f"is {args.mode!r}, must be {' or '.join(modes)}{near}")
    if args.HasField("std_dev") and args.std_dev < 0:
        yield Problem(f"{here}.std_dev", f"is {args.std_dev:g}, must not be negative")
    if args.HasField("lower") and args.HasField("upper") and args.lower > args.upper:
        yield Problem(here, f"has lower {args.lower:g} above upper {args.upper:g}")


RULES = (zch, dynamicemb, frozen, placement)
