"""Feature groups of a config, checked and resolved to features (reference 05 section 5.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from tzrec.errors import ConfigError, did_you_mean
from tzrec.features.feature import BaseFeature
from tzrec.modules.utils import check_module_name
from tzrec.protos import model_pb2, seq_encoder_pb2

DEEP = model_pb2.FeatureGroupType.DEEP
WIDE = model_pb2.FeatureGroupType.WIDE
SEQUENCE = model_pb2.FeatureGroupType.SEQUENCE
JAGGED_SEQUENCE = model_pb2.FeatureGroupType.JAGGED_SEQUENCE


@dataclasses.dataclass
class NestedGroup:
    """A sequence group inside a DEEP group.

    Attributes:
        name: its own name, or that of the parent.
        features: its features in the order of the config.
        suffix: its own embedding_name_suffix, or that of the parent.
    """

    name: str
    features: list[BaseFeature]
    suffix: str


@dataclasses.dataclass
class Group:
    """A feature group.

    Attributes:
        name: name of the group.
        type: a ``FeatureGroupType``.
        features: its own features in the order of the config.
        suffix: embedding_name_suffix, "" for none.
        nested: its sequence groups.
        encoders: its sequence encoders.
        data_group: the data group that all features live on.
    """

    name: str
    type: int
    features: list[BaseFeature]
    suffix: str
    nested: list[NestedGroup]
    encoders: Sequence[seq_encoder_pb2.SeqEncoderConfig]
    data_group: str


def resolve_groups(
    features: Iterable[BaseFeature], configs: Iterable[model_pb2.FeatureGroupConfig]
) -> dict[str, Group]:
    """Resolves all groups of a model.

    Args:
        features: all features of the config.
        configs: ``FeatureGroupConfig`` messages.

    Returns:
        Name → group, in the order of the config.

    Raises:
        ConfigError: an unknown or repeated feature, repeated group names, an empty group,
            features of several data groups, or sequence groups and encoders that do not fit
            together.
    """
    by_name = {feature.name: feature for feature in features}
    groups: dict[str, Group] = {}
    sequence_names: dict[str, str] = {}
    for config in configs:
        group = _resolve(config, by_name)
        if group.name in groups:
            raise ConfigError(f"two feature groups are named {group.name!r}")
        groups[group.name] = group
        names = [nested.name for nested in group.nested]
        if group.type in (SEQUENCE, JAGGED_SEQUENCE):
            names = [group.name]
        for name in names:
            if name in sequence_names:
                raise ConfigError(
                    f"two sequence groups are named {name!r}: one in feature group "
                    f"{sequence_names[name]!r}, one in {group.name!r}; the name must be unique "
                    "in the model"
                )
            sequence_names[name] = group.name
    return groups


def _resolve(config: model_pb2.FeatureGroupConfig, features: dict[str, BaseFeature]) -> Group:
    name = check_module_name(config.group_name, "group_name")
    _check_sequence_groups(config)
    nested = [
        NestedGroup(
            check_module_name(sub.group_name or name, "group_name"),
            _pick(sub.group_name or name, sub.feature_names, features),
            sub.embedding_name_suffix or config.embedding_name_suffix,
        )
        for sub in config.sequence_groups
    ]
    own = _pick(name, config.feature_names, features)
    everything = own + [feature for sub in nested for feature in sub.features]
    return Group(
        name,
        config.group_type,
        own,
        config.embedding_name_suffix,
        nested,
        list(config.sequence_encoders),
        _data_group(name, everything),
    )


def _pick(group: str, names: Sequence[str], features: dict[str, BaseFeature]) -> list[BaseFeature]:
    picked: dict[str, BaseFeature] = {}
    for name in names:
        if name not in features:
            raise ConfigError(
                f"feature {name!r} of group {group!r} is not in feature_configs"
                f"{did_you_mean(name, features)}"
            )
        if name in picked:
            raise ConfigError(f"feature {name!r} stands twice in group {group!r}")
        picked[name] = features[name]
    return list(picked.values())


def _data_group(group: str, features: Sequence[BaseFeature]) -> str:
    if not features:
        raise ConfigError(f"feature group {group!r} has no features")
    by_data_group: dict[str, list[str]] = {}
    for feature in features:
        by_data_group.setdefault(feature.data_group, []).append(feature.name)
    if len(by_data_group) > 1:
        raise ConfigError(
            f"features of group {group!r} live on different rows: {by_data_group}",
            hint="a group takes features of one data group: split it, or set "
            "data_config.force_base_data_group: true",
        )
    return next(iter(by_data_group))


def _check_sequence_groups(config: model_pb2.FeatureGroupConfig) -> None:
    """Checks that sequence groups and encoders fit together, as far as names go."""
    name, nested = config.group_name, config.sequence_groups
    if not nested and not config.sequence_encoders:
        return
    if config.group_type != DEEP:
        kind = model_pb2.FeatureGroupType.Name(config.group_type)
        raise ConfigError(
            f"feature group {name!r} is {kind}; only DEEP groups have sequence_groups and "
            "sequence_encoders"
        )
    if not nested:
        raise ConfigError(f"feature group {name!r} has sequence_encoders but no sequence_groups")
    if not config.sequence_encoders:
        raise ConfigError(f"feature group {name!r} has sequence_groups but no sequence_encoders")
    if len(nested) > 1 and not all(sub.group_name for sub in nested):
        raise ConfigError(
            f"feature group {name!r} has {len(nested)} sequence_groups; "
            "every one of them needs a group_name"
        )
    sub_names = [sub.group_name or name for sub in nested]
    encoded: set[str] = set()
    for encoder in config.sequence_encoders:
        which = encoder.WhichOneof("seq_module")
        if which is not None:
            encoded.add(getattr(encoder, which).input or (sub_names[0] if len(nested) == 1 else ""))
    for sub_name in sub_names:
        if sub_name not in encoded:
            raise ConfigError(
                f"no sequence encoder of feature group {name!r} reads its sequence group "
                f"{sub_name!r}; inputs of the encoders are {sorted(encoded)}"
                + "".join(did_you_mean(given, sub_names) for given in encoded - {*sub_names})
            )
