"""Rules for feature groups and their nested sequence groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tzrec.config.model_facts.base import name_of_parameters
from tzrec.config.problem import Problem, warning
from tzrec.config.validate.frame import Context, group_type_name, quoted
from tzrec.config.validate.objectives import row_group_features
from tzrec.errors import did_you_mean

SEQUENCE_TYPES = ("SEQUENCE", "JAGGED_SEQUENCE")


def _groups(context: Context) -> Iterator[tuple[str, Any]]:
    for number, group in enumerate(context.config.model_config.feature_groups):
        yield f"model_config.feature_groups[{number}]", group


def names(context: Context) -> Iterator[Problem]:
    """Names are unique and usable, and no group is empty."""
    seen: set[str] = set()
    if not context.config.model_config.feature_groups and context.config.HasField("model_config"):
        yield Problem(
            "model_config.feature_groups",
            "is missing: the model has no features",
            "one feature_groups { group_name feature_names group_type } per input of the model",
        )
    for path, group in _groups(context):
        if group.group_name in seen:
            yield Problem(f"{path}.group_name", f"group {group.group_name!r} is configured twice")
        seen.add(group.group_name)
        if group.HasField("group_name"):
            yield from name_of_parameters(f"{path}.group_name", group.group_name)
        if not group.feature_names and not group.sequence_groups:
            yield Problem(f"{path}.feature_names", f"group {group.group_name!r} has no features")


def members(context: Context) -> Iterator[Problem]:
    """Groups name configured features, each once."""
    known = context.features_by_name
    missing: dict[str, list[tuple[str, str]]] = {}
    for path, group, feature_names in _listed(context):
        times = Counter(feature_names)
        for index, name in enumerate(feature_names):
            where = f"{path}.feature_names[{index}]"
            if name not in known:
                missing.setdefault(name, []).append((where, group))
            elif times.pop(name, 0) > 1:
                yield Problem(where, f"feature {name!r} is more than once in group {group!r}")
    for name, places in missing.items() if context.knows_all_names else ():
        groups = list(dict.fromkeys(group for _, group in places))
        of = f"group{'s' if len(groups) > 1 else ''} {quoted(groups)}"
        near = _nested_name(name, known) or did_you_mean(name, known)
        yield Problem(places[0][0], f"feature {name!r} of {of} is not configured{near}")


def _listed(context: Context) -> Iterator[tuple[str, str, list[str]]]:
    """Yields config path, name and features of every group, nested ones too."""
    for path, group in _groups(context):
        yield path, group.group_name, list(group.feature_names)
        for index, sub in enumerate(group.sequence_groups):
            name = sub.group_name or group.group_name
            yield f"{path}.sequence_groups[{index}]", name, list(sub.feature_names)


def _nested_name(name: str, known: Iterable[str]) -> str:
    """Suggests ``click_seq__item`` for ``item``: sub-features go by their full name."""
    full = [candidate for candidate in known if candidate.endswith(f"__{name}")]
    return f"; did you mean {full[0]!r}?" if full else ""


def kinds(context: Context) -> Iterator[Problem]:
    """Features fit the type of their group."""
    known = context.features_by_name
    for path, group in _groups(context):
        kind = group_type_name(group)
        found = [known[name] for name in group.feature_names if name in known]
        for index, name in enumerate(group.feature_names):
            feature = known.get(name)
            if feature is None:
                continue
            where = f"{path}.feature_names[{index}]"
            if kind == "WIDE" and not feature.is_sparse:
                yield Problem(
                    where,
                    f"feature {feature.name!r} is a plain number, and the WIDE group "
                    f"{group.group_name!r} takes ids only",
                    "give it boundaries, or move it to a DEEP group",
                )
            elif kind not in SEQUENCE_TYPES and feature.is_sequence and not feature.is_sparse:
                yield Problem(
                    where,
                    f"feature {feature.name!r} is a sequence of plain numbers, which the {kind} "
                    f"group {group.group_name!r} cannot take",
                    "put it into a SEQUENCE group or into sequence_groups { ... } of this group",
                )
        if kind in SEQUENCE_TYPES and found and not any(f.is_sequence for f in found):
            yield Problem(
                f"{path}.feature_names",
                f"{kind} group {group.group_name!r} has no sequence feature",
                "add one, or make the group DEEP",
            )


def unused_features(context: Context) -> Iterator[Problem]:
    """Every feature is used somewhere."""
    model = context.config.model_config
    if not model.feature_groups or context.is_broken("model_config"):
        return
    used = set(context.grouped_features)
    used |= {name for task in context.tasks for _, name in row_group_features(task)}
    unused = [f for f in context.features if f.name not in used and not f.config.stub_type]
    if unused:
        shown = quoted(feature.name for feature in unused[:5])
        more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
        verb = "is" if len(unused) == 1 else "are"
        yield warning(
            unused[0].path, f"{shown}{more} {verb} read from the data, but in no feature group"
        )


def sequence_groups(context: Context) -> Iterator[Problem]:
    """Nested sequence groups sit in DEEP groups, are named, and have encoders."""
    taken = Counter(
        sub.group_name or group.group_name
        for _, group in _groups(context)
        for sub in group.sequence_groups
    )
    for path, group in _groups(context):
        nested, encoders = list(group.sequence_groups), list(group.sequence_encoders)
        if not nested and not encoders:
            continue
        kind = group_type_name(group)
        part = "sequence_groups" if nested else "sequence_encoders"
        if kind != "DEEP":
            yield Problem(f"{path}.{part}", f"only a DEEP group may have {part}, this is {kind}")
        elif not encoders:
            yield Problem(
                f"{path}.sequence_groups",
                "there are sequence_groups, but no sequence_encoders",
                "for example sequence_encoders { pooling_encoder { } }",
            )
        elif not nested:
            yield Problem(
                f"{path}.sequence_encoders",
                "there are sequence_encoders, but no sequence_groups to read",
                "for example sequence_groups { feature_names: ... }",
            )
        yield from _nested(context, path, group, taken)


def _nested(context: Context, path: str, group: Any, taken: Counter[str]) -> Iterator[Problem]:
    known = context.features_by_name
    for index, sub in enumerate(group.sequence_groups):
        here = f"{path}.sequence_groups[{index}]"
        name = sub.group_name or group.group_name
        if not sub.group_name and len(group.sequence_groups) > 1:
            yield Problem(
                f"{here}.group_name",
                f"is missing: group {group.group_name!r} has {len(group.sequence_groups)} "
                "sequence groups, so each needs a name",
            )
        elif taken[name] > 1 or (sub.group_name and name in context.groups):
            yield Problem(f"{here}.group_name", f"another group is called {name!r} too")
        if sub.group_name:
            yield from name_of_parameters(f"{here}.group_name", sub.group_name)
        found = [known[n] for n in sub.feature_names if n in known]
        if not sub.feature_names:
            yield Problem(f"{here}.feature_names", f"sequence group {name!r} has no features")
        elif len(found) == len(sub.feature_names) and not any(f.is_sequence for f in found):
            yield Problem(
                f"{here}.feature_names", f"sequence group {name!r} has no sequence feature"
            )


RULES = (names, members, kinds, unused_features, sequence_groups)
