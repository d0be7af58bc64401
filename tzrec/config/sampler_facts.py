"""What a sampler's config says, whatever its kind; the rules read this."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tzrec.config.feature_facts import FeatureFacts
from tzrec.config.messages import which_field
from tzrec.protos.data_pb2 import DataConfig

# Beside it in the schema: tables of nodes and edges end so.
_PATH = "input_path"


@dataclasses.dataclass(frozen=True)
class SamplerFacts:
    """The sampler of a config.

    Attributes:
        field: of ``data_config``, ``negative_sampler``.
        config: its message.
    """

    field: str
    config: Any

    @property
    def path(self) -> str:
        """Config path of its message."""
        return f"data_config.{self.field}"

    @property
    def is_tree(self) -> bool:
        """Whether it makes rows of nodes of a tree, all columns with them."""
        return self.field == "tdm_sampler"

    @property
    def attr_fields(self) -> list[str]:
        """Attributes of an item."""
        return list(self.config.attr_fields)

    @property
    def id_fields(self) -> list[str]:
        """Fields of the message that name an id column."""
        known = self.config.DESCRIPTOR.fields_by_name
        return [name for name in ("item_id_field", "user_id_field") if name in known]

    @property
    def table_fields(self) -> list[str]:
        """Fields of the message that name a table."""
        return [name for name in self.config.DESCRIPTOR.fields_by_name if name.endswith(_PATH)]

    def id_columns(self) -> list[tuple[str, str]]:
        """Returns config path and name of each id column."""
        return [(f"{self.path}.{name}", getattr(self.config, name)) for name in self.id_fields]


def sampler_of(data_config: DataConfig) -> SamplerFacts | None:
    """Returns the sampler of a config, None without one."""
    field = which_field(data_config, "sampler")
    return SamplerFacts(field, getattr(data_config, field)) if field else None


def columns_of(feature: FeatureFacts, *, by_name: bool) -> list[str]:
    """Returns the columns that a feature reads itself.

    Args:
        feature: the feature.
        by_name: it reads the one of its own name (FG_NONE, FG_BUCKETIZE).
    """
    return [feature.name] if by_name else [name for _, name in feature.columns]


def candidate_readers(
    item_id_field: str, features: Sequence[FeatureFacts], *, by_name: bool
) -> list[FeatureFacts]:
    """Returns the sequence features that read the item's id: its rows hold several items."""
    return [
        feature
        for feature in features
        if feature.is_sequence and item_id_field in columns_of(feature, by_name=by_name)
    ]
