"""Features from configs and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tzrec.batch import BASE_DATA_GROUP, CROSS_NEG_DATA_GROUP, NEG_DATA_GROUP
from tzrec.config.messages import which_field
from tzrec.errors import ConfigError, Unsupported, at
from tzrec.features.base import FEATURES, BaseFeature, FgMode
from tzrec.protos.feature_pb2 import FeatureConfig

_GROUP = "sequence_feature"
_SEQUENCE_PREFIX = "sequence_"


def create_features(
    feature_configs: Sequence[FeatureConfig],
    fg_mode: FgMode = FgMode.FG_NONE,
    neg_fields: Sequence[str] | None = None,
    fg_encoded_multival_sep: str | None = None,
    force_base_data_group: bool = False,
) -> list[BaseFeature]:
    """Creates the features of a config in its order, grouped sequences flattened.

    Args:
        feature_configs: the config's ``feature_configs``.
        fg_mode: where feature generation happens.
        neg_fields: columns that a sampler adds rows to; features that read one live on the
            rows of the batch and the sampled ones.
        fg_encoded_multival_sep: separator of several values in FG_NONE text.
        force_base_data_group: puts all features on the rows of the batch.

    Raises:
        ConfigError, FeatureError: a feature is wrong; the location says which.
        Unsupported: a kind that is not built.
    """
    features: list[BaseFeature] = []
    for index, config in enumerate(feature_configs):
        with at(f"feature_configs[{index}]"):
            features += _create(config, fg_mode, fg_encoded_multival_sep)
    if not force_base_data_group:
        for feature in features:
            feature.data_group = _data_group(feature, set(neg_fields or ()))
    return features


def _create(config: FeatureConfig, fg_mode: FgMode, separator: str | None) -> list[BaseFeature]:
    kind = which_field(config, "feature")
    if kind is None:
        raise ConfigError("no feature is set; write for example id_feature { … }")
    message = getattr(config, kind)
    if kind == _GROUP:
        found = []
        for sub_index, sub in enumerate(message.features):
            with at(f"{kind}.features[{sub_index}]"):
                cls = _class_of(sub, which_field(sub, "feature"))
                found.append(
                    cls(
                        sub,
                        fg_mode,
                        separator,
                        is_sequence=True,
                        sequence_name=message.sequence_name,
                        sequence_delim=message.sequence_delim,
                        sequence_length=message.sequence_length,
                        sequence_pk=message.sequence_pk or f"user:{message.sequence_name}",
                    )
                )
        return found
    if not kind.startswith(_SEQUENCE_PREFIX):
        return [_class_of(config, kind)(config, fg_mode, separator)]
    return [
        _class_of(config, kind)(
            config,
            fg_mode,
            separator,
            is_sequence=True,
            sequence_delim=message.sequence_delim,
            sequence_length=message.sequence_length,
        )
    ]


def _class_of(config: Any, kind: str | None) -> Any:
    if kind is None:
        raise ConfigError("no feature is set; write for example id_feature { … }")
    name = type(getattr(config, kind)).__name__
    if name not in FEATURES:
        raise Unsupported(f"{kind} comes with feature generation")
    return FEATURES.get(name)


def _data_group(feature: BaseFeature, neg_fields: set[str]) -> str:
    read = {column for _, column in feature.side_inputs} if neg_fields else set()
    if not read & neg_fields:
        return BASE_DATA_GROUP
    return NEG_DATA_GROUP if len(feature.side_inputs) == 1 else CROSS_NEG_DATA_GROUP


def create_feature_configs(features: Sequence[BaseFeature]) -> list[FeatureConfig]:
    """Returns the configs that `create_features` would make ``features`` from.

    Sub-features of one grouped sequence come back under one ``sequence_feature``.
    """
    configs: list[FeatureConfig] = []
    groups: dict[str, Any] = {}
    for feature in features:
        if not feature.is_grouped_sequence:
            config = FeatureConfig()
            config.CopyFrom(feature.feature_config)
            configs.append(config)
            continue
        name = str(feature.sequence_name)
        if name not in groups:
            configs.append(FeatureConfig())
            groups[name] = configs[-1].sequence_feature
            groups[name].sequence_name = name
            groups[name].sequence_length = feature.sequence_length
            groups[name].sequence_delim = feature.sequence_delim
            groups[name].sequence_pk = str(feature.sequence_pk)
        groups[name].features.add().CopyFrom(feature.feature_config)
    return configs


def create_fg_json(features: Sequence[BaseFeature], asset_dir: str | None = None) -> dict[str, Any]:
    """Returns ``fg.json`` of the features.

    Raises:
        Unsupported: always; it comes with feature generation.
    """
    raise Unsupported(
        f"fg.json of {len(features)} features (asset_dir {asset_dir}) comes with feature generation"
    )
