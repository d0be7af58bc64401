"""`HashTableSpec`: how a table with a row for each id that matters behaves (zch, dynamicemb)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tzrec.config.feature_facts import GROWING
from tzrec.config.hash_table_names import MODES, POLICIES, STRATEGIES, Policy
from tzrec.config.threshold_text import Threshold, read_threshold
from tzrec.errors import ConfigError

# Rows behind those of the ids.
NUM_SPARE = {"zch": 1, "dynamicemb": 2}


@dataclasses.dataclass(frozen=True)
class Constants:
    """What ids without a row are embedded as: a number in every column that nothing trains.

    Attributes:
        training: in training.
        evaluation: in evaluation, prediction and exports.
    """

    training: float = 0.0
    evaluation: float = 0.0


@dataclasses.dataclass(frozen=True)
class Admission:
    """New ids get a row once they have been seen often enough.

    Attributes:
        threshold: how often.
        counter_capacity: ids without a row that are counted at the same time.
    """

    threshold: int
    counter_capacity: int


@dataclasses.dataclass(frozen=True)
class HashTableSpec:
    """A table whose rows are given to ids as they come; compares equal when tables can be shared.

    Attributes:
        kind: ``zch`` or ``dynamicemb``.
        capacity: ids that can have a row.
        num_spare: rows behind them, for ids that have none.
        interval: training steps from one change of the map of ids to the next.
        policy: what an id is worth.
        decay: exponent of the age in an id's worth.
        threshold: which ids of an interval count; None = all.
        admission: when a new id gets a row; None = at once.
        constants: values of the spare rows; None = the spare row trains like any other.
        initializer: what fills rows that change their owner; empty = the table's ``init_fn``.
    """

    kind: str
    capacity: int
    num_spare: int
    interval: int
    policy: Policy
    decay: float = 1.0
    threshold: Threshold | None = None
    admission: Admission | None = None
    constants: Constants | None = None
    initializer: tuple[tuple[str, Any], ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return self.capacity + self.num_spare

    def spare_row(self, *, training: bool) -> int:
        """Returns the row of ids that have none of their own."""
        return self.capacity if training or self.num_spare == 1 else self.capacity + 1

    def init_fn(self) -> Callable[[Tensor], Any] | None:
        """Returns what fills rows; None = the table's own ``init_fn``."""
        return _init_fn(dict(self.initializer)) if self.initializer else None


def hash_table_spec(config: Any) -> HashTableSpec | None:
    """Returns the hash table of a feature's message; None if it has none.

    Raises:
        ConfigError: its numbers cannot be.
    """
    known = config.DESCRIPTOR.fields_by_name
    for kind in GROWING:
        if kind in known and config.HasField(kind):
            return _zch(config.zch) if kind == "zch" else _dynamicemb(config)
    return None


def _zch(zch: Any) -> HashTableSpec:
    policy = zch.WhichOneof("eviction_policy")
    if zch.zch_size < 2:
        raise ConfigError(f"zch_size is {zch.zch_size}, must be at least 2: one row is for the ids")
    if zch.eviction_interval < 1:
        raise ConfigError("eviction_interval is 0, must be at least 1")
    if policy is None:
        raise ConfigError(
            "zch has no eviction policy", hint=f"write {', '.join(POLICIES)}: for example lfu {{}}"
        )
    return HashTableSpec(
        kind="zch",
        capacity=int(zch.zch_size) - 1,
        num_spare=NUM_SPARE["zch"],
        interval=int(zch.eviction_interval),
        policy=policy,
        decay=1.0 if policy == "lfu" else float(getattr(zch, policy).decay_exponent),
        threshold=read_threshold(zch.threshold_filtering_func),
    )


def _dynamicemb(config: Any) -> HashTableSpec:
    section = config.dynamicemb
    if section.max_capacity < 1:
        raise ConfigError("max_capacity is 0, must be at least 1")
    policy = STRATEGIES.get(section.score_strategy)
    if policy is None:
        raise ConfigError(
            f"score_strategy is {section.score_strategy!r}, must be one of {', '.join(STRATEGIES)}"
        )
    admission, waiting = None, 0.0
    if section.HasField("frequency_admission_strategy"):
        strategy = section.frequency_admission_strategy
        counted = int(strategy.counter_capacity) or int(section.max_capacity)
        admission = Admission(int(strategy.threshold), counted)
        waiting = constant_of(strategy.initializer_args, "frequency_admission_strategy")
    unknown = constant_of(section.eval_initializer_args, "eval_initializer_args")
    capacity = int(section.max_capacity)
    return HashTableSpec(
        kind="dynamicemb",
        capacity=capacity,
        num_spare=NUM_SPARE["dynamicemb"],
        interval=1,
        policy=policy,
        admission=admission,
        constants=Constants(waiting, unknown),
        initializer=_initializer(section.initializer_args, capacity, int(config.embedding_dim)),
    )


def constant_of(args: Any, where: str) -> float:
    """Returns the value of an initializer of ids that have no row.

    Raises:
        ConfigError: it is no constant.
    """
    if (args.mode or "constant").lower() != "constant":
        raise ConfigError(
            f"{where}: mode is {args.mode!r}; ids without a row are embedded as a constant here",
            hint='write mode: "constant" value: 0',
        )
    return float(args.value)


def _initializer(args: Any, capacity: int, dim: int) -> tuple[tuple[str, Any], ...]:
    mode = (args.mode or "uniform").lower()
    if mode not in MODES:
        raise ConfigError(f"initializer_args: mode is {args.mode!r}, must be {', '.join(MODES)}")
    if mode == "constant":
        return ("mode", mode), ("value", float(args.value))
    if mode == "uniform":
        bound = 1.0 / math.sqrt(capacity)
        lower = float(args.lower) if args.HasField("lower") else -bound
        upper = float(args.upper) if args.HasField("upper") else bound
        return ("mode", mode), ("lower", lower), ("upper", upper)
    deviation = float(args.std_dev) if args.HasField("std_dev") else 1.0 / math.sqrt(dim)
    mean = float(args.mean)
    if mode == "normal":
        return ("mode", mode), ("mean", mean), ("std_dev", deviation)
    lower = float(args.lower) if args.HasField("lower") else mean - 2 * deviation
    upper = float(args.upper) if args.HasField("upper") else mean + 2 * deviation
    bounds = ("lower", lower), ("upper", upper)
    return ("mode", mode), ("mean", mean), ("std_dev", deviation), *bounds


def _init_fn(args: dict[str, Any]) -> Callable[[Tensor], Any]:
    mode = args["mode"]
    if mode == "constant":
        return functools.partial(nn.init.constant_, val=args["value"])
    if mode == "uniform":
        return functools.partial(nn.init.uniform_, a=args["lower"], b=args["upper"])
    if mode == "normal":
        return functools.partial(nn.init.normal_, mean=args["mean"], std=args["std_dev"])
    return functools.partial(
        nn.init.trunc_normal_,
        mean=args["mean"],
        std=args["std_dev"],
        a=args["lower"],
        b=args["upper"],
    )
