"""Features from configs and back."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from tzrec.config.messages import which_field
from tzrec.errors import ConfigError, at
from tzrec.features import generation
from tzrec.features.base import FEATURES, BaseFeature, FgMode
from tzrec.features.placement import place
from tzrec.fg.assets import copy_assets
from tzrec.fg.config_json import without_bucketizer
from tzrec.protos.feature_pb2 import FeatureConfig

_GROUP = "sequence_feature"

_logger = logging.getLogger(__name__)


def create_features(
    feature_configs: Sequence[FeatureConfig],
    fg_mode: FgMode = FgMode.FG_NONE,
    neg_fields: Sequence[str] | None = None,
    fg_encoded_multival_sep: str | None = None,
    force_base_data_group: bool = False,
    *,
    farm_hash: bool | None = None,
) -> list[BaseFeature]:
    r"""Creates the features of a config in its order, grouped sequences flattened.

    Stubs are there in FG_DAG only, where other features read them.

    Args:
        feature_configs: the config's ``feature_configs``.
        fg_mode: where feature generation happens.
        neg_fields: columns that a sampler adds rows to; a feature that reads one lives on the
            rows of the batch and the sampled ones.
        fg_encoded_multival_sep: separator of several values in FG_NONE text; None = ``\x03``.
        force_base_data_group: puts all features on the rows of the batch.
        farm_hash: hash with FarmHash Fingerprint64; None takes the environment's choice.

    Raises:
        ConfigError: a feature is wrong, or two have one name; the location says which. Or one
            reads columns of ``neg_fields`` and others.
        Unsupported: a kind of feature or an fg_mode that is not built.
    """
    features: dict[str, BaseFeature] = {}
    for index, config in enumerate(feature_configs):
        with at(f"feature_configs[{index}]"):
            for feature in _create(config, fg_mode, fg_encoded_multival_sep, farm_hash):
                if feature.name in features:
                    raise ConfigError(f"feature {feature.name!r} is configured twice")
                features[feature.name] = feature
    place(list(features.values()), neg_fields or (), force_base=force_base_data_group)
    if fg_mode is FgMode.FG_DAG:
        return list(features.values())
    stubs = [name for name, feature in features.items() if feature.is_stub]
    if stubs:
        _logger.info("stub features, which have no column: %s", ", ".join(stubs))
    return [feature for name, feature in features.items() if name not in stubs]


def _create(
    config: FeatureConfig, fg_mode: FgMode, separator: str | None, farm_hash: bool | None
) -> Iterator[BaseFeature]:
    kind = which_field(config, "feature")
    if kind != _GROUP:
        yield _class_of(config)(config, fg_mode, separator, farm_hash=farm_hash)
        return
    group = config.sequence_feature
    with at(_GROUP):
        if not group.sequence_name:
            raise ConfigError("sequence_name is empty")
        for index, sub in enumerate(group.features):
            with at(f"features[{index}]"):
                yield _class_of(sub)(
                    sub,
                    fg_mode,
                    separator,
                    is_sequence=True,
                    sequence_name=group.sequence_name,
                    sequence_delim=group.sequence_delim,
                    sequence_length=group.sequence_length,
                    sequence_pk=group.sequence_pk or None,
                    farm_hash=farm_hash,
                )


def _class_of(config: Any) -> type[BaseFeature]:
    kind = which_field(config, "feature")
    if kind is None:
        raise ConfigError("no feature is set; write for example id_feature { … }")
    return FEATURES.get(type(getattr(config, kind)).__name__)


def create_feature_configs(
    features: Sequence[BaseFeature], asset_dir: str | None = None
) -> list[FeatureConfig]:
    """Returns the configs that `create_features` would make ``features`` from.

    Args:
        features: in any order; sub-features of one grouped sequence come back under one
            ``sequence_feature``, where its first one stands.
        asset_dir: folder that holds the features' files, under their own names, from now on;
            None keeps the paths.
    """
    configs: list[FeatureConfig] = []
    groups: dict[str, Any] = {}
    for feature in features:
        if not feature.is_grouped_sequence:
            config = FeatureConfig()
            config.CopyFrom(feature.feature_config)
            configs.append(config)
        else:
            if feature.sequence_name not in groups:
                configs.append(FeatureConfig())
                groups[str(feature.sequence_name)] = _open_group(configs[-1], feature)
            config = groups[str(feature.sequence_name)].features.add()
            config.CopyFrom(feature.feature_config)
        if asset_dir is not None:
            _move_assets(getattr(config, str(which_field(config, "feature"))), asset_dir)
    return configs


def _open_group(config: FeatureConfig, feature: BaseFeature) -> Any:
    group = config.sequence_feature
    group.sequence_name = str(feature.sequence_name)
    group.sequence_length = feature.sequence_length or 0
    group.sequence_delim = feature.sequence_delim or ""
    group.sequence_pk = str(feature.sequence_pk)
    return group


def _move_assets(message: Any, asset_dir: str) -> None:
    if "vocab_file" in message.DESCRIPTOR.fields_by_name and message.vocab_file:
        message.vocab_file = posixpath.basename(message.vocab_file)
        message.asset_dir = asset_dir


def create_fg_json(
    features: Sequence[BaseFeature],
    asset_dir: str | None = None,
    *,
    remove_bucketizer: bool = False,
) -> dict[str, Any]:
    """Returns ``fg.json``, the configuration of feature generation.

    Args:
        features: what it describes.
        asset_dir: folder that files are copied to, as ``{stem}_{md5}{ext}``; the entries then
            hold these names.
        remove_bucketizer: leave out what makes ids.

    Raises:
        ConfigError: a file cannot be read.
    """
    entries = generation.fg_json(features)
    if remove_bucketizer:
        entries["features"] = [without_bucketizer(entry) for entry in entries["features"]]
    if asset_dir is not None:
        copy_assets(entries, asset_dir)
    return entries
