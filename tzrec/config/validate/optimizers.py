"""Rules for optimizers and learning rates."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from tzrec.config.messages import which_field
from tzrec.config.problem import Problem, warning
from tzrec.config.specs import DENSE_OPTIMIZERS, SPARSE_OPTIMIZERS
from tzrec.config.validate.frame import Context
from tzrec.protos.optimizer_pb2 import NONE

_HIGH_RATE = 10.0
_RATES = "constant_learning_rate {}"
_TRUST_RATIO = ("lars_sgd_optimizer", "lamb_optimizer", "partial_rowwise_lamb_optimizer")


def optimizers(context: Context) -> Iterator[Problem]:
    """Optimizer and learning rate are chosen."""
    train = context.config.train_config
    if context.for_serving:
        return
    for name, known in (
        ("sparse_optimizer", SPARSE_OPTIMIZERS),
        ("dense_optimizer", DENSE_OPTIMIZERS),
    ):
        if train.HasField(name):
            path = f"train_config.{name}"
            yield from _chosen(context, getattr(train, name), path, known, rate_needed=True)
    for index, part in enumerate(train.dense_optimizer.part_optimizers):
        path = f"train_config.dense_optimizer.part_optimizers[{index}]"
        yield from _chosen(context, part, path, DENSE_OPTIMIZERS, rate_needed=False)
        try:
            re.compile(part.regex_pattern)
        except re.error as error:
            yield Problem(
                f"{path}.regex_pattern", f"{part.regex_pattern!r} is no regular expression: {error}"
            )


def _chosen(
    context: Context, optimizer: Any, path: str, known: tuple[str, ...], *, rate_needed: bool
) -> Iterator[Problem]:
    if context.is_broken(path):
        return
    name = which_field(optimizer, "optimizer")
    if name is None:
        yield Problem(path, "no optimizer is chosen", f"optimizers: {', '.join(known)}")
    else:
        rate = getattr(optimizer, name).lr
        if rate > _HIGH_RATE:
            yield warning(f"{path}.{name}.lr", f"{rate:g} is a very high learning rate")
    if rate_needed and which_field(optimizer, "learning_rate") is None:
        yield Problem(path, "no learning rate schedule is chosen", f"for a fixed rate: {_RATES}")


def check_nesterov(sgd: Any, path: str, context: Context) -> Iterator[Problem]:
    """Nesterov momentum needs momentum and no dampening."""
    del context
    if sgd.nesterov and (sgd.momentum <= 0 or sgd.dampening != 0):
        yield Problem(f"{path}.nesterov", "needs momentum above 0 and dampening 0")


def check_decay(rate: Any, path: str, context: Context) -> Iterator[Problem]:
    """Exponential decay has a step size."""
    if not rate.HasField("decay_size") and not context.is_broken(path):
        yield Problem(f"{path}.decay_size", "is missing: after how many steps the rate decays")


def check_cosine(rate: Any, path: str, context: Context) -> Iterator[Problem]:
    """Cosine schedules have a length."""
    name = "T_max" if rate.DESCRIPTOR.name == "CosineAnnealingLR" else "T_0"
    if not rate.HasField(name) and not context.is_broken(path):
        yield Problem(f"{path}.{name}", "is missing: how many steps the cosine takes")


def check_manual(rate: Any, path: str, context: Context) -> Iterator[Problem]:
    """Manual steps ascend, and each has its rate."""
    if context.is_broken(path):
        return
    sizes = list(rate.schedule_sizes)
    if not sizes:
        yield Problem(f"{path}.schedule_sizes", "is missing: at which steps the rate changes")
    if len(sizes) != len(rate.learning_rates):
        yield Problem(
            f"{path}.learning_rates",
            f"has {len(rate.learning_rates)} values for {len(sizes)} schedule_sizes",
        )
    for index, (left, right) in enumerate(itertools.pairwise(sizes)):
        if left >= right:
            yield Problem(
                f"{path}.schedule_sizes[{index + 1}]",
                f"schedule_sizes must ascend, but {right} follows {left}",
            )
            break


def rows_that_stay(context: Context) -> Iterator[Problem]:
    """LAMB and LARS steps are in proportion to the row's norm: zeros stay zeros."""
    train = context.config.train_config
    kind = which_field(train.sparse_optimizer, "optimizer")
    if context.for_serving or kind not in _TRUST_RATIO:
        return
    for feature in context.features:
        if "zeros_" in getattr(feature.config, "init_fn", ""):
            yield warning(
                f"{feature.path}.init_fn",
                f"rows that start as zeros never move under {kind}: its steps are in proportion "
                "to the norm of the row",
                "leave init_fn out, or choose another sparse optimizer",
            )


def idle_constants(context: Context) -> Iterator[Problem]:
    """Constants of the sparse optimizer that a switch beside them keeps from working."""
    train = context.config.train_config
    kind = which_field(train.sparse_optimizer, "optimizer")
    if context.for_serving or kind is None:
        return
    message, path = getattr(train.sparse_optimizer, kind), f"train_config.sparse_optimizer.{kind}"
    if message.HasField("max_gradient") and not message.gradient_clipping:
        what = "has no effect without gradient_clipping: true"
        yield warning(f"{path}.max_gradient", what)
    decays = "weight_decay_mode" in message.DESCRIPTOR.fields_by_name and message.weight_decay != 0
    if decays and message.weight_decay_mode == NONE:
        what = "has no effect while weight_decay_mode is NONE"
        yield warning(f"{path}.weight_decay", what, "choose weight_decay_mode: L2 or DECOUPLE")


RULES = (optimizers, rows_that_stay, idle_constants)
