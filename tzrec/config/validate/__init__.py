"""The validation frame: all rules over one config, all problems at once.

A rule is a small function ``(context) -> problems``; it stands in the ``RULES`` of its module.
Rules about one message type wherever it occurs stand in `MESSAGE_RULES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tzrec.config.messages import walk
from tzrec.config.problem import Problem, SourceMap, in_file_order
from tzrec.config.validate import (
    data,
    delta,
    encoders,
    features,
    groups,
    hash_tables,
    later,
    mlp,
    model,
    objectives,
    optimizers,
    placement,
    required,
    samplers,
    tables,
    tasks,
    train,
)
from tzrec.config.validate.bounds import check_values
from tzrec.config.validate.frame import Context, MessageRule, Rule
from tzrec.protos.pipeline_pb2 import EasyRecConfig

__all__ = ["validate"]

RULES: Sequence[Rule] = [
    *later.RULES,
    *placement.RULES,
    *required.RULES,
    *data.RULES,
    *features.RULES,
    *hash_tables.RULES,
    *groups.RULES,
    *encoders.RULES,
    *tables.RULES,
    *model.RULES,
    *objectives.RULES,
    *tasks.RULES,
    *samplers.RULES,
    *train.RULES,
    *delta.RULES,
    *optimizers.RULES,
]

MESSAGE_RULES: Mapping[str, Sequence[MessageRule]] = {
    "MLP": [mlp.check_mlp],
    "MaskBlock": [mlp.check_mask_block],
    "SGDOptimizer": [optimizers.check_nesterov],
    "ExponentialDecayLR": [optimizers.check_decay],
    "ManualStepLR": [optimizers.check_manual],
    "CosineAnnealingLR": [optimizers.check_cosine],
    "CosineAnnealingWarmRestartsLR": [optimizers.check_cosine],
}


def validate(
    config: EasyRecConfig,
    source: SourceMap | None = None,
    *,
    schema_problems: Iterable[Problem] = (),
    for_serving: bool = False,
    rules: Sequence[Rule] = (),
) -> list[Problem]:
    """Checks what a config means.

    Args:
        config: the config; not changed.
        source: where its parts were written, for the order of the result.
        schema_problems: what loading found; they are part of the result, and problems that
            only follow from them are left out.
        for_serving: training sections and input paths are not needed.
        rules: further rules; what the others find is broken for them.

    Returns:
        All problems, errors and warnings.
    """
    known = list(schema_problems)
    broken = {problem.where for problem in known if problem.fatal}
    broken = (broken | {_parent(where) for where in broken}) - {""}
    context = Context(config, for_serving=for_serving, broken=frozenset(broken))
    found = [problem for rule in RULES for problem in rule(context)]
    found += _message_problems(context)
    if rules:
        wrong = {problem.where for problem in found if problem.fatal}
        context = dataclasses.replace(context, broken=context.broken | wrong)
        found += [problem for rule in rules for problem in rule(context)]
    later_parts = [problem.where for problem in found if problem.severity == "unsupported"]
    kept = [
        problem
        for problem in found
        if not _follows(problem, broken) and not _inside(problem, later_parts)
    ]
    return in_file_order([*known, *kept], source)


def _message_problems(context: Context) -> Iterator[Problem]:
    for path, message in walk(context.config):
        if context.for_serving and path.startswith("train_config"):
            continue
        yield from check_values(message, path, context)
        for rule in MESSAGE_RULES.get(message.DESCRIPTOR.name, ()):
            yield from rule(message, path, context)


def _parent(where: str) -> str:
    return where.rpartition(".")[0]


def _follows(problem: Problem, broken: set[str]) -> bool:
    """Tells whether a problem lies in a message that could not be read as written."""
    return problem.where in broken or _parent(problem.where) in broken


def _inside(problem: Problem, parts: Sequence[str]) -> bool:
    """Tells whether a problem lies inside a part that is reported as not supported."""
    return problem.severity != "unsupported" and any(
        problem.where.startswith(f"{part}.") for part in parts
    )
