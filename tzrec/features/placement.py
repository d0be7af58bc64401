"""Which rows features live on: those of the batch, or these and a sampler's (reference 02 §2.7)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from tzrec.constant import BASE_DATA_GROUP, NEG_DATA_GROUP
from tzrec.errors import ConfigError

if TYPE_CHECKING:
    from tzrec.features.base import BaseFeature


def place(
    features: Sequence[BaseFeature], sampled: Collection[str], *, force_base: bool = False
) -> None:
    """Sets the data group of each feature.

    A feature of sampled columns lives on the rows of the batch and the sampled ones; whether it
    reads them itself or through other features. Rows of a user's columns and of sampled ones
    do not belong together, so no feature reads both.

    Args:
        features: all of a config, stubs among them.
        sampled: columns that a sampler adds rows to.
        force_base: all features live on the rows of the batch; the parser pads the shorter ones.

    Raises:
        ConfigError: a feature reads sampled columns and others.
    """
    wanted = set(sampled)
    by_name = {feature.name: feature for feature in features}
    for feature in features:
        columns = _columns(feature, by_name, set()) if wanted else set()
        own = sorted(columns & wanted)
        others = sorted(columns - wanted)
        if own and others:
            raise ConfigError(mixed_rows(feature.name, own, others), hint=MIXED_HINT)
        feature.reads_sampled_rows = bool(own)
        on_batch = force_base or not own
        feature.data_group = BASE_DATA_GROUP if on_batch else NEG_DATA_GROUP


MIXED_HINT = (
    "a sampled item belongs to no row of the batch. Take the other columns into the sampler's "
    "attr_fields where they are the item's, or remove the feature"
)


def mixed_rows(feature: str, sampled: Sequence[str], others: Sequence[str]) -> str:
    """Returns the message for a feature that has no number of rows."""
    return (
        f"feature {feature!r} reads {_listed(sampled)}, which the sampler adds rows to, and "
        f"{_listed(others)}, which it does not"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _columns(feature: BaseFeature, known: Mapping[str, BaseFeature], seen: set[str]) -> set[str]:
    """Returns the columns that a feature depends on; ``seen`` are those already on the way."""
    seen.add(feature.name)
    columns = set(feature.inputs)
    for name in feature.feature_inputs:
        if name in known and name not in seen:
            columns |= _columns(known[name], known, seen)
    return columns
