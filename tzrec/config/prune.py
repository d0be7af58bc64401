"""A config with fewer features."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from tzrec.config.feature_facts import FeatureFacts, flatten
from tzrec.config.messages import walk
from tzrec.protos.pipeline_pb2 import EasyRecConfig

# Fields of losses and metrics that name a feature.
_NAMING_FIELDS = ("session_name", "grouping_key")
_NUMBER = re.compile(r"feature_configs\[(\d+)\]")
_SUB_NUMBER = re.compile(r"\.features\[(\d+)\]")


def prune_features(config: EasyRecConfig, keep: Mapping[str, Collection[str]]) -> EasyRecConfig:
    """Returns a copy in which groups hold fewer features, and no feature is without a use.

    Sequence features stay in their groups. A feature is used when a group or a nested sequence
    group has it, a loss or metric groups rows by it, or another used one is made of it
    (``feature:`` inputs); a grouped sequence stays whole when one of its features is used.

    Args:
        config: a checked config.
        keep: group → the features that stay; other groups stay as they are.
    """
    pruned = EasyRecConfig()
    pruned.CopyFrom(config)
    facts = {feature.name: feature for feature in flatten(config)}
    for group in pruned.model_config.feature_groups:
        if group.group_name in keep:
            kept = keep[group.group_name]
            names = [n for n in group.feature_names if n in kept or facts[n].is_sequence]
            del group.feature_names[:]
            group.feature_names.extend(names)
    numbers = {_number(facts[name]) for name in _used(pruned, facts)}
    features = [f for i, f in enumerate(config.feature_configs) if i in numbers]
    del pruned.feature_configs[:]
    pruned.feature_configs.extend(features)
    return pruned


def keep_features(config: EasyRecConfig, names: Collection[str]) -> EasyRecConfig:
    """Returns a copy with some features and those that they are made of; groups stay.

    Of a grouped sequence only the features that are needed stay.

    Args:
        config: a checked config.
        names: features, those of grouped sequences as ``{sequence}__{feature}``.
    """
    facts = {feature.name: feature for feature in flatten(config)}
    used = _closure(names, facts)
    pruned = EasyRecConfig()
    pruned.CopyFrom(config)
    del pruned.feature_configs[:]
    by_number: dict[int, list[FeatureFacts]] = {}
    for feature in facts.values():
        if feature.name in used:
            by_number.setdefault(_number(feature), []).append(feature)
    for number, kept in sorted(by_number.items()):
        entry = pruned.feature_configs.add()
        entry.CopyFrom(config.feature_configs[number])
        if kept[0].sequence is not None:
            members = [_SUB_NUMBER.search(feature.path) for feature in kept]
            subs = [kept[0].sequence.features[int(found[1])] for found in members if found]
            del entry.sequence_feature.features[:]
            entry.sequence_feature.features.extend(subs)
    return pruned


def _number(feature: FeatureFacts) -> int:
    found = _NUMBER.match(feature.path)
    assert found is not None
    return int(found[1])


def _used(config: EasyRecConfig, facts: Mapping[str, FeatureFacts]) -> set[str]:
    """Returns the names of all features that something needs."""
    todo: list[str] = []
    for _, message in walk(config.model_config):
        any_message: Any = message
        for field in any_message.DESCRIPTOR.fields:
            if field.name == "feature_names":
                todo += any_message.feature_names
            elif field.name in _NAMING_FIELDS and getattr(any_message, field.name) in facts:
                todo.append(getattr(any_message, field.name))
    return _closure(todo, facts)


def _closure(names: Collection[str], facts: Mapping[str, FeatureFacts]) -> set[str]:
    """Returns features and all that they are made of."""
    used: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            sides = (text.partition(":") for _, text in facts[name].inputs)
            todo += [made_of for side, _, made_of in sides if side == "feature"]
    return used
