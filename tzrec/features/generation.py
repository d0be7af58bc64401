"""Features and feature generation: ``fg.json`` entries, columns, handlers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tzrec.errors import ConfigError
from tzrec.features.mask import masks_of
from tzrec.fg.config_json import Source, entries_of
from tzrec.fg.graph import sources
from tzrec.fg.handler import FgHandler
from tzrec.fg.parsed import Parsed
from tzrec.fg.spec import parse_fg_json

if TYPE_CHECKING:
    from tzrec.features.base import BaseFeature


def entries(feature: BaseFeature) -> list[dict[str, Any]]:
    """Returns the entries of a feature, without the group of a grouped sequence."""
    source = Source(
        feature.kind,
        feature.config,
        is_sequence=feature.is_sequence and feature.generates_steps,
        is_grouped=feature.is_grouped_sequence,
        sequence_delim=feature.sequence_delim,
        sequence_length=feature.sequence_length,
    )
    return entries_of(source)


def fg_json(features: Sequence[BaseFeature]) -> dict[str, Any]:
    """Returns the ``fg.json`` of features; those of a grouped sequence stand together."""
    found: list[dict[str, Any]] = []
    groups: dict[str, dict[str, Any]] = {}
    for feature in features:
        if not feature.is_grouped_sequence:
            found += entries(feature)
            continue
        name = str(feature.sequence_name)
        if name not in groups:
            groups[name] = {
                "sequence_name": name,
                "sequence_length": feature.sequence_length or 0,
                "sequence_delim": feature.sequence_delim or ";",
                "sequence_pk": feature.sequence_pk,
                "features": [],
            }
            found.append(groups[name])
        groups[name]["features"] += entries(feature)
    return {"features": found}


def create_handler(
    features: Sequence[BaseFeature],
    *,
    threads: int = 1,
    bucketize_only: bool = False,
    farm_hash: bool = False,
) -> FgHandler:
    """Returns the feature generation of features together.

    Args:
        features: in any order.
        threads: features computed at once.
        bucketize_only: columns are called like the features and hold generated values.
        farm_hash: hash with FarmHash Fingerprint64.

    Raises:
        ConfigError: features read each other in a circle, or what does not exist.
    """
    return FgHandler(fg_json(features), threads, bucketize_only=bucketize_only, farm_hash=farm_hash)


def reads(feature: BaseFeature) -> tuple[list[str], list[str]]:
    """Returns the columns and the other features that a feature reads itself."""
    from tzrec.fg.operators.base import create_operator

    own = parse_fg_json(fg_json([feature]))
    found = [i for spec in own for i in create_operator(spec).inputs]
    columns = [i.source for i in found if i.side in ("user", "item", "context")]
    inner = {spec.name for spec in own}
    others = [i.source for i in found if i.side == "feature" and i.source not in inner]
    return list(dict.fromkeys(columns)), list(dict.fromkeys(others))


class GeneratedFeatures:
    """The features that are generated here: all of them, none in FG_NONE.

    They share one handler, so that a column is read once whatever number of features read it. In
    FG_NORMAL this gives what a handler for each would, since no feature reads another one.

    Args:
        features: stubs among them.
        threads: features computed at once.
        counts: results say how many values were missing or unknown.
    """

    def __init__(
        self, features: Sequence[BaseFeature], *, threads: int = 1, counts: bool = False
    ) -> None:
        modes = {feature.fg_mode.name for feature in features}
        self._alone = modes == {"FG_NORMAL"}
        self._bucketize_only = modes == {"FG_BUCKETIZE"}
        together = self._alone or self._bucketize_only or modes == {"FG_DAG"}
        self._features = list(features) if together else []
        self._names = {feature.name for feature in self._features}
        self._threads = threads
        self._counts = counts

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def names(self) -> list[str]:
        """Features that are no stubs."""
        return [feature.name for feature in self._features if not feature.is_stub]

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the handler, which worker processes make anew."""
        return {key: value for key, value in self.__dict__.items() if key != "handler"}

    @cached_property
    def handler(self) -> FgHandler:
        """Feature generation of the features.

        Raises:
            ConfigError: features read each other in a circle, or one reads another in FG_NORMAL.
        """
        handler = create_handler(
            self._features,
            threads=self._threads,
            bucketize_only=self._bucketize_only,
            farm_hash=any(feature.farm_hash for feature in self._features),
        )
        if self._alone:
            _check_alone(handler, self._features)
        for operator in handler.operators:
            operator.tail.counts = self._counts
        return handler

    @property
    def columns(self) -> list[str]:
        """Columns that are read."""
        return self.handler.columns if self._features else []

    def parse(self, input_data: dict[str, pa.Array], is_training: bool) -> dict[str, Parsed]:
        """Returns the values of each feature that is no stub.

        Args:
            input_data: column → array, mask columns among them.
            is_training: hide what the masks hide.

        Raises:
            DataError: a column is missing.
            FeatureError: a value cannot be read.
        """
        if not self._features:
            return {}
        masks = masks_of(self._features, input_data) if is_training else {}
        found = self.handler.process_arrow(input_data, masks)
        return {f.name: f.reshape(found[f.name]) for f in self._features if f.name in found}

    def failing_columns(self, input_data: dict[str, pa.Array]) -> list[str]:
        """Returns the columns of the first feature that cannot be generated."""
        return self.handler.failing_columns(input_data) if self._features else []


def _check_alone(handler: FgHandler, features: Sequence[BaseFeature]) -> None:
    """Raises a ConfigError if a feature reads what is not of its own entries."""
    owners = {
        spec.name: feature.name
        for feature in features
        for spec in parse_fg_json(fg_json([feature]))
    }
    for operator in handler.operators:
        name = owners[operator.spec.name]
        other = next((source for source in sources(operator) if owners[source] != name), None)
        if other is not None:
            raise ConfigError(
                f"{name} reads the feature {other!r}, but in FG_NORMAL every feature is generated "
                "alone",
                hint="set data_config.fg_mode: FG_DAG",
            )
