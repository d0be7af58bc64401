"""Rules for the chosen model: the groups it reads."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tzrec.config.model_facts import MODELS, ModelFacts, missing_group
from tzrec.config.problem import Problem, warning
from tzrec.config.validate.features import init_fn_problems
from tzrec.config.validate.frame import Context, group_type_name
from tzrec.errors import did_you_mean


def _facts(context: Context) -> ModelFacts | None:
    return None if context.has_twin_models else MODELS.get(context.model_type)


def required_groups(context: Context) -> Iterator[Problem]:
    """Groups that the model reads by name are there and of the right type."""
    facts = _facts(context)
    if facts is None or not context.config.model_config.feature_groups:
        return
    named = _named_groups(context, facts)
    spare = [name for name in context.groups if name not in named]
    for name, kinds in named.items():
        if name in context.groups:
            yield from _group_type(context, name, kinds, context.group_path(name))
        elif name in facts.required_groups and not context.is_broken("model_config.feature_groups"):
            what, hint = missing_group(name, kinds, spare)
            yield Problem(context.model_path, what, hint)


def _named_groups(context: Context, facts: ModelFacts) -> dict[str, tuple[str, ...]]:
    """Returns the types that each group may have which the model knows by name."""
    if facts.lone_group and len(context.groups) == 1:
        return dict.fromkeys(context.groups, facts.required_groups[facts.lone_group])
    return {**facts.required_groups, **facts.optional_groups}


def inputs(context: Context) -> Iterator[Problem]:
    """Towers read groups that exist and are of the right type."""
    facts = _facts(context)
    for field, kinds in facts.inputs.items() if facts else ():
        for index, tower in enumerate(getattr(context.model, field)):
            where = f"{context.model_path}.{field}[{index}].input"
            if tower.input in context.groups:
                yield from _group_type(context, tower.input, kinds, where)
            elif tower.input:
                near = did_you_mean(tower.input, context.groups)
                yield Problem(where, f"there is no feature group {tower.input!r}{near}")


def group_fields(context: Context) -> Iterator[Problem]:
    """Fields that name a group name one that exists and is of the right type."""
    facts = _facts(context)
    for field, kinds in facts.group_fields.items() if facts else ():
        where, name = f"{context.model_path}.{field}", _text(context, field)
        if name in context.groups:
            yield from _group_type(context, name, kinds, where)
        elif name:
            near = did_you_mean(name, context.groups)
            yield Problem(where, f"there is no feature group {name!r}{near}")


def _text(context: Context, field: str) -> str:
    return str(functools.reduce(getattr, field.split("."), context.model))


def first_group(context: Context) -> Iterator[Problem]:
    """A model that reads the first group finds one of the right type there."""
    facts = _facts(context)
    groups = context.config.model_config.feature_groups
    if facts is not None and facts.first_group and groups:
        name, where = groups[0].group_name, "model_config.feature_groups[0]"
        if name in context.groups:
            yield from _group_type(context, name, facts.first_group, where)


def _group_type(
    context: Context, name: str, kinds: tuple[str, ...], where: str
) -> Iterator[Problem]:
    found = group_type_name(context.groups[name])
    if found not in kinds:
        yield Problem(
            where,
            f"group {name!r} is {found}, but {context.model_type} needs it to be "
            f"{' or '.join(kinds)} here",
            f"write group_type: {kinds[0]} in {context.group_path(name)}",
        )


def unused_groups(context: Context) -> Iterator[Problem]:
    """The model reads every group."""
    facts = _facts(context)
    if facts is None or facts.reads_all_groups:
        return
    read = set(_named_groups(context, facts))
    for field in facts.inputs:
        read |= {tower.input for tower in getattr(context.model, field)}
    read |= {_text(context, field) for field in facts.group_fields}
    if facts.first_group:
        read |= {group.group_name for group in context.config.model_config.feature_groups[:1]}
    for name in context.groups:
        if name not in read:
            near = did_you_mean(name, [n for n in read if n not in context.groups])
            yield warning(
                context.group_path(name), f"{context.model_type} does not read group {name!r}{near}"
            )


def own_rules(context: Context) -> Iterator[Problem]:
    """Rules that only this model has."""
    facts = _facts(context)
    if facts is not None and not context.has_twin_groups:
        yield from facts.check(context)


def wide_initialiser(context: Context) -> Iterator[Problem]:
    """``wide_init_fn`` is as ``init_fn``."""
    text = getattr(context.model, "wide_init_fn", "") if context.model_field else ""
    yield from init_fn_problems(f"{context.model_path}.wide_init_fn", text)


RULES = (
    required_groups,
    inputs,
    group_fields,
    first_group,
    unused_groups,
    own_rules,
    wide_initialiser,
)
